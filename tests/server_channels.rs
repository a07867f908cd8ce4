//! One stream of several channels, as the wire and as the real client core see it.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod client_support;
mod server_support;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use client_support::{Scenario, exact};
use holdfast_sse::client::Config;
use holdfast_sse::server::{EventLog, Hub, MemoryLog, Message, Retention, SendError, StreamOptions};
use http_body_util::BodyExt;
use serde_json::json;
use server_support::{ask, get, resume};
use tower::ServiceExt;

fn hub(retention: Retention, options: StreamOptions) -> (Hub, Router, String) {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(retention));
    let epoch = log.epoch(0).expect("an epoch").to_string();
    let hub = Hub::new(log, StreamOptions { heartbeat_ms: 0, ..options });
    let router = hub.router();
    (hub, router, epoch)
}

async fn publish(hub: &Hub, channel: &str, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        let message = Message::text("n", format!("{channel}{n}"));
        hub.channel(channel).publish(message).await.expect("published");
    }
}

// E8, S12
#[tokio::test]
async fn ids_name_their_event_first_and_then_the_place_in_every_other_channel() {
    let (hub, router, epoch) = hub(Retention::default(), StreamOptions::default());
    let e = epoch.as_str();
    publish(&hub, "a", 1..=2).await;
    publish(&hub, "b,1", 1..=1).await;
    let path = "/stream?channel=a&channel=b,1&channel=a&from=start";
    let mut reader = ask(&router, get(path)).await;
    let open = reader.any().await.expect("the handshake").payload();
    assert_eq!(open["channels"], json!(["a", "b,1"]));
    assert_eq!(open["position"], format!("a:{e}-0,b%2C1:{e}-0"));
    assert_eq!(open["replayable"], true);
    for channel in ["a", "b,1"] {
        let start = reader.named("control.replay_start").await.payload();
        assert_eq!(start["channel"], channel);
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        let event = reader.event().await.expect("a stored event");
        ids.push((event.data, event.id.expect("an id")));
    }
    let expected = [
        ("a1", format!("a:{e}-1,b%2C1:{e}-0")),
        ("a2", format!("a:{e}-2,b%2C1:{e}-0")),
        ("b,11", format!("b%2C1:{e}-1,a:{e}-2")),
    ];
    // Pages are whole: the second id of a page tells of the same place of the others.
    assert_eq!(ids, expected.map(|(data, id)| (data.to_owned(), id)));
    publish(&hub, "b,1", 2..=2).await;
    publish(&hub, "c", 1..=1).await;
    let live = reader.event().await.expect("a live event");
    assert_eq!(live.id, Some(format!("b%2C1:{e}-2,a:{e}-2")));
    assert!(reader.quiet(20).await, "of no other channel");
    // One channel is what it always was.
    let mut reader = ask(&router, get("/stream?channel=a&from=start")).await;
    assert_eq!(reader.event().await.expect("an event").id, Some(format!("{e}-1")));
}

#[tokio::test]
async fn each_channel_is_resumed_by_its_part() {
    let (hub, router, e) = hub(Retention { events_max: 5, ..Retention::default() }, StreamOptions::default());
    publish(&hub, "a", 1..=10).await;
    publish(&hub, "b", 1..=4).await;
    let check = async |cursor: String, refused: &[(&str, &str)], expected: &[&str]| {
        let mut reader = ask(&router, resume("/stream?channel=a&channel=b", &cursor)).await;
        assert_eq!(reader.any().await.expect("the handshake").name, "control.open");
        let (mut told, mut got) = (Vec::new(), Vec::new());
        while got.len() < expected.len() || told.len() < refused.len() {
            let event = reader.any().await.expect("more");
            if event.name == "control.cannot_resume" {
                let payload = event.payload();
                let text = |field: &str| payload[field].as_str().expect("text").to_owned();
                let channel = text("channel");
                assert!(text("position").starts_with(&format!("{channel}:")), "{payload}");
                told.push((channel, text("code")));
            } else if !event.is_control() {
                got.push(event.data);
            }
        }
        let told: Vec<_> = told.iter().map(|told| (told.0.as_str(), told.1.as_str())).collect();
        assert_eq!(
            (told.as_slice(), got),
            (refused, expected.iter().map(|&e| e.to_owned()).collect()),
            "{cursor}"
        );
    };
    check(format!("a:{e}-8,b:{e}-2"), &[], &["a9", "a10", "b3", "b4"]).await;
    check(format!("b:{e}-4,a:{e}-9"), &[], &["a10"]).await;
    let all_a = ["a6", "a7", "a8", "a9", "a10"];
    check(format!("a:{e}-3,b:{e}-4"), &[("a", "buffer_expired")], &all_a).await;
    check(format!("a:other-3,b:{e}-3"), &[("a", "event_not_found")], &[&all_a[..], &["b4"]].concat()).await;
    // A channel that the cursor does not name is new here, and begins with now.
    check(format!("b:{e}-3"), &[], &["b4"]).await;
    let both = [("a", "invalid_event_id"), ("b", "invalid_event_id")];
    check(format!("{e}-3"), &both, &[&all_a[..], &["b1", "b2", "b3", "b4"]].concat()).await;
}

