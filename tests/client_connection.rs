//! Connecting, answers, retries and ends, in virtual time: the transition table, and the traps that
//! other clients fell into.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, event, exact, open, status};
use holdfast_sse::client::{
    Code, Config, GiveUpReason, Head, Input, Jitter, Notice, RequestId, RetryPolicy, State, TRANSITIONS,
    TransitionReason,
};

const STATES: [State; 5] = [State::Idle, State::Connecting, State::Open, State::Retrying, State::Closed];
const REASONS: [TransitionReason; 9] = {
    use TransitionReason as R;
    [R::Connect, R::Accepted, R::Lost, R::RetryDue, R::Reconnect, R::Refused, R::Ended, R::GaveUp, R::Stop]
};

/// A client in this state.
fn in_state(state: State, config: Config) -> Scenario {
    let mut scenario = Scenario::new(config);
    match state {
        State::Idle => {}
        State::Connecting => {
            scenario.connect();
        }
        State::Open => {
            scenario.connect().accept();
        }
        State::Retrying => {
            scenario.connect().fail();
        }
        State::Closed => {
            scenario.connect().input(Input::Stop { started: 0 });
        }
    }
    assert_eq!(scenario.state(), state);
    scenario.notices.clear();
    scenario
}

/// Does what gives this reason, in whatever state.
fn give_reason(scenario: &mut Scenario, reason: TransitionReason) {
    use TransitionReason as R;
    let id = scenario.requests.last().map_or(RequestId(99), |request| request.id);
    match reason {
        R::Connect => scenario.connect(),
        R::Accepted => scenario.input(Input::Head(id, Head::event_stream())),
        R::Lost | R::GaveUp if !scenario.requests.is_empty() => scenario.fail(),
        R::Lost | R::GaveUp => scenario.input(Input::End(id)),
        R::RetryDue => scenario.pass(60),
        R::Reconnect => scenario.input(Input::Reconnect { started: 0 }),
        R::Refused if scenario.state() == State::Open => scenario.bytes("data: too long for its limit\n"),
        R::Refused => scenario.input(Input::Head(id, status(404, None))),
        R::Ended if scenario.state() == State::Open => scenario.end(),
        R::Ended => scenario.input(Input::Head(id, status(204, None))),
        R::Stop => scenario.input(Input::Stop { started: 0 }),
    };
}

// K2
#[test]
fn every_row_of_the_table_is_gone_and_nothing_else() {
    for from in STATES {
        for reason in REASONS {
            let to =
                TRANSITIONS.iter().find(|row| row.from == from && row.reason == reason).map(|row| row.to);
            assert_eq!(from.after(reason), to, "{from:?} {reason:?}");
            let mut config = exact();
            config.retry.base_delay_ms = 50;
            config.limits.line_bytes_max = 10;
            config.repeatable = !(reason == TransitionReason::Ended && from == State::Open);
            if reason == TransitionReason::GaveUp {
                config.retry.max_attempts = Some(u32::from(from == State::Retrying));
            }
            let mut scenario = in_state(from, config);
            if reason == TransitionReason::GaveUp && from == State::Retrying {
                // The retry itself passes through Connecting; the row stands for policies that end while waiting.
                continue;
            }
            give_reason(&mut scenario, reason);
            let changes: Vec<_> = scenario
                .take_notices()
                .into_iter()
                .filter_map(|notice| match notice {
                    Notice::StateChange { from, to, reason } => Some((from, to, reason)),
                    _ => None,
                })
                .collect();
            match to {
                Some(to) if to != from => assert_eq!(changes, [(from, to, reason)], "{from:?} {reason:?}"),
                Some(_) => assert_eq!(changes, [], "{from:?} {reason:?}"),
                // A reconnect() before the first connect() is one.
                None if (from, reason) == (State::Idle, TransitionReason::Reconnect) => {
                    assert_eq!(changes, [(State::Idle, State::Connecting, TransitionReason::Connect)]);
                }
                None => assert_eq!(changes, [], "{from:?} {reason:?}"),
            }
        }
    }
}

