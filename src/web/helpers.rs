//! What JavaScript needs of the core beside connections.

use js_sys::Function;
use wasm_bindgen::prelude::wasm_bindgen;

/// The version of this build, as in `package.json`.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Calls `on_trap` with the message before a panic ends this instance: everything in it is lost then, and the
/// driver in JavaScript makes a new one. The message also goes to the console.
#[wasm_bindgen(js_name = setTrapHook)]
pub fn set_trap_hook(on_trap: Function) {
    // A hook must be `Send + Sync`; there is one thread here.
    let on_trap = wasm_bindgen::JsValue::from(on_trap);
    let hook = SingleThreaded(on_trap);
    std::panic::set_hook(Box::new(move |info| {
        console_error_panic_hook::hook(info);
        hook.call(&info.to_string());
    }));
}

struct SingleThreaded(wasm_bindgen::JsValue);

impl SingleThreaded {
    fn call(&self, message: &str) {
        if let Some(function) = super::host::as_function(&self.0) {
            // What the listener throws must not hide the panic.
            let _ = function.call1(&wasm_bindgen::JsValue::UNDEFINED, &message.into());
        }
    }
}
