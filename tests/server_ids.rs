//! What an app makes and reads itself: ids, traces, log lines.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Request;
use axum::http::request::Parts;
use futures_util::future::{BoxFuture, FutureExt, ready};
use holdfast_sse::server::log::{Appended, Bounds, Channel, Frame, NewEvent, PageLimit, Place};
use holdfast_sse::server::logging::{self, LogFormat, LogLevel, LogOptions, LogQueue};
use holdfast_sse::server::{
    CorrelationContext, EventId, EventLog, Hub, LogError, MemoryLog, Message, StreamOptions,
    generate_stream_id, trace_id,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

// K17
#[test]
fn event_ids_are_made_checked_and_dated() {
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis());
    let before = now().expect("small");
    let ids: Vec<EventId> = (0..2000).map(|_| EventId::generate()).collect();
    let after = now().expect("small");
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "the kit's ids were not monotonic");
    assert!(ids.windows(2).all(|pair| pair[0].to_string() < pair[1].to_string()));
    for id in &ids {
        assert_eq!(id.to_string().parse(), Ok(*id));
        assert!((before..=after).contains(&id.unix_ms()), "{before} {id} {after}");
    }
    assert_eq!(
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().map(|id: EventId| id.unix_ms()),
        Ok(0x017f_22e2_79b0)
    );
    for wrong in [
        "",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-18c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
    ] {
        assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Parts {
    let request =
        headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(()).expect("a request").into_parts().0
}

// K28
#[test]
fn traces_are_found_in_the_usual_places_in_their_order() {
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for (path, headers, found) in [
        ("/", &[][..], None),
        ("/?trace_id=q", &[], Some("q")),
        ("/?trace_id=q", &[parent], Some("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("/?trace_id=q", &[parent, ("x-request-id", "r")], Some("r")),
        ("/?trace_id=q", &[parent, ("x-request-id", "r"), ("x-trace-id", "t")], Some("t")),
        ("/?trace_id=q", &[("x-trace-id", ""), ("x-request-id", "a b")], Some("q")),
        ("/?trace_id=a%0Ab", &[], None),
    ] {
        let parts = request(path, headers);
        assert_eq!(trace_id(&parts).as_deref(), found, "{path} {headers:?}");
        assert_eq!(CorrelationContext::of(&parts).trace_id.as_deref(), found);
    }
    let long = "t".repeat(129);
    assert_eq!(trace_id(&request("/", &[("x-trace-id", &long[..128])])).as_deref(), Some(&long[..128]));
    assert_eq!(trace_id(&request("/", &[("x-trace-id", &long)])), None);
    let ids: HashSet<String> = (0..1000).map(|_| generate_stream_id()).collect();
    assert_eq!(ids.len(), 1000);
    for id in &ids {
        let parts: Vec<&str> = id.split('-').collect();
        let base36 = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        assert!(
            parts.len() == 3 && parts[0] == "stream" && parts[1..].iter().all(|part| base36(part)),
            "{id}"
        );
    }
}

/// What was written, for a queue that writes into memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(options: &LogOptions, say: impl FnOnce()) -> String {
    let memory = Memory::default();
    let queue = LogQueue::to(memory.clone(), 100, logging::dropped_as_json);
    let subscriber = tracing_subscriber::registry().with(logging::layer(options, queue.clone()));
    tracing::subscriber::with_default(subscriber, say);
    assert!(queue.flush(Duration::from_secs(60)));
    let bytes = memory.0.lock().expect("whole").clone();
    String::from_utf8(bytes).expect("text")
}

/// A log whose disk is broken.
struct Unreadable(MemoryLog);

impl EventLog for Unreadable {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        self.0.append(channel, event)
    }
    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.0.channel(name)
    }
    fn bounds<'a>(&'a self, _: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        ready(Err(LogError::Storage("broken".to_owned()))).boxed()
    }
    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        self.0.page(channel, after, limit)
    }
    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.0.epoch(generation)
    }
    fn generation(&self, epoch: &str) -> Option<u32> {
        self.0.generation(epoch)
    }
    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.0.begin_epoch()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
    fn durable(&self) -> bool {
        false
    }
}

// K26, K27: what a hub says of streams that did not go well.
#[test]
fn failures_have_lines_of_their_own() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let options =
        StreamOptions { heartbeat_ms: 1000, replay_events_max: Some(1), ..StreamOptions::default() };
    let text = logged(&LogOptions::default(), || {
        runtime.block_on(async {
            let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), options.clone());
            let first = hub.channel("a").publish(Message::text("n", "1")).await.expect("published");
            for n in 2..=4 {
                hub.channel("a").publish(Message::text("n", n.to_string())).await.expect("published");
            }
            let resuming = request("/", &[("last-event-id", &first.id)]);
            let mut body = hub.stream("a", &resuming).await.into_body();
            body.frame().await.expect("the beginning").expect("whole");
            tokio::time::sleep(Duration::from_secs(5)).await;
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.into_data().expect("data");
                if String::from_utf8_lossy(&bytes).contains("system.heartbeat") {
                    break;
                }
            }
            drop(body);
            let hub = Hub::new(Arc::new(Unreadable(MemoryLog::new(Default::default()))), options);
            assert_eq!(hub.stream("a", &resuming).await.status(), 503);
        });
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let line = |event: &str| {
        let found = lines.iter().find(|line| line["event"] == event);
        found.unwrap_or_else(|| panic!("no {event} in {text}"))
    };
    assert_eq!(line("heartbeat.failed")["component"], "heartbeat");
    let truncated = line("replay.truncated");
    assert_eq!((&truncated["details"]["events"], &truncated["details"]["available"]), (&json!(1), &json!(3)));
    assert_eq!(line("resume.failure")["details"]["code"], "server_error");
}

// K27: the log of an app of its own.
#[test]
fn an_app_logs_lines_of_known_keys_without_secrets() {
    let options =
        LogOptions { targets: vec!["app".to_owned()], level: LogLevel::Info, ..LogOptions::default() };
    let say = || {
        tracing::info!(target: "app", event = "stream.open", stream_id = "s-1", api_key = "hunter2", n = 7, "hello");
        tracing::warn!(target: "app::inner", address = "https://a.example/?token=hunter2");
        tracing::debug!(target: "app", event = "too.quiet");
        tracing::error!(target: "library", event = "not.ours", line = "GET /?token=hunter2");
        tracing::info!(target: "holdfast_sse::heartbeat", event = "heartbeat.sent");
    };
    let text = logged(&options, say);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let details = json!({ "api_key": "[REDACTED]", "n": 7 });
    let fields = ["level", "component", "event", "message", "stream_id"].map(|name| lines[0][name].as_str());
    assert_eq!(fields, [Some("info"), Some("stream"), Some("stream.open"), Some("hello"), Some("s-1")]);
    assert_eq!(lines[0]["details"], details);
    assert_eq!(lines[1]["details"]["address"], "https://a.example/?[REDACTED]");
    assert!(!text.contains("hunter2"));
    assert_eq!(logging::redact("http://u:p@h/?q"), "http://[REDACTED]@h/?[REDACTED]");
    assert!(logging::is_secret("X-Api-Key") && !logging::is_secret("peer"));

    let text = logged(&LogOptions { format: LogFormat::Text, heartbeats: true, ..options }, say);
    assert!(text.contains(" info  stream.open hello stream_id=s-1 api_key=\"[REDACTED]\" n=7\n"), "{text}");
    assert!(text.contains("heartbeat.sent"), "{text}");
}
