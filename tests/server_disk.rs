//! The log on disk: what outlives its process, what shares a sync, and a disk that is full for a while.
#![cfg(all(feature = "server", target_os = "linux"))]

mod server_support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use holdfast_sse::server::log::{Appended, Channel, Data, EventLog, Frame, Key, NewEvent, PageLimit, Place};
use holdfast_sse::server::{LogError, RedbLog, RedbOptions, Retention};
use serde_json::json;
use server_support::{Server, get, publish};

fn event(data: &str) -> NewEvent {
    NewEvent { name: "e".to_owned(), data: Data::Text(data.to_owned()), key: None, state: None }
}

fn keyed(data: &str, key: &str) -> NewEvent {
    NewEvent { key: Some(Key::new(key, &[data])), ..event(data) }
}

async fn append(log: &RedbLog, channel: &str, event: NewEvent) -> Appended {
    log.append(channel, event).await.expect("stored")
}

fn place(generation: u32, sequence: u64) -> Place {
    Place { generation, sequence }
}

async fn read(log: &RedbLog, channel: &Channel) -> Vec<Frame> {
    log.page(channel, Place::default(), PageLimit::default()).await.expect("a page")
}

#[tokio::test]
async fn a_log_on_disk_goes_on_where_it_was_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = RedbOptions {
        retention: Retention { events_max: 5, keys_max: 2, ..Retention::default() },
        ..RedbOptions::default()
    };
    let mut epoch = None;
    for round in 0..4_u64 {
        let log = RedbLog::open(dir.path(), options).expect("a log");
        assert_eq!(*epoch.get_or_insert_with(|| log.epoch(0)), log.epoch(0));
        assert!(
            matches!(RedbLog::open(dir.path(), options), Err(LogError::Storage(_))),
            "it is open already"
        );
        let channel = log.channel("a").expect("a channel");
        assert_eq!(log.bounds(&channel).await.expect("bounds").head, place(0, round * 3));
        for n in 1..=3_u64 {
            let appended = append(&log, "a", keyed("x", &format!("{round}-{n}"))).await;
            assert_eq!(appended.place, place(0, round * 3 + n));
        }
        if round > 0 {
            let oldest = (round * 3 + 3) - 4;
            assert_eq!(log.bounds(&channel).await.expect("bounds").oldest, Some(place(0, oldest)));
        }
        log.close().await;
        drop(log);
        // Keys outlive the process too.
        let log = RedbLog::open(dir.path(), options).expect("a log");
        assert!(append(&log, "a", keyed("x", &format!("{round}-3"))).await.duplicate);
    }
}

#[tokio::test]
async fn a_log_on_disk_remembers_where_each_epoch_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    for generation in 0..3_u32 {
        let log = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
        let channel = log.channel("a").expect("a channel");
        let bounds = log.bounds(&channel).await.expect("bounds");
        assert_eq!(bounds.ends, (0..generation.saturating_sub(1)).map(|g| (g, 2)).collect::<Vec<_>>());
        for n in 1..=2 {
            assert_eq!(append(&log, "a", event("x")).await.place, place(generation, n));
        }
        assert_eq!(read(&log, &channel).await.len(), (generation as usize + 1) * 2);
        log.begin_epoch().await.expect("a new epoch");
        log.close().await;
    }
}

// Many wait, few syncs are made.
#[tokio::test(flavor = "multi_thread")]
async fn publishers_that_wait_share_a_sync() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    for appended in join_all((0..1000).map(|_| log.append("a", event("x")))).await {
        appended.expect("stored");
    }
    assert!((1..100).contains(&log.commits()), "{} syncs for 1,000 events", log.commits());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shares_a_sync_and_what_waits_for_one_is_bounded_by_bytes() {
    let text = "x".repeat(256 << 10);
    let default = RedbOptions::default();
    for (options, least) in [
        // 16 MiB, at most one MiB in a transaction.
        (RedbOptions { commit_bytes_max: 1 << 20, queue_bytes_max: 1 << 30, ..default }, 16),
        // At most two wait at the same time, and no more can share a transaction.
        (RedbOptions { commit_bytes_max: 1 << 30, queue_bytes_max: 2 << 20, ..default }, 8),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let log = RedbLog::open(dir.path(), options).expect("a log");
        for appended in join_all((0..64).map(|_| log.append("a", event(&text)))).await {
            appended.expect("stored");
        }
        assert!(log.commits() >= least, "{} transactions", log.commits());
        // Larger than all room: it goes alone.
        append(&log, "a", event(&"x".repeat(4 << 20))).await;
    }
}

#[tokio::test]
async fn a_file_whose_maker_was_killed_is_made_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("events.redb");
    // As redb leaves it until the very end of making it.
    std::fs::write(&path, [0; 8192]).expect("written");
    let log = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    append(&log, "a", event("x")).await;
    drop(log);
    let log = RedbLog::open(dir.path(), RedbOptions::default()).expect("the same log");
    assert_eq!(append(&log, "a", event("x")).await.place, place(0, 2));
    drop(log);
    // What is something else is left alone.
    std::fs::write(&path, "no database of ours").expect("written");
    assert!(matches!(RedbLog::open(dir.path(), RedbOptions::default()), Err(LogError::Storage(_))));
    assert_eq!(std::fs::read(&path).expect("read"), b"no database of ours");
}

