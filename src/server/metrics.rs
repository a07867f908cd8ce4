//! What is counted, under the names of `GET /metrics`.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why something happened, as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// A counter for each reason. Reasons are a fixed set of our own words, so the label is bounded.
pub(crate) type ByReason = Family<Reason, Counter>;

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    started: Instant,
    uptime_seconds: Gauge<f64, AtomicU64>,
    pub(crate) active_streams: Gauge,
    pub(crate) streams_opened: Counter,
    pub(crate) disconnects: ByReason,
    pub(crate) rejected_connections: Counter,
    pub(crate) rejected_publishes: ByReason,
    pub(crate) heartbeats_sent: Counter,
    pub(crate) heartbeats_failed: Counter,
    pub(crate) events_sent: Counter,
    pub(crate) events_published: Counter,
    pub(crate) replays_attempted: Counter,
    pub(crate) replays_succeeded: Counter,
    pub(crate) replays_failed: Counter,
    pub(crate) replay_events_sent: Counter,
    pub(crate) cannot_resume: ByReason,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sse_server");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                let metric_clone: &_ = &metric;
                registry.register($name, $help, Clone::clone(metric_clone));
                metric
            }};
        }
        // A counter's `_total` is added when it is written.
        let uptime_seconds: Gauge<f64, AtomicU64> = register!("uptime_seconds", "Since the server started");
        let active_streams: Gauge = register!("active_streams", "Streams that are open now");
        let streams_opened: Counter = register!("streams_opened", "Streams that were opened");
        let disconnects: ByReason = register!("disconnects", "Streams that ended, by reason");
        let rejected_connections: Counter = register!("rejected_connections", "Streams that were refused");
        let rejected_publishes: ByReason =
            register!("rejected_publishes", "Requests to publish that were refused, by code");
        let heartbeats_sent: Counter = register!("heartbeats_sent", "Heartbeats that were sent");
        let heartbeats_failed: Counter =
            register!("heartbeats_failed", "Heartbeats left out, since the client did not read");
        let events_sent: Counter = register!("events_sent", "Events that were sent, to each stream");
        let events_published: Counter = register!("events_published", "Events that were stored");
        let replays_attempted: Counter = register!("replays_attempted", "Streams opened with a cursor");
        let replays_succeeded: Counter = register!("replays_succeeded", "Cursors that could be resumed");
        let replays_failed: Counter = register!("replays_failed", "Cursors that could not be resumed");
        let replay_events_sent: Counter =
            register!("replay_events_sent", "Stored events sent before live ones");
        let cannot_resume: ByReason = register!("cannot_resume", "control.cannot_resume sent, by code");
        // A series that is absent until it happens cannot be alerted on.
        for reason in super::resume::CODES {
            let _ = cannot_resume.get_or_create(&Reason { reason });
        }
        Self {
            registry,
            started: Instant::now(),
            uptime_seconds,
            active_streams,
            streams_opened,
            disconnects,
            rejected_connections,
            rejected_publishes,
            heartbeats_sent,
            heartbeats_failed,
            events_sent,
            events_published,
            replays_attempted,
            replays_succeeded,
            replays_failed,
            replay_events_sent,
            cannot_resume,
        }
    }

    pub(crate) fn count(family: &ByReason, reason: &'static str) {
        family.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// All metrics in the text format 0.0.4 of Prometheus, for scrapers that know no OpenMetrics: there a counter's own
    /// name ends in `_total`.
    pub(crate) fn plain_text(&self) -> String {
        let text = self.text();
        let counters: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
        let mut out = String::with_capacity(text.len());
        for line in text.lines().filter(|line| *line != "# EOF") {
            let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            match described.and_then(|rest| rest.split_once(' ')) {
                Some((name, rest)) if counters.contains(&name) => {
                    out.extend([&line[.."# TYPE ".len()], name, "_total ", rest, "\n"]);
                }
                _ => out.extend([line, "\n"]),
            }
        }
        out
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        self.uptime_seconds.set(self.uptime_seconds());
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}
