//! The client meets the browser: transports, storage, timers and the JS class.

use wasm_bindgen::prelude::wasm_bindgen;

/// The version of this build, as in `package.json`.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
