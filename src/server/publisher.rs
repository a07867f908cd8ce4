//! Publishing: from what an app wants to say to an event in the log.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::clock;
use super::hub::Inner;
use super::log::{Appended, Data, KEY_BYTES_MAX, Key, LogError, NAME_BYTES_MAX, NewEvent, StateMark};
use crate::wire::{control, encode};

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Message {
    name: String,
    content: Content,
    key: Option<String>,
    /// Makes the content that the key stands for another one than that of an equal message.
    nonce: Option<String>,
    state: Option<StateMark>,
    pub(super) trace_id: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) stream_id: Option<String>,
    pub(super) retry_ms: Option<u64>,
}

#[derive(Debug, Clone)]
enum Content {
    /// The payload of an envelope, as JSON.
    Payload(String),
    Text(String),
}

impl Message {
    /// An event whose data is an envelope: `{event_id, type, ts, payload, sequence}`, on one line. The type is lower case in
    /// dots (`domain.order.created`), up to 100 bytes; the payload is an object. What is not so is refused when it is
    /// published ([`PublishError::InvalidEnvelope`]).
    #[must_use]
    pub fn envelope(event_type: impl Into<String>, payload: &serde_json::Value) -> Self {
        Self::new(event_type.into(), Content::Payload(payload.to_string()))
    }

    /// The same, with a payload that is JSON text already and keeps its spelling.
    #[must_use]
    pub fn envelope_raw(event_type: impl Into<String>, payload: &RawValue) -> Self {
        // Valid JSON has line ends between its tokens only, where they mean nothing.
        let payload = payload.get().replace(['\r', '\n'], " ");
        Self::new(event_type.into(), Content::Payload(payload))
    }

    /// An event whose data is stored verbatim, of any number of lines.
    #[must_use]
    pub fn text(name: impl Into<String>, data: impl Into<String>) -> Self {
        Self::new(name.into(), Content::Text(data.into()))
    }

    fn new(name: String, content: Content) -> Self {
        let (key, nonce, state) = (None, None, None);
        let (trace_id, correlation_id, stream_id, retry_ms) = (None, None, None, None);
        Self { name, content, key, nonce, state, trace_id, correlation_id, stream_id, retry_ms }
    }

    /// Makes publishing repeatable: the same message to the same channel under the same key stores nothing the second
    /// time and answers with the first one's id. Another message under the key is [`LogError::KeyReused`].
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// A key that only this one message has: an equal one of somebody else is refused under it, so that a duplicate is
    /// surely this message, stored by an attempt whose answer got lost.
    pub(super) fn contested_key(mut self, key: String) -> Self {
        (self.key, self.nonce) = (Some(key), Some(clock::event_id()));
        self
    }

    /// What it means to a shared state of its channel.
    pub(super) fn state(mut self, mark: StateMark) -> Self {
        self.state = Some(mark);
        self
    }

    /// The trace that the event belongs to, for its envelope: 1 to 128 bytes.
    #[must_use]
    pub fn trace_id(mut self, id: impl Into<String>) -> Self {
        self.trace_id = Some(id.into());
        self
    }

    /// What the event belongs together with, for its envelope: a UUID in lower case.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// The stream that the event is of, for its envelope: 1 to 100 bytes.
    #[must_use]
    pub fn stream_id(mut self, id: impl Into<String>) -> Self {
        self.stream_id = Some(id.into());
        self
    }

    /// A reconnection time in milliseconds, for its envelope: at most 300,000. The stream's own is
    /// [`StreamOptions::retry_ms`](super::StreamOptions::retry_ms).
    #[must_use]
    pub fn retry(mut self, ms: u64) -> Self {
        self.retry_ms = Some(ms);
        self
    }

