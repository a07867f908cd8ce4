//! What one run is like: drawn from its seed before it starts, so that a trace can begin with it.

use holdfast_sse::client::{
    CannotResumeFallback, Config, DedupeConfig, Jitter, LivenessConfig, OrderingConfig, OrderingRule,
    OutOfOrderPolicy, RetryPolicy, WhenHidden,
};
use holdfast_sse::wire::ParserLimits;

use super::rng::Rng;

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Ours: `control.open`, positions, `cannot_resume`.
    Ours,
    /// Opaque ids, no control events; a replay begins up to `overlap` events too early. Its ids may look like ours, and
    /// its events may be envelopes with numbers, which the client puts in order.
    Foreign { overlap: u64, looks_like_ours: bool, numbered: bool },
}

/// What follows when a handler fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    Skip,
    Retry,
    /// The app connects again later.
    Stop,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) protocol: Protocol,
    /// Events are envelopes, though the client cannot tell by them what is missing.
    pub(crate) envelopes: bool,
    /// Streams of numbered events, whose events alternate: channels of ours, or `stream_id`s of another server's.
    pub(crate) streams: usize,
    pub(crate) config: Config,
    /// Handlers at once; 0 is a synchronous handler.
    pub(crate) concurrency: usize,
    /// Percent of handlers that throw, or whose promise is rejected.
    pub(crate) failing_pct: u64,
    pub(crate) on_error: OnError,
    /// The app acks each event by itself, within this time.
    pub(crate) acks: bool,
    pub(crate) ack_ms: u64,
    /// Handlers that take seconds, in percent.
    pub(crate) slow_pct: u64,
    /// The store answers and writes after this time; 0 is a synchronous store.
    pub(crate) store_ms: u64,
    /// Reads and writes that fail, in percent.
    pub(crate) store_fails_pct: u64,
    /// Reads that take many seconds, in percent.
    pub(crate) store_hangs_pct: u64,
    /// 0 is a server that does not beat.
    pub(crate) heartbeat_ms: u64,
    /// The kit's server gave its heartbeats ids.
    pub(crate) heartbeat_ids: bool,
    /// Events that the log keeps.
    pub(crate) retention: usize,
    pub(crate) server_retry_ms: Option<u64>,
    pub(crate) publish_ms: u64,
    pub(crate) latency_ms: u64,
    /// Connections that are cut after some bytes, in percent.
    pub(crate) cut_pct: u64,
    /// A proxy strips the cursor from each request (our protocol: elsewhere nobody could know what is lost).
    pub(crate) strips_cursor: bool,
    /// Events that are repeated, swapped or left out on the wire, in percent.
    pub(crate) bend_pct: u64,
    /// Events that the log loses in the middle, in percent (where events are numbered).
    pub(crate) vanish_pct: u64,
    pub(crate) faults: u64,
    pub(crate) fault_ms: u64,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let ours = rng.chance(70);
        let protocol = if ours {
            Protocol::Ours
        } else {
            let numbered = rng.chance(60);
            // Numbers from before a page's time cannot be told from a new numbering.
            let overlap = if numbered { 0 } else { rng.pick(&[0, 0, 1, 5, 20]) };
            Protocol::Foreign { overlap, looks_like_ours: rng.chance(50), numbered }
        };
        let numbered = matches!(protocol, Protocol::Foreign { numbered: true, .. });
        // How the client orders what it cannot put in order.
        let guard = OrderingConfig {
            rule: rng.pick(&[
                OrderingRule::Sequence,
                OrderingRule::EventId,
                OrderingRule::Timestamp,
                OrderingRule::None,
            ]),
            policy: rng.pick(&[
                OutOfOrderPolicy::Drop,
                OutOfOrderPolicy::DropWithCallback,
                OutOfOrderPolicy::Accept,
            ]),
            ..OrderingConfig::default()
        };
        let plain = OrderingConfig { policy: OutOfOrderPolicy::DropWithCallback, ..guard };
        let reorder = OrderingConfig {
            rule: OrderingRule::Sequence,
            policy: OutOfOrderPolicy::Reorder,
            ..OrderingConfig::default()
        };
        let envelopes = !ours && !numbered && rng.chance(60);
        let concurrency = rng.pick(&[0, 0, 0, 1, 1, 2, 4]);
        let max_delay_ms = rng.pick(&[2_000, 5_000, 10_000]);
        let repeatable = !rng.chance(8);
        let config = Config {
            retry: RetryPolicy {
                base_delay_ms: rng.pick(&[200, 500, 1_000]),
                max_delay_ms,
                jitter: if rng.chance(30) { Jitter::Full } else { Jitter::Proportional(0.2) },
                max_attempts: rng.chance(10).then_some(5),
                ..RetryPolicy::default()
            },
            connect_timeout_ms: rng.pick(&[3_000, 8_000]),
            liveness: Some(LivenessConfig { timeout_ms: rng.pick(&[4_000, 10_000]), grace_ms: 1_000 }),
            ordering: OrderingConfig {
                held_events_max: rng.pick(&[1, 4, 256]),
                held_bytes_max: rng.pick(&[100, 1 << 20]),
                ..if numbered {
                    reorder
                } else if envelopes {
                    guard
                } else {
                    plain
                }
            },
            cannot_resume: if rng.chance(10) {
                CannotResumeFallback::Close
            } else {
                CannotResumeFallback::StartFresh
            },
            // A chunk may bring more events than the default remembers.
            dedupe: Some(if ours || numbered {
                DedupeConfig { size_max: 100_000, ttl_ms: 0 }
            } else {
                DedupeConfig { size_max: rng.pick(&[100_000, 1_000, 60]), ttl_ms: rng.pick(&[0, 0, 5_000]) }
            }),
            // Longer than anything that is published.
            limits: ParserLimits { line_bytes_max: 2_000, event_bytes_max: 3_000 },
            names_max: 2,
            done_ids_max: if numbered { 1_000 } else { rng.pick(&[1_000, 1_000, 1_000, 10]) },
            unfinished_max: rng.pick(&[1, 1, concurrency.max(1), 8]),
            repeatable,
            auto_reconnect: !rng.chance(5),
            when_hidden: match rng.pick(&[WhenHidden::Stay, WhenHidden::Pause, WhenHidden::Close]) {
                // As the options have it.
                WhenHidden::Close if !repeatable => WhenHidden::Stay,
                when_hidden => when_hidden,
            },
            hidden_after_ms: rng.pick(&[0, 1_000, 5_000]),
            can_refresh_credentials: repeatable && rng.chance(50),
            report_duplicates: rng.chance(50),
            rng_seed: rng.next(),
            ..Config::default()
        };
        let strips_cursor = ours && rng.chance(5);
        let channels = if ours && !strips_cursor && rng.chance(25) { rng.pick(&[2, 3]) } else { 1 };
        let mut plan = Self {
            protocol,
            envelopes,
            streams: if numbered { rng.pick(&[1, 1, 2, 3]) } else { 1 },
            config,
            concurrency,
            failing_pct: rng.pick(&[0, 0, 5, 10]),
            on_error: rng.pick(&[OnError::Skip, OnError::Retry, OnError::Stop]),
            acks: rng.chance(15),
            ack_ms: rng.pick(&[10, 300, 3_000]),
            slow_pct: rng.pick(&[0, 3, 10]),
            store_ms: rng.pick(&[0, 0, 0, 20, 400]),
            store_fails_pct: rng.pick(&[0, 0, 0, 0, 20]),
            store_hangs_pct: rng.pick(&[0, 0, 0, 30]),
            heartbeat_ms: if ours || rng.chance(50) { rng.pick(&[1_000, 3_000]) } else { 0 },
            heartbeat_ids: rng.chance(20),
            retention: if strips_cursor { 100_000 } else { rng.pick(&[5, 20, 100_000, 100_000]) },
            server_retry_ms: rng.pick(&[None, Some(0), Some(50), Some(700), Some(u64::MAX)]),
            publish_ms: rng.pick(&[50, 300, 1_000]),
            latency_ms: rng.pick(&[1, 20, 300]),
            strips_cursor,
            cut_pct: rng.pick(&[0, 20, 60]),
            bend_pct: rng.pick(&[0, 0, 3, 15]),
            vanish_pct: rng.pick(&[0, 0, 0, 3]),
            faults: rng.between(0, 18),
            fault_ms: rng.between(5_000, 40_000),
        };
        plan.divide(channels);
        plan
    }

    /// Several channels in one stream. Their log loses nothing but single events, and their store tells no lies: what such
    /// a cursor covers of a log that is cut off is another story.
    pub(crate) fn divide(&mut self, channels: usize) {
        if channels > 1 {
            self.streams = channels;
            self.retention = 100_000;
            self.store_fails_pct = 0;
            // How far an event comes behind another's does not show by its number.
            self.config.done_ids_max = 1_000;
        }
    }

    /// Whether events of several streams pass each other's holes under one cursor.
    pub(crate) fn is_mixed(&self) -> bool {
        self.streams > 1 && !self.is_ours()
    }

    /// Whether what is missing shows.
    pub(crate) fn is_numbered(&self) -> bool {
        matches!(self.protocol, Protocol::Ours | Protocol::Foreign { numbered: true, .. })
    }

    /// Whether the client may make another request by itself.
    pub(crate) fn may_repeat(&self) -> bool {
        self.config.repeatable && self.config.auto_reconnect
    }

    /// Whether an event is finished, and so stored, within the task in which it came.
    pub(crate) fn finishes_at_once(&self) -> bool {
        self.concurrency == 0 && self.failing_pct == 0 && !self.acks
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.protocol == Protocol::Ours
    }

    /// Once faults have ended: silence noticed, a refused request waited out, the longest delay, and the backlog.
    pub(crate) fn recovery_ms(&self) -> u64 {
        let slowest = self.config.connect_timeout_ms + 10_000 + 3 * self.config.retry.max_delay_ms;
        let backlog = if self.concurrency > 0 || self.acks { 120_000 } else { 10_000 };
        slowest + backlog + 20_000
    }
}
