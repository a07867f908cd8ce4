//! What the app is told beside its events: one variant for each callback, and the stable codes of errors.

use serde::{Serialize, Serializer};

use super::ordering::OrderingRule;
use super::state::{State, TransitionReason};
use crate::wire::ParseError;

/// Codes of errors. They are part of the API: an app may branch on them, and they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// An option is unknown, ill-typed or out of its range.
    InvalidOption,
    /// The URL cannot be parsed, or is not one of http or https.
    InvalidUrl,
    /// A status that is not a stream.
    HttpStatus,
    /// 401 or 403, and no fresh credentials.
    AuthRequired,
    /// A 200 that is not `text/event-stream`.
    WrongContentType,
    /// The request failed below HTTP.
    NetworkError,
    /// No response head in time.
    ConnectTimeout,
    /// A response head, but no bytes: a buffering proxy.
    NoFirstByte,
    /// A stream that used to beat fell silent.
    Silence,
    /// A line over the limit.
    LineTooLong,
    /// An event over the limit.
    EventTooLarge,
    /// The cursor cannot be stored, or what is stored cannot be read.
    StorageUnavailable,
    /// The retry policy allows no further attempt.
    GaveUp,
    /// The server cannot replay from the cursor.
    CannotResume,
}

impl Code {
    /// The code as an app sees it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidOption => "invalid_option",
            Self::InvalidUrl => "invalid_url",
            Self::HttpStatus => "http_status",
            Self::AuthRequired => "auth_required",
            Self::WrongContentType => "wrong_content_type",
            Self::NetworkError => "network_error",
            Self::ConnectTimeout => "connect_timeout",
            Self::NoFirstByte => "no_first_byte",
            Self::Silence => "silence",
            Self::LineTooLong => "line_too_long",
            Self::EventTooLarge => "event_too_large",
            Self::StorageUnavailable => "storage_unavailable",
            Self::GaveUp => "gave_up",
            Self::CannotResume => "cannot_resume",
        }
    }
}

/// Why no further attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUpReason {
    /// `max_attempts` failed in a row.
    MaxAttemptsReached,
    /// `max_retry_time_ms` has passed since the stream was lost.
    MaxRetryTimeExceeded,
}

/// In which way a stream seems dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LivenessKind {
    /// Headers came, bytes did not.
    NoFirstByte,
    /// Bytes came, then no more.
    Silence,
}

/// Numbers are told as JavaScript has them: a server decides how large they are, and above 2^53 they are rounded.
pub(super) fn number<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*number as f64)
}

fn number_if_any<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(|number| number as f64).serialize(serializer)
}

/// Something the app is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Notice {
    /// The state changed.
    StateChange {
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// Why.
        reason: TransitionReason,
    },
    /// The stream is open.
    Open {
        /// How many connections were open before this one.
        reconnect_count: u32,
        /// Failed attempts before this one.
        attempt: u32,
        /// The cursor that was sent, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_event_id: Option<String>,
    },
    /// The stream, or the attempt at one, ended.
    Close {
        /// A `DisconnectReason`.
        reason: String,
        /// Whether another attempt follows.
        will_reconnect: bool,
        /// Milliseconds until then.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number_if_any")]
        retry_in: Option<u64>,
    },
    /// Something failed.
    Error {
        /// Stable code.
        code: Code,
        /// A sentence a person can act on.
        message: String,
        /// The HTTP status, where there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Whether another attempt follows.
        will_retry: bool,
    },
    /// Another attempt is scheduled.
    Retry {
        /// Its number, from 1, since the last healthy connection.
        attempt: u32,
        /// Milliseconds until it is made.
        #[serde(serialize_with = "number")]
        delay_ms: u64,
        /// Why the last one ended.
        reason: String,
    },
    /// No further attempt is made.
    GiveUp {
        /// Why.
        reason: GiveUpReason,
        /// Failed attempts.
        attempts: u32,
        /// Time since the stream was lost.
        #[serde(serialize_with = "number")]
        elapsed_ms: u64,
    },
    /// A request carries a cursor.
    ResumeAttempt {
        /// The cursor.
        last_event_id: String,
    },
    /// An event came again and was dropped.
    Duplicate {
        /// Its id.
        event_id: String,
        /// Its name.
        event_type: String,
    },
    /// An event came late.
    OutOfOrder {
        /// Its id, where it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        event_id: Option<String>,
        /// Its name.
        event_type: String,
        /// By what it is late.
        rule: OrderingRule,
        /// The sequence that came before it, where events are ordered by that.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number_if_any")]
        last_sequence: Option<u64>,
        /// Its own, lower one.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number_if_any")]
        sequence: Option<u64>,
        /// The event id or timestamp that came before it, where events are ordered by one of those.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_mark: Option<String>,
        /// Its own, lower one.
        #[serde(skip_serializing_if = "Option::is_none")]
        mark: Option<String>,
        /// Whether it was dropped.
        dropped: bool,
    },
    /// Events are missing and the server does not have them.
    Gap {
        /// The first missing event: its id, or on servers that are not ours its number.
        first_missing: String,
        /// The last missing event, likewise.
        last_missing: String,
        /// How many.
        #[serde(serialize_with = "number")]
        count: u64,
        /// On servers that are not ours, the `stream_id` that the numbers belong to, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        stream_id: Option<String>,
    },
    /// The stream seems dead.
    LivenessFailure {
        /// In which way.
        failure: LivenessKind,
        /// Milliseconds without a byte.
        #[serde(serialize_with = "number")]
        silent_ms: u64,
        /// Whether the connection was cut for it.
        cut: bool,
    },
    /// The server cannot replay from the cursor; what is missing stays missing.
    CannotResume {
        /// The server's code (`event_not_found`, `buffer_expired`, …).
        code: String,
        /// The server's reason (`events_expired`, …).
        reason: String,
        /// The server's sentence.
        message: String,
        /// The cursor that was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        requested_id: Option<String>,
        /// Oldest event that the server still has.
        #[serde(skip_serializing_if = "Option::is_none")]
        oldest_available: Option<String>,
        /// Newest event that the server has.
        #[serde(skip_serializing_if = "Option::is_none")]
        newest_available: Option<String>,
        /// How many events are missing, where it is known.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number_if_any")]
        missing: Option<u64>,
    },
}

/// The code of a parser's error, and a sentence a person can act on.
pub(crate) fn describe_parse_error(error: ParseError) -> (Code, String) {
    let (code, option) = match error {
        ParseError::LineTooLong(_) => (Code::LineTooLong, "maxLineBytes"),
        ParseError::EventTooLarge(_) => (Code::EventTooLarge, "maxEventBytes"),
    };
    (
        code,
        format!(
            "{error}; the cursor stays before it. Raise {option}, or let the server send less, then connect()"
        ),
    )
}
