//! Event logs: where published events are kept, in order, until they expire.
//!
//! A log holds channels. Each event of a channel gets a [`Place`] that is greater than that of every event
//! before it, and its place never changes. A subscriber has a place too and reads what comes after it, page
//! by page; at the head it waits on [`Channel::head`]. Replay and live are that one mechanism: nothing is pushed
//! to a subscriber, so no queue of its own can overflow and a slow one merely reads later.
//!
//! - [`NullLog`]: nothing; what is published reaches those who listen.
//! - [`MemoryLog`]: a bounded ring a channel; a new epoch with each process.
//! - [`RedbLog`]: on disk, the default of `holdfast serve`; an append is acknowledged when it is synced.
//! - `RedisLog` (feature `redis`): in Redis Streams, for several machines.

mod bounds;
mod channel;
mod event;
mod memory;
mod null;
mod redb;
mod redb_load;
mod redb_tables;
mod redb_upkeep;
mod redb_writer;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use self::event::check_keys;
use super::clock;

pub use self::bounds::Bounds;
pub use self::channel::Channel;
pub use self::event::{Data, Frame, Key, NewEvent, StateMark};
pub use self::memory::MemoryLog;
pub use self::null::NullLog;
pub use self::redb::{RedbLog, RedbOptions};
#[cfg(feature = "redis")]
pub use self::redis::{RedisLog, RedisOptions};

/// Longest channel name, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 128;
/// Longest event name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Where an event stands in its channel. Places of one channel are ordered.
///
/// On the wire it is `<epoch>-<sequence>` (see [`crate::wire::Position`]); a log numbers its epochs in their
/// order, so that comparing places needs no text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which of the log's epochs: later ones have greater numbers.
    pub generation: u32,
    /// The number within channel and epoch, from 1; 0 is before the first.
    pub sequence: u64,
}

impl Place {
    /// Whether this is the next place of the same epoch.
    #[must_use]
    pub fn follows(self, before: Self) -> bool {
        self.generation == before.generation && before.sequence.checked_add(1) == Some(self.sequence)
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where the event stands.
    pub place: Place,
    /// The key was known: this is the place of the event that was stored then.
    pub duplicate: bool,
}

/// How much one page may hold. A page always holds one event at least, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Events. Default 256.
    pub events_max: usize,
    /// Bytes of encoded events. Default 64 KiB.
    pub bytes_max: usize,
}

impl Default for PageLimit {
    fn default() -> Self {
        Self { events_max: 256, bytes_max: 64 << 10 }
    }
}

/// How long events and keys are kept, for each channel. What goes first is the oldest.
///
/// With an age, a channel whose events have all gone, that nobody reads and that nobody published to for so long, is
/// forgotten: its numbers and its idempotency keys, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events. Default 100,000.
    pub events_max: u64,
    /// Bytes of names and data. Default 256 MiB.
    pub bytes_max: u64,
    /// Age in milliseconds; 0 is no bound. Default 0.
    pub age_ms_max: u64,
    /// Idempotency keys. Default 10,000.
    pub keys_max: u64,
    /// Bytes of names and data of all channels together; beyond it the largest channels lose their oldest events.
    /// `RedisLog` leaves that to Redis. Default 4 GiB.
    pub total_bytes_max: u64,
    /// Channels that are not forgotten. Default 100,000.
    pub channels_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events_max: 100_000,
            bytes_max: 256 << 20,
            age_ms_max: 0,
            keys_max: 10_000,
            total_bytes_max: 4 << 30,
            channels_max: 100_000,
        }
    }
}

impl Retention {
    /// How often idle channels are looked at: twice within the age, once a second at least.
    fn sweep(&self) -> Duration {
        let half = if self.age_ms_max > 0 { self.age_ms_max / 2 } else { u64::MAX };
        Duration::from_millis(half.clamp(10, 1000))
    }
}

/// Why a log did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogError {
    /// The channel's name is empty, too long or holds a control character.
    InvalidChannel,
    /// The event's name is too long or would break its line.
    InvalidName,
    /// The idempotency key was used for an event of another content.
    KeyReused,
    /// [`Retention::channels_max`] channels exist already.
    TooManyChannels(usize),
    /// This log does not offer it.
    Unsupported,
    /// The log was closed.
    Closed,
    /// The storage failed; the text is for the operator.
    Storage(String),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidChannel => {
                write!(f, "a channel's name takes 1 to {CHANNEL_BYTES_MAX} bytes without control characters")
            }
            Self::InvalidName => {
                write!(
                    f,
                    "an event's name takes at most {NAME_BYTES_MAX} bytes without carriage return, line feed or NUL"
                )
            }
            Self::KeyReused => {
                f.write_str("the idempotency key was used for another event: a new event takes a new key")
            }
            Self::TooManyChannels(max) => write!(f, "there are {max} channels already, which is the limit"),
            Self::Unsupported => f.write_str("this event log cannot do that"),
            Self::Closed => f.write_str("the event log is closed"),
            Self::Storage(reason) => write!(f, "the event log's storage failed: {reason}"),
        }
    }
}

impl std::error::Error for LogError {}

