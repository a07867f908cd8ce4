//! The client as a sans-IO state machine: it decides, its driver does.
//!
//! Time, randomness, the network's answers and the stored cursor come in as values; requests, deliveries and
//! commits go out. Nothing here reads a clock, draws entropy, touches storage or writes a log.
//!
//! # The run loop
//! One mutation, then drain: call [`Client::handle_input`] with the present time and one [`Input`], then
//! [`Client::poll_output`] until it answers [`Output::Wait`]; call again with [`Input::Timer`] at that time or
//! earlier (an early or repeated timer is a no-op). Time is in milliseconds on any clock that does not run
//! backwards; should it do so, the machine goes on from the old value and counts it.
//!
//! [`Output::Deliver`] announces [`Client::batch`]: the events that passed dedupe and ordering, which stay
//! there until the next one is announced. What the app has finished comes back as [`Input::Processed`] or
//! [`Input::Done`], and only that moves the cursor.
//!
//! ```
//! use holdfast_sse::client::{Client, Config, Head, Input, Output};
//!
//! let mut client = Client::new(Config::default());
//! client.handle_input(0, Input::Connect);
//! client.handle_input(0, Input::Restored(None));
//! let request = loop {
//!     match client.poll_output() {
//!         Output::Request(request) => break request.id,
//!         Output::Wait(_) => unreachable!("a connect asks for a request"),
//!         _ => {}
//!     }
//! };
//! client.handle_input(1, Input::Head(request, Head::event_stream()));
//! client.handle_input(2, Input::Bytes(request, b"id: 7\ndata: hello\n\n"));
//! assert_eq!(client.batch().events().next().map(|event| event.data.to_owned()), Some("hello".to_owned()));
//! assert_eq!(client.last_event_id(), "", "not processed yet");
//! let last = client.batch().last_token().unwrap();
//! client.handle_input(2, Input::Processed(last));
//! assert_eq!(client.last_event_id(), "7");
//! ```

mod backoff;
mod batch;
mod config;
mod connection;
mod control;
mod dedupe;
mod done_before;
mod entry;
mod intake;
mod io;
mod ledger;
mod liveness;
mod machine;
mod notice;
mod ordering;
mod reorder;
mod response;
mod scopes;
mod sequencer;
mod state;
mod stats;
mod timers;
mod tracks;
mod usage;
mod visibility;
mod watch;

// What the web side offers by itself.
#[cfg(target_family = "wasm")]
pub(crate) use {
    backoff::Exhausted,
    dedupe::DedupeWindow,
    liveness::Liveness,
    ordering::{Mark, OrderingGuard},
};

pub use backoff::{Backoff, Jitter, RetryPolicy};
pub use batch::{Batch, Event, Kind, NO_NAME_INDEX, PIECE_BYTES_MAX, PIECE_WORDS, RECORD_WORDS};
pub use config::{CannotResumeFallback, Config, DedupeConfig, LivenessConfig, OrderingConfig};
pub use io::{Input, Output, Request, RequestId, TransportError};
pub use ledger::StoredRecord;
pub use machine::Client;
pub use notice::{Code, GiveUpReason, LivenessKind, Notice};
pub use ordering::{OrderingRule, OutOfOrderPolicy};
pub use response::{Decision, Head, retry_after_ms};
pub use state::{State, TRANSITIONS, Transition, TransitionReason};
pub use stats::Stats;
pub use usage::Usage;
pub use visibility::WhenHidden;
