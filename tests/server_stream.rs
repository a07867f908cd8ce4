//! Streams as their readers see them: the router itself, without a socket.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use holdfast_sse::server::log::PageLimit;
use holdfast_sse::server::{
    EventLog, Hub, MemoryLog, Message, RedbLog, RedbOptions, Retention, StreamOptions,
};
use serde_json::json;
use server_support::hub::{memory, names_until, options, plain, publish};
use server_support::{End, Reader, ask, get, metrics, resume};

// K14, K15, K20, K28
#[tokio::test]
async fn a_stream_begins_with_its_headers_and_its_handshake() {
    let (hub, router, log) = plain();
    publish(&hub, 1..=2).await;
    let mut request = get("/stream/a");
    request.headers_mut().insert("x-request-id", "trace-7".parse().expect("a header"));
    let mut reader = ask(&router, request).await;
    assert_eq!(reader.status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-trace-id", "trace-7"),
    ] {
        assert_eq!(reader.headers[name], value);
    }
    // The first bytes come at once, though nothing is published.
    let open = reader.any().await.expect("the handshake");
    assert_eq!(reader.retries(), [3000]);
    assert_eq!((open.name.as_str(), &open.id), ("control.open", &None));
    let epoch = log.epoch(0).expect("an epoch");
    let payload = open.payload();
    assert_eq!(payload["protocol"], "holdfast/1");
    assert_eq!(payload["channel"], "a");
    assert_eq!(payload["position"], format!("{epoch}-2"), "a fresh stream begins now");
    assert_eq!(payload["heartbeat_interval"], 0);
    assert_eq!(payload["replayable"], true);
    assert_eq!(payload["trace_id"], "trace-7");
    assert_eq!(payload["server_version"], env!("CARGO_PKG_VERSION"));
    assert!(payload["stream_id"].as_str().expect("text").starts_with("stream-"));
    assert_eq!(reader.headers["x-stream-id"].to_str().ok(), payload["stream_id"].as_str());
    for field in ["event_id", "type", "ts", "payload"] {
        assert!(open.json().get(field).is_some(), "an envelope has {field}");
    }
    publish(&hub, 3..=3).await;
    let event = reader.any().await.expect("the live event");
    assert_eq!((event.name.as_str(), event.data.as_str()), ("n", "3"));
    assert_eq!(event.id, Some(format!("{epoch}-3")));
}