/// What follows an answer: another request after so long (`None` is never), the errors told, the state behind.
fn check_answer(config: Config, was_open: bool, head: Head, delay: Option<u64>, errors: &[(Code, bool)]) {
    let what = format!("{head:?}, was open: {was_open}");
    let mut scenario = Scenario::new(config);
    scenario.connect();
    if was_open {
        scenario.accept().pass(5_000).end();
        scenario.until_request();
    }
    scenario.notices.clear();
    scenario.head(head);
    assert_eq!(scenario.errors(), errors, "{what}");
    match delay {
        Some(delay) => assert_eq!(scenario.until_request(), delay, "{what}"),
        None => {
            assert_eq!((scenario.state(), scenario.wait), (State::Closed, None), "{what}");
        }
    }
}

// Trap: 204, 4xx, 5xx and other content types.
#[test]
fn each_answer_has_its_consequence() {
    let page = Head { content_type: Some("text/html".to_owned()), ..status(200, None) };
    for code in [408, 425, 429, 500, 503] {
        check_answer(exact(), false, status(code, None), Some(1_000), &[(Code::HttpStatus, true)]);
        check_answer(exact(), false, status(code, Some(0)), Some(1_000), &[(Code::HttpStatus, true)]);
    }
    for code in [400, 404, 410, 301] {
        check_answer(exact(), true, status(code, Some(1)), None, &[(Code::HttpStatus, false)]);
    }
    check_answer(exact(), false, status(204, None), None, &[]);
    check_answer(exact(), true, status(204, None), None, &[]);
    check_answer(exact(), false, page.clone(), None, &[(Code::WrongContentType, false)]);
    check_answer(exact(), true, page, Some(2_000), &[(Code::WrongContentType, true)]);
    check_answer(exact(), false, status(401, None), None, &[(Code::AuthRequired, false)]);
    // A request that must not be sent twice.
    let once = || Config { repeatable: false, ..exact() };
    check_answer(once(), false, status(503, Some(1)), None, &[(Code::HttpStatus, false)]);
}

// K22
#[test]
fn an_attempt_that_fails_says_why() {
    let check = |repeatable: bool, expected: &str, act: &dyn Fn(&mut Scenario)| {
        let mut scenario = Scenario::new(Config { repeatable, ..exact() });
        act(scenario.connect());
        let told = scenario.take_notices().into_iter().find_map(|notice| match notice {
            Notice::Retry { reason, .. } | Notice::Close { reason, will_reconnect: false, .. } => {
                Some(reason)
            }
            _ => None,
        });
        assert_eq!(told.as_deref(), Some(expected), "repeatable: {repeatable}");
    };
    for repeatable in [true, false] {
        for (code, reason) in [
            (429, "rate_limited"),
            (500, "server_error"),
            (502, "server_error"),
            (503, "overload_reject"),
            (408, "http_status"),
        ] {
            check(repeatable, reason, &|scenario| {
                scenario.head(status(code, None));
            });
        }
        check(repeatable, "client_timeout", &|scenario| {
            scenario.pass(60_000);
        });
        check(repeatable, "network_error", &|scenario| {
            scenario.fail();
        });
        check(repeatable, "client_abort", &|scenario| {
            scenario.input(Input::StopFor { started: 0, reason: "client_abort" });
        });
    }
}

// Trap: `Retry-After` shortened by a random delay.
#[test]
fn retry_after_is_a_floor_whatever_the_network_does() {
    let mut scenario = Scenario::new(exact());
    scenario.connect().head(status(503, Some(20_000)));
    scenario.pass(5_000).input(Input::Offline).input(Input::Online).input(Input::Awake);
    assert_eq!(scenario.requests.len(), 1, "the server asked for 20 s");
    assert!((15_000..=19_000).contains(&scenario.until_request()), "at most a fifth is added");
    // A wish of a year is not believed, and neither is one that the app overrules.
    scenario.head(status(503, Some(u64::MAX)));
    assert!(scenario.wait.expect("a retry") <= scenario.now + 2 * 3_600_000);
    scenario.input(Input::Reconnect { started: 0 });
    assert_eq!(scenario.requests.len(), 3);
}

