//! The connection's states and every way from one to another: one table, from which the diagram in
//! ARCHITECTURE.md is made.

use serde::Serialize;

/// Where a connection stands. The names are the ones an app sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Never connected.
    Idle,
    /// A request is under way, or waits for its cursor.
    Connecting,
    /// The response was accepted; its body is read.
    Open,
    /// Waits for the time of the next attempt, or for the network to come back.
    Retrying,
    /// Ended, by the app or for good; `connect` starts again.
    Closed,
}

/// What moved a connection from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitionReason {
    /// The app asked for a connection.
    Connect,
    /// The server answered with an event stream.
    Accepted,
    /// The attempt failed, or the stream was lost; another follows.
    Lost,
    /// The time of the next attempt has come, or the network is back.
    RetryDue,
    /// Made anew at once: the app asked, the page came back, credentials were refreshed or a hole is fetched.
    Reconnect,
    /// The answer rules out another attempt.
    Refused,
    /// The server ended the stream for good (204, or the clean end of a request that is not repeated).
    Ended,
    /// The retry policy allows no further attempt.
    GaveUp,
    /// The app stopped it.
    Stop,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// From this state …
    pub from: State,
    /// … for this reason …
    pub reason: TransitionReason,
    /// … to this one.
    pub to: State,
}

const fn row(from: State, reason: TransitionReason, to: State) -> Transition {
    Transition { from, reason, to }
}

/// All transitions there are. A pair that is not listed does nothing.
pub const TRANSITIONS: [Transition; 22] = {
    use State::{Closed, Connecting, Idle, Open, Retrying};
    use TransitionReason as R;
    [
        row(Idle, R::Connect, Connecting),
        row(Idle, R::Stop, Closed),
        row(Connecting, R::Accepted, Open),
        row(Connecting, R::Lost, Retrying),
        row(Connecting, R::Reconnect, Connecting),
        row(Connecting, R::Refused, Closed),
        row(Connecting, R::Ended, Closed),
        row(Connecting, R::GaveUp, Closed),
        row(Connecting, R::Stop, Closed),
        row(Open, R::Lost, Retrying),
        row(Open, R::Reconnect, Connecting),
        row(Open, R::Refused, Closed),
        row(Open, R::Ended, Closed),
        row(Open, R::GaveUp, Closed),
        row(Open, R::Stop, Closed),
        row(Retrying, R::RetryDue, Connecting),
        row(Retrying, R::Reconnect, Connecting),
        row(Retrying, R::Connect, Connecting),
        row(Retrying, R::GaveUp, Closed),
        row(Retrying, R::Stop, Closed),
        row(Closed, R::Connect, Connecting),
        row(Closed, R::Reconnect, Connecting),
    ]
};

impl State {
    /// The state that `reason` leads to from here, if the table has such a row.
    #[must_use]
    pub fn after(self, reason: TransitionReason) -> Option<Self> {
        TRANSITIONS.iter().find(|row| row.from == self && row.reason == reason).map(|row| row.to)
    }
}
