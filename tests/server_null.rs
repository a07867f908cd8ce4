//! Streams over a log that stores nothing: live, numbered, and honest about what is gone.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;

use futures_util::FutureExt;
use holdfast_sse::server::log::PageLimit;
use holdfast_sse::server::{EventLog, Hub, Message, NullLog, StreamOptions};
use serde_json::json;
use server_support::{ask, get, resume};

fn hub(log: NullLog) -> Hub {
    Hub::new(Arc::new(log), StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() })
}

async fn publish(hub: &Hub, n: u64) -> String {
    let message = Message::text("n", n.to_string()).idempotency_key("k");
    hub.publisher().publish("a", message).await.expect("published").id
}

// T7
#[tokio::test]
async fn listeners_get_what_is_published_and_nobody_gets_it_later() {
    let hub = hub(NullLog::default());
    let router = hub.router();
    let mut early = ask(&router, get("/stream/a")).await;
    assert_eq!(early.named("control.open").await.payload()["replayable"], false);
    let mut ids = Vec::new();
    for n in 1..=3 {
        // Keys are not stored either: each of these is an event.
        ids.push(publish(&hub, n).await);
        let event = early.event().await.expect("the event");
        assert_eq!((event.id.as_ref(), event.data), (ids.last(), n.to_string()));
    }
    // Nothing is replayed, whatever is asked for.
    for path in ["/stream/a", "/stream/a?from=start", "/stream/a?last=2"] {
        let mut late = ask(&router, get(path)).await;
        assert_eq!(late.named("control.open").await.payload()["position"], json!(ids[2]), "{path}");
        assert!(late.any().now_or_never().is_none(), "{path}");
    }
    // K21
    let unknown = "other-1".to_owned();
    for (cursor, code, missing) in [
        (&ids[0], "no_buffer", json!(2)),
        (&unknown, "no_buffer", json!(null)),
        (&"nonsense".to_owned(), "invalid_event_id", json!(null)),
    ] {
        let mut late = ask(&router, resume("/stream/a", cursor)).await;
        let refused = late.named("control.cannot_resume").await.payload();
        assert_eq!((&refused["code"], &refused["missing"]), (&json!(code), &missing), "{cursor}");
        assert_eq!((&refused["position"], &refused["oldestAvailable"]), (&json!(ids[2]), &json!(null)));
        assert!(late.any().now_or_never().is_none(), "{cursor}");
    }
    // Who missed nothing is told so.
    let mut late = ask(&router, resume("/stream/a", &ids[2])).await;
    assert_eq!(late.named("control.replay_start").await.payload()["reason"], "no_replay_needed");
    late.named("control.replay_end").await;
    let id = publish(&hub, 4).await;
    assert_eq!(late.any().await.expect("the next").id, Some(id));
}

#[tokio::test]
async fn a_listener_that_falls_behind_is_told_how_far() {
    let hub = hub(NullLog::new(PageLimit { events_max: 4, bytes_max: 1 << 20 }));
    let router = hub.router();
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    for n in 1..=10 {
        publish(&hub, n).await;
    }
    let refused = reader.any().await.expect("told first").payload();
    assert_eq!((&refused["code"], &refused["missing"]), (&json!("no_buffer"), &json!(6)));
    assert_eq!(reader.sequences(4).await, [7, 8, 9, 10]);
}

#[tokio::test]
async fn without_listeners_nothing_is_held() {
    let log = NullLog::default();
    let channel = log.channel("a").expect("a channel");
    let before = channel.head().borrow().to_owned();
    let hub = hub(log);
    publish(&hub, 1).await;
    assert_eq!(channel.tail(before, PageLimit::default()).map(|frames| frames.len()), None);
    let listening = channel.head();
    let before = *listening.borrow();
    publish(&hub, 2).await;
    assert_eq!(channel.tail(before, PageLimit::default()).map(|frames| frames.len()), Some(1));
}