// T5
#[tokio::test]
async fn a_fresh_stream_begins_where_it_was_asked_to() {
    let (hub, router, _) = plain();
    publish(&hub, 1..=10).await;
    for (query, first, replayed) in [
        ("?from=start", 1, 10),
        ("?last=3", 8, 3),
        ("?last=99", 1, 10),
        ("?last=0", 11, 0),
        ("?from=now", 11, 0),
        ("", 11, 0),
    ] {
        let mut reader = ask(&router, get(&format!("/stream/a{query}"))).await;
        let open = reader.named("control.open").await.payload();
        assert!(
            open["position"].as_str().expect("text").ends_with(&format!("-{}", first - 1)),
            "{query}: {open}"
        );
        if replayed > 0 {
            assert_eq!(reader.any().await.expect("replay").payload()["eventCount"], replayed);
            let sequences = reader.sequences(replayed).await;
            assert_eq!(sequences, (first..=10).collect::<Vec<_>>());
            let end = reader.any().await.expect("the end");
            assert_eq!(
                (end.name.as_str(), &end.payload()["eventCount"]),
                ("control.replay_end", &json!(replayed))
            );
        }
        assert!(reader.quiet(20).await);
    }
    for query in
        ["?from=there", "?last=-1", "?last=", "?last=x", "?last=1&from=start", "?client=%0a", "?client="]
    {
        assert_eq!(
            ask(&router, get(&format!("/stream/a{query}"))).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
    // An empty channel is no error: it begins with its first event.
    let mut reader = ask(&router, get("/stream/empty?from=start")).await;
    assert!(reader.named("control.open").await.payload()["position"].as_str().expect("text").ends_with("-0"));
}

// K30
#[tokio::test]
async fn the_cursor_comes_from_the_header_before_the_query() {
    let (hub, router, log) = plain();
    publish(&hub, 1..=5).await;
    let epoch = log.epoch(0).expect("an epoch");
    for (request, first) in [
        (resume("/stream/a", &format!("{epoch}-2")), 3),
        (get(&format!("/stream/a?lastEventId={epoch}-3")), 4),
        (get(&format!("/stream/a?last_event_id={epoch}-4")), 5),
        (resume(&format!("/stream/a?lastEventId={epoch}-4&from=start"), &format!("{epoch}-1")), 2),
        (resume(&format!("/stream/a?lastEventId={epoch}-4"), ""), 5),
        (resume("/stream/a", &format!("a:{epoch}-3,b:{epoch}-9")), 4),
    ] {
        let mut reader = ask(&router, request).await;
        let names = names_until(&mut reader, "control.replay_start").await;
        assert_eq!(names, ["control.open", "control.replay_start"]);
        assert_eq!(reader.event().await.expect("an event").sequence(), first);
    }
}

// K24, K26: what a client that did not read was not sent is counted.
#[tokio::test(start_paused = true)]
async fn heartbeats_that_were_left_out_are_counted() {
    let (_, router, _) = memory(Retention::default(), StreamOptions { heartbeat_ms: 1_000, ..options() });
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    reader.named("system.heartbeat").await;
    let metrics = metrics(&router, "").await.1;
    assert!(metrics.contains("sse_server_heartbeats_failed_total 2\n"), "{metrics}");
    assert!(metrics.contains("sse_server_heartbeats_sent_total 1\n"), "{metrics}");
}

/// A client that saw an empty channel comes back after the log began anew: it waits, like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_before_an_epoch_without_events_waits_at_the_head() {
    let (hub, router, log) = memory(Retention::default(), StreamOptions { heartbeat_ms: 20, ..options() });
    drop(ask(&router, get("/stream/a")).await);
    let old = log.epoch(0).expect("the first epoch");
    log.begin_epoch().await.expect("a new epoch");
    let mut reader = ask(&router, resume("/stream/a", &format!("{old}-0"))).await;
    let beats = async { while reader.any().await.expect("a stream").name != "system.heartbeat" {} };
    tokio::time::timeout(Duration::from_secs(10), beats)
        .await
        .expect("it beats instead of turning round and round");
    publish(&hub, 1..=1).await;
    assert_eq!(reader.event().await.expect("the event").sequence(), 1);
}

// K24, and the kit's heartbeats that carried an id
#[tokio::test(start_paused = true)]
async fn heartbeats_come_in_time_and_move_no_cursor() {
    let (hub, router, _) = memory(Retention::default(), StreamOptions { heartbeat_ms: 15_000, ..options() });
    let mut reader = ask(&router, get("/stream/a")).await;
    assert_eq!(reader.any().await.expect("the handshake").payload()["heartbeat_interval"], 15_000);
    let begun = tokio::time::Instant::now();
    for n in 1..=3 {
        let beat = reader.any().await.expect("a heartbeat");
        assert_eq!((beat.name.as_str(), &beat.id), ("system.heartbeat", &None));
        assert_eq!(beat.payload()["interval_ms"], 15_000);
        assert_eq!(begun.elapsed().as_secs(), n * 15);
    }
    publish(&hub, 1..=1).await;
    assert_eq!(reader.any().await.expect("the event").sequence(), 1);
    drop(reader);
    assert!(metrics(&router, "").await.1.contains("sse_server_heartbeats_sent_total 3\n"));
}

// K25, K26, and the kit's disconnect that was counted 2835 times
#[tokio::test]
async fn streams_over_the_limit_are_refused_and_each_end_counts_once() {
    let (hub, router, _) = memory(Retention::default(), StreamOptions { connections_max: 2, ..options() });
    let first = ask(&router, get("/stream/a")).await;
    let second = ask(&router, get("/stream/b")).await;
    assert_eq!(hub.active_streams(), 2);
    let response = ask(&router, get("/stream/a")).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers["retry-after"], "3");
    let (_, body) = server_support::json(&router, get("/stream/a")).await;
    assert_eq!(body["code"], "overload_reject");
    assert_eq!(body["retry"], 3000);
    assert!(body["error"].is_string() && body["message"].is_string());
    drop(first);
    assert_eq!(hub.active_streams(), 1);
    let third = ask(&router, get("/stream/a")).await;
    assert_eq!(third.status, StatusCode::OK);
    drop((second, third));
    let metrics = metrics(&router, "").await.1;
    for line in [
        "sse_server_active_streams 0\n",
        "sse_server_streams_opened_total 3\n",
        "sse_server_rejected_connections_total 2\n",
        "sse_server_disconnects_total{reason=\"client_close\"} 3\n",
        "sse_server_cannot_resume_total{reason=\"buffer_expired\"} 0\n",
        "# EOF\n",
    ] {
        assert!(metrics.contains(line), "no {line:?} in:\n{metrics}");
    }
}