// Trap: a socket trusted after the network has changed.
#[test]
fn a_network_that_is_back_makes_an_open_stream_anew_or_doubts_it() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(event("1", "a")).input(Input::Online);
    assert_eq!((scenario.aborted.len(), scenario.requests.len(), scenario.asked_from()), (1, 2, "1"));
    // Without a cursor a new connection could lose what the old one still brings.
    let mut scenario = Scenario::opened(exact());
    scenario.bytes("data: a\n\n").pass(10_000).input(Input::Online);
    assert_eq!((scenario.state(), scenario.aborted.len()), (State::Open, 0));
    scenario.pass(29_999);
    assert_eq!(scenario.state(), State::Open);
    scenario.pass(1);
    assert_eq!(scenario.errors(), [(Code::Silence, true)], "though it never beat");
    let mut scenario = Scenario::opened(exact());
    scenario.bytes("data: a\n\n").input(Input::Online).pass(20_000).bytes(":").pass(600_000);
    assert_eq!(scenario.state(), State::Open, "a byte is a sign of life");
}

// Trap: a page that missed `online` in its sleep waits for it for ever.
#[test]
fn only_the_network_ends_a_wait_for_it_so_that_a_page_that_wakes_up_must_tell() {
    let mut scenario = Scenario::new(exact());
    scenario.connect().fail().input(Input::Offline).pass(60_000);
    scenario.input(Input::Awake).pass(60_000);
    assert_eq!((scenario.state(), scenario.requests.len(), scenario.wait), (State::Retrying, 1, None));
    scenario.input(Input::Online);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Connecting, 2));
}

// Trap: 401 and 403 tried for ever.
#[test]
fn fresh_credentials_are_asked_for_once() {
    for code in [401, 403] {
        let mut scenario = Scenario::new(Config { can_refresh_credentials: true, ..exact() });
        scenario.connect().head(status(code, None));
        assert_eq!((scenario.requests.len(), scenario.state()), (2, State::Connecting), "at once, anew");
        scenario.head(status(code, None));
        assert_eq!((scenario.requests.len(), scenario.state()), (2, State::Closed));
        assert_eq!(scenario.errors(), [(Code::AuthRequired, false)]);
        // The person has logged in again.
        scenario.connect().head(status(code, None));
        assert_eq!(scenario.requests.len(), 4, "a new connect() may ask again");
        scenario.accept().pass(10_000).end();
        scenario.until_request();
        scenario.head(status(code, None));
        assert_eq!(scenario.state(), State::Connecting, "and so may the next connection");
    }
}

// K3
// Trap: a backoff that resets on open.
#[test]
fn a_stream_that_opens_and_closes_again_and_again_makes_no_hot_loop() {
    let mut scenario = Scenario::new(exact());
    scenario.connect();
    let mut delays = Vec::new();
    for _ in 0..7 {
        scenario.accept().bytes("data: x\n\n").pass(4_900).end();
        delays.push(scenario.until_request());
    }
    assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000], "opening forgives nothing");
    scenario.accept().pass(5_000).end();
    assert_eq!(scenario.until_request(), 1_000, "5 s of health do");
    scenario.accept();
    scenario.now += 60_000;
    scenario.end();
    assert_eq!(scenario.until_request(), 1_000, "also where the timer was late");
}

/// The delay before the next attempt after the server wrote `retry: <text>`.
fn check_retry_field(text: &str, delay: u64) {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(format!("retry: {text}\n\n")).end();
    assert_eq!(scenario.until_request(), delay, "retry: {text}");
}

