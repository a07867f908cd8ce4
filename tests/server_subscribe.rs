//! Channels for Rust code of the same process: subscriptions, pages behind an id, messages between processes.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use holdfast_sse::server::log::PageLimit;
use holdfast_sse::server::subscribe::{CannotResume, Delivery, Event, Events, Since};
use holdfast_sse::server::{
    Beginning, EventLog, Hub, LogError, MemoryLog, Message, NullLog, PubSub, PublishError, Received, RedbLog,
    RedbOptions, Retention, SlowConsumer, StreamOptions,
};
use serde_json::json;

fn hub(log: Arc<dyn EventLog>) -> Hub {
    // What closes slow streams does not concern subscriptions.
    let slow = SlowConsumer::Close { events_max: 2, bytes_max: 1 };
    Hub::new(
        log,
        StreamOptions {
            slow,
            page: PageLimit { events_max: 3, bytes_max: 1000 },
            ..StreamOptions::default()
        },
    )
}

fn memory(retention: Retention) -> Hub {
    hub(Arc::new(MemoryLog::new(retention)))
}

async fn publish(hub: &Hub, numbers: impl Iterator<Item = u32>) -> Vec<String> {
    let mut ids = Vec::new();
    for n in numbers {
        let message = Message::text("n", format!("{n}\nsecond line"));
        ids.push(hub.publisher().publish("a", message).await.expect("published").id);
    }
    ids
}

