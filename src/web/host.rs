//! What the core calls in JavaScript: the other side of the boundary, implemented in `pkg-template/src`.

use js_sys::{Array, Function};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::client::{Batch, Notice, StoredRecord};

#[wasm_bindgen(typescript_custom_section)]
const HOST: &str = r#"
/** What the core calls. Pointers and lengths are only valid during the call; lengths count elements. */
export interface Host {
  /** Copies a batch out and runs the app's handler. Answers how many records it finished at once. */
  deliver(
    records: number, recordWords: number,
    pieces: number, pieceWords: number,
    text: number, textBytes: number,
    firstToken: number, newNames: string[] | undefined, notices: Notice[] | undefined,
  ): number;
  notify(notice: Notice): void;
  /** The core begins to work, and comes to an end: what lies between and never ends is a failure. */
  enter(): void;
  leave(): void;
  /** The value that the option `url` or `headers` has now. */
  ask(option: string): Promise<unknown>;
  /** Makes a request. Answers with its response, or with the response and what the app decided about it. */
  request(url: string, init: RequestInit, cursor: string): Promise<unknown>;
  /** A connection was begun; `end` ends it without the core, which a trap may take away. */
  connected(end: () => void): void;
  /** The cursor moved to here: everything up to it is processed, and so are the ids in `done`. */
  committed(cursor: string, done: string[] | undefined): void;
  /** Load the cursor from the app's own store; answered with `restored`. */
  restore(): void;
  /** The lock on the stored cursor is ours. The core releases it by itself, unless it fails: then others must. */
  lockHeld(release: () => void): void;
}
/** One of the core's notices; `kind` names the callback. */
export type Notice = { kind: string } & Record<string, unknown>;
"#;

#[wasm_bindgen]
extern "C" {
    /// The object that implements the other side.
    #[wasm_bindgen(typescript_type = "Host")]
    pub type Host;

    #[wasm_bindgen(method, structural)]
    #[allow(clippy::too_many_arguments)]
    fn deliver(
        this: &Host,
        records: *const u32,
        record_words: usize,
        pieces: *const u32,
        piece_words: usize,
        text: *const u8,
        text_bytes: usize,
        first_token: f64,
        new_names: Option<Array>,
        notices: Option<Array>,
    ) -> f64;

    #[wasm_bindgen(method, structural)]
    fn notify(this: &Host, notice: JsValue);

    #[wasm_bindgen(method, structural)]
    pub(crate) fn enter(this: &Host);

    #[wasm_bindgen(method, structural)]
    pub(crate) fn leave(this: &Host);

    #[wasm_bindgen(method, structural)]
    pub(crate) fn ask(this: &Host, option: &str) -> js_sys::Promise;

    #[wasm_bindgen(method, structural)]
    pub(crate) fn request(
        this: &Host,
        url: &str,
        init: &web_sys::RequestInit,
        cursor: &str,
    ) -> js_sys::Promise;

    #[wasm_bindgen(method, structural)]
    fn connected(this: &Host, end: &Function);

    #[wasm_bindgen(method, structural)]
    fn committed(this: &Host, cursor: &str, done: Option<Array>);

    #[wasm_bindgen(method, structural)]
    pub(crate) fn restore(this: &Host);

    #[wasm_bindgen(method, structural, js_name = lockHeld)]
    pub(crate) fn lock_held(this: &Host, release: &Function);
}

impl Host {
    /// Hands a batch over; answers how many of its records the app finished at once.
    ///
    /// JavaScript reads the tables through the addresses, before it runs any app code; `batch` must not change
    /// until it has.
    pub(crate) fn deliver_batch(&self, call: &BatchCall) -> u64 {
        let finished = self.deliver(
            call.records.0,
            call.records.1,
            call.pieces.0,
            call.pieces.1,
            call.text.0,
            call.text.1,
            call.first_token as f64,
            call.new_names.clone(),
            call.notices.clone(),
        );
        finished as u64
    }

    /// Tells how a connection is ended without us: by this method of `object`.
    pub(crate) fn tell_connected(&self, object: &JsValue, method: &str) {
        if let Some(end) = js_sys::Reflect::get(object, &method.into()).ok().as_ref().and_then(as_function) {
            self.connected(&end.bind0(object));
        }
    }

    pub(crate) fn tell_committed(&self, record: &StoredRecord) {
        let done: Array = record.done.iter().map(|id| JsValue::from_str(id)).collect();
        self.committed(&record.cursor, Some(done).filter(|done| done.length() > 0));
    }

    pub(crate) fn notify_app(&self, notice: &Notice) {
        self.notify(to_js(notice));
    }
}

/// A batch as addresses, so that no borrow of the machine outlives the moment in which it was described.
pub(crate) struct BatchCall {
    records: (*const u32, usize),
    pieces: (*const u32, usize),
    text: (*const u8, usize),
    pub(crate) first_token: u64,
    new_names: Option<Array>,
    notices: Option<Array>,
}

impl BatchCall {
    pub(crate) fn describe(batch: &Batch) -> Self {
        let new_names: Array = batch.new_names().map(JsValue::from_str).collect();
        let notices: Array = batch.notices().iter().map(to_js).collect();
        Self {
            records: (batch.records().as_ptr(), batch.records().len()),
            pieces: (batch.pieces().as_ptr(), batch.pieces().len()),
            text: (batch.text().as_ptr(), batch.text().len()),
            first_token: batch.first_token(),
            new_names: Some(new_names).filter(|names| names.length() > 0),
            notices: Some(notices).filter(|notices| notices.length() > 0),
        }
    }
}

/// A plain object, with what is absent left out.
pub(crate) fn to_js(value: &impl Serialize) -> JsValue {
    let serializer = serde_wasm_bindgen::Serializer::new().serialize_maps_as_objects(true);
    value.serialize(&serializer).unwrap_or(JsValue::UNDEFINED)
}

/// A global function or object, where there is one.
pub(crate) fn global(name: &str) -> Option<JsValue> {
    js_sys::Reflect::get(&js_sys::global(), &name.into())
        .ok()
        .filter(|value| !value.is_undefined() && !value.is_null())
}

/// Whether `value` can be called.
pub(crate) fn as_function(value: &JsValue) -> Option<Function> {
    value.dyn_ref::<Function>().cloned()
}
