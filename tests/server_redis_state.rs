//! Shared state on several nodes that have nothing in common but a Redis.
#![cfg(all(feature = "redis", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_sse::server::{Message, SharedState, StateError, StateManager, StateOptions};
use serde_json::json;
use server_support::node::Node;
use server_support::proxy::Proxy;
use server_support::redis::{Persistence, Redis};
use server_support::{Server, ask, get};

fn states(node: &Node) -> StateManager {
    StateManager::new(&node.hub, StateOptions::default()).expect("options in order")
}

// E13, E14: what was stored once counts once, though its answer got lost and the node asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_state_whose_answer_got_lost_happens_once() {
    let redis = Redis::start(Persistence::None);
    let proxy = Proxy::before(&redis).await;
    let node = Node::at(proxy.url()).await;
    let states = states(&node);
    let lose = || proxy.lose_answer_to("holdfast.state:");
    lose();
    let counter = states.create("counter", 0).await.expect("created");
    for n in 1..=5 {
        lose();
        assert_eq!(counter.update(|n| n + 1).await, Ok(true));
        assert!(!proxy.is_armed(), "an answer was lost");
        assert_eq!(counter.get(), Ok(n));
    }
    lose();
    assert_eq!(states.remove("counter").await, Ok(true));
    assert_eq!(states.remove("counter").await, Ok(false));
    let mut reader = ask(&node.router, get("/stream/counter?from=start")).await;
    for n in 0..=5 {
        assert_eq!(reader.event().await.expect("the value").json()["value"], n);
    }
    assert_eq!(reader.event().await.expect("the end").name, "state.removed");
    // Another node's change of equal content is that node's alone: each of two increments counts.
    let other = Node::start(&redis).await;
    let theirs = self::states(&other);
    let counter = states.create("counter", 0).await.expect("created");
    let same: SharedState<i32> = theirs.get("counter").await.expect("read").expect("there");
    for n in 1..=20 {
        let (ours, theirs) = tokio::join!(counter.update(|n| n + 1), same.update(|n| n + 1));
        assert_eq!((ours, theirs), (Ok(true), Ok(true)));
        states.get::<i32>("counter").await.expect("read");
        assert_eq!(counter.get(), Ok(2 * n));
    }
}

