//! One conformance suite over every event log.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use holdfast_sse::server::log::{
    Appended, Bounds, Channel, Data, EventLog, Frame, Key, NewEvent, PageLimit, Place,
};
use holdfast_sse::server::{
    Hub, LogError, MemoryLog, Message, NullLog, RedbLog, RedbOptions, Retention, StreamOptions,
};

/// A log to test, and how to make another of the same kind.
struct Subject {
    name: &'static str,
    log: Arc<dyn EventLog>,
    /// Keeps what the log lives in.
    _home: Box<dyn std::any::Any>,
}

async fn subjects(retention: Retention) -> Vec<Subject> {
    let dir = tempfile::tempdir().expect("a folder");
    let redb = RedbLog::open(dir.path(), RedbOptions { retention, ..RedbOptions::default() }).expect("a log");
    let own = server_support::own_log::OwnLog::new(retention);
    #[cfg_attr(not(feature = "redis"), allow(unused_mut))]
    let mut subjects = vec![
        Subject { name: "memory", log: Arc::new(MemoryLog::new(retention)), _home: Box::new(()) },
        Subject { name: "redb", log: Arc::new(redb), _home: Box::new(dir) },
        // T9, E17
        Subject { name: "one of the app's own", log: Arc::new(own), _home: Box::new(()) },
    ];
    #[cfg(feature = "redis")]
    {
        use holdfast_sse::server::{RedisLog, RedisOptions};
        let redis = server_support::redis::Redis::start(server_support::redis::Persistence::Always);
        let log = RedisLog::open(RedisOptions { retention, ..RedisOptions::new(redis.url()) }).await;
        subjects.push(Subject { name: "redis", log: Arc::new(log.expect("a log")), _home: Box::new(redis) });
    }
    subjects
}

/// Runs one check over all logs that store.
async fn check(retention: Retention, check: impl AsyncFn(&dyn EventLog)) {
    check_all(subjects(retention).await, check).await;
}

/// The same, and over the one that does not.
async fn check_with_null(check: impl AsyncFn(&dyn EventLog)) {
    let mut all = subjects(Retention::default()).await;
    all.push(Subject { name: "null", log: Arc::new(NullLog::default()), _home: Box::new(()) });
    check_all(all, check).await;
}

async fn check_all(subjects: Vec<Subject>, check: impl AsyncFn(&dyn EventLog)) {
    for subject in subjects {
        println!("log: {}", subject.name);
        check(subject.log.as_ref()).await;
    }
}

fn event(data: &str) -> NewEvent {
    NewEvent { name: "e".to_owned(), data: Data::Text(data.to_owned()), key: None, state: None }
}

fn keyed(data: &str, key: &str) -> NewEvent {
    NewEvent { key: Some(Key::new(key, &[data])), ..event(data) }
}

async fn append(log: &dyn EventLog, channel: &str, event: NewEvent) -> Appended {
    log.append(channel, event).await.expect("stored")
}

fn place(generation: u32, sequence: u64) -> Place {
    Place { generation, sequence }
}

/// Before all events.
const START: Place = Place { generation: 0, sequence: 0 };

/// The number of the epoch in which a new log begins.
async fn first_generation(log: &dyn EventLog) -> u32 {
    let channel = log.channel("a").expect("a channel");
    log.bounds(&channel).await.expect("bounds").head.generation
}

/// Everything after a place, in pages of `limit`, by the log itself.
async fn read(log: &dyn EventLog, channel: &Channel, after: Place, limit: PageLimit) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    loop {
        let after = all.last().map_or(after, |frame| frame.place);
        let page = log.page(channel, after, limit).await.expect("a page");
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= limit.events_max.max(1));
        all.extend(page);
    }
}

