//! The server module for axum: event log, streams with replay, heartbeats, drain.
//!
//! A [`Hub`] serves the streams of one [`EventLog`]: mount [`Hub::router`] and publish through [`Hub::publisher`].
//! [`serve`] is the ready-made server behind `holdfast serve`.
//!
//! How it hangs together: a publisher appends to the log; the log encodes the event once and moves the channel's
//! head; every subscriber of the channel reads what comes after its own place and hands it to its connection (where
//! many are at the head, one task does it for all of them: `fanout.rs`). A client that comes back with a cursor is the same subscriber at an earlier place.

mod answer;
mod auth;
mod channels;
mod clock;
mod compress;
mod controls;
mod debug;
mod fanout;
mod fate;
mod faults;
mod feed;
mod handle;
mod hooks;
mod hub;
mod ids;
mod lane;
pub mod listen;
pub mod log;
pub mod logging;
mod metrics;
mod open;
mod options;
mod publish;
mod publisher;
mod pubsub;
mod reason;
mod registry;
mod request;
mod resume;
mod routes;
pub mod serve;
pub mod state;
mod stream;
pub mod subscribe;
mod voice;

pub use auth::{AuthRequest, Authorize, Denied, Identity};
pub use channels::{ChannelHandle, Channels};
pub use handle::{SendError, StreamHandle};
pub use hooks::Hooks;
pub use hub::Hub;
pub use ids::{CorrelationContext, EventId, InvalidEventId, generate_stream_id, trace_id};
pub use listen::{ListenOptions, Listener, Tls, TlsError};
pub use log::{EventLog, LogError, MemoryLog, NullLog, RedbLog, RedbOptions, Retention};
#[cfg(feature = "redis")]
pub use log::{RedisLog, RedisOptions};
pub use options::{Beginning, CorsOrigins, EventNames, SlowConsumer, StreamOptions};
pub use publisher::{Message, PublishError, Published, Publisher};
pub use pubsub::{PubSub, Received};
pub use reason::CloseReason;
pub use registry::StreamInfo;
pub use state::{SharedState, StateError, StateManager, StateOptions};

/// Where heartbeats are logged: they are many, and logged only when asked for. (K29)
const HEARTBEAT_LOG: &str = "holdfast_sse::heartbeat";
/// Where beginnings and ends of replays are logged. (K29)
const REPLAY_LOG: &str = "holdfast_sse::replay";

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
