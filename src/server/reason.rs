//! Why a stream ended: what `control.close` tells the client, and the label under which the end is counted.

/// Why a stream ended (K22). The texts are those that clients know, and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client went away.
    ClientClose,
    /// The client cut the connection in the middle.
    ClientAbort,
    /// The client did not answer in time.
    ClientTimeout,
    /// The server stops.
    ServerShutdown,
    /// The server starts again.
    ServerRestart,
    /// The server failed.
    ServerError,
    /// Nothing was said for too long.
    IdleTimeout,
    /// The network failed.
    NetworkError,
    /// Heartbeats did not come.
    HeartbeatMissed,
    /// There was no sign of life.
    LivenessTimeout,
    /// Too much for the server, or for this reader: it was further behind than is allowed.
    OverloadReject,
    /// Too many of one client's.
    RateLimited,
    /// The credentials are no longer valid: the client comes back with fresh ones.
    AuthExpired,
    /// There is nothing more to say.
    StreamEnded,
    /// What came could not be read.
    ParseError,
    /// An event was not valid.
    InvalidEvent,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ClientClose,
        Self::ClientAbort,
        Self::ClientTimeout,
        Self::ServerShutdown,
        Self::ServerRestart,
        Self::ServerError,
        Self::IdleTimeout,
        Self::NetworkError,
        Self::HeartbeatMissed,
        Self::LivenessTimeout,
        Self::OverloadReject,
        Self::RateLimited,
        Self::AuthExpired,
        Self::StreamEnded,
        Self::ParseError,
        Self::InvalidEvent,
    ];

    /// Its text on the wire and in `sse_server_disconnects_total{reason}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClose => "client_close",
            Self::ClientAbort => "client_abort",
            Self::ClientTimeout => "client_timeout",
            Self::ServerShutdown => "server_shutdown",
            Self::ServerRestart => "server_restart",
            Self::ServerError => "server_error",
            Self::IdleTimeout => "idle_timeout",
            Self::NetworkError => "network_error",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::LivenessTimeout => "liveness_timeout",
            Self::OverloadReject => "overload_reject",
            Self::RateLimited => "rate_limited",
            Self::AuthExpired => "auth_expired",
            Self::StreamEnded => "stream_ended",
            Self::ParseError => "parse_error",
            Self::InvalidEvent => "invalid_event",
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
