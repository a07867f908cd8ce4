//! SIGKILL at any moment of a writing server, a hundred times, on one data folder: of several channels, whose oldest events
//! are deleted meanwhile, one of them with a value that several writers change in turn.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server_support::{Event, Random, Reader, Server, get, publish, send, try_publish};

const ROUNDS: usize = 100;
/// Events of one round that are offered; the kill decides how many get through.
const OFFERED: usize = 160;
const PUBLISHERS: usize = 16;
const CHANNELS: [&str; 3] = ["a", "b", "c"];
/// Events of a channel that are kept; far more are published.
const KEPT: u64 = 400;
/// Writers of the shared value.
const COUNTERS: usize = 3;

fn command(dir: &Path) -> std::process::Command {
    let mut command = Server::command(dir);
    command.env("SSE_MAX_BUFFER_SIZE", KEPT.to_string());
    command
}

/// What the publishers know.
#[derive(Default)]
struct Ledger {
    /// The values of the channel `count` that were acknowledged, and the ids of their events.
    counted: Vec<(u64, String)>,
    /// Changes of it whose answer got lost.
    count_unsure: usize,
    /// The text of each event that was sent at least once, by its key.
    sent: HashMap<String, String>,
    /// The id of each that was acknowledged, by its key.
    acknowledged: HashMap<String, String>,
    /// Keys whose answer got lost.
    unsure: Vec<String>,
}

// Nothing that was acknowledged is lost, nothing is there twice, nothing is torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_keeps_what_it_acknowledged() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::default();
    let mut killed_in_work = 0;
    for round in 0..ROUNDS {
        if random.up_to(4) == 0 {
            kill_while_it_starts(dir.path(), random.up_to(40));
        }
        let server = Server::start(command(dir.path()));
        let work = work(&mut ledger, round, &mut random);
        killed_in_work +=
            usize::from(publish_until_killed(&mut ledger, &server, work, random.up_to(100)).await);
        server.kill();
    }
    println!(
        "{} sent, {} acknowledged, {} unsure; {} changes, {} unsure; {killed_in_work} of {ROUNDS} kills with work \
         under way",
        ledger.sent.len(),
        ledger.acknowledged.len(),
        ledger.unsure.len(),
        ledger.counted.len(),
        ledger.count_unsure,
    );
    assert!(ledger.counted.len() > ROUNDS / 10, "hardly a change got through, which shows nothing");
    assert!(killed_in_work > ROUNDS / 2, "most kills came when all was done and showed nothing");
    check(&ledger, dir.path()).await;
}

/// The repair of the round before is killed, too.
fn kill_while_it_starts(dir: &Path, after_ms: u64) {
    let mut child = command(dir).spawn().expect("the holdfast command");
    std::thread::sleep(Duration::from_millis(after_ms));
    let _ = child.kill();
    let _ = child.wait();
}

/// Whatever got no answer before, under its key, and fresh events.
fn work(ledger: &mut Ledger, round: usize, random: &mut Random) -> Vec<(String, String)> {
    let retries = std::mem::take(&mut ledger.unsure);
    let retries = retries.into_iter().map(|key| (key.clone(), ledger.sent[&key].clone()));
    let fresh = (0..OFFERED).map(|n| {
        let key = format!("r{round}-{n}");
        let size = usize::try_from(random.up_to(2000)).expect("small");
        let text = format!("{key}:{}", "x".repeat(size));
        (key, text)
    });
    retries.chain(fresh).collect()
}

/// Where an event goes, by its key.
fn channel(key: &str) -> &'static str {
    CHANNELS[key.bytes().map(usize::from).sum::<usize>() % CHANNELS.len()]
}

/// Adds one to the value of the channel `count` again and again, as `SharedState` does it: under a key that is made of the
/// event the change is based on, so that of all changes to one value the log takes one. Until the server is gone.
async fn count_until_killed(address: &str) -> (Vec<(u64, String)>, usize) {
    let mut counted = Vec::new();
    loop {
        let Some((base, value)) = newest(address).await else { return (counted, 0) };
        let body = json!({ "event": "count", "data": json!({ "value": value + 1 }).to_string() }).to_string();
        let Ok(response) = send(address, publish("count", "secret", Some(&base), &body)).await else {
            return (counted, 1);
        };
        let status = response.status();
        let Ok(answer) = response.into_body().collect().await else { return (counted, 1) };
        let answer: Value = serde_json::from_slice(&answer.to_bytes()).unwrap_or_default();
        match (status, answer["id"].as_str(), answer["duplicate"] == false) {
            (StatusCode::OK, Some(id), true) => counted.push((value + 1, id.to_owned())),
            // Another one was faster with the same.
            (StatusCode::OK, Some(_), false) => {}
            _ => return (counted, 1),
        }
    }
}

/// The newest event of the channel `count`, as a key, and its value: as many changes as there were.
async fn newest(address: &str) -> Option<(String, u64)> {
    let mut reader = Reader::new(send(address, get("/stream/count")).await.ok()?);
    let position = reader.any().await.ok()?.payload()["position"].as_str()?.to_owned();
    let value = position.rsplit('-').next()?.parse().ok()?;
    Some((position, value))
}

