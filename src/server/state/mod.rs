//! Shared state: a value that all nodes agree on and all clients of its channel see.
//!
//! A state lives in the log and nowhere else: its value is what the newest event of its channel says, and each
//! process merely follows. An event is named as the channel and its data is `{"<key>": <value>}`; an event named
//! [`REMOVED`] ends the state for everybody.
//!
//! Nodes agree because every change is published under an idempotency key made of the event that it was based on. The
//! log takes one event a key, so of two changes to one value the second is refused, looked at the new value, and
//! tried again: no increment is lost, and the log holds no event that readers would have to skip.
//!
//! A newcomer's stream on the channel begins with the event that holds the value, under its own id; so its cursor
//! is what that of any stream is. Where that event is, the log knows ([`StateMark`](super::log::StateMark)), so that this holds
//! on a node that never asked for the state, too, as it is after a restart or in a `holdfast serve` beside the app. A page that keeps its cursor across reloads does not see the value again.
//!
//! Give each state a channel of its own. Other events there are allowed, but replayed to newcomers where they came after
//! the value, and they push it out of a log that keeps few. Where that happens, or where the log deletes by
//! age, a node that knows the value publishes it anew for the next newcomer; but if all nodes restart before, it is
//! lost, and `create` begins with its initial value: see [`StateOptions::refresh_ms`].

mod core;
mod shared;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::core::{Change, Core};
use super::hub::{Hub, Inner};
use super::log::{Bounds, Channel, LogError, Place};
use super::publisher::PublishError;

pub use self::shared::SharedState;

/// The name of the event that ends a state: `{"key": <key>}`.
pub const REMOVED: &str = "state.removed";
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 48;

/// Settings of a [`StateManager`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOptions {
    /// The field of the data that holds the value: 1 to 48 visible ASCII characters. Default `value`.
    pub key: String,
    /// States that this process follows at the same time, over all managers of the hub. Default 10,000.
    pub states_max: usize,
    /// Bytes of one value as JSON. Default 64 KiB. [`StreamOptions::event_bytes_max`](super::StreamOptions) holds, too.
    pub value_bytes_max: usize,
    /// An event that is this old, in milliseconds, is published anew though the value is the same: for a log that
    /// deletes by age ([`Retention::age_ms_max`](super::Retention)), set it well below that age. 0, the default: never.
    pub refresh_ms: u64,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self { key: "value".to_owned(), states_max: 10_000, value_bytes_max: 64 << 10, refresh_ms: 0 }
    }
}

/// Why a state could not be had or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// The state was removed, by this node or another. `create` makes it anew.
    Removed,
    /// [`StateOptions::key`] is empty, too long or not visible ASCII.
    InvalidKey,
    /// The hub's log stores nothing, so nobody could read a state from it.
    NoReplay,
    /// [`REMOVED`] cannot be the name of a state's channel.
    InvalidChannel,
    /// The value is not of the type that was asked for, or cannot be written as JSON; the text says what is wrong.
    Type(String),
    /// The value is larger than the given limit, in bytes of JSON.
    TooLarge(usize),
    /// This process follows as many states as [`StateOptions::states_max`] allows.
    TooManyStates(usize),
    /// Others changed the value each time that this change was tried, so many times.
    Contended(u32),
    /// The change could not be published. After [`LogError::Closed`] or [`LogError::Storage`] it is unknown whether it
    /// was: [`SharedState::get`] tells, once the log can be read again.
    Publish(PublishError),
}

impl StateError {
    /// A name that does not change, for logs and answers.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Removed => "state_removed",
            Self::InvalidKey => "invalid_state_key",
            Self::NoReplay => "no_buffer",
            Self::InvalidChannel => "invalid_channel",
            Self::Type(_) => "state_type",
            Self::TooLarge(_) => "state_too_large",
            Self::TooManyStates(_) => "too_many_states",
            Self::Contended(_) => "state_contended",
            Self::Publish(_) => "state_not_published",
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("the state was removed; create it again to go on"),
            Self::InvalidKey => {
                write!(f, "a state's key takes 1 to {KEY_BYTES_MAX} visible ASCII characters")
            }
            Self::NoReplay => {
                f.write_str("a state lives in the log, and this one stores nothing: take MemoryLog at least")
            }
            Self::InvalidChannel => write!(f, "a state's channel cannot be named {REMOVED}"),
            Self::Type(reason) => write!(f, "the value is not what its type says: {reason}"),
            Self::TooLarge(max) => write!(f, "a state's value takes at most {max} bytes of JSON"),
            Self::TooManyStates(max) => write!(f, "{max} states are followed, which is the limit"),
            Self::Contended(times) => {
                write!(
                    f,
                    "others changed the state before each of {times} attempts: too many write it at once"
                )
            }
            Self::Publish(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StateError {}

impl From<PublishError> for StateError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<LogError> for StateError {
    fn from(error: LogError) -> Self {
        Self::Publish(PublishError::Log(error))
    }
}

/// Creates, finds and removes the states of a hub. What one node does, all nodes on the same log see. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use holdfast_sse::server::{Hub, MemoryLog, StateManager, StateOptions, StreamOptions};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
/// let states = StateManager::new(&hub, StateOptions::default())?;
///
/// let users = states.create("user-count", 0_u32).await?;
/// users.update(|count| count + 1).await?; // clients of the channel get {"value":1}
/// users.set(1).await?; // nothing: it is 1 already
/// assert_eq!(users.get()?, 1);
///
/// states.remove("user-count").await?;
/// # Ok::<(), holdfast_sse::server::StateError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct StateManager {
    hub: Arc<Inner>,
    options: Arc<StateOptions>,
}

impl StateManager {
    /// A manager of the states on a hub's log.
    ///
    /// # Errors
    /// [`StateError::InvalidKey`], [`StateError::NoReplay`].
    pub fn new(hub: &Hub, options: StateOptions) -> Result<Self, StateError> {
        let key = &options.key;
        if !((1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(StateError::InvalidKey);
        }
        if !hub.inner.log.replays() {
            return Err(StateError::NoReplay);
        }
        Ok(Self { hub: Arc::clone(&hub.inner), options: Arc::new(options) })
    }

    /// The state of a channel: the one that exists, on whatever node it was made, else a new one that begins with
    /// `initial`.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn create<T>(&self, channel: &str, initial: T) -> Result<SharedState<T>, StateError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let core = self.open(channel).await?;
        let initial = shared::encode(&initial, self.options.value_bytes_max)?;
        core.change(&self.hub, |entry| Ok(entry.value.is_none().then(|| Change::Set(initial.clone()))))
            .await?;
        Ok(SharedState::new(&self.hub, self.keep(core).await?))
    }