#[tokio::test]
async fn the_number_of_channels_is_bounded() {
    let options = StreamOptions { channels_per_stream_max: 3, ..StreamOptions::default() };
    let (hub, router, _) = hub(Retention::default(), options);
    for (path, code) in [
        ("/stream?channel=a&channel=b&channel=c&channel=d", "channels_per_stream"),
        ("/stream?channel=a&channel=", "invalid_channel"),
        ("/stream?channel=a&channel=%0A", "invalid_channel"),
    ] {
        let (status, body) = server_support::json(&router, get(path)).await;
        assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some(code)), "{path}");
    }
    let (parts, ()) = Request::get("/").body(()).expect("a request").into_parts();
    let (stream, _response) = hub.open(&["a", "b"], &parts).await.expect("opened");
    assert_eq!(stream.listen("c"), Ok(true));
    assert_eq!(stream.listen("c"), Ok(false));
    assert!(matches!(stream.listen("d"), Err(SendError::Refused("channels_per_stream", _))));
    assert!(matches!(stream.listen("\n"), Err(SendError::Refused("invalid_channel", _))));
    assert_eq!(hub.active_channels(), 3);
}

// What a stream may listen to has a cursor that the server takes back.
#[tokio::test]
async fn channels_without_a_cursor_are_refused() {
    let limits =
        |channels_per_stream_max| StreamOptions { channels_per_stream_max, ..StreamOptions::default() };
    let (parts, ()) = Request::get("/").body(()).expect("a request").into_parts();
    // No option goes beyond what a cursor holds.
    let (hub, router, _) = hub(Retention::default(), limits(1_000));
    let (stream, response) = hub.open(&[], &parts).await.expect("opened");
    for n in 0..64 {
        assert_eq!(stream.listen(&format!("c{n}")), Ok(true));
    }
    assert!(matches!(stream.listen("c64"), Err(SendError::Refused("channels_per_stream", _))));
    drop(response);
    // 128 bytes of what is written as three times as much in a cursor.
    let name = |n: usize| format!("{n:02}{}", "é".repeat(63));
    let (stream, response) = hub.open(&[], &parts).await.expect("opened");
    let mut names: Vec<String> = Vec::new();
    let refused = loop {
        match stream.listen(&name(names.len())) {
            Ok(_) => names.push(name(names.len())),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), "cursor_too_long");
    assert!(refused.to_string().contains("8192 bytes"), "{refused}");
    assert!((10..64).contains(&names.len()), "{}", names.len());
    assert_eq!(stream.stats().channels.len(), names.len());
    // The cursor of those that were taken goes back in.
    let mut reader = server_support::Reader::new(response);
    for _ in &names {
        reader.named("control.listen").await;
    }
    for name in &names {
        publish(&hub, name, 1..=1).await;
    }
    let mut cursor = String::new();
    for _ in &names {
        cursor = reader.event().await.expect("an event").id.expect("an id");
    }
    let mut again = resume("/", &cursor).into_parts().0;
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_, response) = hub.open(&listed, &again).await.expect("opened");
    let mut reader = server_support::Reader::new(response);
    reader.named("control.open").await;
    for _ in &names {
        assert_eq!(reader.any().await.expect("a word").payload()["reason"], "no_replay_needed");
        reader.named("control.replay_end").await;
    }
    // By the query, too.
    let query: Vec<String> = (0..names.len() + 1)
        .map(|n| format!("channel={}", holdfast_sse::wire::id::escape_channel(&name(n))))
        .collect();
    again.uri = format!("/stream?{}", query.join("&")).parse().expect("an address");
    let (status, body) = server_support::json(&router, Request::from_parts(again, Body::empty())).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("cursor_too_long")));
}

