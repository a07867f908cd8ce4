//! The core in a browser: it is there, and of the version that the package carries.
#![cfg(target_family = "wasm")]

use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

#[wasm_bindgen_test]
fn tells_its_version() {
    assert_eq!(holdfast_sse::web::version(), env!("CARGO_PKG_VERSION"));
}
