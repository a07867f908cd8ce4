//! A disk that is full, and is not any more: a real server whose files may not grow beyond a limit of the system's.
#![cfg(all(feature = "server", target_os = "linux"))]

mod server_support;

use std::process::{Command, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;
use server_support::{Server, get, publish};

/// redb makes its file larger by much at a time; this leaves room for some hundred events.
const LIMIT_KIB: u64 = 4096;

/// `holdfast serve` under a soft limit that can be raised later. Writing beyond it is an error instead of a signal.
fn limited(dir: &std::path::Path) -> Command {
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