// E13, E14, E17: nodes count together, through a Redis that is killed in between: they agree on one order, no update that
// was answered for is lost, and none happens twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_agree_on_one_order() {
    const EACH: u64 = 60;
    let mut redis = Redis::start(Persistence::Always);
    let nodes = [Node::start(&redis).await, Node::start(&redis).await, Node::start(&redis).await];
    let mut readers = Vec::new();
    for node in &nodes {
        readers.push(ask(&node.router, get("/stream/counter")).await);
    }
    let (done, unknown) = (Arc::new(tokio::sync::watch::Sender::new(0_u64)), Arc::new(AtomicU64::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for node in &nodes {
        let (states, done, unknown) = (states(node), Arc::clone(&done), Arc::clone(&unknown));
        writers.spawn(async move {
            let counter = states.create("counter", 0_u64).await.expect("a state");
            for _ in 0..EACH {
                // Until one is answered for: of one that failed nobody knows.
                while let Err(error) = counter.update(|n| n + 1).await {
                    assert_eq!(error.code(), "state_not_published");
                    unknown.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done.send_modify(|done| *done += 1);
            }
        });
    }
    let mut progress = done.subscribe();
    progress.wait_for(|done| *done >= EACH).await.expect("writers");
    redis.restart();
    writers.join_all().await;
    let mut values = Vec::new();
    for node in &nodes {
        let counter: SharedState<u64> = states(node).get("counter").await.expect("read").expect("there");
        values.push(counter.get().expect("a value"));
    }
    let (least, unknown) = (3 * EACH, unknown.load(Ordering::Relaxed));
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    assert!((least..=least + unknown).contains(&values[0]), "{} of {least}, {unknown} unknown", values[0]);
    // On each node the same, each value once.
    let mut ledgers = Vec::new();
    for reader in &mut readers {
        let mut ledger = Vec::new();
        for n in 0..=values[0] {
            let event = reader.event().await.expect("one more value");
            assert_eq!(event.json(), json!({ "value": n }));
            ledger.push(event.id);
        }
        ledgers.push(ledger);
    }
    assert!(ledgers.iter().all(|ledger| *ledger == ledgers[0]));
}

// E13, and a defect: a newcomer is given the value at once where nobody ever asked for the state: on another node, on
// one that was started again, and in a server beside the app, which knows nothing of states.
#[tokio::test(flavor = "multi_thread")]
async fn newcomers_get_the_value_on_nodes_that_never_asked_for_it() {
    let (redis, dir) = (Redis::start(Persistence::None), tempfile::tempdir().expect("a folder"));
    let mut command = Server::command(dir.path());
    command.env("SSE_REDIS_URL", redis.url());
    let beside = tokio::task::spawn_blocking(|| Server::start(command)).await.expect("a server");
    let (app, other) = (Node::start(&redis).await, Node::start(&redis).await);
    let light = states(&app).create("light", "off".to_owned()).await.expect("created");
    let room =
        StateManager::new(&app.hub, StateOptions { key: "room".to_owned(), ..StateOptions::default() });
    let room = room.expect("options in order");
    for value in ["on", "dim"] {
        light.set(value.to_owned()).await.expect("set");
        let restarted = Node::start(&redis).await;
        for (reader, name) in [
            (ask(&other.router, get("/stream/light")).await, "other"),
            (ask(&restarted.router, get("/stream/light")).await, "restarted"),
            (beside.stream(get("/stream/light")).await, "beside"),
        ] {
            let mut reader = reader;
            let event = reader.event().await.expect("the value");
            assert_eq!((event.name.as_str(), event.json()), ("light", json!({ "value": value })), "{name}");
        }
    }
    // Of two states in one channel the older one comes first.
    room.create("light", 1).await.expect("created");
    let mut both = beside.stream(get("/stream/light")).await;
    assert_eq!(both.event().await.expect("the one").json(), json!({ "value": "dim" }));
    assert_eq!(both.event().await.expect("the other").json(), json!({ "room": 1 }));
    // A channel whose events only look like those of a state has none.
    let message = Message::text("chat", r#"{"value":"hello"}"#);
    app.hub.publisher().publish("chat", message).await.expect("published");
    let mut chat = beside.stream(get("/stream/chat")).await;
    chat.named("control.open").await;
    assert!(chat.quiet(100).await);
}

// E15: one node removes it, and it is gone on all.
#[tokio::test(flavor = "multi_thread")]
async fn removal_reaches_nodes_that_share_a_redis() {
    let redis = Redis::start(Persistence::None);
    let nodes = [Node::start(&redis).await, Node::start(&redis).await];
    let (ours, theirs) = (states(&nodes[0]), states(&nodes[1]));
    let _door = ours.create("door", true).await.expect("created");
    let mut door: SharedState<bool> = theirs.get("door").await.expect("read").expect("there");
    let mut stream = ask(&nodes[1].router, get("/stream/door")).await;
    assert_eq!(stream.event().await.expect("the value").json(), json!({ "value": true }));
    assert_eq!(ours.remove("door").await, Ok(true));
    assert_eq!(door.changed().await, Err(StateError::Removed));
    assert_eq!(stream.event().await.expect("the end").name, "state.removed");
    let third = Node::start(&redis).await;
    for node in [&nodes[0], &nodes[1], &third] {
        assert_eq!(states(node).has("door").await, Ok(false));
        assert_eq!(states(node).remove("door").await, Ok(false));
        let mut newcomer = ask(&node.router, get("/stream/door")).await;
        newcomer.named("control.open").await;
        assert!(newcomer.quiet(100).await);
    }
    // Made again by another node, it is there for who held it.
    states(&third).create("door", false).await.expect("created");
    assert_eq!(door.changed().await, Ok(false));
}
