//! The stored cursor: one record a stream in localStorage, `{v, cursor, done, at}`.
//!
//! Storage may be full, denied, corrupt or not there at all (a worker). Then the stream goes on from memory, and
//! the app is told once.

use gloo_storage::{LocalStorage, Storage};
use serde::Serialize;

use super::host::global;
use crate::client::StoredRecord;

/// The format's version; any other is treated as absent.
const VERSION: u32 = 1;
const PREFIX: &str = "holdfast:1:";

#[derive(Serialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    record: StoredRecord,
    /// When it was written, in milliseconds since 1970: for people who look at it.
    at: f64,
}

pub(crate) struct CursorStore {
    key: Option<String>,
    told: bool,
}

impl CursorStore {
    /// A store under `persist_key`, or none.
    pub(crate) fn new(persist_key: Option<&str>) -> Self {
        Self { key: persist_key.map(|key| format!("{PREFIX}{key}")), told: false }
    }

    /// What an earlier page stored, or why it cannot be had.
    pub(crate) fn load(&mut self) -> (Option<StoredRecord>, Option<String>) {
        let Some(key) = &self.key else { return (None, None) };
        if !is_available() {
            return (None, self.tell("there is no localStorage here, or the browser denies it"));
        }
        match LocalStorage::raw().get_item(key) {
            Ok(None) => (None, None),
            Ok(Some(text)) => match read(&text) {
                Ok(record) => (record, None),
                Err(Unreadable) => (None, self.tell("what is stored there cannot be read")),
            },
            Err(_) => (None, self.tell("reading from localStorage failed")),
        }
    }

    /// Stores `record`; answers what the app must be told, once.
    pub(crate) fn save(&mut self, record: StoredRecord) -> Option<String> {
        let key = self.key.as_ref()?;
        if !is_available() {
            return self.tell("there is no localStorage here, or the browser denies it");
        }
        let saved = if record.cursor.is_empty() && record.done.is_empty() {
            LocalStorage::raw().remove_item(key).is_ok()
        } else {
            LocalStorage::set(key, Stored { v: VERSION, record, at: js_sys::Date::now() }).is_ok()
        };
        if saved { None } else { self.tell("writing to localStorage failed (full?)") }
    }

    fn tell(&mut self, what: &str) -> Option<String> {
        let first = !std::mem::replace(&mut self.told, true);
        first.then(|| format!("{what}: the cursor is kept in memory, so that a reload starts without it"))
    }
}

/// gloo-storage panics where there is no storage; browsers throw at the mere mention of a denied one.
fn is_available() -> bool {
    global("localStorage").is_some()
        && web_sys::window().is_some_and(|window| matches!(window.local_storage(), Ok(Some(_))))
}

struct Unreadable;

/// Another version counts as absent, whatever else it holds: it is not ours to judge.
fn read(text: &str) -> Result<Option<StoredRecord>, Unreadable> {
    let value = js_sys::JSON::parse(text).map_err(|_| Unreadable)?;
    let version =
        js_sys::Reflect::get(&value, &"v".into()).ok().and_then(|v| v.as_f64()).ok_or(Unreadable)?;
    if version != f64::from(VERSION) {
        return Ok(None);
    }
    serde_wasm_bindgen::from_value(value).map(Some).map_err(|_| Unreadable)
}
