//! What a [`Hub`](super::Hub) is told: intervals and limits of its streams and routes.

use std::fmt;

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

/// Where a stream begins for a client that has no cursor, and asks for nothing by `?from=` or `?last=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beginning {
    /// With the next event that is published.
    #[default]
    Now,
    /// With the oldest event that is stored.
    Start,
    /// With the last so many.
    Last(u64),
}

/// What becomes of a stream whose client reads more slowly than events are published. A stream holds nothing but its
/// place in the log, so that a slow one costs the others nothing either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowConsumer {
    /// It reads the log as fast as it can; what expired meanwhile is told as `control.cannot_resume`.
    #[default]
    Reread,
    /// It is closed with `overload_reject` as soon as it is further behind than this. The replay that a client asked
    /// for when it came does not count.
    Close {
        /// Events behind the newest.
        events_max: u64,
        /// Bytes behind the newest, of those that are held in memory.
        bytes_max: usize,
    },
}

/// What the server's own events are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventNames {
    /// `system.heartbeat`, `system.error`, `control.close`, with envelopes.
    #[default]
    Protocol,
    /// `heartbeat`, `error`, `end`, as evstream's clients know them. The client of this package takes them for events of
    /// the app.
    Evstream,
}

/// Settings of a hub. All durations are in milliseconds.
#[derive(Clone)]
pub struct StreamOptions {
    /// Between two heartbeats of a stream; 0 sends none. Default 15,000.
    pub heartbeat_ms: u64,
    /// The reconnection time that streams announce. Default 3,000.
    pub retry_ms: u64,
    /// Streams at the same time; further ones are answered with 503. Default 1,000.
    pub connections_max: usize,
    /// Streams of one address at the same time (of one /64 in IPv6); further ones are answered with 429. It needs the
    /// peer's address: axum's `ConnectInfo<SocketAddr>`, or `address_header`. Default `None`: as many as there are.
    pub connections_per_address_max: Option<usize>,
    /// The header in which a proxy of your own tells the client's address; its last address counts. A client that
    /// reaches the server past the proxy can write there what it likes. Default `None`.
    pub address_header: Option<String>,
    /// Streams of one channel at the same time; further ones are answered with 503. Default `None`: as many as there are.
    pub listeners_per_channel_max: Option<usize>,
    /// Channels of one stream, at most 64. Default 16.
    pub channels_per_stream_max: usize,
    /// Where a stream begins without a cursor. Default with the next event.
    pub fresh: Beginning,
    /// Whether a client that comes back with a cursor goes on behind it. Without, it is told `resume_disabled` and begins as
    /// a fresh one. Default on.
    pub resume: bool,
    /// Stored events that a stream begins with, at most. Of a longer replay the newest are sent: a client with a cursor is
    /// told `replay_too_large` with the number of those left out, and `control.replay_start` says `replay_truncated`. At
    /// least 1; default `None`: all there are, page by page. A newcomer to a channel of shared state gets its value
    /// and all behind it whatever this says.
    pub replay_events_max: Option<u64>,
    /// What becomes of slow readers. Default [`SlowConsumer::Reread`].
    pub slow: SlowConsumer,
    /// Events sent to one stream alone that may wait for it. Default 256.
    pub direct_events_max: usize,
    /// From so many streams of a channel on, those that have read everything are written to by one task for each 1,024 of
    /// them, past their own tasks: half the processor time. Only streams over plain HTTP/1.1 on a
    /// [`Listener`](super::Listener) whose chunks come through the router as they were made; middleware that passes them
    /// on unchanged does not see what goes past it. `usize::MAX` never does. Default 32.
    pub fanout_listeners_min: usize,
    /// Tell each stream of a channel how many there are in this process (`control.presence`), at most once in so many
    /// milliseconds; 0 does not. Default 0.
    pub presence_ms: u64,
    /// Names of heartbeats, errors and the end. Default the protocol's.
    pub names: EventNames,
    /// What one reading of the log may take. Default 256 events, 64 KiB.
    pub page: PageLimit,
    /// Bytes of one published event, and of the body that brings it. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Events that are published together, see [`Publisher::publish_all`](super::Publisher::publish_all). Default 1,000.
    pub batch_events_max: usize,
    /// Origins of other hosts. Default none.
    pub cors: CorsOrigins,
    /// Request headers that pages of other hosts may send beside those that we read ourselves: of a hook or a proxy of your
    /// own. Names that are none are left out. Default none.
    pub cors_headers: Vec<String>,
    /// The bearer token that `POST /publish/{channel}` takes; `None` (the default) or empty switches that route off.
    pub publish_token: Option<String>,
    /// The token that streams take, as a bearer or as `?token=`; `None` (the default) or empty lets everybody in. For
    /// more than one secret see [`Hooks::authorize`](super::Hooks::authorize).
    pub stream_token: Option<String>,
    /// The channel of `GET /stream`, which without one is answered with 404. Default `None`.
    pub default_channel: Option<String>,
    /// Announced as `tick_interval` in `control.open`, where the default channel ticks. Default `None`.
    pub tick_ms: Option<u64>,
    /// Compress streams with zstd or gzip for clients that take it; each event is still there at once. A compressed
    /// stream keeps some 70 KiB (zstd) or 215 KiB (gzip) more of memory. Default off.
    pub compress: bool,
    /// Serve `/debug/*`, by which anyone can make trouble. Default off.
    pub debug_routes: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 15_000,
            retry_ms: 3_000,
            connections_max: 1_000,
            connections_per_address_max: None,
            address_header: None,
            listeners_per_channel_max: None,
            channels_per_stream_max: 16,
            fresh: Beginning::default(),
            resume: true,
            replay_events_max: None,
            slow: SlowConsumer::default(),
            direct_events_max: 256,
            fanout_listeners_min: 32,
            presence_ms: 0,
            names: EventNames::default(),
            page: PageLimit::default(),
            event_bytes_max: 1 << 20,
            batch_events_max: 1_000,
            cors: CorsOrigins::default(),
            cors_headers: Vec::new(),
            publish_token: None,
            stream_token: None,
            default_channel: None,
            tick_ms: None,
            compress: false,
            debug_routes: false,
        }
    }
}

/// Without the tokens.
impl fmt::Debug for StreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOptions")
            .field("heartbeat_ms", &self.heartbeat_ms)
            .field("retry_ms", &self.retry_ms)
            .field("connections_max", &self.connections_max)
            .field("fresh", &self.fresh)
            .field("resume", &self.resume)
            .field("replay_events_max", &self.replay_events_max)
            .field("slow", &self.slow)
            .field("page", &self.page)
            .field("cors", &self.cors)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let token = || Some("hunter2".to_owned());
        let options =
            StreamOptions { publish_token: token(), stream_token: token(), ..StreamOptions::default() };
        let shown = format!("{options:?}");
        assert!(shown.contains("retry_ms: 3000") && !shown.contains("hunter2"), "{shown}");
    }
}
