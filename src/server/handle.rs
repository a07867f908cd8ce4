//! The handle of one open stream: what an app's own handler says to one client.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::answer::Refusal;
use super::controls;
use super::hub::Inner;
use super::log::check_channel;
use super::publisher::{Message, PublishError};
use super::reason::CloseReason;
use super::registry::{Entry, Order, StreamInfo};
use crate::wire::control;

/// One open stream. Cheap to clone; dropping it changes nothing.
///
/// What it sends goes to this stream alone and is in no log: whoever was away does not get it. Nothing here waits: an
/// order is left for the stream, which takes it when its client reads.
#[derive(Debug, Clone)]
pub struct StreamHandle {
    pub(super) hub: Arc<Inner>,
    pub(super) entry: Arc<Entry>,
}

/// Why a stream was not told something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// The stream has ended, or there is none of this id.
    Closed,
    /// So many wait for it already: the client does not read.
    Full(usize),
    /// The event is not one.
    Invalid(PublishError),
    /// The id is empty, too long, or would break its line; or the stream listens to a channel, whose log gives the ids.
    InvalidId,
    /// A control event's name begins with none of the protocol's prefixes, or is one that the server itself says.
    NotControl,
    /// The channel cannot be listened to: a code and a sentence.
    Refused(&'static str, String),
}

impl SendError {
    /// A code that does not change.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "stream_closed",
            Self::Full(_) => "stream_full",
            Self::Invalid(_) => "invalid_event",
            Self::InvalidId => "invalid_event_id",
            Self::NotControl => "invalid_event_name",
            Self::Refused(code, _) => code,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the stream is not open any more"),
            Self::Full(max) => write!(f, "{max} events wait for this stream already, which is the limit"),
            Self::Invalid(error) => error.fmt(f),
            Self::InvalidId => f.write_str(
                "an id takes 1 to 128 bytes without line ends and NUL, on a stream that listens to no channel",
            ),
            Self::NotControl => write!(
                f,
                "a control event's name begins with {}, and is none that the server says itself",
                control::RESERVED_PREFIXES.join(" or ")
            ),
            Self::Refused(_, message) => f.write_str(message),
        }
    }
}

impl std::error::Error for SendError {}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.code, refusal.message)
    }
}

/// Longest id that a handler gives, in bytes.
const ID_BYTES_MAX: usize = 128;

impl StreamHandle {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Who it is, and what it was sent so far.
    #[must_use]
    pub fn stats(&self) -> StreamInfo {
        self.entry.info()
    }

    /// Sends an event to this stream alone, without an id.
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::Full`], [`SendError::Invalid`].
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        let bytes = message.encode(None, self.hub.options.event_bytes_max).map_err(SendError::Invalid)?;
        self.order(Order::Event(bytes))
    }

    /// Sends an event with an id of the app's own, on a stream that listens to no channel. A client that comes back
    /// with it finds it in the header `Last-Event-ID`; to replay from there is the app's matter.
    ///
    /// # Errors
    /// The same, and [`SendError::InvalidId`].
    pub fn send_with_id(&self, id: &str, message: Message) -> Result<(), SendError> {
        let valid = (1..=ID_BYTES_MAX).contains(&id.len()) && !id.contains(['\r', '\n', '\0']);
        if !valid || !self.entry.info().channels.is_empty() {
            return Err(SendError::InvalidId);
        }
        let bytes = message.encode(Some(id), self.hub.options.event_bytes_max).map_err(SendError::Invalid)?;
        self.order(Order::Event(bytes))
    }

    /// Sends a control event of the app's own, as `control.<name>` or `system.<name>`: the client gives it to `onControl`.
    ///
    /// # Errors
    /// [`SendError::NotControl`], [`SendError::Closed`], [`SendError::Full`].
    pub fn control(&self, name: &str, payload: &Value) -> Result<(), SendError> {
        let own = control::is_reserved(name) && !control::SERVER.contains(&name);
        if !own || name.chars().any(char::is_control) || name.len() > ID_BYTES_MAX {
            return Err(SendError::NotControl);
        }
        self.order(Order::Say(controls::event(name, payload)))
    }

    /// Sends a heartbeat now, beside those that come by themselves.
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::Full`].
    pub fn heartbeat(&self) -> Result<(), SendError> {
        let options = &self.hub.options;
        self.order(Order::Say(controls::heartbeat(options.names, options.heartbeat_ms, &self.entry.id)))
    }

    /// Tells the client that something went wrong; the stream goes on.
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::Full`].
    pub fn error(&self, message: &str, code: &str) -> Result<(), SendError> {
        self.order(Order::Say(controls::error(self.hub.options.names, message, code)))
    }

    /// Closes the stream, after what waits for it. The client comes back, unless the app answers it with 204 then.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub fn close(&self, reason: CloseReason) -> Result<(), SendError> {
        self.order(Order::Close(reason))
    }

    /// Adds a channel: at the client's cursor where that names it, else where fresh streams begin. True if it is new.
    ///
    /// A stream that was opened for exactly one channel has that one's ids, and takes no other.
    ///
    /// # Errors
    /// [`SendError::Refused`] by a limit or the name, [`SendError::Closed`], [`SendError::Full`].
    pub fn listen(&self, channel: &str) -> Result<bool, SendError> {
        if self.entry.single {
            let message = "the stream was opened for one channel: open it for none, or for several";
            return Err(SendError::Refused("single_channel", message.to_owned()));
        }
        check_channel(channel).map_err(|error| SendError::Refused("invalid_channel", error.to_string()))?;
        let is_new =
            self.hub.registry.join(&self.entry, channel, self.hub.channels_max(), &self.hub.options)?;
        if is_new && let Err(error) = self.order(Order::Listen(channel.to_owned())) {
            self.hub.registry.leave(&self.entry, channel);
            return Err(error);
        }
        Ok(is_new)
    }

    /// Takes a channel away. True if the stream listened to it.
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::Full`].
    pub fn unlisten(&self, channel: &str) -> Result<bool, SendError> {
        if self.entry.single || !self.entry.info().channels.iter().any(|known| known == channel) {
            return Ok(false);
        }
        self.order(Order::Unlisten(channel.to_owned()))?;
        Ok(self.hub.registry.leave(&self.entry, channel))
    }

    fn order(&self, order: Order) -> Result<(), SendError> {
        self.entry.order(order, self.hub.options.direct_events_max)
    }
}