// K22: a stopping server says so, each stream at its own time, with a reconnection time of its own.
#[tokio::test(start_paused = true)]
async fn drain_closes_every_stream_with_a_reason_and_admits_no_other() {
    let (hub, router, _) = plain();
    publish(&hub, 1..=1).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = ask(&router, get("/stream/a?from=start")).await;
        reader.named("control.replay_end").await;
        readers.push(reader);
    }
    let draining = tokio::spawn({
        let hub = hub.clone();
        async move { hub.drain(Duration::from_secs(5)).await }
    });
    let closing = readers.into_iter().map(|mut reader| async move {
        let begun = tokio::time::Instant::now();
        assert_eq!(reader.named("control.close").await.payload()["reason"], "server_shutdown");
        assert_eq!(reader.any().await, Err(End::Clean));
        (begun.elapsed(), *reader.retries().last().expect("a retry"))
    });
    let (late, closed) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ask(&router, get("/stream/a")).await
        },
        futures_util::future::join_all(closing)
    );
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(late.headers.contains_key("retry-after"));
    let (at, retries): (Vec<_>, Vec<_>) = closed.into_iter().unzip();
    assert!(at.iter().all(|at| *at <= Duration::from_secs(4)), "{at:?}");
    let spread = *at.iter().max().expect("some") - *at.iter().min().expect("some");
    assert!(spread > Duration::from_millis(500), "closed all at once: {at:?}");
    assert!(retries.iter().all(|ms| (3000..=9000).contains(ms)), "{retries:?}");
    assert!(retries.iter().any(|ms| *ms != retries[0]), "{retries:?}");
    draining.await.expect("drained");
    assert_eq!(ask(&router, get("/health")).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

// What is published during a replay comes after its end, so that its announced count is true.
#[tokio::test]
async fn a_replay_is_as_long_as_it_was_announced() {
    let (hub, router, _) = plain();
    publish(&hub, 1..=3).await;
    let mut reader = ask(&router, get("/stream/a?from=start")).await;
    publish(&hub, 4..=5).await;
    let names = names_until(&mut reader, "control.replay_end").await;
    assert_eq!(names, ["control.open", "control.replay_start", "n", "n", "n", "control.replay_end"]);
    assert_eq!(reader.sequences(2).await, [4, 5]);
}

/// Reads `count` events and checks that each is there once, in order.
async fn exactly(reader: &mut Reader, from: u64, count: u64) {
    for n in from..from + count {
        let event = reader.event().await.expect("one more event");
        assert_eq!((event.sequence(), event.data.as_str()), (n, n.to_string().as_str()));
    }
}

// The kit's truncated replay with a silent hole, and its replay of other connections' events.
#[tokio::test(flavor = "multi_thread")]
async fn replay_and_live_meet_without_a_hole_or_a_repeat() {
    let dir = tempfile::tempdir().expect("a folder");
    let tail = PageLimit { events_max: 20, bytes_max: 2000 };
    let redb = RedbLog::open(dir.path(), RedbOptions { tail, ..RedbOptions::default() }).expect("a log");
    let logs: [Arc<dyn EventLog>; 2] = [Arc::new(MemoryLog::new(Retention::default())), Arc::new(redb)];
    for log in logs {
        let page = PageLimit { events_max: 7, bytes_max: 64 << 10 };
        let hub = Hub::new(log, StreamOptions { page, ..options() });
        let router = hub.router();
        publish(&hub, 1..=300).await;
        let publishing = tokio::spawn({
            let hub = hub.clone();
            async move { publish(&hub, 301..=600).await }
        });
        let mut readers = Vec::new();
        for from in [0, 1, 150, 299] {
            let first = ask(&router, get("/stream/a?from=start")).await.event().await.expect("the first");
            let (epoch, _) = first.id.as_deref().and_then(|id| id.rsplit_once('-')).expect("an id");
            let mut reader = ask(&router, resume("/stream/a", &format!("{epoch}-{from}"))).await;
            readers.push(tokio::spawn(async move { exactly(&mut reader, from + 1, 600 - from).await }));
        }
        // One reader comes and goes, with the cursor of what it last saw.
        let mut seen = 0;
        let mut cursor: Option<String> = None;
        while seen < 600 {
            let request = match &cursor {
                Some(id) => resume("/stream/a", id),
                None => get("/stream/a?from=start"),
            };
            let mut reader = ask(&router, request).await;
            for _ in 0..17.min(600 - seen) {
                let event = reader.event().await.expect("one more event");
                seen += 1;
                assert_eq!(event.sequence(), seen);
                cursor = event.id;
            }
        }
        for reader in readers {
            reader.await.expect("exactly once");
        }
        publishing.await.expect("published");
    }
}

// Slow consumers: what expired while a client was not reading is named, not skipped in silence.
#[tokio::test]
async fn a_reader_that_falls_behind_the_retention_is_told_what_is_missing() {
    let page = PageLimit { events_max: 2, bytes_max: 64 << 10 };
    let (hub, router, log) =
        memory(Retention { events_max: 10, ..Retention::default() }, StreamOptions { page, ..options() });
    publish(&hub, 1..=5).await;
    let epoch = log.epoch(0).expect("an epoch");
    let mut reader = ask(&router, get("/stream/a?from=start")).await;
    assert_eq!(reader.sequences(2).await, [1, 2]);
    publish(&hub, 6..=30).await;
    let refused = reader.named("control.cannot_resume").await.payload();
    assert_eq!((&refused["code"], &refused["missing"]), (&json!("buffer_expired"), &json!(18)));
    assert_eq!(refused["requestedId"], format!("{epoch}-2"));
    assert_eq!(refused["position"], format!("{epoch}-20"));
    assert_eq!(reader.sequences(10).await, (21..=30).collect::<Vec<_>>());
    publish(&hub, 31..=31).await;
    assert_eq!(reader.sequences(1).await, [31]);
}

#[tokio::test]
async fn one_stream_sees_nothing_of_another_channel() {
    let (hub, router, _) = plain();
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    hub.publisher().publish("b", Message::text("n", "other")).await.expect("published");
    publish(&hub, 1..=1).await;
    assert_eq!(reader.any().await.expect("an event").data, "1");
    drop(reader);
    for name in ["a%0Ab", "%00", &"x".repeat(129)] {
        let (status, body) = server_support::json(&router, get(&format!("/stream/{name}"))).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_channel")), "{name}");
    }
}
