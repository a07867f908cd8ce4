//! The server module for axum: event log, streams with replay, heartbeats, drain.
//!
//! A [`Hub`] serves the streams of one [`EventLog`]: mount [`Hub::router`] and publish through [`Hub::publisher`].
//! [`serve`] is the ready-made server behind `holdfast serve`.
//!
//! How it hangs together: a publisher appends to the log; the log encodes the event once and moves the channel's
//! head; every subscriber of the channel wakes, reads what comes after its own place and hands it to its
//! connection. A client that comes back with a cursor is the same subscriber at an earlier place.

mod answer;
mod clock;
mod controls;
mod debug;
mod faults;
mod hub;
pub mod listen;
pub mod log;
mod metrics;
mod options;
mod publish;
mod publisher;
mod request;
mod resume;
mod routes;
pub mod serve;
pub mod state;
mod stream;

pub use hub::Hub;
pub use listen::{ListenOptions, Listener, Tls, TlsError};
pub use log::{EventLog, LogError, MemoryLog, NullLog, RedbLog, RedbOptions, Retention};
pub use options::{CorsOrigins, StreamOptions};
pub use publisher::{Message, PublishError, Published, Publisher};
pub use state::{SharedState, StateError, StateManager, StateOptions};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
