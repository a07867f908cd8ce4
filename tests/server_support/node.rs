//! A server of several on one Redis, in this process.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use holdfast_sse::server::{
    EventLog, Hub, LogError, Message, PublishError, RedisLog, RedisOptions, StreamOptions,
};
use serde_json::Value;

use super::redis::Redis;
use super::{Reader, ask, get, resume};

/// One of several servers on a Redis.
pub struct Node {
    pub hub: Hub,
    pub router: Router,
    pub log: Arc<RedisLog>,
}

impl Node {
    pub async fn start(redis: &Redis) -> Self {
        Self::at(redis.url()).await
    }

    pub async fn at(url: String) -> Self {
        Self::with(RedisOptions { command_ms_max: 2_000, retry_ms_max: 200, ..RedisOptions::new(url) }).await
    }

    pub async fn with(options: RedisOptions) -> Self {
        let log = Arc::new(RedisLog::open(options).await.expect("a log"));
        let streams = StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() };
        let hub = Hub::new(Arc::clone(&log) as Arc<dyn EventLog>, streams);
        Self { router: hub.router(), hub, log }
    }

    pub async fn try_publish(&self, text: &str, key: &str) -> Result<String, PublishError> {
        let message = Message::text("n", text).idempotency_key(key);
        self.hub.publisher().publish("a", message).await.map(|published| published.id)
    }

    /// Publishes as a publisher does: again under the same key until it is acknowledged.
    pub async fn publish(&self, n: u64) -> String {
        let acknowledged = async {
            loop {
                match self.try_publish(&n.to_string(), &format!("k{n}")).await {
                    Ok(id) => return id,
                    Err(PublishError::Log(LogError::Storage(_))) => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), acknowledged).await.expect("acknowledged within 30 s")
    }

    pub async fn listen(&self) -> Reader {
        let mut reader = ask(&self.router, get("/stream/a")).await;
        reader.named("control.open").await;
        reader
    }

    /// What a client hears that comes back with a cursor: why it cannot resume, where that is so.
    pub async fn resume(&self, cursor: &str) -> (Reader, Option<Value>) {
        let mut reader = ask(&self.router, resume("/stream/a", cursor)).await;
        reader.named("control.open").await;
        let next = tokio::time::timeout(Duration::from_millis(200), reader.any()).await;
        let refused = match next {
            Ok(Ok(event)) if event.name == "control.cannot_resume" => Some(event.payload()),
            Ok(Ok(event)) if event.name == "control.replay_start" => {
                assert_eq!(event.payload()["reason"], "no_replay_needed");
                reader.named("control.replay_end").await;
                None
            }
            Ok(Ok(event)) => panic!("expected a refusal, or that nothing is missing: {event:?}"),
            _ => None,
        };
        (reader, refused)
    }
}

pub async fn texts(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(reader.event().await.expect("one more event").data);
    }
    texts
}

pub fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
