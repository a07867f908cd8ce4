//! Shared state as apps and clients see it: several nodes (hubs) on one log, and their streams.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;

use holdfast_sse::server::{
    EventLog, Hub, MemoryLog, Message, NullLog, RedbLog, RedbOptions, Retention, SharedState, StateError,
    StateManager, StateOptions, StreamOptions,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use server_support::{Reader, ask, get, resume};

/// One process, as far as a log can tell.
struct Node {
    hub: Hub,
    states: StateManager,
}

impl Node {
    fn new(log: &Arc<dyn EventLog>) -> Self {
        Self::with(log, StateOptions::default())
    }

    fn with(log: &Arc<dyn EventLog>, options: StateOptions) -> Self {
        let hub = Hub::new(Arc::clone(log), StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() });
        let states = StateManager::new(&hub, options).expect("options in order");
        Self { hub, states }
    }

    async fn stream(&self, path: &str) -> Reader {
        ask(&self.hub.router(), get(path)).await
    }
}

fn memory() -> Arc<dyn EventLog> {
    Arc::new(MemoryLog::new(Retention::default()))
}

fn redb(dir: &tempfile::TempDir) -> Arc<dyn EventLog> {
    Arc::new(RedbLog::open(dir.path(), RedbOptions::default()).expect("a log"))
}

/// All events that a channel holds, as `(name, data)`.
async fn stored(node: &Node, channel: &str) -> Vec<(String, Value)> {
    let mut reader = node.stream(&format!("/stream/{channel}?from=start")).await;
    let mut events = Vec::new();
    reader.named("control.open").await;
    loop {
        // A channel without events has no replay, and so no end of one.
        let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(50), reader.any()).await else {
            return events;
        };
        let event = event.expect("one more event");
        if event.name == "control.replay_end" {
            return events;
        }
        if !event.is_control() {
            events.push((event.name.clone(), event.json()));
        }
    }
}

// E13: get, set with a function, the key, the deep comparison, and what is broadcast, once.
#[tokio::test]
async fn a_state_is_broadcast_when_it_differs() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Room {
        users: Vec<String>,
        topic: Option<String>,
    }
    let log = memory();
    let node = Node::with(&log, StateOptions { key: "room".to_owned(), ..StateOptions::default() });
    let empty = Room { users: Vec::new(), topic: None };
    let room = node.states.create("lobby", empty.clone()).await.expect("created");
    assert_eq!(room.get(), Ok(empty.clone()));
    assert_eq!(room.channel(), "lobby");

    let ada = Room { users: vec!["Ada".to_owned()], topic: Some("a\r\nb".to_owned()) };
    for (value, differs) in [(empty.clone(), false), (ada.clone(), true), (ada.clone(), false)] {
        assert_eq!(room.set(value.clone()).await, Ok(differs), "{value:?}");
        assert_eq!(room.get(), Ok(value));
    }
    assert_eq!(room.update(Room::clone).await, Ok(false));
    assert_eq!(room.update(|room| Room { topic: None, ..room.clone() }).await, Ok(true));
    // A second one of the same name is the same, whatever it would have begun with.
    let same = node.states.create("lobby", empty).await.expect("the same");
    assert_eq!(same.get().map(|room| room.users.len()), Ok(1));

    let event = |value: Value| ("lobby".to_owned(), json!({ "room": value }));
    assert_eq!(
        stored(&node, "lobby").await,
        [
            event(json!({ "users": [], "topic": null })),
            event(json!({ "users": ["Ada"], "topic": "a\r\nb" })),
            event(json!({ "users": ["Ada"], "topic": null })),
        ]
    );
}

// E13, E14, E17: nodes on one log agree on one order, and no update is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_between_nodes() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 50;
    let dir = tempfile::tempdir().expect("a folder");
    for log in [memory(), redb(&dir)] {
        let nodes = [Node::new(&log), Node::new(&log)];
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let states = nodes[writer as usize % 2].states.clone();
            tasks.spawn(async move {
                let counter = states.create("counter", 0_u64).await.expect("a state");
                for _ in 0..EACH {
                    assert_eq!(counter.update(|n| n + 1).await, Ok(true));
                }
            });
        }
        tasks.join_all().await;
        for node in &nodes {
            let counter: SharedState<u64> = node.states.get("counter").await.expect("read").expect("there");
            assert_eq!(counter.get(), Ok(WRITERS * EACH));
        }
        // Each value once, and in order: nobody has to skip anything.
        let values: Vec<_> =
            stored(&nodes[0], "counter").await.into_iter().map(|(_, data)| data["value"].as_u64()).collect();
        assert_eq!(values, (0..=WRITERS * EACH).map(Some).collect::<Vec<_>>());
    }
}

