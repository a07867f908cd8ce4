//! The herd: ten thousand clients lose their server in one moment, and it comes back able to take 500 connections a
//! second. In virtual time, with the real core. `cargo xtask herd` prints the table.
#![cfg(not(target_family = "wasm"))]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use holdfast_sse::client::{
    Client, Code, Config, Head, Input, Jitter, Output, RequestId, RetryPolicy, State, TransportError,
};
use serde::Deserialize;

const CLIENTS: usize = 10_000;
const ACCEPTS_PER_S: u64 = 500;
/// What the server can take in one moment.
const BURST: f64 = 50.0;
const LATENCY_MS: u64 = 20;
/// The server is lost when every connection has long been healthy.
const LOST_AT_MS: u64 = 60_000;
const END_MS: u64 = LOST_AT_MS + 1_200_000;

/// What becomes of those whom the server cannot take.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refusal {
    Connection,
    Busy(Option<u64>),
}

/// How it went, from the loss on.
#[derive(Debug)]
struct Outcome {
    attempts_mean: f64,
    attempts_max: u32,
    attempts_a_second_max: u32,
    /// Time from the server's return until the last client was back.
    all_back_ms: u64,
    gave_up: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Wake,
    /// The request reaches the server.
    Asked(RequestId),
}

struct Herd {
    clients: Vec<Client>,
    attempts: Vec<u32>,
    queue: BinaryHeap<Reverse<(u64, usize, Happening)>>,
    /// When each client's timer fires; an earlier entry of the queue is out of date.
    wake_at: Vec<Option<u64>>,
    a_second: BTreeMap<u64, u32>,
    /// What the server could accept now, and since when that holds.
    room: f64,
    room_at_ms: u64,
    back_at_ms: u64,
    refusal: Refusal,
}

impl Herd {
    fn input(&mut self, at: usize, now: u64, input: Input<'_>) {
        let client = &mut self.clients[at];
        client.handle_input(now, input);
        loop {
            match client.poll_output() {
                Output::Wait(wake) => {
                    if self.wake_at[at] != wake {
                        self.wake_at[at] = wake;
                        self.queue.extend(wake.map(|wake| Reverse((wake, at, Happening::Wake))));
                    }
                    return;
                }
                Output::Restore => client.handle_input(now, Input::Restored(None)),
                Output::Request(request) => {
                    self.attempts[at] += 1;
                    *self.a_second.entry(now / 1_000).or_default() += 1;
                    self.queue.push(Reverse((now + LATENCY_MS, at, Happening::Asked(request.id))));
                }
                Output::Deliver | Output::Abort(_) | Output::Commit(_) | Output::Notify(_) => {}
            }
        }
    }

    fn ask(&mut self, at: usize, now: u64, id: RequestId) {
        let head = |status, retry_after_ms| Head { status, content_type: None, retry_after_ms };
        let failure = || {
            let error =
                TransportError { code: Code::NetworkError, message: "refused".to_owned(), retry: true };
            Input::Failed(id, error)
        };
        let input = if now < LOST_AT_MS || self.takes(now) {
            Input::Head(id, Head::event_stream())
        } else {
            match self.refusal {
                Refusal::Busy(floor_ms) if now >= self.back_at_ms => Input::Head(id, head(503, floor_ms)),
                _ => failure(),
            }
        };
        self.input(at, now, input);
    }

    /// Goes on until `end`; answers when the last client was accepted.
    fn play(&mut self, end: u64) -> u64 {
        let mut last_accept = 0;
        while self.queue.peek().is_some_and(|Reverse((now, ..))| *now < end)
            && let Some(Reverse((now, at, what))) = self.queue.pop()
        {
            match what {
                Happening::Wake if self.wake_at[at] == Some(now) => {
                    self.wake_at[at] = None;
                    self.input(at, now, Input::Timer);
                }
                Happening::Wake => {}
                Happening::Asked(id) => {
                    self.ask(at, now, id);
                    if self.clients[at].state() == State::Open {
                        last_accept = now;
                    }
                }
            }
        }
        last_accept
    }

    fn takes(&mut self, now: u64) -> bool {
        if now < self.back_at_ms {
            return false;
        }
        let passed = now - self.room_at_ms.max(self.back_at_ms).min(now);
        self.room = (self.room + passed as f64 * ACCEPTS_PER_S as f64 / 1_000.0).min(BURST);
        self.room_at_ms = now;
        let takes = self.room >= 1.0;
        self.room -= f64::from(u8::from(takes));
        takes
    }
}

