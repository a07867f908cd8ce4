//! A hub in memory without heartbeats, and what its streams say.

use std::sync::Arc;

use axum::Router;
use holdfast_sse::server::{EventLog, Hub, MemoryLog, Message, Retention, StreamOptions};

use super::Reader;

pub fn options() -> StreamOptions {
    StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() }
}

pub fn memory(retention: Retention, options: StreamOptions) -> (Hub, Router, Arc<dyn EventLog>) {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(retention));
    let hub = Hub::new(Arc::clone(&log), options);
    let router = hub.router();
    (hub, router, log)
}

pub fn plain() -> (Hub, Router, Arc<dyn EventLog>) {
    memory(Retention::default(), options())
}

pub async fn publish(hub: &Hub, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        hub.publisher().publish("a", Message::text("n", n.to_string())).await.expect("published");
    }
}

/// Everything that `reader` says up to and with the event named `last`.
pub async fn names_until(reader: &mut Reader, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    while names.last().map(String::as_str) != Some(last) {
        names.push(reader.any().await.expect("one more event").name);
    }
    names
}