/// redb makes its file larger by much at a time; this leaves room for some hundred events.
const LIMIT_KIB: u64 = 4096;

/// `holdfast serve` under a soft limit that can be raised later. Writing beyond it is an error instead of a signal.
fn limited(dir: &Path) -> Command {
    let serve = Server::command(dir);
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' XFSZ; ulimit -S -f $0; exec \"$@\""])
        .arg(LIMIT_KIB.to_string())
        .arg(serve.get_program())
        .args(serve.get_args())
        .stdout(Stdio::piped());
    for (name, value) in serve.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

/// 503 is all that a load balancer looks at.
async fn health(server: &Server) -> (StatusCode, String) {
    let (status, body) = server.json(get("/health")).await;
    let word = body["status"].as_str().unwrap_or_default().to_owned();
    assert_eq!(status == StatusCode::OK, word == "ok", "{word}");
    (status, word)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_survived() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(limited(dir.path()));
    let mut listener = server.stream(get("/stream/a")).await;
    listener.named("control.open").await;
    let text = "x".repeat(20_000);
    let offer = async |n: usize| {
        let body = json!({ "event": "n", "data": format!("{n}:{text}") }).to_string();
        let (status, answer) = server.json(publish("a", "secret", Some(&format!("k{n}")), &body)).await;
        (n, status, answer)
    };
    // Several at once, so that some share a transaction that fails in the middle.
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for round in 0.. {
        assert!(round < 200, "the file never reached its limit");
        for (n, status, answer) in join_all((round * 8..round * 8 + 8).map(offer)).await {
            if status == StatusCode::OK {
                stored.push((n, answer["id"].clone()));
            } else {
                // Not "the server is stopping": it stays, and the publisher may try again.
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(answer["code"], "server_error");
                refused.push(n);
            }
        }
        // It may be healthy again, until the next event that has no room.
        if !refused.is_empty() && health(&server).await.1 == "log_failed" {
            break;
        }
    }

    let raised = ["--pid", &server.id().to_string(), "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(raised).status().expect("prlimit").success());
    let healthy = async {
        while health(&server).await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healthy).await.expect("the server goes on");
    for n in refused {
        let (_, status, answer) = offer(n).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        stored.push((n, answer["id"].clone()));
    }
    // The listener was there all the time, and got each event once, in order, under the id that its publisher got.
    let mut ids = std::collections::HashMap::new();
    for n in 1..=stored.len() as u64 {
        let event = listener.event().await.expect("one more event");
        assert_eq!(event.sequence(), n);
        let key: usize = event.data.split(':').next().and_then(|key| key.parse().ok()).expect("a number");
        assert!(ids.insert(key, json!(event.id)).is_none(), "{key} is there twice");
    }
    assert_eq!(ids, stored.into_iter().collect());
}

// What was lost is remembered until a new epoch has begun, though that fails at first.
#[tokio::test(flavor = "multi_thread")]
async fn no_id_is_given_twice_after_a_loss_on_a_full_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("events.redb");
    let say = async |server: &Server, n: usize| {
        let body = json!({ "event": "n", "data": n.to_string() }).to_string();
        server.json(publish("a", "secret", None, &body)).await
    };
    let log = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    append(&log, "a", event("x")).await;
    log.close().await;
    drop(log);
    let old = std::fs::read(&path).expect("a file");
    let mut command = limited(dir.path());
    command.stderr(Stdio::piped());
    let mut server = Server::start(command);
    let mut lines = BufReader::new(server.stderr()).lines();
    let mut ids = Vec::new();
    for n in 2..=5 {
        ids.push(say(&server, n).await.1["id"].as_str().expect("an id").to_owned());
    }
    // The file gets what it had before, and room for the first of two transactions.
    let limit = |bytes: &str| {
        let limit = ["--pid", &server.id().to_string(), &format!("--fsize={bytes}:")];
        assert!(Command::new("prlimit").args(limit).status().expect("prlimit").success());
    };
    limit("32768");
    assert_eq!(say(&server, 6).await.0, StatusCode::SERVICE_UNAVAILABLE);
    std::fs::write(&path, old).expect("written");
    // The publisher's failure, that of the epoch, and that of the attempt to go on.
    let failed = tokio::task::spawn_blocking(move || {
        let failed = |line: &String| line.contains("log.failed") && line.contains("\"error\":");
        let count = lines.by_ref().map(|line| line.expect("text")).filter(failed).take(3).count();
        (count, lines)
    });
    let (count, _lines) = tokio::time::timeout(Duration::from_secs(30), failed)
        .await
        .expect("no epoch begins on a full disk")
        .expect("no panic");
    assert_eq!(count, 3);
    limit("unlimited");
    let again = async {
        loop {
            let (status, answer) = say(&server, 6).await;
            if status == StatusCode::OK {
                return answer["id"].as_str().expect("an id").to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let id = tokio::time::timeout(Duration::from_secs(30), again).await.expect("the server goes on");
    assert!(!ids.contains(&id), "{id} is given twice");
    assert!(id.ends_with("-1"), "{id} is of no new epoch");
}
