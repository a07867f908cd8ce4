//! SIGKILL at any moment of a writing server, a hundred times, on one data folder.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use server_support::{Random, Server, get, publish, try_publish};

const ROUNDS: usize = 100;
/// Events of one round that are offered; the kill decides how many get through.
const OFFERED: usize = 160;
const PUBLISHERS: usize = 16;

/// What the publishers know.
#[derive(Default)]
struct Ledger {
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
        let server = Server::start(Server::command(dir.path()));
        let work = work(&mut ledger, round, &mut random);
        killed_in_work +=
            usize::from(publish_until_killed(&mut ledger, &server, work, random.up_to(60)).await);
        server.kill();
    }
    println!(
        "{} sent, {} acknowledged, {} unsure; {killed_in_work} of {ROUNDS} kills with work under way",
        ledger.sent.len(),
        ledger.acknowledged.len(),
        ledger.unsure.len(),
    );
    assert!(killed_in_work > ROUNDS / 2, "most kills came when all was done and showed nothing");
    check(&ledger, dir.path()).await;
}

/// The repair of the round before is killed, too.
fn kill_while_it_starts(dir: &Path, after_ms: u64) {
    let mut child = Server::command(dir).spawn().expect("the holdfast command");
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
            let id = try_publish(&server.address, "a", key, text).await;
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
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(publishers), killing);
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
    let server = Server::start(Server::command(dir));
    let mut reader = server.stream(get("/stream/a?from=start")).await;
    let count =
        reader.named("control.replay_start").await.payload()["eventCount"].as_u64().expect("a number");
    let mut seen = HashMap::new();
    for n in 1..=count {
        let event = reader.event().await.expect("one more event");
        assert_eq!(event.sequence(), n, "no gap, no repeat, in order");
        let key = event.data.split(':').next().expect("a key").to_owned();
        assert_eq!(ledger.sent.get(&key), Some(&event.data), "torn");
        let id = event.id.expect("an id");
        assert_eq!(ledger.acknowledged.get(&key).unwrap_or(&id), &id, "{key} is under another id");
        assert!(seen.insert(key.clone(), id).is_none(), "{key} is there twice");
    }
    assert!(ledger.acknowledged.keys().all(|key| seen.contains_key(key)), "an acknowledged event is lost");
    // A retry of what was stored, though its answer was lost, is not a second event.
    for key in &ledger.unsure {
        let body = serde_json::json!({ "event": "n", "data": ledger.sent[key] }).to_string();
        let (_, answer) = server.json(publish("a", "secret", Some(key), &body)).await;
        assert_eq!(answer["duplicate"], seen.contains_key(key));
    }
}