// E13: what a node did arrives at the others, without being asked for.
#[tokio::test]
async fn other_nodes_follow() {
    let log = memory();
    let (here, there) = (Node::new(&log), Node::new(&log));
    let ours = here.states.create("light", "off".to_owned()).await.expect("created");
    let mut theirs = there.states.create("light", "ignored".to_owned()).await.expect("found");
    assert_eq!(theirs.get().as_deref(), Ok("off"));
    for value in ["on", "dim"] {
        ours.set(value.to_owned()).await.expect("set");
        assert_eq!(theirs.changed().await.as_deref(), Ok(value));
        assert_eq!(theirs.get().as_deref(), Ok(value));
    }
    // A back end in another language sets it by publishing what a state publishes.
    let by_hand = Message::text("light", r#"{"value":"by hand"}"#);
    here.hub.publisher().publish("light", by_hand).await.expect("published");
    assert_eq!(theirs.changed().await.as_deref(), Ok("by hand"));
    // What only looks like it changes nothing.
    for (name, data) in
        [("light", "on"), ("light", r#"{"other":1}"#), ("x", r#"{"value":"x"}"#), ("light", "[]")]
    {
        here.hub.publisher().publish("light", Message::text(name, data)).await.expect("published");
    }
    assert_eq!(theirs.update(|light| format!("{light}!")).await, Ok(true));
    assert_eq!(ours.set("by hand!".to_owned()).await, Ok(false));
}

// E13, and a defect: newcomers, client or node, get the value at once.
#[tokio::test]
async fn newcomers_get_the_present_value() {
    let log = memory();
    let node = Node::new(&log);
    let state = node.states.create("news", 1).await.expect("created");
    state.set(2).await.expect("set");
    let mut first = node.stream("/stream/news").await;
    let event = first.event().await.expect("the value");
    assert_eq!((event.name.as_str(), event.data.as_str(), event.sequence()), ("news", r#"{"value":2}"#, 2));
    state.set(3).await.expect("set");
    assert_eq!(first.event().await.expect("the change").data, r#"{"value":3}"#);
    // A cut before that event was processed loses nothing: the stream began before it.
    let open = node.stream("/stream/news").await.named("control.open").await.payload();
    let position = open["position"].as_str().expect("an id").to_owned();
    let mut again = ask(&node.hub.router(), resume("/stream/news", &position)).await;
    assert_eq!(again.event().await.expect("the value").data, r#"{"value":3}"#);
    // Who has it gets nothing.
    let id = again_id(&position);
    let mut up_to_date = ask(&node.hub.router(), resume("/stream/news", &id)).await;
    up_to_date.named("control.replay_end").await;
    assert!(up_to_date.quiet(20).await);
    // A node that comes later has the value, and so have its clients: at once, though nobody asked for the state there.
    let later = Node::new(&log);
    let mut early = later.stream("/stream/news").await;
    assert_eq!(early.event().await.expect("the value").data, r#"{"value":3}"#);
    let found: SharedState<i32> = later.states.get("news").await.expect("read").expect("there");
    assert_eq!(found.get(), Ok(3));
    assert_eq!(later.stream("/stream/news").await.event().await.expect("the value").data, r#"{"value":3}"#);
}

/// The id after this one.
fn again_id(position: &str) -> String {
    let (epoch, sequence) = position.rsplit_once('-').expect("an id of ours");
    format!("{epoch}-{}", sequence.parse::<u64>().expect("a number") + 1)
}

// A limit on replays does not keep the value from a newcomer.
#[tokio::test]
async fn newcomers_get_the_value_past_a_limit_on_replays() {
    let options = StreamOptions { heartbeat_ms: 0, replay_events_max: Some(2), ..StreamOptions::default() };
    let hub = Hub::new(memory(), options);
    let states = StateManager::new(&hub, StateOptions::default()).expect("options in order");
    states.create("news", 7).await.expect("created");
    for n in 0..5 {
        hub.publisher().publish("news", Message::text("n", n.to_string())).await.expect("published");
    }
    let mut reader = ask(&hub.router(), get("/stream/news")).await;
    assert_eq!(reader.event().await.expect("the value").data, r#"{"value":7}"#);
}

// A state goes with its channel, on all nodes, and does not come back.
#[tokio::test]
async fn a_removed_channel_takes_its_state_along() {
    let dir = tempfile::tempdir().expect("a folder");
    for log in [memory(), redb(&dir)] {
        let (here, there) = (Node::new(&log), Node::new(&log));
        let ours = here.states.create("room", 5).await.expect("created");
        let mut theirs: SharedState<i32> = there.states.get("room").await.expect("read").expect("there");
        here.hub.remove("room").await.expect("removed");
        assert!(here.states.channels().is_empty(), "nothing is kept of it");
        assert_eq!(ours.get(), Err(StateError::Removed));
        for node in [&here, &there] {
            let mut stream = node.stream("/stream/room").await;
            stream.named("control.open").await;
            assert!(stream.quiet(20).await);
        }
        assert_eq!(theirs.changed().await, Err(StateError::Removed));
        for node in [&here, &there] {
            assert_eq!(node.states.has("room").await, Ok(false));
            assert!(node.states.channels().is_empty(), "nothing is kept of it");
        }
        // Made anew, it has its first value again, for those who held it before, too.
        let again = there.states.create("room", 1).await.expect("created");
        assert_eq!(again.get(), Ok(1));
        assert_eq!(theirs.changed().await, Ok(1));
        assert_eq!(ours.set(2).await, Ok(true));
        assert_eq!(stored(&there, "room").await.len(), 2);
    }
}

// E15: create, get, has, remove, for all nodes.
#[tokio::test]
async fn removal_reaches_all_nodes() {
    let log = memory();
    let (here, there) = (Node::new(&log), Node::new(&log));
    assert_eq!(here.states.has("door").await, Ok(false));
    assert!(here.states.get::<bool>("door").await.expect("read").is_none());
    assert_eq!(here.states.remove("door").await, Ok(false));
    let ours = here.states.create("door", true).await.expect("created");
    let mut theirs: SharedState<bool> = there.states.get("door").await.expect("read").expect("there");
    assert_eq!(there.states.has("door").await, Ok(true));
    assert_eq!(there.states.channels(), ["door"]);
    let mut stream = there.stream("/stream/door").await;
    assert_eq!(stream.event().await.expect("the value").data, r#"{"value":true}"#);

    assert_eq!(here.states.remove("door").await, Ok(true));
    assert_eq!(theirs.changed().await, Err(StateError::Removed));
    assert_eq!(theirs.get(), Err(StateError::Removed));
    assert_eq!(ours.set(false).await, Err(StateError::Removed));
    assert_eq!(ours.update(|door| !door).await, Err(StateError::Removed));
    let event = stream.event().await.expect("the end");
    assert_eq!((event.name.as_str(), event.json()), ("state.removed", json!({ "key": "value" })));
    for node in [&here, &there] {
        assert_eq!(node.states.has("door").await, Ok(false));
        assert_eq!(node.states.remove("door").await, Ok(false));
        assert!(node.states.channels().is_empty(), "nothing is kept of it");
        // A newcomer finds nothing.
        let mut stream = node.stream("/stream/door").await;
        stream.named("control.open").await;
        assert!(stream.quiet(20).await);
    }
    // Made again, it lives for those who held it before, too.
    there.states.create("door", false).await.expect("created");
    assert_eq!(theirs.changed().await, Ok(false));
    assert_eq!(ours.set(true).await, Ok(true));
}

// E13: the value outlives the process where the log does, however much was published after it.
#[tokio::test]
async fn a_state_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    for life in 0..3_u64 {
        let log = redb(&dir);
        let node = Node::new(&log);
        if life > 0 {
            // Clients may be there before the app asks for the state.
            let mut early = node.stream("/stream/restarts").await;
            assert_eq!(early.event().await.expect("the value").json(), json!({ "value": life }));
        }
        let counter = node.states.create("restarts", 0_u64).await.expect("a state");
        assert_eq!(counter.get(), Ok(life));
        counter.update(|n| n + 1).await.expect("updated");
        for n in 0..300_u64 {
            node.hub
                .publisher()
                .publish("restarts", Message::text("noise", n.to_string()))
                .await
                .expect("noise");
        }
        log.close().await;
    }
}

// E13: a log that forgot the value's event is given it anew, once, when somebody needs it.
#[tokio::test]
async fn a_value_that_the_log_forgot_is_published_anew() {
    let log: Arc<dyn EventLog> =
        Arc::new(MemoryLog::new(Retention { events_max: 3, ..Retention::default() }));
    let nodes = [Node::new(&log), Node::new(&log)];
    let state = nodes[0].states.create("small", 7).await.expect("created");
    let other = nodes[1].states.create("small", 0).await.expect("found");
    for n in 0..5 {
        nodes[0]
            .hub
            .publisher()
            .publish("small", Message::text("noise", n.to_string()))
            .await
            .expect("noise");
    }
    let (mut first, mut second) =
        tokio::join!(nodes[0].stream("/stream/small"), nodes[1].stream("/stream/small"));
    for stream in [&mut first, &mut second] {
        let event = stream.event().await.expect("the value");
        assert_eq!(
            (event.data.as_str(), event.sequence()),
            (r#"{"value":7}"#, 7),
            "1 value, 5 of noise, the value"
        );
    }
    let values = stored(&nodes[0], "small").await.into_iter().filter(|(name, _)| name == "small").count();
    assert_eq!(values, 1, "two nodes published it anew, one got through");
    assert_eq!(other.update(|n| n + 1).await, Ok(true));
    assert_eq!(state.set(8).await, Ok(false));
}

// E13: with `refresh_ms` a log that deletes by age always holds the value.
#[tokio::test]
async fn a_value_is_refreshed_before_it_is_too_old() {
    let retention = Retention { age_ms_max: 600, ..Retention::default() };
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(retention));
    let node = Node::with(&log, StateOptions { refresh_ms: 50, ..StateOptions::default() });
    node.states.create("old", "still here".to_owned()).await.expect("created");
    let mut stream = node.stream("/stream/old").await;
    while stream.event().await.expect("the value, again and again").sequence() < 14 {}
    // Its first events are gone by now: each waited 50 ms for the next.
    let fresh = Node::new(&log);
    let found = fresh.states.create("old", "gone".to_owned()).await.expect("found");
    assert_eq!(found.get().as_deref(), Ok("still here"));
    let mut oldest = fresh.stream("/stream/old?from=start").await;
    assert!(oldest.event().await.expect("an event").sequence() > 1);
}

#[tokio::test]
async fn what_cannot_be_a_state_is_refused() {
    let log = memory();
    let hub = Hub::new(Arc::clone(&log), StreamOptions::default());
    for key in ["", "two words", "é", &"k".repeat(49)] {
        let options = StateOptions { key: key.to_owned(), ..StateOptions::default() };
        assert_eq!(StateManager::new(&hub, options).map(|_| ()), Err(StateError::InvalidKey), "{key:?}");
    }
    let nothing = Hub::new(Arc::new(NullLog::default()), StreamOptions::default());
    let refused = StateManager::new(&nothing, StateOptions::default()).map(|_| ());
    assert_eq!(refused, Err(StateError::NoReplay));
    let node =
        Node::with(&log, StateOptions { states_max: 2, value_bytes_max: 10, ..StateOptions::default() });
    let code = |result: Result<SharedState<String>, StateError>| result.map(|_| ()).map_err(|e| e.code());
    let create = async |channel: &str, value: &str| code(node.states.create(channel, value.to_owned()).await);
    assert_eq!(create("a", "12345678").await, Ok(()));
    assert_eq!(create("b", "123456789").await, Err("state_too_large"));
    assert_eq!(create("state.removed", "").await, Err("invalid_channel"));
    assert_eq!(create("control.x", "").await, Err("state_not_published"));
    assert_eq!(create("", "").await, Err("state_not_published"));
    let a: SharedState<String> = node.states.get("a").await.expect("read").expect("there");
    assert_eq!(a.set("123456789".to_owned()).await.map_err(|e| e.code()), Err("state_too_large"));
    assert_eq!(a.update(|a| a.repeat(2)).await.map_err(|e| e.code()), Err("state_too_large"));
    // Another type than the one that is there, and a number that JSON does not have.
    let number: SharedState<u64> = node.states.get("a").await.expect("read").expect("there");
    assert_eq!(number.get().map_err(|e| e.code()), Err("state_type"));
    assert_eq!(number.set(7).await.map_err(|e| e.code()), Err("state_type"));
    assert_eq!(node.states.create("n", f64::NAN).await.map(|_| ()).map_err(|e| e.code()), Err("state_type"));
    // Nothing of that was published, and asking for names that are not there holds none of them.
    assert_eq!(stored(&node, "a").await.len(), 1);
    for n in 0..100 {
        assert_eq!(node.states.has(&format!("absent-{n}")).await, Ok(false));
    }
    assert_eq!(create("b", "").await, Ok(()));
    assert_eq!(create("c", "").await, Err("too_many_states"));
    assert_eq!(node.states.remove("b").await, Ok(true));
    assert_eq!(create("c", "").await, Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Create(Value),
    Set(Value),
    Append(Value),
    Remove,
    Noise,
    Epoch,
    Newcomer,
}

fn step() -> impl Strategy<Value = (bool, Step)> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_u8).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z\n]{0,3}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    });
    let step = prop_oneof![
        2 => value.clone().prop_map(Step::Create),
        4 => value.clone().prop_map(Step::Set),
        3 => value.prop_map(Step::Append),
        1 => Just(Step::Remove),
        2 => Just(Step::Noise),
        1 => Just(Step::Epoch),
        2 => Just(Step::Newcomer),
    ];
    (any::<bool>(), step)
}

/// What `Step::Append` does to a value.
fn appended(value: &Value, more: &Value) -> Value {
    if value.to_string().len() > 200 { more.clone() } else { json!([value, more]) }
}

/// Plays the steps on two nodes in turn, against a plain variable.
async fn play(steps: Vec<(bool, Step)>) {
    let log = memory();
    let nodes = [Node::new(&log), Node::new(&log)];
    let mut model: Option<Value> = None;
    let mut broadcasts: Vec<Option<Value>> = Vec::new();
    for (node, step) in steps {
        let node = &nodes[usize::from(node)];
        let handle: Option<SharedState<Value>> = node.states.get("m").await.expect("read");
        assert_eq!(handle.as_ref().map(|state| state.get().expect("a value")), model);
        let before = model.clone();
        match step {
            Step::Create(value) => {
                let state = node.states.create("m", value.clone()).await.expect("created");
                let now = model.get_or_insert(value).clone();
                assert_eq!(state.get(), Ok(now));
            }
            Step::Set(value) => {
                if let Some(state) = &handle {
                    assert_eq!(state.set(value.clone()).await, Ok(model.as_ref() != Some(&value)));
                    model = Some(value);
                }
            }
            Step::Append(more) => {
                if let (Some(state), Some(now)) = (&handle, &model) {
                    let next = appended(now, &more);
                    assert_eq!(state.update(|now| appended(now, &more)).await, Ok(next != *now));
                    model = Some(next);
                }
            }
            Step::Remove => {
                assert_eq!(node.states.remove("m").await, Ok(model.is_some()));
                model = None;
            }
            Step::Noise => {
                node.hub.publisher().publish("m", Message::text("noise", "{}")).await.expect("noise");
            }
            Step::Epoch => log.begin_epoch().await.expect("a new epoch"),
            Step::Newcomer => {
                if let Some(now) = &model {
                    let event = node.stream("/stream/m").await.event().await.expect("the value");
                    assert_eq!(event.json()["value"], *now);
                }
            }
        }
        if before != model {
            broadcasts.push(model.clone());
        }
    }
    let sent: Vec<_> = stored(&nodes[0], "m").await.into_iter().filter(|(name, _)| name != "noise").collect();
    let sent: Vec<_> =
        sent.into_iter().map(|(name, mut data)| (name == "m").then(|| data["value"].take())).collect();
    assert_eq!(sent, broadcasts, "one event a change, in their order");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // E13, E15
    #[test]
    fn two_nodes_are_as_one_variable(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps));
    }
}
