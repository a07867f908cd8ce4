//! Channels by the ids of an app's own things: `comments:<id>:live`, say. (S1)

use axum::http::request::Parts;
use axum::response::Response;

use super::hub::Hub;
use super::log::LogError;
use super::publisher::{Message, PublishError, Published};

/// Names the channels of one kind of thing: `<prefix>:<id>:<suffix>`, without what is empty.
///
/// ```
/// # use std::sync::Arc;
/// # use holdfast_sse::server::{Channels, Hub, MemoryLog, StreamOptions};
/// # let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
/// let comments = Channels::new(&hub, "comments", "live");
/// assert_eq!(comments.get("7").name(), "comments:7:live");
/// ```
#[derive(Debug, Clone)]
pub struct Channels {
    hub: Hub,
    prefix: String,
    suffix: String,
}

impl Channels {
    /// Channels of `hub`. An empty prefix or suffix is left out, with its colon.
    #[must_use]
    pub fn new(hub: &Hub, prefix: impl Into<String>, suffix: impl Into<String>) -> Self {
        Self { hub: hub.clone(), prefix: prefix.into(), suffix: suffix.into() }
    }

    /// The channel of one thing. Nothing is made by it: a channel begins with its first event, and what nobody uses is
    /// not kept.
    #[must_use]
    pub fn get(&self, id: &str) -> ChannelHandle {
        let parts = [self.prefix.as_str(), id, self.suffix.as_str()];
        let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
        ChannelHandle { hub: self.hub.clone(), name }
    }
}

/// One channel of a hub.
#[derive(Debug, Clone)]
pub struct ChannelHandle {
    hub: Hub,
    name: String,
}

impl ChannelHandle {
    pub(crate) fn new(hub: &Hub, name: &str) -> Self {
        Self { hub: hub.clone(), name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes to it.
    ///
    /// # Errors
    /// As [`Publisher::publish`](super::Publisher::publish).
    pub async fn publish(&self, message: Message) -> Result<Published, PublishError> {
        self.hub.publisher().publish(&self.name, message).await
    }

    /// Publishes JSON under the name `message`, which plain `EventSource` clients give to `onmessage`.
    ///
    /// # Errors
    /// As [`ChannelHandle::publish`].
    pub async fn send(&self, data: &serde_json::Value) -> Result<Published, PublishError> {
        self.publish(Message::text("message", data.to_string())).await
    }

    /// Forgets it, as [`Hub::remove`] does.
    ///
    /// # Errors
    /// As [`Hub::remove`].
    pub async fn remove(&self) -> Result<(), LogError> {
        self.hub.remove(&self.name).await
    }

    /// Answers a request with the channel's stream.
    pub async fn stream(&self, request: &Parts) -> Response {
        self.hub.stream(&self.name, request).await
    }

    /// How many streams of this process listen to it: see [`Hub::session_count`].
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.hub.session_count(&self.name)
    }
}
