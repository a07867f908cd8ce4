//! Many listeners of one channel: what is written past their tasks is what they would have read themselves.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Response;
use futures_util::{StreamExt, stream};
use holdfast_sse::server::{
    CloseReason, EventLog, Hub, ListenOptions, Listener, MemoryLog, Message, Retention, StreamOptions,
};
use http_body_util::BodyExt;
use server_support::{End, Random, Reader, get, resume, send};

/// All streams that have nothing to read are written to past their tasks.
fn options() -> StreamOptions {
    StreamOptions { fanout_listeners_min: 1, connections_max: 10_000, ..StreamOptions::default() }
}

/// A hub on a port, and its log.
struct Site {
    hub: Hub,
    log: Arc<MemoryLog>,
    address: String,
}

impl Site {
    async fn start(options: StreamOptions) -> Self {
        Self::with(options, |router| router).await
    }

    async fn with(options: StreamOptions, around: impl FnOnce(Router) -> Router) -> Self {
        let log = Arc::new(MemoryLog::new(Retention::default()));
        let hub = Hub::new(Arc::clone(&log) as Arc<dyn EventLog>, options);
        let listener = Listener::bind("127.0.0.1:0", ListenOptions::default()).await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let router = around(hub.router());
        tokio::spawn(listener.serve(router, std::future::pending()));
        Self { hub, log, address }
    }

    /// A stream that has said hello.
    async fn open(&self) -> Reader {
        let mut reader = Reader::new(send(&self.address, get("/stream/a")).await.expect("an answer"));
        reader.named("control.open").await;
        reader
    }

    async fn publish(&self, text: &str) {
        self.hub.publisher().publish("a", Message::text("n", text)).await.expect("published");
    }
}

/// Passes bodies on as they are, and counts what comes by.
fn counted(router: Router, frames: &Arc<AtomicU64>) -> Router {
    let frames = Arc::clone(frames);
    router.layer(axum::middleware::map_response(move |response: Response<Body>| {
        let frames = Arc::clone(&frames);
        async move {
            response.map(|body| {
                Body::from_stream(body.into_data_stream().inspect(move |_| {
                    frames.fetch_add(1, Ordering::Relaxed);
                }))
            })
        }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_listeners_past_their_tasks() {
    let frames = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&frames);
    let site = Site::with(options(), |router| counted(router, &counter)).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(site.open().await);
    }
    for n in 1..=100 {
        site.publish(&n.to_string()).await;
        for reader in &mut readers {
            assert_eq!(reader.event().await.expect("an event").sequence(), n);
        }
    }
    let by_tasks = frames.load(Ordering::Relaxed);
    assert!(by_tasks < 20 * 10, "{by_tasks} chunks took the long way");
    // What went the short way is counted as well.
    for stream in site.hub.streams() {
        assert_eq!(stream.events_sent, 100);
        assert!(stream.bytes_sent > 100 * 20, "{}", stream.bytes_sent);
    }
    let metrics = send(&site.address, get("/metrics")).await.expect("metrics");
    let metrics = metrics.into_body().collect().await.expect("a body").to_bytes();
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains("\nsse_server_events_sent_total 2000\n"), "{metrics}");
}

// Middleware has its say in every event, whatever it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_changed_on_its_way_is_left_alone() {
    let site = Site::with(StreamOptions { heartbeat_ms: 0, ..options() }, |router| {
        router.layer(axum::middleware::map_response(async |response: Response<Body>| {
            response.map(|body| {
                let signed = body
                    .into_data_stream()
                    .map(|chunk| chunk.map(|chunk| [&chunk, &b":signed\n"[..]].concat()));
                Body::from_stream(signed.map(|chunk| chunk.map(Bytes::from)))
            })
        }))
    })
    .await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(
            send(&site.address, get("/stream/a")).await.expect("an answer").into_body().into_data_stream(),
        );
    }
    for n in 1..=20 {
        site.publish(&format!("text {n}")).await;
        for reader in &mut readers {
            let mut text = String::new();
            while !text.contains(&format!("text {n}")) || !text.ends_with(":signed\n") {
                let chunk = tokio::time::timeout(Duration::from_secs(30), reader.next()).await;
                let chunk = chunk.expect("the event, signed").expect("a chunk").expect("no error");
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
        }
    }
}

