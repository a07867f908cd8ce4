//! An event before and after it is stored.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Appended, LogError, Place};
#[cfg(doc)]
use super::{Channel, KEY_BYTES_MAX, Retention};
use crate::wire::{EncodeError, encode};

/// One stored event, encoded once for all who read it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it stands.
    pub place: Place,
    /// When it was stored, in milliseconds since 1970.
    pub at_ms: u64,
    /// The whole event as it goes over the wire: the `id` line, then [`Frame::body`].
    pub bytes: Bytes,
    id_bytes: usize,
}

impl Frame {
    /// Encodes an event under the id of its place.
    ///
    /// # Errors
    /// The name cannot be written (see [`encode::event`]).
    pub fn encode(
        place: Place,
        epoch: &str,
        at_ms: u64,
        name: &str,
        data: &str,
    ) -> Result<Self, EncodeError> {
        let mut out = Vec::with_capacity(data.len() + name.len() + 80);
        let id = format!("{epoch}-{}", place.sequence);
        encode::event(&mut out, Some(name), Some(&id), data)?;
        Ok(Self { place, at_ms, bytes: out.into(), id_bytes: "id: \n".len() + id.len() })
    }

    /// Its id, as the `id` line has it.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.bytes.get("id: ".len()..self.id_bytes.saturating_sub(1)).unwrap_or_default()
    }

    /// The same event under another id: that of a stream of several channels.
    ///
    /// The id must hold no line end; one of our own never does.
    pub(crate) fn under(&self, id: &[u8]) -> Self {
        let body = &self.bytes[self.id_bytes..];
        let mut bytes = Vec::with_capacity(id.len() + body.len() + "id: \n".len());
        bytes.extend_from_slice(b"id: ");
        bytes.extend_from_slice(id);
        bytes.push(b'\n');
        let id_bytes = bytes.len();
        bytes.extend_from_slice(body);
        Self { bytes: bytes.into(), id_bytes, ..*self }
    }

    /// The event without its `id` line, for streams whose ids cover several channels.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(self.id_bytes..)
    }
}

/// The data of an event that is about to be stored.
#[derive(Debug, Clone)]
pub enum Data {
    /// Stored as it is.
    Text(String),
    /// Stored with the event's sequence between both parts: only the log knows that number.
    Numbered {
        /// What stands before the number.
        before: String,
        /// What stands behind it.
        after: String,
    },
}

impl Data {
    /// Its size without the number.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Numbered { before, after } => before.len() + after.len(),
        }
    }

    /// The text to store, for the event of this sequence.
    #[must_use]
    pub fn render(&self, sequence: u64) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Numbered { before, after } => format!("{before}{sequence}{after}"),
        }
    }
}

/// An event that is about to be stored.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event name.
    pub name: String,
    /// Its data.
    pub data: Data,
    /// A second append to the channel under the same key and of the same content stores nothing and answers with the
    /// first one's place, for as long as the log remembers the key ([`Retention::keys_max`]).
    pub key: Option<Key>,
    /// What it means to a shared state of the channel: the log tells by [`Channel::states`] where newcomers find the value.
    pub state: Option<StateMark>,
}

/// An event that says what a shared state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMark {
    /// Which of the channel's states: [`StateOptions::key`](crate::server::StateOptions::key).
    pub key: String,
    /// It is no more.
    pub removed: bool,
}

impl NewEvent {
    /// Bytes of name and data.
    pub(super) fn bytes(&self) -> usize {
        self.name.len() + self.data.bytes()
    }
}

/// An idempotency key, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The publisher's word; at most [`KEY_BYTES_MAX`] bytes.
    pub text: String,
    /// A fingerprint of what the publisher said. The same key with another one is [`LogError::KeyReused`]. The data
    /// that is stored cannot serve: an envelope around the same payload has another id and time.
    pub content: u64,
}

impl Key {
    /// A key for a content that is made of `parts`.
    #[must_use]
    pub fn new(text: impl Into<String>, parts: &[&str]) -> Self {
        // FNV-1a, which will be the same in each release: fingerprints are stored. It tells mistakes, not attacks.
        let mut content = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |byte: u8| content = (content ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for part in parts {
            part.bytes().for_each(&mut take);
            // No text holds this byte, so it tells where a part ends.
            take(0xff);
        }
        Self { text: text.into(), content }
    }

    /// The answer to a key that is known, with the place of its event and the fingerprint that is stored beside it.
    ///
    /// # Errors
    /// [`LogError::KeyReused`]: it stood for something else.
    pub fn known(&self, place: Place, content: u64) -> Result<Appended, LogError> {
        if self.content == content {
            Ok(Appended { place, duplicate: true })
        } else {
            Err(LogError::KeyReused)
        }
    }
}

/// Whether events that are to be stored together use one key for different things.
pub(super) fn check_keys(events: &[NewEvent]) -> Result<(), LogError> {
    if events.len() < 2 {
        return Ok(());
    }
    let mut seen = HashMap::new();
    let keys = events.iter().filter_map(|event| event.key.as_ref());
    for key in keys {
        if *seen.entry(key.text.as_str()).or_insert(key.content) != key.content {
            return Err(LogError::KeyReused);
        }
    }
    Ok(())
}
