//! What a [`Hub`](super::Hub) is told: intervals and limits of its streams and routes.

use super::log::PageLimit;

/// Which origins may use the routes from pages of other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// None: pages of the same origin only.
    #[default]
    SameOrigin,
    /// Any, without credentials.
    Any,
    /// These, as `https://app.example`, with credentials.
    List(Vec<String>),
}

/// Settings of a hub. All durations are in milliseconds.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Between two heartbeats of a stream; 0 sends none. Default 15,000.
    pub heartbeat_ms: u64,
    /// The reconnection time that streams announce. Default 3,000.
    pub retry_ms: u64,
    /// Streams at the same time; further ones are answered with 503. Default 1,000.
    pub connections_max: usize,
    /// What one reading of the log may take. Default 256 events, 64 KiB.
    pub page: PageLimit,
    /// Bytes of one published event, and of the body that brings it. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Origins of other hosts. Default none.
    pub cors: CorsOrigins,
    /// The bearer token that `POST /publish/{channel}` takes; `None` (the default) or empty switches that route off.
    pub publish_token: Option<String>,
    /// The channel of `GET /stream`, which without one is answered with 404. Default `None`.
    pub default_channel: Option<String>,
    /// Announced as `tick_interval` in `control.open`, where the default channel ticks. Default `None`.
    pub tick_ms: Option<u64>,
    /// Serve `/debug/*`, by which anyone can make trouble. Default off.
    pub debug_routes: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 15_000,
            retry_ms: 3_000,
            connections_max: 1_000,
            page: PageLimit::default(),
            event_bytes_max: 1 << 20,
            cors: CorsOrigins::default(),
            publish_token: None,
            default_channel: None,
            tick_ms: None,
            debug_routes: false,
        }
    }
}