// What middleware keeps for a while is not overtaken, and what an app adds is not torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_kept_or_joined_on_its_way_stays_whole_and_in_order() {
    let site = Site::with(StreamOptions { heartbeat_ms: 2, ..options() }, |router| {
        router.layer(axum::middleware::map_response(async |response: Response<Body>| {
            response.map(|body| {
                // Another task asks for the chunks, and is ahead of the connection.
                let (sender, receiver) = tokio::sync::mpsc::channel(8);
                let mut chunks = body.into_data_stream();
                tokio::spawn(async move {
                    while let Some(chunk) = chunks.next().await {
                        if sender.send(chunk).await.is_err() {
                            return;
                        }
                    }
                });
                let kept =
                    stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
                let own = stream::unfold(0_u32, async |n| {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let comment = format!(":{}\n\n", "x".repeat(100_000));
                    (n < 50).then(|| (Ok(Bytes::from(comment)), n + 1))
                });
                Body::from_stream(stream::select(kept, own))
            })
        }))
    })
    .await;
    let mut random = Random::seeded();
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(tokio::spawn(read_at_leisure(site.open().await, random.fork(), 300)));
    }
    for _ in 0..300 {
        let size = usize::try_from(random.up_to(20_000)).expect("a size");
        site.publish(&"y".repeat(size)).await;
        for _ in 0..random.up_to(10) {
            tokio::task::yield_now().await;
        }
    }
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), (1..=300).collect::<Vec<_>>());
    }
}

/// Reads a random while, then rests a random while; the numbers of the first `count` events.
async fn read_at_leisure(mut reader: Reader, mut random: Random, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.len() < count {
        let some = usize::try_from(1 + random.up_to(200)).expect("few").min(count - sequences.len());
        sequences.extend(reader.sequences(some).await);
        for _ in 0..random.up_to(400) {
            tokio::task::yield_now().await;
        }
    }
    sequences
}

// Windows close in the middle of chunks, heartbeats come in between, streams come and go, epochs change.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_pace_each_listener_gets_everything_once_and_in_order() {
    let site = Site::start(StreamOptions { heartbeat_ms: 3, ..options() }).await;
    let mut random = Random::seeded();
    let (before, after) = (400, 300);
    let wanted: Vec<u64> = (1..=before).chain(1..=after).collect();
    let mut readers = Vec::new();
    for _ in 0..24 {
        readers.push(tokio::spawn(read_at_leisure(site.open().await, random.fork(), wanted.len())));
    }
    let publish = async |n: u64, random: &mut Random| {
        // Now and then more than a socket takes at once.
        let size = if n.is_multiple_of(7) { 200_000 + random.up_to(400_000) } else { random.up_to(300) };
        site.publish(&"x".repeat(usize::try_from(size).expect("a size"))).await;
        for _ in 0..random.up_to(20) {
            tokio::task::yield_now().await;
        }
    };
    for n in 1..=before {
        publish(n, &mut random).await;
        // Some go away again, in the middle of things.
        if n % 50 == 0 {
            drop(site.open().await);
        }
    }
    site.log.begin_epoch().await.expect("an epoch");
    for n in 1..=after {
        publish(n, &mut random).await;
    }
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_reads_nothing_costs_the_others_nothing() {
    let site = Site::start(options()).await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(site.open().await);
    }
    let mut reader = site.open().await;
    let text = "x".repeat(100_000);
    for n in 1..=200 {
        site.publish(&text).await;
        assert_eq!(reader.event().await.expect("an event").sequence(), n);
    }
    // They read the rest of what was begun, and then the log.
    for mut reader in stuck {
        assert_eq!(reader.sequences(200).await, (1..=200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_newcomers_reach_a_stream_that_others_write_to() {
    let site = Site::start(options()).await;
    let mut reader = site.open().await;
    let mut other = site.open().await;
    let ids: Vec<String> = stream::iter(site.hub.streams()).map(|stream| stream.id).collect().await;
    for n in 1..=10 {
        site.publish("x").await;
        for reader in [&mut reader, &mut other] {
            assert_eq!(reader.event().await.expect("an event").sequence(), n);
        }
        for id in &ids {
            site.hub.send_to(id, Message::text("notice", n.to_string())).expect("sent");
        }
        for reader in [&mut reader, &mut other] {
            assert_eq!(reader.event().await.expect("the notice").data, n.to_string());
        }
    }
    // One that resumes reads the log first, and is written to afterwards.
    site.publish("x").await;
    let last = reader.event().await.expect("an event");
    let id = last.id.expect("an id").replace("-11", "-3");
    let mut late = Reader::new(send(&site.address, resume("/stream/a", &id)).await.expect("an answer"));
    assert_eq!(late.sequences(8).await, (4..=11).collect::<Vec<_>>());
    site.publish("x").await;
    assert_eq!(late.sequences(1).await, [12]);
    for id in &ids {
        site.hub.kick(id, CloseReason::RateLimited);
    }
    reader.named("control.close").await;
    assert_eq!(reader.any().await, Err(End::Clean));
}