// K3
// Trap: `retry:` of 0, too large, with an exponent or a sign.
#[test]
fn the_servers_retry_replaces_the_base_within_bounds() {
    check_retry_field("700", 700);
    check_retry_field("0", 50);
    check_retry_field("4294967296", 30_000);
    check_retry_field("99999999999999999999999", 30_000);
    for ignored in ["1e3", "-5", "", " 5 x", "0x10", "٣"] {
        check_retry_field(ignored, 1_000);
    }
}

// K3
#[test]
fn delays_stay_within_their_jitter_and_seeds_reproduce_them() {
    let delays = |jitter, seed| {
        let retry = RetryPolicy { jitter, ..RetryPolicy::default() };
        let mut scenario = Scenario::new(Config { retry, rng_seed: seed, ..Config::default() });
        scenario.connect();
        (0..12).map(|_| scenario.fail().until_request()).collect::<Vec<_>>()
    };
    for seed in 0..200 {
        let proportional = delays(Jitter::Proportional(0.2), seed);
        let full = delays(Jitter::Full, seed);
        for (attempt, (proportional, full)) in proportional.iter().zip(&full).enumerate() {
            let plain = (1_000 << attempt.min(5)).min(30_000);
            let low = if plain == 30_000 { 18_000 } else { plain * 8 / 10 };
            assert!(
                (low..=(plain * 12 / 10).min(30_000)).contains(proportional),
                "{attempt}: {proportional}"
            );
            assert!(*full <= plain, "{attempt}: {full}");
        }
        assert_eq!(proportional, delays(Jitter::Proportional(0.2), seed));
        assert_ne!(proportional, delays(Jitter::Proportional(0.2), seed + 1_000));
    }
}

// K3 K5
#[test]
fn giving_up_has_its_reason_and_connect_starts_again() {
    let check = |retry: RetryPolicy, reason: GiveUpReason, requests: usize| {
        let mut scenario = Scenario::new(Config { retry, ..exact() });
        scenario.connect().fail();
        while scenario.state() == State::Retrying {
            scenario.until_request();
            scenario.fail();
        }
        assert_eq!((scenario.requests.len(), scenario.state()), (requests, State::Closed));
        let told = scenario.take_notices();
        assert!(
            told.iter().any(|notice| matches!(notice, Notice::GiveUp { reason: why, .. } if *why == reason))
        );
        let last_error = told.iter().rev().find_map(|notice| match notice {
            Notice::Error { code: Code::NetworkError, will_retry, .. } => Some(*will_retry),
            _ => None,
        });
        assert_eq!(last_error, Some(false), "no retry is announced that never comes");
        if retry.max_attempts == Some(0) {
            return;
        }
        scenario.connect().fail();
        assert_eq!(scenario.until_request(), 1_000, "it begins anew");
    };
    let policy = || exact().retry;
    check(RetryPolicy { max_attempts: Some(3), ..policy() }, GiveUpReason::MaxAttemptsReached, 4);
    check(RetryPolicy { max_attempts: Some(0), ..policy() }, GiveUpReason::MaxAttemptsReached, 1);
    check(RetryPolicy { max_retry_time_ms: Some(4_000), ..policy() }, GiveUpReason::MaxRetryTimeExceeded, 3);
}

// Trap: a clean end taken for the end, a POST sent twice.
#[test]
fn a_clean_end_is_not_the_end_unless_the_request_cannot_be_repeated() {
    let mut scenario = Scenario::opened(exact());
    assert_eq!(scenario.end().state(), State::Retrying);
    for config in [Config { repeatable: false, ..exact() }, Config { auto_reconnect: false, ..exact() }] {
        let mut scenario = Scenario::opened(config);
        scenario.bytes(event("1", "a"));
        assert_eq!(scenario.end().state(), State::Closed);
        assert_eq!(scenario.errors(), []);
        scenario.input(Input::Awake).input(Input::Online).pass(100_000);
        assert_eq!(scenario.requests.len(), 1);
    }
}

