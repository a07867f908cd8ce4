//! A state in the hands of an app.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::StateError;
use super::core::{Change, Core, Encoded, Entry};
use crate::server::hub::Inner;
use crate::server::log::LogError;

/// A value that all nodes share. Cheap to clone; see [`StateManager`](super::StateManager).
pub struct SharedState<T> {
    hub: Arc<Inner>,
    core: Arc<Core>,
    entry: watch::Receiver<Entry>,
    value: PhantomData<fn(T) -> T>,
}

impl<T> Clone for SharedState<T> {
    fn clone(&self) -> Self {
        let (hub, core) = (Arc::clone(&self.hub), Arc::clone(&self.core));
        Self { hub, core, entry: self.entry.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for SharedState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (channel, key) = self.core.name();
        f.debug_struct("SharedState").field("channel", &channel).field("key", &key).finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned + PartialEq> SharedState<T> {
    pub(super) fn new(hub: &Arc<Inner>, core: Arc<Core>) -> Self {
        let entry = core.entry();
        Self { hub: Arc::clone(hub), core, entry, value: PhantomData }
    }

    /// The channel on which clients see it.
    #[must_use]
    pub fn channel(&self) -> String {
        self.core.name().0
    }

    /// The value as this process knows it: with all its own changes, and those of other nodes as they arrive.
    ///
    /// # Errors
    /// [`StateError::Removed`], [`StateError::Type`].
    pub fn get(&self) -> Result<T, StateError> {
        decode(self.entry.borrow().value.as_deref())
    }

    /// Sets the value. True if it was published; false where it is that already.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn set(&self, value: T) -> Result<bool, StateError> {
        let encoded = encode(&value, self.core.value_bytes_max)?;
        let change = |entry: &Entry| {
            let now: T = decode(entry.value.as_deref())?;
            Ok((now != value).then(|| Change::Set(encoded.clone())))
        };
        self.core.change(&self.hub, change).await
    }

    /// Sets the value to what `change` makes of the present one. When another node was faster, `change` is called again with
    /// the new value: no update is lost, and `change` should do nothing else. True if something was published; false
    /// where the value stayed what it is.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn update(&self, mut change: impl FnMut(&T) -> T) -> Result<bool, StateError> {
        let change = |entry: &Entry| {
            let now: T = decode(entry.value.as_deref())?;
            let next = change(&now);
            (next != now).then(|| encode(&next, self.core.value_bytes_max).map(Change::Set)).transpose()
        };
        self.core.change(&self.hub, change).await
    }

    /// Waits until the value is another than when this handle was made, or than this told the last time, and answers with
    /// it. Values in between may be skipped.
    ///
    /// # Errors
    /// [`StateError::Removed`] when it was removed; the next call waits until it exists again. [`StateError::Type`].
    pub async fn changed(&mut self) -> Result<T, StateError> {
        // The core that is held here holds the sender.
        self.entry.changed().await.map_err(|_| StateError::from(LogError::Closed))?;
        decode(self.entry.borrow_and_update().value.as_deref())
    }
}

fn decode<T: DeserializeOwned>(value: Option<&Value>) -> Result<T, StateError> {
    T::deserialize(value.ok_or(StateError::Removed)?).map_err(|error| StateError::Type(error.to_string()))
}

pub(super) fn encode<T: Serialize + DeserializeOwned>(
    value: &T,
    bytes_max: usize,
) -> Result<Encoded, StateError> {
    let wrong = |error: serde_json::Error| StateError::Type(error.to_string());
    let text = serde_json::to_string(value).map_err(wrong)?;
    if text.len() > bytes_max {
        return Err(StateError::TooLarge(bytes_max));
    }
    // What cannot be read back (a NaN becomes `null`) must not get into the log.
    let value: Value = serde_json::from_str(&text).map_err(wrong)?;
    T::deserialize(&value).map_err(wrong)?;
    Ok(Encoded { text, value: Arc::new(value) })
}