// E7: ids of the app's own say nothing of channels.
#[tokio::test]
async fn a_stream_opened_for_no_channel_listens_whatever_its_client_last_saw() {
    let (hub, _, e) = hub(Retention::default(), StreamOptions::default());
    publish(&hub, "a", 1..=2).await;
    for (cursor, first) in [
        ("7".to_owned(), "anew"),
        (format!("{e}-1"), "anew"),
        ("job:7".to_owned(), "anew"),
        (format!("b:{e}-1"), "anew"),
        (format!("a:{e}-1"), "a2"),
    ] {
        let (stream, response) = hub.open(&[], &resume("/", &cursor).into_parts().0).await.expect("opened");
        assert!(stream.stats().resumed);
        stream.listen("a").expect("listens");
        let mut reader = server_support::Reader::new(response);
        reader.named("control.listen").await;
        hub.channel("a").publish(Message::text("n", "anew")).await.expect("published");
        loop {
            let event = reader.any().await.expect("more");
            assert_ne!(event.name, "control.cannot_resume", "{cursor}");
            if !event.is_control() {
                assert_eq!(event.data, first, "{cursor}");
                break;
            }
        }
    }
}

/// The real core, fed with what the real server sends.
struct Page {
    router: Router,
    path: &'static str,
    core: Scenario,
    body: Body,
}

impl Page {
    async fn open(router: &Router, path: &'static str, config: Config) -> Self {
        let mut core = Scenario::new(config);
        core.connect();
        let mut page = Self { router: router.clone(), path, core, body: Body::empty() };
        page.answer().await;
        page
    }

    /// Sends the core's present request.
    async fn answer(&mut self) {
        let request = match self.core.asked_from() {
            "" => get(self.path),
            cursor => resume(self.path, cursor),
        };
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        self.body = response.into_body();
        self.core.accept();
    }

    /// Feeds one chunk, cut off after `keep` bytes where that is given: the connection is lost there.
    async fn chunk(&mut self, keep: Option<usize>) {
        let frame = self.body.frame().await.expect("a stream").expect("whole");
        let bytes = frame.into_data().expect("data");
        let keep = keep.unwrap_or(bytes.len()).min(bytes.len());
        self.core.bytes(&bytes[..keep]);
    }

    async fn lose(&mut self) {
        self.body = Body::empty();
        self.core.fail().until_request();
        self.answer().await;
    }
}