/// Keeps events. Implementations are shared as `Arc<dyn EventLog>`.
///
/// A log of your own stores events where you like and tells its [`Channel`]s of each: [`Channel::publish`] wakes the
/// readers, who take from the channel what it holds and ask [`EventLog::page`] for the rest. This one keeps all in a `Vec`:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use futures_util::future::{BoxFuture, ready};
/// use holdfast_sse::server::log::*;
///
/// struct VecLog {
///     epoch: Arc<str>,
///     channels: Mutex<HashMap<String, (Arc<Channel>, Vec<Frame>)>>,
/// }
///
/// impl VecLog {
///     fn new() -> Self {
///         Self { epoch: epoch_name().into(), channels: Mutex::default() }
///     }
///
///     fn with<T>(&self, name: &str, work: impl FnOnce(&Arc<Channel>, &mut Vec<Frame>) -> T) -> Result<T, LogError> {
///         check_channel(name)?;
///         let mut channels = self.channels.lock().unwrap();
///         let (channel, events) = channels.entry(name.to_owned()).or_insert_with(|| {
///             (Arc::new(Channel::new(name, Bounds::new(0, Place::default()))), Vec::new())
///         });
///         Ok(work(channel, events))
///     }
///
///     fn store(&self, name: &str, event: NewEvent) -> Result<Appended, LogError> {
///         check_name(&event.name)?;
///         self.with(name, |channel, events| {
///             let place = Place { generation: 0, sequence: events.len() as u64 + 1 };
///             let data = event.data.render(place.sequence);
///             // A real one takes the time of the clock, and remembers `event.key`.
///             let frame = Frame::encode(place, &self.epoch, 0, &event.name, &data).map_err(|_| LogError::InvalidName)?;
///             events.push(frame.clone());
///             channel.publish(frame, PageLimit::default());
///             Ok(Appended { place, duplicate: false })
///         })?
///     }
/// }
///
/// impl EventLog for VecLog {
///     fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
///         Box::pin(ready(self.store(channel, event)))
///     }
///     fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
///         self.with(name, |channel, _| Arc::clone(channel))
///     }
///     fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
///         Box::pin(ready(Ok(channel.bounds())))
///     }
///     fn page<'a>(&'a self, channel: &'a Channel, after: Place, limit: PageLimit) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
///         Box::pin(ready(self.with(channel.name(), |_, events| {
///             events.iter().filter(|frame| frame.place > after).take(limit.events_max).cloned().collect()
///         })))
///     }
///     fn epoch(&self, _: u32) -> Option<Arc<str>> {
///         Some(Arc::clone(&self.epoch))
///     }
///     fn generation(&self, epoch: &str) -> Option<u32> {
///         (epoch == &*self.epoch).then_some(0)
///     }
///     fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
///         Box::pin(ready(Err(LogError::Unsupported)))
///     }
///     fn close(&self) -> BoxFuture<'_, ()> {
///         Box::pin(ready(()))
///     }
///     fn durable(&self) -> bool {
///         false
///     }
/// }
///
/// # futures_util::FutureExt::now_or_never(async {
/// let event = NewEvent { name: "n".to_owned(), data: Data::Text("hello".to_owned()), key: None, state: None };
/// let stored = VecLog::new().append("a", event).await?;
/// assert_eq!(stored.place.sequence, 1);
/// # Ok::<(), LogError>(())
/// # }).unwrap().unwrap();
/// ```
pub trait EventLog: Send + Sync + 'static {
    /// Stores an event at the end of `channel`. The answer comes when the event is as safe as this log makes it.
    ///
    /// Dropping the future does not take the event back.
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>>;

    /// Stores events at the end of `channel` in their order: all of them or none, where this log says so. This default
    /// appends one by one, and stops at the first that fails.
    fn append_all(
        &self,
        channel: &str,
        events: Vec<NewEvent>,
    ) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        let channel = channel.to_owned();
        Box::pin(async move {
            let mut all = Vec::with_capacity(events.len());
            for event in events {
                all.push(self.append(&channel, event).await?);
            }
            Ok(all)
        })
    }

    /// Forgets a channel: its events, keys and numbers. Readers are told that what they had not read is gone, and a
    /// channel of the same name begins anew; ids are not given a second time. No error where there is none.
    ///
    /// This default answers [`LogError::Unsupported`].
    fn remove(&self, channel: &str) -> BoxFuture<'_, Result<(), LogError>> {
        let _ = channel;
        Box::pin(std::future::ready(Err(LogError::Unsupported)))
    }

    /// What this process knows about a channel: its head to wait on, and its newest frames.
    ///
    /// # Errors
    /// The name is not one. A channel without events is no error: it begins with its first event.
    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError>;

    /// What the channel holds now. A reader watches [`Channel::head`] before it asks, and then misses nothing: the head
    /// wakes it for each event that is not within these bounds.
    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>>;

    /// The stored events after a place, oldest first. What had to go before it could be read is simply absent:
    /// the caller sees it by the places.
    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>>;

    /// The name of an epoch.
    fn epoch(&self, generation: u32) -> Option<Arc<str>>;

    /// The number of an epoch that this log still knows.
    fn generation(&self, epoch: &str) -> Option<u32>;

    /// Begins a new epoch, since it is not proven that the stored events are all that clients have seen: after
    /// a backup was restored, say. Stored events stay and keep their ids.
    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>>;

    /// Stores nothing more and lets go of its files. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Whether what is stored outlives the process.
    fn durable(&self) -> bool;

    /// Whether appends are stored now: false after the storage failed, until it works again.
    fn healthy(&self) -> bool {
        true
    }

    /// Whether what was published can be read later at all.
    fn replays(&self) -> bool {
        true
    }
}

/// A name for a new epoch of a log, which no other one has.
#[must_use]
pub fn epoch_name() -> String {
    clock::epoch()
}

/// Checks the name of a channel.
///
/// # Errors
/// [`LogError::InvalidChannel`].
pub fn check_channel(name: &str) -> Result<(), LogError> {
    let valid = (1..=CHANNEL_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if valid { Ok(()) } else { Err(LogError::InvalidChannel) }
}

/// Checks the name of an event.
///
/// # Errors
/// [`LogError::InvalidName`].
pub fn check_name(name: &str) -> Result<(), LogError> {
    let valid = name.len() <= NAME_BYTES_MAX && !name.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    if valid { Ok(()) } else { Err(LogError::InvalidName) }
}