fn text(frame: &Frame) -> String {
    String::from_utf8(frame.bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn events_keep_their_order_and_their_place() {
    check(Retention::default(), async |log| {
        let channel = log.channel("a").expect("a channel");
        let g = first_generation(log).await;
        assert_eq!(log.bounds(&channel).await, Ok(Bounds::new(g, Place::default())));
        for n in 1..=25_u64 {
            let appended = append(log, "a", event(&n.to_string())).await;
            assert_eq!(appended, Appended { place: place(g, n), duplicate: false });
        }
        // Another channel counts for itself.
        assert_eq!(append(log, "b", event("x")).await.place, place(g, 1));
        let epoch = log.epoch(g).expect("an epoch");
        assert_eq!(log.generation(&epoch), Some(g));
        assert_eq!(log.generation("other"), None);
        for events_max in [1, 7, 25, 100] {
            for after in [0, 1, 13, 24, 25, 99] {
                let limit = PageLimit { events_max, bytes_max: usize::MAX };
                let frames = read(log, &channel, place(g, after), limit).await;
                let expected: Vec<_> =
                    (after + 1..=25).map(|n| format!("id: {epoch}-{n}\nevent: e\ndata: {n}\n\n")).collect();
                assert_eq!(frames.iter().map(text).collect::<Vec<_>>(), expected);
                if let Some(frame) = frames.first() {
                    assert_eq!(frame.body(), format!("event: e\ndata: {}\n\n", after + 1));
                }
            }
        }
        // A page holds one event at least, however small its bytes.
        let page =
            log.page(&channel, START, PageLimit { events_max: 10, bytes_max: 1 }).await.expect("a page");
        assert_eq!(page.len(), 1);
        let bounds =
            Bounds { oldest: Some(place(g, 1)), head: place(g, 25), ..Bounds::new(g, Place::default()) };
        assert_eq!(log.bounds(&channel).await, Ok(bounds));
    })
    .await;
}

#[tokio::test]
async fn numbers_are_written_where_the_event_wants_them() {
    check_with_null(async |log| {
        let numbered = Data::Numbered { before: "{\"n\":".to_owned(), after: "}".to_owned() };
        let channel = log.channel("a").expect("a channel");
        let _reader = channel.head();
        log.bounds(&channel).await.expect("bounds");
        for n in 1..=2 {
            let stored = NewEvent { name: "e".to_owned(), data: numbered.clone(), key: None, state: None };
            let Place { generation, sequence } = append(log, "a", stored).await.place;
            let page = log
                .page(&channel, place(generation, sequence - 1), PageLimit::default())
                .await
                .expect("a page");
            assert!(text(&page[0]).contains(&format!("data: {{\"n\":{n}}}\n")));
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_is_stored_once() {
    let retention = Retention { keys_max: 3, ..Retention::default() };
    check(retention, async |log| {
        let first = append(log, "a", keyed("1", "k")).await;
        assert_eq!(append(log, "a", keyed("1", "k")).await, Appended { duplicate: true, ..first });
        // Another content is a mistake of the publisher's, and stores nothing.
        assert_eq!(log.append("a", keyed("other", "k")).await, Err(LogError::KeyReused));
        // Of the same moment, so that they share a transaction where there are such.
        let (b, c) = tokio::join!(append(log, "a", keyed("2", "l")), append(log, "a", keyed("2", "l")));
        assert_eq!((b.place, b.duplicate || c.duplicate), (c.place, true));
        assert_ne!(b.duplicate, c.duplicate);
        // Keys belong to their channel.
        assert!(!append(log, "b", keyed("1", "k")).await.duplicate);
        let channel = log.channel("a").expect("a channel");
        assert_eq!(read(log, &channel, START, PageLimit::default()).await.len(), 2);
        // The fourth key pushes the first out; the others stay.
        append(log, "a", keyed("3", "m")).await;
        append(log, "a", keyed("4", "n")).await;
        assert!(append(log, "a", keyed("2", "l")).await.duplicate);
        assert!(!append(log, "a", keyed("1", "k")).await.duplicate);
    })
    .await;
}

// K23
#[tokio::test]
async fn what_is_too_much_or_too_old_goes_from_the_oldest_on() {
    let by_count = Retention { events_max: 10, ..Retention::default() };
    check(by_count, async |log| {
        let g = first_generation(log).await;
        for n in 1..=25 {
            append(log, "a", event(&n.to_string())).await;
        }
        let channel = log.channel("a").expect("a channel");
        let bounds = log.bounds(&channel).await.expect("bounds");
        assert_eq!((bounds.oldest, bounds.head), (Some(place(g, 16)), place(g, 25)));
        let frames = read(log, &channel, START, PageLimit::default()).await;
        assert_eq!(
            frames.iter().map(|frame| frame.place.sequence).collect::<Vec<_>>(),
            (16..=25).collect::<Vec<_>>()
        );
    })
    .await;
    let by_bytes = Retention { bytes_max: 5000, ..Retention::default() };
    check(by_bytes, async |log| {
        let g = first_generation(log).await;
        for _ in 0..20 {
            append(log, "a", event(&"x".repeat(1000))).await;
        }
        let channel = log.channel("a").expect("a channel");
        assert_eq!(read(log, &channel, START, PageLimit::default()).await.len(), 4);
        // One that is larger than all room is gone at once, but had its place.
        assert_eq!(append(log, "a", event(&"x".repeat(6000))).await.place, place(g, 21));
        let bounds = log.bounds(&channel).await.expect("bounds");
        assert_eq!((bounds.oldest, bounds.head), (None, place(g, 21)));
    })
    .await;
    let by_age = Retention { age_ms_max: 300, ..Retention::default() };
    check(by_age, async |log| {
        let g = append(log, "a", event("old")).await.place.generation;
        let channel = log.channel("a").expect("a channel");
        assert_eq!(read(log, &channel, START, PageLimit::default()).await.len(), 1);
        // Ages are of the wall clock, and a log on disk looks for them about once a second.
        let gone = async {
            while log.bounds(&channel).await.expect("bounds").oldest.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it goes without another append");
        assert_eq!(append(log, "a", event("new")).await.place, place(g, 2));
        assert_eq!(log.bounds(&channel).await.expect("bounds").oldest, Some(place(g, 2)));
    })
    .await;
}

#[tokio::test]
async fn a_new_epoch_continues_where_the_old_one_ended() {
    check(Retention { events_max: 4, ..Retention::default() }, async |log| {
        let g = first_generation(log).await;
        for n in 1..=3 {
            append(log, "a", event(&n.to_string())).await;
        }
        log.begin_epoch().await.expect("a new epoch");
        let channel = log.channel("a").expect("a channel");
        // Nothing was lost here: the old id is still the head.
        assert_eq!(log.bounds(&channel).await.expect("bounds").head, place(g, 3));
        let first = append(log, "a", event("4")).await.place;
        let h = first.generation;
        assert!(h > g && first.sequence == 1, "{first:?}");
        let (old, new) = (log.epoch(g).expect("the old"), log.epoch(h).expect("the new"));
        assert_eq!((log.generation(&old), log.generation(&new)), (Some(g), Some(h)));
        assert_eq!(append(log, "a", event("5")).await.place, place(h, 2));
        let bounds = log.bounds(&channel).await.expect("bounds");
        let begin = Place::default();
        assert_eq!(
            bounds,
            Bounds { oldest: Some(place(g, 2)), begin, head: place(h, 2), ends: vec![(g, 3)] }
        );
        let frames =
            read(log, &channel, place(g, 2), PageLimit { events_max: 2, bytes_max: usize::MAX }).await;
        let places: Vec<_> = frames.iter().map(|frame| frame.place).collect();
        assert_eq!(places, [place(g, 3), place(h, 1), place(h, 2)]);
        assert!(text(&frames[1]).starts_with(&format!("id: {new}-1\n")));
    })
    .await;
}

#[tokio::test]
async fn the_head_wakes_and_the_tail_never_has_a_hole() {
    check_with_null(async |log| {
        let channel = log.channel("a").expect("a channel");
        let mut head = channel.head();
        // A reader asks for the bounds after it began to watch.
        log.bounds(&channel).await.expect("bounds");
        let g = append(log, "a", event("1")).await.place.generation;
        tokio::time::timeout(Duration::from_secs(10), head.changed())
            .await
            .expect("a wake-up")
            .expect("a log");
        assert_eq!(*head.borrow_and_update(), place(g, 1));
        for n in 2..=3000 {
            let appending = log.append("a", event(&n.to_string()));
            if n % 50 == 0 {
                appending.await.expect("stored");
                for after in [0, n / 2, n - 1] {
                    let Some(tail) = channel.tail(place(g, after), PageLimit::default()) else { continue };
                    assert_eq!(tail[0].place.sequence, after + 1);
                    assert!(tail.windows(2).all(|pair| pair[1].place.sequence == pair[0].place.sequence + 1));
                }
            } else {
                // Waiting for each sync would take its time; order is that of the calls all the same.
                let _ = appending.now_or_never();
            }
        }
        assert_eq!(*head.borrow_and_update(), place(g, 3000));
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_nothing_is_stored() {
    let retention = Retention { channels_max: 2, ..Retention::default() };
    check_with_null(async |log| {
        for name in ["", "a\nb", "a\0", &"x".repeat(129)] {
            assert_eq!(log.append(name, event("1")).await, Err(LogError::InvalidChannel));
            assert_eq!(log.channel(name).err(), Some(LogError::InvalidChannel));
        }
        for name in ["a\nb", "a\rb", "a\0b", &"x".repeat(129)] {
            let event = NewEvent { name: name.to_owned(), ..event("1") };
            assert_eq!(log.append("a", event).await, Err(LogError::InvalidName));
        }
        log.close().await;
        log.close().await;
        assert_eq!(log.append("a", event("3")).await, Err(LogError::Closed));
    })
    .await;
    check(retention, async |log| {
        let both = [log.append("a", event("1")), log.append("b", event("1")), log.append("c", event("1"))];
        let results = futures_util::future::join_all(both).await;
        assert_eq!(results[2], Err(LogError::TooManyChannels(2)));
        assert_eq!(results[0].as_ref().map(|appended| appended.place.sequence), Ok(1));
        assert_eq!(append(log, "a", event("2")).await.place.sequence, 2);
    })
    .await;
}

// S5. Asking for names leaves nothing behind.
#[tokio::test]
async fn channels_that_nobody_uses_cost_nothing_that_stays() {
    check_with_null(async |log| {
        let held = log.channel("held").expect("a channel");
        let weak: Vec<_> = (0..100_000)
            .map(|n| Arc::downgrade(&log.channel(&format!("c{n}")).expect("a channel")))
            .collect();
        let alive = weak.iter().filter(|channel| channel.strong_count() > 0).count();
        assert!(alive < 200, "{alive} channels are still there");
        // One in use was not replaced by another of the same name.
        assert!(Arc::ptr_eq(&held, &log.channel("held").expect("a channel")));
    })
    .await;
}

// Many publishers share a sync: far fewer than one each, or this would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_publishers_are_stored_each_once() {
    check_with_null(async |log| {
        let appends = (0..1000).map(|n| log.append("a", keyed("x", &n.to_string())));
        let mut places: Vec<_> = futures_util::future::join_all(appends)
            .await
            .into_iter()
            .map(|appended| appended.expect("stored").place.sequence)
            .collect();
        places.sort_unstable();
        assert_eq!(places, (1..=1000).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn several_events_are_stored_together_or_not_at_all() {
    check(Retention { keys_max: 10, ..Retention::default() }, async |log| {
        let all = log.append_all("a", vec![event("1"), keyed("2", "k"), event("3")]).await.expect("stored");
        assert_eq!(all.iter().map(|appended| appended.place.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        let again = log.append_all("a", vec![keyed("2", "k"), event("4")]).await.expect("stored");
        assert_eq!(again.iter().map(|appended| appended.duplicate).collect::<Vec<_>>(), [true, false]);
        assert_eq!(again[0].place, all[1].place);
        assert_eq!(log.append_all("a", vec![]).await, Ok(vec![]));
        // One that cannot be is the end of those behind it, in every log.
        let wrong = vec![keyed("other", "k"), event("5")];
        assert_eq!(log.append_all("a", wrong).await, Err(LogError::KeyReused));
        assert_eq!(append(log, "a", event("5")).await.place.sequence, 5);
    })
    .await;
    // And of those before it, where the log has transactions.
    let dir = tempfile::tempdir().expect("a folder");
    let redb = RedbLog::open(dir.path(), RedbOptions::default()).expect("a log");
    for log in [&redb as &dyn EventLog, &MemoryLog::new(Retention::default())] {
        append(log, "a", keyed("1", "k")).await;
        let long = NewEvent { name: "x".repeat(129), ..event("3") };
        for (wrong, error) in [
            (vec![event("2"), keyed("other", "k")], LogError::KeyReused),
            (vec![keyed("2", "l"), keyed("3", "l")], LogError::KeyReused),
            (vec![event("2"), long], LogError::InvalidName),
        ] {
            assert_eq!(log.append_all("a", wrong).await, Err(error));
        }
        assert_eq!(append(log, "a", keyed("2", "l")).await.place.sequence, 2);
    }
    let before = redb.commits();
    redb.append_all("a", (0..100).map(|_| event("x")).collect()).await.expect("stored");
    assert_eq!(redb.commits(), before + 1);
}

// T9, E17
#[tokio::test]
async fn a_log_of_the_apps_own_serves_streams() {
    use server_support::{ask, get, resume};
    let log = server_support::own_log::OwnLog::new(Retention { events_max: 3, ..Retention::default() });
    let hub = Hub::new(Arc::new(log), StreamOptions::default());
    let router = hub.router();
    let mut live = ask(&router, get("/stream/a")).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        let message = Message::text("n", n.to_string()).idempotency_key(n.to_string());
        ids.push(hub.publisher().publish("a", message).await.expect("published").id);
        assert_eq!(live.event().await.expect("an event").id.as_ref(), ids.last());
    }
    let mut late = ask(&router, resume("/stream/a", &ids[2])).await;
    assert_eq!(late.sequences(2).await, [4, 5]);
    let mut late = ask(&router, resume("/stream/a", &ids[0])).await;
    assert_eq!(late.named("control.cannot_resume").await.payload()["missing"], 1);
    assert_eq!(late.sequences(3).await, [3, 4, 5]);
}