async fn event(events: &mut Events) -> Event {
    match events.next().await {
        Ok(Delivery::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

async fn gap(events: &mut Events) -> CannotResume {
    match events.next().await {
        Ok(Delivery::CannotResume(gap)) => gap,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subscription_brings_each_event_once_from_where_it_was_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let redb = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    for hub in [memory(Retention::default()), hub(Arc::new(redb))] {
        let stored = publish(&hub, 1..=10).await;
        let mut all = hub.subscribe("a", Since::Fresh(Beginning::Start)).await.expect("a subscription");
        let mut last = hub.subscribe("a", Since::Fresh(Beginning::Last(2))).await.expect("a subscription");
        let mut fresh = hub.subscribe("a", Since::Fresh(Beginning::Now)).await.expect("a subscription");
        let mut after = hub.subscribe("a", Since::Event(stored[6].clone())).await.expect("a subscription");
        let live = publish(&hub, 11..=20).await;
        let ids: Vec<_> = stored.iter().chain(&live).cloned().collect();
        for (events, from) in [(&mut all, 0), (&mut last, 8), (&mut fresh, 10), (&mut after, 7)] {
            for (n, id) in ids.iter().enumerate().skip(from) {
                assert_eq!(
                    events.position(),
                    if n == 0 { id.replace("-1", "-0") } else { ids[n - 1].clone() }
                );
                let event = event(events).await;
                assert_eq!((&event.id, event.name.as_str()), (id, "n"));
                assert_eq!(event.data, format!("{}\nsecond line", n + 1));
                assert!(event.at_ms > 1_600_000_000_000);
            }
            assert!(events.next().now_or_never().is_none(), "nothing more");
        }
        // It waits, and is woken.
        let (next, ids) = tokio::join!(event(&mut fresh), publish(&hub, 21..=21));
        assert_eq!(next.id, ids[0]);
        // The same as a stream, which goes on where the subscription was.
        let rest: Vec<_> = all.into_stream().take(1).collect().await;
        assert!(matches!(&rest[..], [Ok(Delivery::Event(event))] if event.id == ids[0]));
        assert!(matches!(
            hub.subscribe("a\n", Since::Fresh(Beginning::Now)).await,
            Err(LogError::InvalidChannel)
        ));
        // It is no stream of a client's.
        assert_eq!((hub.active_streams(), hub.session_count("a")), (0, 0));
    }
}

// K21
#[tokio::test]
async fn a_subscription_tells_what_is_gone() {
    let hub = memory(Retention { events_max: 4, ..Retention::default() });
    let ids = publish(&hub, 1..=6).await;
    let mut late = hub.subscribe("a", Since::Event(ids[0].clone())).await.expect("a subscription");
    let told = gap(&mut late).await;
    assert_eq!((told.code, &told.requested, told.missing), ("buffer_expired", &ids[0], Some(1)));
    assert_eq!((told.oldest.as_ref(), &told.newest, &told.position), (Some(&ids[2]), &ids[5], &ids[1]));
    assert_eq!(event(&mut late).await.id, ids[2]);
    // What expires below it.
    let more = publish(&hub, 7..=20).await;
    for id in &ids[3..5] {
        // The page that it had read.
        assert_eq!(&event(&mut late).await.id, id);
    }
    let told = gap(&mut late).await;
    assert_eq!((told.code, told.missing, &told.position), ("buffer_expired", Some(11), &more[9]));
    assert_eq!(event(&mut late).await.id, more[10]);
    for (id, code) in [("other-1", "event_not_found"), ("nonsense", "invalid_event_id")] {
        let mut wrong = hub.subscribe("a", Since::Event(id.to_owned())).await.expect("a subscription");
        let told = gap(&mut wrong).await;
        assert_eq!((told.code, told.requested.as_str(), told.missing), (code, id, None));
        assert_eq!(event(&mut wrong).await.id, more[10]);
    }
    let mut late = hub.subscribe("a", Since::Event(ids[0].clone())).await.expect("a subscription");
    hub.remove("a").await.expect("removed");
    let told = [gap(&mut late).await.code, gap(&mut late).await.code];
    assert_eq!(told, ["buffer_expired", "stream_not_found"]);
}

// What streams are limited to does not concern code of the same process.
#[tokio::test]
async fn subscriptions_have_no_limits_of_streams() {
    let options = StreamOptions { replay_events_max: Some(2), resume: false, ..StreamOptions::default() };
    let hub = Hub::new(Arc::new(MemoryLog::new(Retention::default())), options);
    let ids = publish(&hub, 1..=9).await;
    let mut all = hub.subscribe("a", Since::Fresh(Beginning::Start)).await.expect("a subscription");
    let mut some = hub.subscribe("a", Since::Event(ids[1].clone())).await.expect("a subscription");
    assert_eq!(event(&mut all).await.id, ids[0]);
    assert_eq!(event(&mut some).await.id, ids[2]);
    let after = hub.events_after("a", &ids[1], 100).await.expect("read");
    assert_eq!((after.found, after.events.len(), after.total), (true, 7, 7));
}

#[tokio::test]
async fn a_log_that_stores_nothing_has_subscribers_all_the_same() {
    let hub = hub(Arc::new(NullLog::default()));
    let mut events = hub.subscribe("a", Since::Fresh(Beginning::Now)).await.expect("a subscription");
    let ids = publish(&hub, 1..=2).await;
    assert_eq!(event(&mut events).await.id, ids[0]);
    let mut late = hub.subscribe("a", Since::Event(ids[0].clone())).await.expect("a subscription");
    assert_eq!(gap(&mut late).await.code, "no_buffer");
}

// K23
#[tokio::test]
async fn pages_are_read_behind_an_id() {
    let hub = memory(Retention { events_max: 20, ..Retention::default() });
    let ids = publish(&hub, 1..=25).await;
    for (from, max, expected, truncated) in [
        (10, 100, 10..25, false),
        (10, 4, 10..14, true),
        (5, 20, 5..25, false),
        (25, 7, 25..25, false),
        (20, 0, 20..20, true),
    ] {
        let after = hub.events_after("a", &ids[from - 1], max).await.expect("a page");
        assert_eq!((after.found, after.truncated, after.reason), (true, truncated, None));
        assert_eq!(after.total, (25 - from) as u64);
        let found: Vec<_> = after.events.iter().map(|event| event.id.clone()).collect();
        assert_eq!(found, ids[expected]);
    }
    for (id, reason) in
        [(ids[2].as_str(), "buffer_expired"), ("other-1", "event_not_found"), ("x", "invalid_event_id")]
    {
        let after = hub.events_after("a", id, 100).await.expect("a page");
        assert_eq!(
            (after.found, after.events.len(), after.reason, after.total),
            (false, 0, Some(reason), 20)
        );
    }
}

/// Two processes' hubs on what they share.
async fn pairs() -> Vec<(&'static str, Hub, Hub, Box<dyn std::any::Any>)> {
    let dir = tempfile::tempdir().expect("a folder");
    let redb = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    let (memory, redb) = (memory(Retention::default()), hub(Arc::new(redb)));
    #[cfg_attr(not(feature = "redis"), allow(unused_mut))]
    let mut pairs: Vec<(&str, Hub, Hub, Box<dyn std::any::Any>)> =
        vec![("memory", memory.clone(), memory, Box::new(())), ("redb", redb.clone(), redb, Box::new(dir))];
    #[cfg(feature = "redis")]
    {
        use holdfast_sse::server::{RedisLog, RedisOptions};
        let redis = server_support::redis::Redis::start(server_support::redis::Persistence::Always);
        let log =
            async || hub(Arc::new(RedisLog::open(RedisOptions::new(redis.url())).await.expect("a log")));
        pairs.push(("redis", log().await, log().await, Box::new(redis)));
    }
    pairs
}

// E16
#[tokio::test]
async fn messages_reach_all_others_in_order_and_not_their_sender() {
    for (name, here, there, _home) in pairs().await {
        println!("log: {name}");
        let mut one = PubSub::open(&here, "ev:states").await.expect("a subject");
        let mut two = PubSub::open(&there, "ev:states").await.expect("a subject");
        let mut other = PubSub::open(&there, "ev:other").await.expect("a subject");
        assert_eq!(one.subject(), "ev:states");
        for n in 0..5 {
            one.send(&json!({ "type": "create", "n": n })).await.expect("sent");
        }
        // Not one of ours, and passed over.
        let foreign = Message::text("pubsub", "no JSON");
        here.publisher().publish("ev:states", foreign).await.expect("published");
        two.send(&json!(null)).await.expect("sent");
        for n in 0..5 {
            assert_eq!(two.receive().await, Ok(Received::Message(json!({ "type": "create", "n": n }))));
        }
        assert_eq!(one.receive().await, Ok(Received::Message(json!(null))));
        for quiet in [&mut one, &mut two, &mut other] {
            assert!(quiet.receive().now_or_never().is_none());
            quiet.close();
            quiet.close();
            assert_eq!(quiet.receive().await, Err(LogError::Closed));
            assert_eq!(quiet.send(&json!(1)).await, Err(PublishError::Log(LogError::Closed)));
        }
    }
}

#[tokio::test]
async fn a_receiver_that_is_too_late_is_told_how_much_it_missed() {
    let hub = memory(Retention { events_max: 3, ..Retention::default() });
    let sender = PubSub::open(&hub, "s").await.expect("a subject");
    let mut receiver = PubSub::open(&hub, "s").await.expect("a subject");
    for n in 0..5 {
        sender.send(&json!(n)).await.expect("sent");
    }
    assert_eq!(receiver.receive().await, Ok(Received::Missed(Some(2))));
    assert_eq!(receiver.receive().await, Ok(Received::Message(json!(2))));
}
