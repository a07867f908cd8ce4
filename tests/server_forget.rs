//! Channels that are finished: forgotten when all has expired, or removed by the app, and no id is given twice.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::FutureExt;
use holdfast_sse::server::log::{Bounds, Data, Key, NewEvent, PageLimit, Place};
use holdfast_sse::server::{
    EventLog, Hub, LogError, MemoryLog, Message, NullLog, RedbLog, RedbOptions, Retention, StreamOptions,
};
use serde_json::{Value, json};
use server_support::{Random, ask, get, publish, resume};

fn event(data: &str) -> NewEvent {
    NewEvent { name: "e".to_owned(), data: Data::Text(data.to_owned()), key: None, state: None }
}

fn redb(dir: &Path, retention: Retention) -> Arc<dyn EventLog> {
    let options = RedbOptions { retention, ..RedbOptions::default() };
    Arc::new(RedbLog::open(dir, options).expect("a log"))
}

/// A log, its name, and what keeps that in which it lives.
type Subject = (&'static str, Arc<dyn EventLog>, Box<dyn std::any::Any>);

/// The logs that forget channels.
#[cfg_attr(not(feature = "redis"), allow(clippy::unused_async, unused_mut))]
async fn logs(dir: &Path, retention: Retention) -> Vec<Subject> {
    let memory = Arc::new(MemoryLog::new(retention));
    let mut logs: Vec<Subject> =
        vec![("memory", memory, Box::new(())), ("redb", redb(dir, retention), Box::new(()))];
    #[cfg(feature = "redis")]
    {
        use holdfast_sse::server::{RedisLog, RedisOptions};
        let redis = server_support::redis::Redis::start(server_support::redis::Persistence::None);
        let log = RedisLog::open(RedisOptions { retention, ..RedisOptions::new(redis.url()) }).await;
        logs.push(("redis", Arc::new(log.expect("a log")), Box::new(redis)));
    }
    logs
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

fn hub(log: &Arc<dyn EventLog>) -> Hub {
    let token = Some("secret".to_owned());
    let options = StreamOptions { heartbeat_ms: 0, publish_token: token, ..StreamOptions::default() };
    Hub::new(Arc::clone(log), options)
}

async fn say(hub: &Hub, channel: &str, text: &str) -> String {
    hub.publisher().publish(channel, Message::text("n", text)).await.expect("published").id
}

// S5. A limit of channels is one of those that are there, not of all that ever were.
#[tokio::test]
async fn channels_whose_events_have_expired_make_room_for_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let retention = Retention { age_ms_max: 50, channels_max: 2, ..Retention::default() };
    for (name, log, _home) in logs(dir.path(), retention).await {
        println!("log: {name}");
        let router = hub(&log).router();
        let body = json!({ "event": "n", "data": "x" }).to_string();
        let mut refused = 0;
        for n in 0..12 {
            // Where there is no room it is said, and there is some when the others have expired.
            loop {
                let (status, answer) =
                    server_support::json(&router, publish(&format!("c{n}"), "secret", None, &body)).await;
                if status == StatusCode::OK {
                    break;
                }
                refused += 1;
                assert_eq!((status.as_u16(), &answer["code"]), (507, &json!("too_many_channels")));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(refused > 0);
    }
}

#[tokio::test]
async fn a_channel_that_is_read_is_not_forgotten() {
    let dir = tempfile::tempdir().expect("a folder");
    let retention = Retention { age_ms_max: 30, ..Retention::default() };
    for (name, log, _home) in logs(dir.path(), retention).await {
        println!("log: {name}");
        let held = log.channel("held").expect("a channel");
        let _reader = held.head();
        log.bounds(&held).await.expect("bounds");
        let head = log.append("held", event("1")).await.expect("stored").place;
        let weak = Arc::downgrade(&log.channel("left").expect("a channel"));
        log.append("left", event("1")).await.expect("stored");
        let gone = async {
            // In Redis it is the next new channel that makes room.
            for n in 0.. {
                if weak.strong_count() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                log.append(&format!("new{n}"), event("1")).await.expect("stored");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the one that nobody reads goes");
        let bounds = log.bounds(&held).await.expect("bounds");
        assert_eq!((bounds.oldest, bounds.head, bounds.begin), (None, head, Place::default()));
        // Its next event follows those that are gone.
        let next = log.append("held", event("2")).await.expect("stored").place;
        assert!(next.follows(head));
    }
}

// S5
#[tokio::test]
async fn a_removed_channel_begins_anew_behind_its_old_ids() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, log, _home) in logs(dir.path(), Retention::default()).await {
        println!("log: {name}");
        let keyed = || NewEvent { key: Some(Key::new("k", &["1"])), ..event("1") };
        let first = log.append("a", keyed()).await.expect("stored").place;
        log.append("a", event("2")).await.expect("stored");
        log.append("b", event("1")).await.expect("stored");
        log.remove("a").await.expect("removed");
        log.remove("a").await.expect("there is none, which is no error");
        assert_eq!(log.remove("a\n").await, Err(LogError::InvalidChannel));
        let a = log.channel("a").expect("a channel");
        let retired = Place { sequence: 2, ..first };
        assert_eq!(log.bounds(&a).await, Ok(Bounds::new(first.generation, retired)));
        let all = Place::default();
        assert!(log.page(&a, all, PageLimit::default()).await.expect("a page").is_empty());
        // The key went with it.
        let again = log.append("a", keyed()).await.expect("stored");
        assert_eq!((again.place.sequence, again.duplicate), (3, false));
        assert_eq!(log.page(&a, all, PageLimit::default()).await.expect("a page").len(), 1);
        // Others keep theirs.
        assert_eq!(log.append("b", event("2")).await.expect("stored").place.sequence, 2);
        log.close().await;
    }
    // On disk it is the same after a restart, and the rows are gone.
    let log = redb(dir.path(), Retention::default());
    let a = log.channel("a").expect("a channel");
    let bounds = log.bounds(&a).await.expect("bounds");
    assert_eq!((bounds.begin.sequence, bounds.head.sequence), (2, 3));
    let fresh = log.bounds(&log.channel("new").expect("a channel")).await.expect("bounds");
    assert_eq!(fresh.head.sequence, 2);
}

// K21
#[tokio::test]
async fn who_comes_back_to_a_removed_channel_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, log, _home) in logs(dir.path(), Retention::default()).await {
        println!("log: {name}");
        let hub = hub(&log);
        let router = hub.router();
        let ids: Vec<String> = [say(&hub, "a", "1").await, say(&hub, "a", "2").await].into();
        // One has read all, another one nothing yet.
        let mut quick = ask(&router, get("/stream/a?from=start")).await;
        assert_eq!(quick.sequences(2).await, [1, 2]);
        let mut slow = ask(&router, resume("/stream/a", &ids[0])).await;
        hub.channel("a").remove().await.expect("removed");
        say(&hub, "b", "1").await;
        say(&hub, "a", "3").await;
        assert_eq!(quick.event().await.expect("the next").data, "3");
        let told = slow.named("control.cannot_resume").await.payload();
        assert_eq!(
            (&told["code"], &told["reason"]),
            (&json!("stream_not_found"), &json!("stream_not_found"))
        );
        assert_eq!(told["missing"], Value::Null);
        assert_eq!(slow.event().await.expect("the next").data, "3");
        // With an id of the removed channel; the last one misses nothing.
        let mut late = ask(&router, resume("/stream/a", &ids[0])).await;
        let told = late.named("control.cannot_resume").await.payload();
        assert_eq!((&told["code"], &told["requestedId"]), (&json!("stream_not_found"), &json!(ids[0])));
        assert_eq!((&told["missing"], &told["position"]), (&Value::Null, &json!(ids[1])));
        assert_eq!(late.event().await.expect("the next").data, "3");
        let mut late = ask(&router, resume("/stream/a", &ids[1])).await;
        late.named("control.open").await;
        assert_eq!(late.named("control.replay_start").await.payload()["eventCount"], 1);
        // Who has no id begins at the beginning.
        let mut fresh = ask(&router, get("/stream/a?from=start")).await;
        fresh.named("control.open").await;
        assert_eq!(fresh.named("control.replay_start").await.payload()["eventCount"], 1);
        assert_eq!(fresh.event().await.expect("the first").data, "3");
        // After a new epoch, ids of before the removal are as unknown as they were.
        log.begin_epoch().await.expect("a new epoch");
        say(&hub, "c", "1").await;
        hub.remove("c").await.expect("removed");
        say(&hub, "c", "2").await;
        let mut late = ask(&router, resume("/stream/c", &ids[1])).await;
        assert_eq!(late.named("control.cannot_resume").await.payload()["code"], "stream_not_found");
        assert_eq!(late.event().await.expect("the next").data, "2");
    }
}

// A listener of an idle channel misses nothing when others are forgotten, however far they had come.
#[tokio::test]
async fn listeners_of_idle_channels_hear_nothing_of_others() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, log, _home) in logs(dir.path(), Retention::default()).await {
        println!("log: {name}");
        let hub = hub(&log);
        let mut idle = ask(&hub.router(), get("/stream/idle")).await;
        idle.named("control.open").await;
        for n in 0..5 {
            say(&hub, "busy", &n.to_string()).await;
        }
        hub.remove("busy").await.expect("removed");
        say(&hub, "idle", "1").await;
        assert_eq!(idle.any().await.expect("an event").data, "1");
    }
}