#[test]
fn answers_of_an_aborted_request_are_stale() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(event("1", "a"));
    let old = scenario.id();
    scenario.input(Input::Reconnect { started: u64::MAX });
    assert_eq!(scenario.aborted, [old]);
    scenario.delivered();
    for _ in 0..2 {
        scenario.input(Input::Bytes(old, event("2", "stale").as_bytes()));
        scenario.input(Input::Head(old, status(404, None)));
        scenario.input(Input::End(old));
        assert!(scenario.delivered().is_empty());
        assert_ne!(scenario.state(), State::Closed);
        scenario.accept();
        assert_eq!(scenario.state(), State::Open);
    }
}

#[test]
fn a_head_that_does_not_come_is_a_timeout() {
    let mut scenario = Scenario::new(Config { connect_timeout_ms: 7_000, ..exact() });
    scenario.connect().pass(6_999);
    assert!(scenario.aborted.is_empty());
    scenario.pass(1);
    assert_eq!(scenario.aborted.len(), 1);
    assert_eq!(scenario.errors(), [(Code::ConnectTimeout, true)]);
    scenario.until_request();
    scenario.accept().pass(100_000);
    assert_eq!(scenario.state(), State::Open, "it ends with the head");
}

#[test]
fn offline_there_is_no_request_and_online_there_is_one_at_once() {
    let mut scenario = Scenario::new(exact());
    scenario.input(Input::Offline).connect().pass(1_000_000);
    assert_eq!((scenario.requests.len(), scenario.state()), (0, State::Retrying));
    scenario.input(Input::Online);
    assert_eq!(scenario.requests.len(), 1);
    scenario.input(Input::Offline).fail().pass(1_000_000);
    scenario.input(Input::Awake).input(Input::Reconnect { started: 0 }).pass(1_000_000);
    assert_eq!(scenario.requests.len(), 1, "not even by order");
    scenario.input(Input::Online);
    assert_eq!(scenario.requests.len(), 2);
}

// Trap: sockets that died in a frozen tab, timers that fire late.
#[test]
fn what_slept_is_made_anew_where_nothing_is_lost_by_it() {
    let mut scenario = Scenario::opened(exact());
    scenario.input(Input::Awake);
    assert_eq!(scenario.requests.len(), 1, "without a cursor events could be lost");
    scenario.pass(30_000);
    assert_eq!(scenario.errors(), [(Code::NoFirstByte, true)], "unless nothing comes any more");
    let mut scenario = Scenario::opened(exact());
    scenario.bytes("data: no id\n\n").input(Input::Awake).pass(29_999);
    scenario.bytes("data: alive\n\n").pass(100_000);
    assert_eq!((scenario.requests.len(), scenario.state()), (1, State::Open), "it was alive all the time");
    scenario.bytes(event("7", "a")).input(Input::Awake);
    assert_eq!((scenario.requests.len(), scenario.asked_from(), scenario.aborted.len()), (2, "7", 1));
    scenario.pass(100).input(Input::Online);
    assert_eq!(
        (scenario.requests.len(), scenario.state()),
        (3, State::Connecting),
        "the old network is gone"
    );
    scenario.fail().input(Input::Awake);
    assert_eq!(scenario.requests.len(), 4, "no waiting either");
}

#[test]
fn a_clock_that_runs_backwards_stops_nothing() {
    let mut scenario = Scenario::new(exact());
    scenario.now = 10_000_000;
    scenario.connect().fail();
    scenario.now = 5_000;
    scenario.input(Input::Timer);
    assert_eq!(scenario.client.stats().clock_regressions, 1);
    assert_eq!(scenario.requests.len(), 1);
    assert_eq!(scenario.until_request(), 1_000, "from then on");
    scenario.now += 1 << 40;
    scenario.accept().bytes(open("e-1"));
    scenario.now = 0;
    scenario.end();
    assert_eq!(scenario.until_request(), 2_000, "the second failure");
    for now in [u64::MAX, 0, u64::MAX, 1] {
        scenario.now = now;
        scenario.input(Input::Timer).fail().input(Input::Reconnect { started: 0 });
    }
    assert_eq!(scenario.state(), State::Connecting);
}