/// Plays one herd.
fn stampede(retry: RetryPolicy, outage_ms: u64, refusal: Refusal) -> Outcome {
    let client = |seed| Client::new(Config { retry, rng_seed: seed as u64, ..Config::default() });
    let mut herd = Herd {
        clients: (0..CLIENTS).map(client).collect(),
        attempts: vec![0; CLIENTS],
        queue: BinaryHeap::new(),
        wake_at: vec![None; CLIENTS],
        a_second: BTreeMap::new(),
        room: BURST,
        room_at_ms: 0,
        back_at_ms: LOST_AT_MS + outage_ms,
        refusal,
    };
    for at in 0..CLIENTS {
        herd.input(at, 0, Input::Connect);
    }
    herd.play(LOST_AT_MS);
    assert!(herd.clients.iter().all(|client| client.state() == State::Open));
    herd.attempts.fill(0);
    herd.a_second.clear();
    for at in 0..CLIENTS {
        // Each had one request, and that is the first.
        herd.input(at, LOST_AT_MS, Input::End(RequestId(1)));
    }
    let last_accept = herd.play(END_MS);
    Outcome {
        attempts_mean: herd.attempts.iter().map(|attempts| f64::from(*attempts)).sum::<f64>()
            / CLIENTS as f64,
        attempts_max: herd.attempts.iter().copied().max().unwrap_or(0),
        attempts_a_second_max: herd.a_second.values().copied().max().unwrap_or(0),
        all_back_ms: last_accept.saturating_sub(herd.back_at_ms),
        gave_up: herd.clients.iter().filter(|client| client.state() != State::Open).count(),
    }
}

/// A preset as `tests/fixtures/retry-presets.json` has it; a Node test holds the package to the same file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Preset {
    base_delay_ms: u64,
    max_delay_ms: u64,
    max_attempts: Option<u32>,
    max_retry_time_ms: Option<u64>,
    jitter_pct: f64,
    multiplier: f64,
}

impl Preset {
    fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            base_delay_ms: self.base_delay_ms,
            max_delay_ms: self.max_delay_ms,
            max_attempts: self.max_attempts,
            max_retry_time_ms: self.max_retry_time_ms,
            multiplier: self.multiplier,
            jitter: Jitter::Proportional(self.jitter_pct),
        }
    }
}

fn presets() -> BTreeMap<String, Preset> {
    serde_json::from_str(include_str!("fixtures/retry-presets.json")).expect("the presets")
}

// K3 K4
#[test]
fn the_standard_preset_is_the_default() {
    assert_eq!(presets()["STANDARD"].policy(), RetryPolicy::default());
}

const REFUSALS: [Refusal; 3] = [Refusal::Connection, Refusal::Busy(None), Refusal::Busy(Some(5_000))];

// K3
#[test]
fn by_default_all_are_back_within_two_minutes_and_eight_attempts() {
    for outage_ms in [1_000, 5_000, 10_000, 30_000] {
        for refusal in REFUSALS {
            let outcome = stampede(RetryPolicy::default(), outage_ms, refusal);
            assert!(outcome.all_back_ms <= 120_000, "{outage_ms} ms, {refusal:?}: {outcome:?}");
            assert!(outcome.attempts_max <= 8, "{outage_ms} ms, {refusal:?}: {outcome:?}");
            assert_eq!(outcome.gave_up, 0, "{outage_ms} ms, {refusal:?}: {outcome:?}");
        }
    }
}

// K3
#[test]
fn without_jitter_they_would_not_be() {
    let retry = RetryPolicy { jitter: Jitter::Proportional(0.0), ..RetryPolicy::default() };
    let outcome = stampede(retry, 5_000, Refusal::Connection);
    assert!(outcome.all_back_ms > 120_000 && outcome.attempts_max > 8, "{outcome:?}");
    assert_eq!(outcome.attempts_a_second_max as usize, CLIENTS);
}

// K3 K4
#[test]
fn each_preset_and_kind_of_jitter_printed() {
    println!(
        "\n{CLIENTS} clients lose their server at once; it is gone for 5 s and then takes {ACCEPTS_PER_S} connections a second\n"
    );
    println!(
        "{:<14}{:<12}{:<18}{:>14}{:>10}{:>16}{:>14}{:>10}",
        "preset",
        "jitter",
        "the rest gets",
        "attempts: mean",
        "max",
        "peak a second",
        "all back: s",
        "gave up"
    );
    for (name, preset) in presets() {
        let own = preset.policy();
        for jitter in [own.jitter, Jitter::Full] {
            let kind = match jitter {
                Jitter::Proportional(share) => format!("±{:.0} %", share * 100.0),
                Jitter::Full => "full".to_owned(),
            };
            // A bare 503 is to the client what a refused connection is.
            for refusal in [Refusal::Connection, Refusal::Busy(Some(5_000))] {
                let rest = match refusal {
                    Refusal::Busy(Some(ms)) => format!("503, after {} s", ms / 1_000),
                    _ => "refused".to_owned(),
                };
                let outcome = stampede(RetryPolicy { jitter, ..own }, 5_000, refusal);
                println!(
                    "{name:<14}{kind:<12}{rest:<18}{:>14.1}{:>10}{:>16}{:>14.1}{:>10}",
                    outcome.attempts_mean,
                    outcome.attempts_max,
                    outcome.attempts_a_second_max,
                    outcome.all_back_ms as f64 / 1_000.0,
                    outcome.gave_up
                );
                // Who gives up says so; nobody is just left behind.
                let gives_up = own.max_attempts.is_some() || own.max_retry_time_ms.is_some();
                assert!(outcome.gave_up == 0 || gives_up, "{name} {kind}: {outcome:?}");
                assert!(
                    outcome.attempts_max <= own.max_attempts.unwrap_or(u32::MAX),
                    "{name} {kind}: {outcome:?}"
                );
            }
        }
    }
}
