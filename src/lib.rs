//! Reliable Server-Sent Events.
//!
//! - [`wire`]: the event-stream format of the HTML standard (section 9.2), and what `holdfast` puts on top of it.
//! - [`client`]: the client as a sans-IO state machine: it decides, its driver does.
//! - `web` (wasm32 only): the driver in a browser, behind the npm package `holdfast-sse`.
//! - `server` (feature `server`, native only): replay log, streams and routes for axum.
//!
//! Who may import whom: `wire ← client ← web`, `wire ← server`. `tests/rooms.rs` checks it.

#[forbid(unsafe_code)]
pub mod client;
#[cfg(all(feature = "server", not(target_family = "wasm")))]
#[forbid(unsafe_code)]
pub mod server;
#[cfg(target_family = "wasm")]
pub mod web;
#[forbid(unsafe_code)]
pub mod wire;