    fn check(&self, event_bytes_max: usize) -> Result<(), PublishError> {
        check_name(&self.name)?;
        if let Content::Payload(payload) = &self.content {
            self.check_envelope(payload).map_err(PublishError::InvalidEnvelope)?;
        }
        if let Some(key) = &self.key
            && !((1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(PublishError::InvalidKey);
        }
        let (Content::Payload(text) | Content::Text(text)) = &self.content;
        if text.len() > event_bytes_max {
            return Err(PublishError::TooLarge(event_bytes_max));
        }
        Ok(())
    }

    /// What the schema of envelopes asks for, as the client's `validateEvent` checks it (K16); names the field that breaks it.
    fn check_envelope(&self, payload: &str) -> Result<(), &'static str> {
        let length = |text: &Option<String>, max| {
            text.as_ref().is_none_or(|text| (1..=max).contains(&text.encode_utf16().count()))
        };
        let uuid = |text: &String| {
            text.len() == 36
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                })
        };
        let checks = [
            ("type", is_type(&self.name)),
            ("payload", payload.trim_start().starts_with('{')),
            ("stream_id", length(&self.stream_id, 100)),
            ("trace_id", length(&self.trace_id, 128)),
            ("correlation_id", self.correlation_id.as_ref().is_none_or(uuid)),
            ("retry", self.retry_ms.is_none_or(|ms| ms <= 300_000)),
        ];
        checks.into_iter().find(|check| !check.1).map_or(Ok(()), |check| Err(check.0))
    }

    /// An envelope without its last fields.
    fn envelope_begin(&self, payload: &str) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut envelope = format!(
            r#"{{"event_id":"{}","type":{},"ts":"{}""#,
            clock::event_id(),
            text(&self.name),
            clock::iso(clock::unix_ms()),
        );
        for (name, id) in [
            ("stream_id", &self.stream_id),
            ("trace_id", &self.trace_id),
            ("correlation_id", &self.correlation_id),
        ] {
            if let Some(id) = id {
                envelope.extend([",\"", name, "\":", &text(id)]);
            }
        }
        if let Some(ms) = self.retry_ms {
            envelope.extend([r#","retry":"#, &ms.to_string()]);
        }
        envelope.extend([r#","payload":"#, payload]);
        envelope
    }

    fn into_event(self, event_bytes_max: usize) -> Result<NewEvent, PublishError> {
        self.check(event_bytes_max)?;
        let (Content::Payload(text) | Content::Text(text)) = &self.content;
        let kind = if matches!(self.content, Content::Text(_)) { "text" } else { "payload" };
        let mut parts = vec![kind, self.name.as_str(), text.as_str()];
        parts.extend(self.nonce.as_deref());
        let key = self.key.as_ref().map(|key| Key::new(key.clone(), &parts));
        let begin = match &self.content {
            Content::Payload(payload) => Some(self.envelope_begin(payload)),
            Content::Text(_) => None,
        };
        let data = match (begin, self.content) {
            (Some(begin), _) => Data::Numbered { before: begin + r#","sequence":"#, after: "}".to_owned() },
            (None, Content::Text(text) | Content::Payload(text)) => Data::Text(text),
        };
        Ok(NewEvent { name: self.name, data, key, state: self.state })
    }

    /// The event as it goes over the wire without a log: its envelope has no number.
    pub(crate) fn encode(&self, id: Option<&str>, event_bytes_max: usize) -> Result<Bytes, PublishError> {
        self.check(event_bytes_max)?;
        let mut out = Vec::new();
        let written = match &self.content {
            Content::Text(text) => encode::event(&mut out, Some(&self.name), id, text),
            Content::Payload(payload) => {
                encode::event(&mut out, Some(&self.name), id, &(self.envelope_begin(payload) + "}"))
            }
        };
        written.map(|()| out.into()).map_err(|_| PublishError::InvalidName)
    }
}

fn check_name(name: &str) -> Result<(), PublishError> {
    if control::is_reserved(name) {
        return Err(PublishError::ReservedName);
    }
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if valid { Ok(()) } else { Err(PublishError::InvalidName) }
}

/// `^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)*$`, up to 100 bytes.
fn is_type(name: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    name.len() <= 100 && name.split('.').all(word)
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
    /// A field of the envelope is not as [`Message::envelope`] says: its name.
    InvalidEnvelope(&'static str),
    /// The idempotency key is empty, too long or not visible ASCII.
    InvalidKey,
    /// The data is larger than the given limit, in bytes.
    TooLarge(usize),
    /// More messages at once than the given limit, [`StreamOptions::batch_events_max`](super::StreamOptions).
    TooMany(usize),
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
            Self::InvalidEnvelope(field) => {
                let takes = match *field {
                    "type" => {
                        "takes words of a-z 0-9 _ in dots, like domain.order.created, at most 100 bytes"
                    }
                    "payload" => "takes an object",
                    "stream_id" => "takes 1 to 100 characters",
                    "trace_id" => "takes 1 to 128 characters",
                    "correlation_id" => "takes a UUID in lower case",
                    _ => "takes milliseconds from 0 to 300000",
                };
                write!(
                    f,
                    "the envelope's `{field}` {takes} (an event of your own form is sent as `event` and `data`)"
                )
            }
            Self::InvalidKey => {
                write!(f, "an idempotency key takes 1 to {KEY_BYTES_MAX} visible ASCII characters")
            }
            Self::TooLarge(max) => write!(f, "an event takes at most {max} bytes"),
            Self::TooMany(max) => {
                write!(f, "a batch takes at most {max} events: publish the others in another one")
            }
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

    /// Stores messages in a channel, in their order: all of them or none, with nothing of others in between and one sync for
    /// all. `RedisLog` has no such transaction: there each takes a round trip of its own until one fails, and events of
    /// others may come in between.
    ///
    /// # Errors
    /// As [`Publisher::publish`], for the first that is wrong; [`PublishError::TooMany`].
    pub async fn publish_all(
        &self,
        channel: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<Published>, PublishError> {
        let options = &self.hub.options;
        if messages.len() > options.batch_events_max {
            return Err(PublishError::TooMany(options.batch_events_max));
        }
        let events = messages.into_iter().map(|message| message.into_event(options.event_bytes_max));
        let all = self.hub.log.append_all(channel, events.collect::<Result<_, _>>()?).await?;
        self.hub.metrics.events_published.inc_by(all.iter().filter(|one| !one.duplicate).count() as u64);
        let published =
            |appended: Appended| Published { id: self.hub.id(appended.place), duplicate: appended.duplicate };
        Ok(all.into_iter().map(published).collect())
    }

    /// [`Publisher::publish`], for those who think in places.
    pub(super) async fn append(&self, channel: &str, message: Message) -> Result<Appended, PublishError> {
        let event = message.into_event(self.hub.options.event_bytes_max)?;
        let appended = self.hub.log.append(channel, event).await?;
        if !appended.duplicate {
            self.hub.metrics.events_published.inc();
        }
        Ok(appended)
    }
}
