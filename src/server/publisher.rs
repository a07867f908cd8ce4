//! Publishing: from what an app wants to say to an event in the log.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::clock;
use super::hub::Inner;
use super::log::{Appended, Data, KEY_BYTES_MAX, Key, LogError, NAME_BYTES_MAX, NewEvent};
use crate::wire::control;

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Message {
    name: String,
    content: Content,
    key: Option<String>,
}

#[derive(Debug, Clone)]
enum Content {
    /// The payload of an envelope, as JSON.
    Payload(String),
    Text(String),
}

impl Message {
    /// An event whose data is an envelope: `{event_id, type, ts, payload, sequence}`, on one line.
    #[must_use]
    pub fn envelope(event_type: impl Into<String>, payload: &serde_json::Value) -> Self {
        Self { name: event_type.into(), content: Content::Payload(payload.to_string()), key: None }
    }

    /// The same, with a payload that is JSON text already and keeps its spelling.
    #[must_use]
    pub fn envelope_raw(event_type: impl Into<String>, payload: &RawValue) -> Self {
        // Valid JSON has line ends between its tokens only, where they mean nothing.
        let payload = payload.get().replace(['\r', '\n'], " ");
        Self { name: event_type.into(), content: Content::Payload(payload), key: None }
    }

    /// An event whose data is stored verbatim, of any number of lines.
    #[must_use]
    pub fn text(name: impl Into<String>, data: impl Into<String>) -> Self {
        Self { name: name.into(), content: Content::Text(data.into()), key: None }
    }

    /// Makes publishing repeatable: the same message to the same channel under the same key stores nothing the second
    /// time and answers with the first one's id. Another message under the key is [`LogError::KeyReused`].
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    fn into_event(self, event_bytes_max: usize) -> Result<NewEvent, PublishError> {
        check_name(&self.name)?;
        if let Some(key) = &self.key
            && !((1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(PublishError::InvalidKey);
        }
        let (Content::Payload(text) | Content::Text(text)) = &self.content;
        if text.len() > event_bytes_max {
            return Err(PublishError::TooLarge(event_bytes_max));
        }
        let kind = if matches!(self.content, Content::Text(_)) { "text" } else { "payload" };
        let key = self.key.map(|key| Key::new(key, &[kind, &self.name, text]));
        let data = match self.content {
            Content::Text(text) => Data::Text(text),
            Content::Payload(payload) => Data::Numbered {
                before: format!(
                    r#"{{"event_id":"{}","type":{},"ts":"{}","payload":{payload},"sequence":"#,
                    clock::event_id(),
                    serde_json::Value::from(self.name.as_str()),
                    clock::iso(clock::unix_ms()),
                ),
                after: "}".to_owned(),
            },
        };
        Ok(NewEvent { name: self.name, data, key })
    }
}

fn check_name(name: &str) -> Result<(), PublishError> {
    if control::is_reserved(name) {
        return Err(PublishError::ReservedName);
    }
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if valid { Ok(()) } else { Err(PublishError::InvalidName) }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The id under which subscribers see it.
    pub id: String,
    /// Its idempotency key was known: this is the id that the first message got.
    pub duplicate: bool,
}

/// Why a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// The name begins with a prefix that belongs to the protocol.
    ReservedName,
    /// The name is empty, too long or holds a control character.
    InvalidName,
    /// The idempotency key is empty, too long or not visible ASCII.
    InvalidKey,
    /// The data is larger than the given limit, in bytes.
    TooLarge(usize),
    /// The log refused or failed.
    Log(LogError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedName => {
                write!(
                    f,
                    "event names that begin with {} belong to the protocol",
                    control::RESERVED_PREFIXES.join(" or ")
                )
            }
            Self::InvalidName => {
                write!(f, "an event's name takes 1 to {NAME_BYTES_MAX} bytes without control characters")
            }
            Self::InvalidKey => {
                write!(f, "an idempotency key takes 1 to {KEY_BYTES_MAX} visible ASCII characters")
            }
            Self::TooLarge(max) => write!(f, "an event takes at most {max} bytes"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

impl From<LogError> for PublishError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Publishes to the channels of a hub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(super) hub: Arc<Inner>,
}

impl Publisher {
    /// Stores a message in a channel; the channel begins with its first message. The answer comes when the log
    /// has it as safe as it makes things, on disk for a durable one.
    ///
    /// # Errors
    /// See [`PublishError`]. After [`LogError::Closed`] or [`LogError::Storage`] it is unknown whether the message was
    /// stored: publish it again under the same idempotency key.
    pub async fn publish(&self, channel: &str, message: Message) -> Result<Published, PublishError> {
        let appended = self.append(channel, message).await?;
        Ok(Published { id: self.hub.id(appended.place), duplicate: appended.duplicate })
    }
    /// The same, for those who think in places.
    pub(super) async fn append(&self, channel: &str, message: Message) -> Result<Appended, PublishError> {
        let event = message.into_event(self.hub.options.event_bytes_max)?;
        let appended = self.hub.log.append(channel, event).await?;
        if !appended.duplicate {
            self.hub.metrics.events_published.inc();
        }
        Ok(appended)
    }
}