// Who had read all of a removed channel misses nothing, however far others had come that were removed before.
#[tokio::test]
async fn listeners_of_removed_channels_hear_nothing_of_others() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, log, _home) in logs(dir.path(), Retention::default()).await {
        println!("log: {name}");
        let hub = hub(&log);
        let router = hub.router();
        let first = say(&hub, "a", "1").await;
        let last = say(&hub, "a", "2").await;
        let mut quick = ask(&router, resume("/stream/a", &last)).await;
        quick.named("control.replay_end").await;
        let mut slow = ask(&router, resume("/stream/a", &first)).await;
        let mut idle = ask(&router, get("/stream/idle")).await;
        idle.named("control.open").await;
        for n in 0..5 {
            say(&hub, "busy", &n.to_string()).await;
        }
        hub.remove("busy").await.expect("removed");
        hub.remove("a").await.expect("removed");
        hub.remove("idle").await.expect("there is none, which is no error");
        // Once more, further on.
        for n in 0..5 {
            say(&hub, "busy", &n.to_string()).await;
        }
        hub.remove("busy").await.expect("removed");
        hub.remove("a").await.expect("removed");
        say(&hub, "a", "3").await;
        assert_eq!(quick.any().await.expect("the next").data, "3");
        say(&hub, "idle", "1").await;
        assert_eq!(idle.any().await.expect("the first").data, "1");
        // Who had not read all is told.
        assert_eq!(slow.named("control.cannot_resume").await.payload()["code"], "stream_not_found");
        assert_eq!(slow.event().await.expect("the next").data, "3");
    }
}

