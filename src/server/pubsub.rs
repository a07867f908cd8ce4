//! Messages between the processes that share a log. (E16)

use serde::Deserialize;
use serde_json::Value;

use super::clock;
use super::hub::Hub;
use super::log::LogError;
use super::options::Beginning;
use super::publisher::{Message, PublishError};
use super::subscribe::{Delivery, Events, Since};

/// The name of the events that carry messages.
const NAME: &str = "pubsub";

/// A subject to which processes on one log send JSON, each to all others: over Redis between machines, over the other logs
/// within one process. Messages are stored as any events of the channel `subject` are.
///
/// ```
/// use std::sync::Arc;
/// use holdfast_sse::server::{Hub, MemoryLog, PubSub, Received, StreamOptions};
/// use serde_json::json;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
/// let one = PubSub::open(&hub, "cache").await.unwrap();
/// let mut other = PubSub::open(&hub, "cache").await.unwrap();
/// one.send(&json!({ "invalidate": 7 })).await.unwrap();
/// assert_eq!(other.receive().await, Ok(Received::Message(json!({ "invalidate": 7 }))));
/// # });
/// ```
#[derive(Debug)]
pub struct PubSub {
    hub: Hub,
    subject: String,
    /// Who we are, so that we know our own messages.
    from: String,
    /// `None` once it is closed.
    events: Option<Events>,
}

/// What came from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(Value),
    /// Messages were deleted before we read them; how many, where that is known.
    Missed(Option<u64>),
}

#[derive(Deserialize)]
struct Sent {
    from: String,
    message: Value,
}

impl PubSub {
    /// Takes part from now on. `subject` is the name of a channel.
    ///
    /// # Errors
    /// The name is not one, or the log cannot be read.
    pub async fn open(hub: &Hub, subject: &str) -> Result<Self, LogError> {
        let events = hub.subscribe(subject, Since::Fresh(Beginning::Now)).await?;
        let (hub, subject) = (hub.clone(), subject.to_owned());
        Ok(Self { hub, subject, from: clock::named_id("peer"), events: Some(events) })
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Sends a message to all others.
    ///
    /// # Errors
    /// As publishing; [`LogError::Closed`] once it is closed.
    pub async fn send(&self, message: &Value) -> Result<(), PublishError> {
        if self.events.is_none() {
            return Err(LogError::Closed.into());
        }
        let sent = serde_json::json!({ "from": self.from, "message": message });
        self.hub.publisher().publish(&self.subject, Message::text(NAME, sent.to_string())).await.map(drop)
    }

    /// The next message of another one. Safe to cancel. What was published to the channel otherwise is passed over.
    ///
    /// # Errors
    /// The log cannot be read; [`LogError::Closed`] once it is closed.
    pub async fn receive(&mut self) -> Result<Received, LogError> {
        let events = self.events.as_mut().ok_or(LogError::Closed)?;
        loop {
            match events.next().await? {
                Delivery::CannotResume(gap) => return Ok(Received::Missed(gap.missing)),
                Delivery::Event(event) if event.name == NAME => match serde_json::from_str(&event.data) {
                    Ok(Sent { from, message }) if from != self.from => {
                        return Ok(Received::Message(message));
                    }
                    _ => {}
                },
                Delivery::Event(_) => {}
            }
        }
    }

    /// Takes no more part. Idempotent; dropping it does the same.
    pub fn close(&mut self) {
        self.events = None;
    }
}
