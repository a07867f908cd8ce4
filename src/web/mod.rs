//! The client meets the browser: transport, storage, timers, the page's life, and the class behind the npm package.
//!
//! Rust owns the transports, the timers, the storage and the machine; JavaScript owns the app's callbacks and the
//! loading. The two meet in [`host`]: batches go out as tables that JavaScript decodes once, everything rare goes
//! out as plain objects.
//!
//! Architecture invariant: no borrow of wasm's state exists while app code runs. [`driver::Driver`] takes one
//! output at a time out of the machine and lets go of it before it calls out.

mod connector;
mod driver;
mod event_source;
mod fetch;
mod helpers;
mod host;
mod lifecycle;
mod options;
mod parser;
mod policies;
mod storage;
mod timer;
mod transport;

pub use connector::Connector;
pub use helpers::{set_trap_hook, version};
pub use host::Host;
pub use parser::StreamParser;
pub use policies::{Policies, transitions};
