//! The class that JavaScript holds: one stream.

use std::rc::Rc;

use js_sys::{Array, Object};
use wasm_bindgen::prelude::*;

use super::driver::Driver;
use super::host::{Host, to_js};
use super::options::WebOptions;
use crate::client::{Input, State, StoredRecord};

/// One stream. Its methods take `&self` only and hold no borrow when they call out, so that a call from inside a
/// callback cannot find the object in use. Dropping it ends everything that it started.
#[wasm_bindgen]
pub struct Connector {
    driver: Rc<Driver>,
}

#[wasm_bindgen]
impl Connector {
    /// Checks `url` and `options`; nothing is sent before `connect`.
    ///
    /// # Errors
    /// An `Error` with `code` (`invalid_option`, `invalid_url`) and `option`.
    #[wasm_bindgen(constructor)]
    pub fn new(url: JsValue, options: &Object, host: Host) -> Result<Connector, JsValue> {
        let options = WebOptions::read(url, options)?;
        Ok(Self { driver: Driver::new(options, host) })
    }

    /// Begins with `progress` (see there) in place of what is stored; only before the first `connect`.
    #[wasm_bindgen(js_name = beginAt)]
    pub fn begin_at(&self, progress: Vec<String>) {
        let mut ids = progress.into_iter();
        if let Some(cursor) = ids.next() {
            self.driver.begin_at(StoredRecord { cursor, done: ids.collect() });
        }
    }

    /// The cursor, and behind it the ids processed beyond it.
    #[must_use]
    pub fn progress(&self) -> Vec<String> {
        let record = self.driver.client().progress();
        std::iter::once(record.cursor).chain(record.done).collect()
    }

    /// What the app's own store held, in answer to the host's `restore`.
    pub fn restored(&self, cursor: Option<String>, done: Option<Array>) {
        let done = done.map(|done| done.iter().filter_map(|id| id.as_string()).collect());
        let record = cursor.map(|cursor| StoredRecord { cursor, done: done.unwrap_or_default() });
        self.driver.input(Input::Restored(record));
    }

    /// Connects, unless it is connected or about to.
    pub fn connect(&self) {
        self.driver.begin(Input::Connect);
    }

    /// Ends the stream, for a reason other than `client_close` where one is given. Records behind the token `started`
    /// were never given to the app.
    pub fn stop(&self, started: f64, reason: Option<String>) {
        let started = started as u64;
        match reason {
            None => self.driver.input(Input::Stop { started }),
            Some(reason) => self.driver.input(Input::StopFor { started, reason: &reason }),
        }
    }

    /// Makes a new connection at once. Records behind the token `started` were never given to the app.
    pub fn reconnect(&self, started: f64) {
        self.driver.begin(Input::Reconnect { started: started as u64 });
    }

    /// The app has finished this record, later than in the call that delivered it.
    pub fn done(&self, token: f64) {
        self.driver.input(Input::Done(token as u64));
    }

    /// Forgets the cursor, the stored one too.
    #[wasm_bindgen(js_name = clearCursor)]
    pub fn clear_cursor(&self) {
        self.driver.clear_cursor();
    }

    /// `idle`, `connecting`, `open`, `retrying` or `closed`.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn state(&self) -> String {
        let name = match self.driver.client().state() {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Open => "open",
            State::Retrying => "retrying",
            State::Closed => "closed",
        };
        name.to_owned()
    }

    /// The cursor: everything up to this id is processed; empty where there is none.
    #[wasm_bindgen(getter, js_name = lastEventId)]
    #[must_use]
    pub fn last_event_id(&self) -> String {
        self.driver.client().last_event_id().to_owned()
    }

    /// The counters, as a plain object.
    #[must_use]
    pub fn stats(&self) -> JsValue {
        to_js(&self.driver.client().stats())
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.driver.abandon();
    }
}