// Publishing to an idle id leaves nothing behind, where nobody listens and nothing is stored.
#[tokio::test]
async fn publishing_to_a_million_idle_ids_leaks_no_channel() {
    let log: Arc<dyn EventLog> = Arc::new(NullLog::default());
    let mut before = Place::default();
    for n in 0..1_000_000 {
        let name = format!("c{n}");
        let place = log.append(&name, event("x")).now_or_never().expect("at once").expect("stored").place;
        // Each is another place: a channel of this name may have been forgotten.
        assert!(place > before);
        before = place;
        // It is asked for, too, as by a listener that leaves at once.
        let weak = Arc::downgrade(&log.channel(&name).expect("a channel"));
        assert!(n % 10_000 > 0 || weak.strong_count() <= 1);
    }
    let hub = hub(&log);
    // After its last reader a channel is forgotten, too, with what the reader had not read.
    let channel = log.channel("read").expect("a channel");
    let head = channel.head();
    let before = *head.borrow();
    say(&hub, "read", "1").await;
    assert_eq!(channel.tail(before, PageLimit::default()).map(|frames| frames.len()), Some(1));
    let weak = Arc::downgrade(&channel);
    drop((channel, head));
    until("it is forgotten", || weak.strong_count() == 0).await;
}

// What is stored has a limit, and what is refused leaves nothing.
#[tokio::test]
async fn a_million_names_are_within_the_limit_or_refused() {
    let retention = Retention { channels_max: 1000, ..Retention::default() };
    let log = MemoryLog::new(retention);
    let mut refused = Vec::new();
    for n in 0..1_000_000 {
        let name = format!("c{n}");
        match log.append(&name, event("x")).now_or_never().expect("at once") {
            Ok(appended) => assert!(n < 1000 && appended.place.sequence == 1),
            Err(error) => {
                assert_eq!(error, LogError::TooManyChannels(1000));
                if n % 100 == 0 {
                    refused.push(Arc::downgrade(&log.channel(&name).expect("a channel")));
                }
            }
        }
    }
    let alive = refused.iter().filter(|channel| channel.strong_count() > 0).count();
    assert!(alive < 100, "{alive} of {} are still there", refused.len());
}

