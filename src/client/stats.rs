//! What is counted.

use serde::Serialize;

/// Counters since the client was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events that came, duplicates and late ones included; heartbeats and control events are not.
    pub events_received: u64,
    /// Events that were handed to the app.
    pub events_delivered: u64,
    /// Events that came again.
    pub duplicates_ignored: u64,
    /// Events that came out of order: early ones that were held back, or late ones.
    pub out_of_order: u64,
    /// Events that the server could not give any more, where their number is known.
    pub events_missing: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Connections that opened after the first.
    pub reconnect_count: u32,
    /// Connections that opened.
    pub connections_opened: u32,
    /// Times that the stream seemed dead.
    pub liveness_failures: u32,
    /// Bytes of response bodies.
    pub bytes_received: u64,
    /// Times that the clock was found to run backwards.
    pub clock_regressions: u32,
}
