//! What is counted.

use serde::Serialize;

use super::notice::number;

/// Counters since the client was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events that came, duplicates and late ones included; heartbeats and control events are not.
    #[serde(serialize_with = "number")]
    pub events_received: u64,
    /// Events that were handed to the app.
    #[serde(serialize_with = "number")]
    pub events_delivered: u64,
    /// Events that came again.
    #[serde(serialize_with = "number")]
    pub duplicates_ignored: u64,
    /// Events that came out of order: early ones that were held back, or late ones.
    #[serde(serialize_with = "number")]
    pub out_of_order: u64,
    /// Events that the server could not give any more, where their number is known.
    #[serde(serialize_with = "number")]
    pub events_missing: u64,
    /// Heartbeats.
    #[serde(serialize_with = "number")]
    pub heartbeats: u64,
    /// Connections that opened after the first.
    pub reconnect_count: u32,
    /// Connections that opened.
    pub connections_opened: u32,
    /// Times that the stream seemed dead.
    pub liveness_failures: u32,
    /// Bytes of response bodies.
    #[serde(serialize_with = "number")]
    pub bytes_received: u64,
    /// Times that the clock was found to run backwards.
    pub clock_regressions: u32,
}