#[tokio::test]
async fn the_clients_core_gets_each_event_of_every_channel_once_and_in_order() {
    let page_limit = holdfast_sse::server::log::PageLimit { events_max: 3, bytes_max: 4096 };
    let options = StreamOptions { page: page_limit, debug_routes: true, ..StreamOptions::default() };
    let (hub, router, _) = hub(Retention::default(), options);
    let channels = ["a", "b", "é/c"];
    let path = "/stream?channel=a&channel=b&channel=%C3%A9/c&from=start";
    let mut page = Page::open(&router, path, exact()).await;
    let mut published: HashMap<&str, u64> = HashMap::new();
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..400 {
        let channel = channels[usize::try_from(random(3)).expect("small")];
        let n = published.entry(channel).or_default();
        let first = *n + 1;
        *n += 1 + random(5);
        publish(&hub, channel, first..=*n).await;
        match random(8) {
            0 => {
                let keep = usize::try_from(random(200)).expect("small");
                page.chunk(Some(keep)).await;
                page.lose().await;
            }
            1 => page.lose().await,
            2 => {
                let path = if random(2) == 0 { "/debug/repeat?count=4" } else { "/debug/swap" };
                let order = Request::post(path).body(Body::empty()).expect("a request");
                assert_eq!(ask(&router, order).await.status, StatusCode::OK);
                page.chunk(None).await;
            }
            _ => page.chunk(None).await,
        }
    }
    // A swapped event may wait for the next one of any channel.
    for channel in channels {
        let n = published.entry(channel).or_default();
        publish(&hub, channel, *n + 1..=*n + 2).await;
        *n += 2;
    }
    let total: u64 = published.values().sum();
    while (page.core.events.len() as u64) < total {
        page.chunk(None).await;
    }
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for data in page.core.delivered() {
        let channel = channels.into_iter().find(|channel| data.starts_with(channel)).expect("one of ours");
        let n = seen.entry(channel).or_default();
        *n += 1;
        assert_eq!(data, format!("{channel}{n}"), "once and in order");
    }
    assert_eq!(seen, published);
    assert!(page.core.gaps().is_empty());
    // The next page of the same visitor goes on exactly there.
    let record = page.core.take_commits().pop().expect("a stored cursor");
    let mut next = Page { core: Scenario::new(exact()).restoring(&record.cursor, &[]), ..page };
    next.core.connect();
    next.answer().await;
    publish(&hub, "b", published["b"] + 1..=published["b"] + 1).await;
    while next.core.events.is_empty() {
        next.chunk(None).await;
    }
    assert_eq!(next.core.delivered(), [format!("b{}", published["b"] + 1)]);
}

// E7, E9: a stream takes up channels while it runs, and the core follows.
#[tokio::test]
async fn a_handler_adds_channels_and_takes_them_away() {
    let (hub, _, _) = hub(Retention::default(), StreamOptions::default());
    publish(&hub, "a", 1..=2).await;
    let mut core = Scenario::new(exact());
    core.connect();
    let request = |cursor: &str| resume("/", cursor).into_parts().0;
    let (stream, response) = hub.open(&[], &request("")).await.expect("opened");
    core.accept();
    let mut body = response.into_body();
    let feed = async |core: &mut Scenario, body: &mut Body, count: usize| {
        while core.events.len() < count {
            let bytes = body.frame().await.expect("a stream").expect("whole").into_data().expect("data");
            core.bytes(&bytes);
        }
    };
    assert_eq!((stream.listen("a"), stream.listen("b")), (Ok(true), Ok(true)));
    assert_eq!(hub.session_count("a"), 1);
    // An order is carried out when the client reads: what is published before that is not in it.
    stream.send(Message::text("direct", "ready")).expect("sent");
    feed(&mut core, &mut body, 1).await;
    publish(&hub, "a", 3..=3).await;
    publish(&hub, "b", 1..=1).await;
    feed(&mut core, &mut body, 3).await;
    let mut delivered = core.delivered();
    delivered[1..].sort();
    assert_eq!(delivered, ["ready", "a3", "b1"]);
    assert_eq!(stream.unlisten("b"), Ok(true));
    assert_eq!((stream.unlisten("b"), hub.session_count("b"), hub.active_channels()), (Ok(false), 0, 1));
    publish(&hub, "b", 2..=2).await;
    publish(&hub, "a", 4..=4).await;
    feed(&mut core, &mut body, 1).await;
    assert_eq!(core.delivered(), ["a4"]);
    // It comes back: the handler listens again, and the cursor tells from where.
    drop(body);
    publish(&hub, "a", 5..=6).await;
    core.end().until_request();
    let cursor = core.asked_from().to_owned();
    let (stream, response) = hub.open(&[], &request(&cursor)).await.expect("opened");
    assert!(stream.stats().resumed);
    stream.listen("a").expect("listens");
    core.accept();
    let mut body = response.into_body();
    feed(&mut core, &mut body, 2).await;
    assert_eq!(core.delivered(), ["a5", "a6"]);
}