/// Whether the kill met publishers that still had something to say.
async fn publish_until_killed(
    ledger: &mut Ledger,
    server: &Server,
    work: Vec<(String, String)>,
    delay_ms: u64,
) -> bool {
    let publishers = work.chunks(work.len().div_ceil(PUBLISHERS)).map(async |share| {
        let mut outcome = Vec::new();
        for (key, text) in share {
            let id = try_publish(&server.address, channel(key), key, text).await;
            let lost = id.is_none();
            outcome.push((key.clone(), text.clone(), id));
            if lost {
                break;
            }
        }
        outcome
    });
    let killing = async {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        server.signal("-KILL");
    };
    let counting = (0..COUNTERS).map(|_| count_until_killed(&server.address));
    let (outcomes, counted, ()) = tokio::join!(
        futures_util::future::join_all(publishers),
        futures_util::future::join_all(counting),
        killing
    );
    for (counted, unsure) in counted {
        ledger.counted.extend(counted);
        ledger.count_unsure += unsure;
    }
    let mut tried = 0;
    for (key, text, id) in outcomes.into_iter().flatten() {
        tried += usize::from(id.is_some());
        match id {
            Some(id) => {
                let before = ledger.acknowledged.insert(key.clone(), id.clone());
                assert!(before.is_none() || before == Some(id), "{key} has two ids");
            }
            None => ledger.unsure.push(key.clone()),
        }
        ledger.sent.insert(key, text);
    }
    tried < work.len()
}

async fn check(ledger: &Ledger, dir: &Path) {
    let server = Server::start(command(dir));
    for name in CHANNELS {
        let mut seen = HashMap::new();
        let mut newest = 0;
        for event in stored(&server, name).await {
            newest = event.sequence();
            let key = event.data.split(':').next().expect("a key").to_owned();
            assert_eq!(channel(&key), name);
            assert_eq!(ledger.sent.get(&key), Some(&event.data), "torn");
            let id = event.id.expect("an id");
            assert_eq!(ledger.acknowledged.get(&key).unwrap_or(&id), &id, "{key} is under another id");
            assert!(seen.insert(key.clone(), id).is_none(), "{key} is there twice");
        }
        let kept = newest.saturating_sub(KEPT);
        for (key, id) in ledger.acknowledged.iter().filter(|(key, _)| channel(key) == name) {
            let sequence: u64 =
                id.rsplit('-').next().and_then(|text| text.parse().ok()).expect("an id of ours");
            assert!(sequence <= newest, "{key} was acknowledged behind the end");
            assert!(sequence <= kept || seen.contains_key(key), "the acknowledged event {key} is lost");
        }
        // A retry of what was stored, though its answer was lost, is not a second event. Keys outlive their events.
        for key in ledger.unsure.iter().filter(|key| channel(key) == name) {
            let body = json!({ "event": "n", "data": ledger.sent[key] }).to_string();
            let (_, answer) = server.json(publish(name, "secret", Some(key), &body)).await;
            let sequence = answer["id"].as_str().and_then(|id| id.rsplit('-').next()?.parse().ok());
            let is_old = sequence.is_some_and(|sequence: u64| sequence <= kept);
            assert!(is_old || answer["duplicate"] == seen.contains_key(key), "{answer}");
        }
    }
    // No change of the value was lost, none counted twice.
    let events = stored(&server, "count").await;
    let values: HashMap<_, _> =
        events.iter().map(|event| (event.json()["value"].as_u64(), event.id.clone())).collect();
    let newest = events.last().expect("changes").json()["value"].as_u64().expect("a number");
    for event in &events {
        // One change an event, from the first on.
        assert_eq!(event.json()["value"], event.sequence(), "a change is lost or counted twice");
    }
    let changes = ledger.counted.len() as u64;
    assert!(
        (changes..=changes + ledger.count_unsure as u64).contains(&newest),
        "{newest} after {changes} changes"
    );
    for (value, id) in ledger.counted.iter().filter(|(value, _)| *value > newest.saturating_sub(KEPT)) {
        assert_eq!(values.get(&Some(*value)), Some(&Some(id.clone())), "{value} is under another id");
    }
}

/// All that is kept of a channel: the newest events, without a gap or a repeat, in order.
async fn stored(server: &Server, channel: &str) -> Vec<Event> {
    let mut reader = server.stream(get(&format!("/stream/{channel}?from=start"))).await;
    let count =
        reader.named("control.replay_start").await.payload()["eventCount"].as_u64().expect("a number");
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..count {
        events.push(reader.event().await.expect("one more event"));
    }
    let first = events[0].sequence();
    assert!(events.iter().zip(first..).all(|(event, sequence)| event.sequence() == sequence));
    assert!(first == 1 || count == KEPT, "{count} of {channel} are kept");
    events
}
