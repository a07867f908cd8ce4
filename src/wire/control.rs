//! The names and fields of what our server says about a stream, beside the events in it.
//!
//! Control events are ordinary events whose name is reserved. Their data is an envelope without `id:` line:
//! they are not part of the log and never move a cursor. A server that speaks this protocol says so in its
//! first event, `control.open`, with `"protocol":"holdfast/1"` in the payload.

/// The value of `protocol` in the payload of `control.open`.
pub const PROTOCOL: &str = "holdfast/1";

/// Event names that never reach `onEvent`.
pub const RESERVED_PREFIXES: [&str; 2] = ["system.", "control."];

/// First event of every stream: `stream_id`, `connection_id`, `server_time`, `server_version`, `heartbeat_interval`
/// (ms), `protocol`, `channel` or `channels`, `position` (the id after which this stream begins), `replayable`.
pub const OPEN: &str = "control.open";
/// The cursor cannot be resumed: `code`, `reason`, `message`, `requestedId`, `oldestAvailable`, `newestAvailable`,
/// `missing` (a count, where it is known), `action`, `position` (the id after which the stream goes on).
pub const CANNOT_RESUME: &str = "control.cannot_resume";
/// Stored events follow: `requestedId`, `eventCount`, `reason`: `replay_started`; `no_replay_needed` where a cursor missed
/// nothing; `replay_truncated` where only the newest come (`totalAvailable`, `sending`, `maxReplayBatch`).
pub const REPLAY_START: &str = "control.replay_start";
/// Stored events are through, live ones follow: `eventCount`, `truncated`.
pub const REPLAY_END: &str = "control.replay_end";
/// One more channel from here on, on a stream of several: `channel`, `position` (`<channel>:<epoch>-<sequence>`).
pub const LISTEN: &str = "control.listen";
/// One channel less: `channel`.
pub const UNLISTEN: &str = "control.unlisten";
/// How many listen: `channel`, `count` (of one server).
pub const PRESENCE: &str = "control.presence";
/// The server closes this stream: `reason`.
pub const CLOSE: &str = "control.close";
/// A sign of life: `server_time`, `interval_ms`, `connection_id`.
pub const HEARTBEAT: &str = "system.heartbeat";
/// Something went wrong on the server's side: `message`, `code`.
pub const ERROR: &str = "system.error";

/// The names that the server itself says.
pub const SERVER: [&str; 10] =
    [OPEN, CANNOT_RESUME, REPLAY_START, REPLAY_END, LISTEN, UNLISTEN, PRESENCE, CLOSE, HEARTBEAT, ERROR];

/// Whether `name` is kept for the protocol, so that an app's own event must not have it.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