/// A log under random use, and all ids that it ever gave.
struct Life {
    random: Random,
    ids: HashMap<String, HashSet<String>>,
    last: HashMap<String, Place>,
}

impl Life {
    async fn step(&mut self, log: &dyn EventLog) {
        let channel = ["a", "b", "c"][usize::try_from(self.random.up_to(2)).expect("small")];
        match self.random.up_to(19) {
            0 => log.begin_epoch().await.expect("a new epoch"),
            1 | 2 => log.remove(channel).await.expect("removed"),
            // Everything may expire meanwhile, or some.
            3 => tokio::time::sleep(Duration::from_millis(self.random.up_to(40))).await,
            4 => drop(log.channel(channel)),
            _ => {
                // What somebody holds is not forgotten.
                let held = (self.random.up_to(1) == 0).then(|| log.channel(channel).expect("a channel"));
                let place = log.append(channel, event("x")).await.expect("stored").place;
                let epoch = log.epoch(place.generation).expect("an epoch");
                let id = format!("{epoch}-{}", place.sequence);
                let ids = self.ids.entry(channel.to_owned()).or_default();
                assert!(ids.insert(id.clone()), "{id} of {channel} is given twice");
                // Places grow, also across a channel's lives.
                let before = self.last.insert(channel.to_owned(), place);
                assert!(before.is_none_or(|before| before < place), "{before:?} before {place:?}");
                if let Some(channel) = held {
                    let bounds = log.bounds(&channel).await.expect("bounds");
                    assert!(bounds.begin < place && place == bounds.head, "{place:?} in {bounds:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_id_is_ever_given_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let retention = Retention { age_ms_max: 20, events_max: 8, ..Retention::default() };
    let mut random = Random::seeded();
    let mut life = Life { random: random.fork(), ids: HashMap::new(), last: HashMap::new() };
    let memory = MemoryLog::new(retention);
    for _ in 0..1500 {
        life.step(&memory).await;
    }
    #[cfg(feature = "redis")]
    {
        let (_, redis, _home) = logs(dir.path(), retention).await.pop().expect("Redis is the last");
        let mut life = Life { random: random.fork(), ids: HashMap::new(), last: HashMap::new() };
        for n in 0..1500 {
            life.step(redis.as_ref()).await;
            if n % 10 == 0 {
                // A channel that is new makes Redis look for old ones.
                redis.append(&format!("n{n}"), event("x")).await.expect("stored");
            }
        }
    }
    let null = NullLog::default();
    let mut life = Life { random: random.fork(), ids: HashMap::new(), last: HashMap::new() };
    for _ in 0..500 {
        life.step(&null).await;
    }
    let mut life = Life { random: random.fork(), ids: HashMap::new(), last: HashMap::new() };
    for _ in 0..20 {
        let log = redb(dir.path(), retention);
        for _ in 0..=life.random.up_to(60) {
            life.step(log.as_ref()).await;
        }
        log.close().await;
    }
}

#[tokio::test]
async fn all_channels_together_keep_within_their_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let retention = Retention { total_bytes_max: 100_000, ..Retention::default() };
    // Redis has `maxmemory` for it.
    let own = logs(dir.path(), retention).await.into_iter().filter(|log| log.0 != "redis");
    for (name, log, _home) in own {
        println!("log: {name}");
        let text = "x".repeat(1000);
        for n in 0..300 {
            // One is much larger than the others, and pays for all.
            let channel = if n % 6 == 0 { format!("small{}", n % 7) } else { "large".to_owned() };
            log.append(&channel, event(&text)).await.expect("stored");
        }
        let count = async |name: &str| {
            let channel = log.channel(name).expect("a channel");
            let limit = PageLimit { events_max: 1000, bytes_max: usize::MAX };
            log.page(&channel, Place::default(), limit).await.expect("a page").len()
        };
        let large = count("large").await;
        let mut all = large;
        for n in 0..7 {
            let small = count(&format!("small{n}")).await;
            assert!(small >= 6, "{small} of a small channel");
            all += small;
        }
        assert!((80..=100).contains(&all), "{all} events");
    }
}