    /// The state of a channel, where there is one.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn get<T>(&self, channel: &str) -> Result<Option<SharedState<T>>, StateError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let core = self.open(channel).await?;
        if !core.exists() {
            return Ok(None);
        }
        Ok(Some(SharedState::new(&self.hub, self.keep(core).await?)))
    }

    /// Whether the channel has a state.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn has(&self, channel: &str) -> Result<bool, StateError> {
        Ok(self.open(channel).await?.exists())
    }

    /// Removes the state of a channel on all nodes: clients get [`REMOVED`], handles [`StateError::Removed`]. False where
    /// there was none.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn remove(&self, channel: &str) -> Result<bool, StateError> {
        let core = self.open(channel).await?;
        let removed =
            core.change(&self.hub, |entry| Ok(entry.value.is_some().then_some(Change::Remove))).await?;
        self.hub.states.settle(&core);
        Ok(removed)
    }

    /// The channels whose states this process follows, in no order.
    #[must_use]
    pub fn channels(&self) -> Vec<String> {
        let map = self.hub.states.map();
        map.keys().filter(|(_, key)| *key == self.options.key).map(|(channel, _)| channel.clone()).collect()
    }

    /// The state as the log has it now.
    async fn open(&self, channel: &str) -> Result<Arc<Core>, StateError> {
        if channel == REMOVED {
            return Err(StateError::InvalidChannel);
        }
        let known = self.hub.states.map().get(&(channel.to_owned(), self.options.key.clone())).cloned();
        let core = match known {
            Some(core) => core,
            None => Arc::new(Core::new(&self.hub, channel, &self.options)?),
        };
        core.catch_up().await?;
        Ok(core)
    }

    /// Follows a state from now on. Who opens it at the same time shares it.
    async fn keep(&self, core: Arc<Core>) -> Result<Arc<Core>, StateError> {
        let known = {
            let mut map = self.hub.states.map();
            let count = map.len();
            match map.entry(core.name()) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(_) if count >= self.options.states_max => {
                    return Err(StateError::TooManyStates(self.options.states_max));
                }
                Entry::Vacant(free) => {
                    core.follow(&self.hub);
                    Arc::clone(free.insert(core))
                }
            }
        };
        // It may not have seen yet what we know.
        known.catch_up().await?;
        Ok(known)
    }
}

/// The states that a hub's process follows, by channel and key.
#[derive(Debug, Default)]
pub(crate) struct States {
    map: Mutex<BTreeMap<(String, String), Arc<Core>>>,
}

impl States {
    fn map(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Core>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a state that exists, lets go of one that does not.
    fn settle(&self, core: &Arc<Core>) {
        let mut map = self.map();
        match map.entry(core.name()) {
            Entry::Vacant(free) if core.exists() => {
                free.insert(Arc::clone(core));
            }
            Entry::Occupied(known) if !core.exists() && Arc::ptr_eq(known.get(), core) => {
                known.remove();
            }
            _ => {}
        }
    }

    /// The states of a channel that are held, by their keys.
    fn of(&self, channel: &str) -> Vec<(String, Arc<Core>)> {
        let map = self.map();
        map.range((channel.to_owned(), String::new())..)
            .take_while(|(name, _)| name.0 == channel)
            .map(|(name, core)| (name.1.clone(), Arc::clone(core)))
            .collect()
    }

    /// Lets go of the states of a channel that was removed.
    pub(crate) async fn channel_removed(&self, channel: &str) {
        for (_, core) in self.of(channel) {
            // Where the log cannot be read now, whoever asks next finds out.
            let _ = core.catch_up().await;
            self.settle(&core);
        }
    }

    /// Where a newcomer to `channel` begins, so that its first event is the value of the channel's state; with states of
    /// several keys, that of the one which was changed longest ago. `None` where the channel has no state. The log tells
    /// of states that this process does not follow; only of those that it follows does it know a value that the log lost.
    pub(crate) async fn beginning(
        &self,
        hub: &Arc<Inner>,
        channel: &Channel,
        bounds: &Bounds,
    ) -> Option<Place> {
        let mut places = channel.states();
        places.retain(|_, place| bounds.oldest.is_some_and(|oldest| oldest <= *place));
        for (key, core) in self.of(channel.name()) {
            if let Err(error) = core.keep_stored(hub).await {
                tracing::warn!(event = "state.failed", code = error.code(), %error);
            }
            self.settle(&core);
            if let Some(place) = core.place() {
                let newest = places.entry(key).or_insert(place);
                *newest = place.max(*newest);
            }
        }
        let first = places.into_values().min()?;
        Some(bounds.before(first))
    }
}
