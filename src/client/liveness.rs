//! Whether a stream is still alive. Any byte counts as life, comments too.
//!
//! A quiet stream may be a healthy one: it is cut only where the server has shown that it beats (our handshake,
//! a heartbeat, comments that keep coming), in this connection or an earlier one, or where the page has slept and the
//! socket may have died meanwhile. Otherwise a silence is only reported, once.

use super::config::LivenessConfig;
use super::notice::LivenessKind;

/// How many announced intervals may pass without a byte.
const INTERVALS_MISSED: f64 = 2.5;
/// Many servers greet with a comment or two and then are quiet: only a later one shows that they keep coming.
const COMMENTS_APART_MS_MIN: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Liveness {
    config: Option<LivenessConfig>,
    opened_at_ms: u64,
    last_byte_at_ms: Option<u64>,
    /// Until then the app was busy, and silence was our own doing.
    rested_until_ms: u64,
    /// Survives reconnects: a server that beats once is expected to beat.
    beats: bool,
    first_comment_at_ms: Option<u64>,
    /// Nothing has come since the page slept.
    doubted: bool,
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
            rested_until_ms: 0,
            beats: false,
            first_comment_at_ms: None,
            doubted: false,
            announced_interval_ms: 0,
            reported: false,
        }
    }

    pub(crate) fn opened(&mut self, now_ms: u64) {
        self.opened_at_ms = now_ms;
        self.last_byte_at_ms = None;
        self.first_comment_at_ms = None;
        self.doubted = false;
        self.reported = false;
    }

    pub(crate) fn byte(&mut self, now_ms: u64) {
        self.last_byte_at_ms = Some(now_ms);
        self.doubted = false;
        self.reported = false;
    }

    /// The page slept: unless a byte comes in time, the socket counts as dead.
    pub(crate) fn doubt(&mut self, now_ms: u64) {
        self.rested_until_ms = now_ms;
        self.doubted = true;
        self.reported = false;
    }

    pub(crate) fn comment(&mut self, now_ms: u64) {
        let first = *self.first_comment_at_ms.get_or_insert(now_ms);
        self.beats |= now_ms.saturating_sub(first) >= COMMENTS_APART_MS_MIN;
    }

    /// The app was busy until now, and we did not read.
    pub(crate) fn rested(&mut self, now_ms: u64) {
        self.rested_until_ms = now_ms;
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
        let due = self.silent_since_ms().saturating_add(config.timeout_ms.max(announced));
        Some(due.max(self.opened_at_ms.saturating_add(config.grace_ms)))
    }

    /// The failure, if the deadline has passed.
    pub(crate) fn check(&mut self, now_ms: u64) -> Option<Failure> {
        if self.deadline_ms()? > now_ms {
            return None;
        }
        self.reported = true;
        let kind = match self.last_byte_at_ms {
            None => LivenessKind::NoFirstByte,
            Some(_) => LivenessKind::Silence,
        };
        Some(Failure { kind, silent_ms: now_ms - self.silent_since_ms(), cut: self.beats || self.doubted })
    }

    fn silent_since_ms(&self) -> u64 {
        self.last_byte_at_ms.unwrap_or(self.opened_at_ms).max(self.rested_until_ms)
    }
}
