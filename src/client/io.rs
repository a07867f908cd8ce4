//! What goes into the machine and what comes out of it.

use super::ledger::StoredRecord;
use super::notice::{Code, Notice};
use super::response::{Decision, Head};

/// Names one request; answers to an earlier one are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// A request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its answers carry this id.
    pub id: RequestId,
    /// Failed attempts since the last healthy connection.
    pub attempt: u32,
    /// To be sent as `Last-Event-ID`, where it is not empty.
    pub last_event_id: String,
}

/// Why a request failed below HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// What the app sees.
    pub code: Code,
    /// A sentence a person can act on.
    pub message: String,
    /// Whether another attempt can help.
    pub retry: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The app wants a connection.
    Connect,
    /// The answer to [`Output::Restore`].
    Restored(Option<StoredRecord>),
    /// A response began.
    Head(RequestId, Head),
    /// A response began, and the app decided about it.
    Decided(RequestId, Head, Decision),
    /// Bytes of its body.
    Bytes(RequestId, &'a [u8]),
    /// Its body ended cleanly.
    End(RequestId),
    /// The request, or its body, failed.
    Failed(RequestId, TransportError),
    /// The time of [`Output::Wait`] may have come.
    Timer,
    /// The app has finished the records of [`Client::batch`](super::Client::batch) up to this token, within the
    /// task in which they were delivered.
    Processed(u64),
    /// The app has finished this one, later.
    Done(u64),
    /// The page may end now: what is unsaved is to be saved.
    Flush,
    /// The network is back.
    Online,
    /// The network is gone.
    Offline,
    /// Nobody sees the page any more; may be told again and again.
    Hidden,
    /// The page is seen again.
    Visible,
    /// The page is left, and may come back; if it does, [`Input::Awake`] says so. What is unsaved is to be saved.
    PutAside,
    /// The page was left, frozen or asleep: its sockets may be dead without a sign.
    Awake,
    /// The app stops the stream; records behind this token were never given to it. May be told again with an earlier
    /// token, where a handler fails after the stop and its event is to come again.
    Stop {
        /// The last record that the app was given.
        started: u64,
    },
    /// The same, told as another reason than `client_close`: the app's signal, or what the app made of an event.
    StopFor {
        /// The last record that the app was given.
        started: u64,
        /// What the close is told with.
        reason: &'a str,
    },
    /// The app wants a new connection at once; records behind this token were never given to it.
    Reconnect {
        /// The last record that the app was given.
        started: u64,
    },
    /// The app forgets the stream's past (a logout).
    ClearCursor,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Load the stored record, answer with [`Input::Restored`].
    Restore,
    /// Make this request.
    Request(Request),
    /// Give this request up.
    Abort(RequestId),
    /// Hand [`Client::batch`](super::Client::batch) to the app.
    Deliver,
    /// Store this.
    Commit(StoredRecord),
    /// Tell the app.
    Notify(Notice),
    /// Nothing more now; come back at this time.
    Wait(Option<u64>),
}
