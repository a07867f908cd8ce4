//! Ids that an app makes and reads itself: of events, of streams, of traces.

use std::fmt;
use std::str::FromStr;

use axum::http::request::Parts;
use uuid::{Uuid, Variant};

use super::{Message, clock, request};

/// The `event_id` of an envelope: a UUID of version 7 (RFC 9562), which sorts by the time of its making. (K17)
///
/// ```
/// use holdfast_sse::server::EventId;
///
/// let (first, second) = (EventId::generate(), EventId::generate());
/// assert!(first < second, "those of one process grow strictly");
/// let read: EventId = first.to_string().parse()?;
/// assert_eq!(read.unix_ms(), first.unix_ms());
/// assert!("not-an-id".parse::<EventId>().is_err());
/// # Ok::<(), holdfast_sse::server::InvalidEventId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(clock::event_uuid())
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        // The first 48 of the 128 bits.
        self.0.as_u64_pair().0 >> 16
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The text is no UUID of version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidEventId;

impl fmt::Display for InvalidEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an event id: it should be a UUID of version 7, with hyphens")
    }
}

impl std::error::Error for InvalidEventId {}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        // The parser takes other spellings, too.
        let id = Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
        id.filter(|id| id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122)
            .map(Self)
            .ok_or(InvalidEventId)
    }
}

/// A name for one connection: `stream-<time>-<random>`, both in base 36. (K28)
#[must_use]
pub fn generate_stream_id() -> String {
    clock::named_id("stream")
}

/// The trace that a request belongs to: the first of `X-Trace-ID`, `X-Request-ID`, `traceparent` and the query's
/// `trace_id` that is 1 to 128 of the characters `a-z A-Z 0-9 - _ . :`. (K28)
#[must_use]
pub fn trace_id(request: &Parts) -> Option<String> {
    request::trace_id(&request.headers, request::query(request, "trace_id").as_deref())
}

/// What ties the logs and events of one request together. (K28)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationContext {
    /// A name for the connection.
    pub stream_id: String,
    /// The trace, where the request names one.
    pub trace_id: Option<String>,
}

impl CorrelationContext {
    /// That of a request, with a new name for its connection.
    #[must_use]
    pub fn of(request: &Parts) -> Self {
        Self { stream_id: generate_stream_id(), trace_id: trace_id(request) }
    }

    /// The message with both, for its envelope.
    #[must_use]
    pub fn mark(&self, message: Message) -> Message {
        let message = message.stream_id(&self.stream_id);
        match &self.trace_id {
            Some(id) => message.trace_id(id),
            None => message,
        }
    }
}
