//! Channels that are forgotten in a Redis that several nodes share.
#![cfg(all(feature = "redis", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use holdfast_sse::server::{EventLog, Message, RedisOptions, Retention};
use serde_json::json;
use server_support::node::Node;
use server_support::redis::{Persistence, Redis};
use server_support::{ask, get, resume};

async fn node(redis: &Redis, retention: Retention) -> Node {
    Node::with(RedisOptions { retention, retry_ms_max: 200, ..RedisOptions::new(redis.url()) }).await
}

async fn say(node: &Node, channel: &str, text: &str) -> String {
    let message = Message::text("n", text);
    node.hub.publisher().publish(channel, message).await.expect("published").id
}

fn sequence(id: &str) -> u64 {
    id.rsplit_once('-').and_then(|(_, sequence)| sequence.parse().ok()).expect("an id of ours")
}

/// Publishes to new channels until Redis has forgotten one.
async fn make_room(redis: &Redis, node: &Node, channel: &str) {
    let meta = format!("holdfast:{channel}:meta");
    let gone = async {
        for n in 0.. {
            if redis.ask(&["EXISTS", &meta]) == "0" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            // Where there is no room yet, there is after the next.
            let message = Message::text("n", "x");
            let _ = node.hub.publisher().publish(&format!("new{n}"), message).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is forgotten");
}

// S5: what is read on any node stays; what nobody reads goes from all of them, and its ids are not given again, though
// each node has an idea of its own of how far the channel had come.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_on_any_node_is_forgotten_on_all() {
    let redis = Redis::start(Persistence::Always);
    let retention = Retention { age_ms_max: 100, ..Retention::default() };
    let (here, there) = (node(&redis, retention).await, node(&redis, retention).await);
    let mut reader = ask(&there.router, get("/stream/read")).await;
    let mut idle = ask(&there.router, get("/stream/idle")).await;
    for reader in [&mut reader, &mut idle] {
        reader.named("control.open").await;
    }
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(say(&here, "left", &n.to_string()).await);
    }
    say(&here, "read", "1").await;
    say(&there, "left", "6").await;
    let held = Arc::downgrade(&there.log.channel("left").expect("a channel"));
    make_room(&redis, &here, "left").await;
    // The key of which is gone, too; the reader's channel is where it was.
    assert_eq!(redis.ask(&["KEYS", "holdfast:left:*"]), "");
    assert_eq!(sequence(&say(&here, "read", "2").await), 2);
    let texts = [reader.any().await.expect("1").data, reader.any().await.expect("2").data];
    assert_eq!(texts, ["1", "2"]);
    // The other node let go of it, too: it hears of it by push.
    let gone = async {
        while held.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing is kept of it");
    // It begins anew behind its old ids, on either node, and one of those cannot be resumed.
    let next = [say(&there, "left", "7").await, say(&here, "left", "8").await];
    assert!(sequence(&next[0]) > 6 && sequence(&next[1]) == sequence(&next[0]) + 1, "{next:?}");
    for node in [&here, &there] {
        let mut late = ask(&node.router, resume("/stream/left", &ids[4])).await;
        let told = late.named("control.cannot_resume").await.payload();
        assert_eq!((&told["code"], &told["missing"]), (&json!("stream_not_found"), &json!(null)));
        assert_eq!(late.event().await.expect("the next").data, "7");
    }
    // Who waits on a channel in which nothing was ever said hears its first event and nothing else.
    let first = say(&here, "idle", "first").await;
    assert!(sequence(&first) > 6, "{first}");
    let event = idle.any().await.expect("the first");
    assert_eq!((event.data, event.id), ("first".to_owned(), Some(first)));
    assert_eq!(say(&here, "idle", "second").await, idle.any().await.expect("the second").id.expect("an id"));
}

// Where a channel stands, Redis alone says: not how far others had come that this node knew and that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_channel_hides_no_events_of_another() {
    let redis = Redis::start(Persistence::None);
    let retention = Retention { age_ms_max: 100, ..Retention::default() };
    let (here, there) = (node(&redis, retention).await, node(&redis, retention).await);
    // Held by a reader, it is not forgotten; nobody asked for it here.
    let mut reader = ask(&there.router, get("/stream/kept")).await;
    reader.named("control.open").await;
    say(&there, "kept", "1").await;
    for n in 0..50 {
        say(&here, "far", &n.to_string()).await;
    }
    let known = Arc::downgrade(&here.log.channel("far").expect("a channel"));
    make_room(&redis, &here, "far").await;
    let gone = async {
        while known.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing is kept of it");
    let mut late = ask(&here.router, get("/stream/kept")).await;
    late.named("control.open").await;
    // It waits at the head.
    assert!(late.quiet(50).await);
    let id = say(&there, "kept", "2").await;
    assert_eq!(sequence(&id), 2);
    for reader in [&mut reader, &mut late] {
        while reader.any().await.expect("one more").data != "2" {}
    }
}

// A removal reaches readers on all nodes: who had read everything misses nothing, who had not is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_channel_is_removed_on_all_nodes() {
    let redis = Redis::start(Persistence::None);
    let nodes = [node(&redis, Retention::default()).await, node(&redis, Retention::default()).await];
    for n in 1..=9 {
        say(&nodes[0], "longer", &n.to_string()).await;
    }
    nodes[0].hub.channel("longer").remove().await.expect("removed");
    // Begins behind that one.
    let ids = [say(&nodes[0], "a", "1").await, say(&nodes[1], "a", "2").await];
    assert_eq!(ids.each_ref().map(|id| sequence(id)), [10, 11]);
    say(&nodes[0], "b", "1").await;
    say(&nodes[0], "b", "2").await;
    say(&nodes[0], "b", "3").await;
    let mut quick = Vec::new();
    for node in &nodes {
        let mut reader = ask(&node.router, resume("/stream/a", &ids[1])).await;
        reader.named("control.replay_end").await;
        quick.push(reader);
    }
    nodes[1].hub.channel("b").remove().await.expect("removed");
    nodes[1].hub.channel("a").remove().await.expect("removed");
    let third = say(&nodes[1], "a", "3").await;
    assert_eq!(sequence(&third), 13, "b had come to 12");
    for reader in &mut quick {
        let event = reader.any().await.expect("the next");
        assert_eq!((event.data.as_str(), event.id.as_ref()), ("3", Some(&third)));
    }
    for node in &nodes {
        let mut late = ask(&node.router, resume("/stream/a", &ids[0])).await;
        assert_eq!(late.named("control.cannot_resume").await.payload()["code"], "stream_not_found");
        assert_eq!(late.event().await.expect("the next").data, "3");
    }
}

// A log of a release that did not forget keeps its channels within the limit.
#[tokio::test(flavor = "multi_thread")]
async fn channels_of_an_older_release_count() {
    let redis = Redis::start(Persistence::None);
    redis.ask(&["SADD", "holdfast::channels", "a", "b"]);
    let retention = Retention { channels_max: 3, age_ms_max: 50, ..Retention::default() };
    let node = node(&redis, retention).await;
    assert_eq!(redis.ask(&["EXISTS", "holdfast::channels"]), "0");
    assert_eq!(redis.ask(&["ZCARD", "holdfast::active"]), "2");
    say(&node, "c", "1").await;
    make_room(&redis, &node, "c").await;
}
