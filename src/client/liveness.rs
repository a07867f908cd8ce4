//! Whether a stream is still alive. Any byte counts as life, comments too.
//!
//! A quiet stream may be a healthy one: it is cut only where the server has shown that it beats (our handshake,
//! a heartbeat, a comment), in this connection or an earlier one. Before that a silence is only reported, once.

use super::config::LivenessConfig;
use super::notice::LivenessKind;

/// How many announced intervals may pass without a byte.
const INTERVALS_MISSED: f64 = 2.5;

#[derive(Debug)]
pub(crate) struct Liveness {
    config: Option<LivenessConfig>,
    opened_at_ms: u64,
    last_byte_at_ms: Option<u64>,
    /// Survives reconnects: a server that beats once is expected to beat.
    beats: bool,
    announced_interval_ms: u64,
    reported: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: LivenessKind,
    pub(crate) silent_ms: u64,
    pub(crate) cut: bool,
}

impl Liveness {
    pub(crate) fn new(config: Option<LivenessConfig>) -> Self {
        Self {
            config,
            opened_at_ms: 0,
            last_byte_at_ms: None,
            beats: false,
            announced_interval_ms: 0,
            reported: false,
        }
    }

    pub(crate) fn opened(&mut self, now_ms: u64) {
        self.opened_at_ms = now_ms;
        self.last_byte_at_ms = None;
        self.reported = false;
    }

    pub(crate) fn byte(&mut self, now_ms: u64) {
        self.last_byte_at_ms = Some(now_ms);
        self.reported = false;
    }

    /// The stream showed that it beats, every `interval_ms` where it says so.
    pub(crate) fn beat(&mut self, interval_ms: Option<u64>) {
        self.beats = true;
        if let Some(interval) = interval_ms {
            self.announced_interval_ms = interval;
        }
    }

    /// When to look next.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let config = self.config?;
        if self.reported {
            return None;
        }
        let announced = (self.announced_interval_ms as f64 * INTERVALS_MISSED) as u64;
        let since = self.last_byte_at_ms.unwrap_or(self.opened_at_ms);
        let due = since.saturating_add(config.timeout_ms.max(announced));
        Some(due.max(self.opened_at_ms.saturating_add(config.grace_ms)))
    }

    /// The failure, if the deadline has passed.
    pub(crate) fn check(&mut self, now_ms: u64) -> Option<Failure> {
        if self.deadline_ms()? > now_ms {
            return None;
        }
        self.reported = true;
        let (kind, since) = match self.last_byte_at_ms {
            None => (LivenessKind::NoFirstByte, self.opened_at_ms),
            Some(at) => (LivenessKind::Silence, at),
        };
        Some(Failure { kind, silent_ms: now_ms - since, cut: self.beats })
    }
}
