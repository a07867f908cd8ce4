//! The order of envelopes from servers whose ids mean nothing to us: by the envelope's `sequence`, `event_id` or
//! `ts`, within its `stream_id`, within one connection. Early events pass (a gap may be all right there), late ones are
//! subject to the policy. Policy Reorder (`reorder.rs`) and streams of our own protocol use the sequencer instead.

use std::hash::BuildHasher;

use memchr::memmem;
use serde::Serialize;

use crate::wire::{envelope, time};

use super::config::OrderingConfig;

/// Longest `event_id` that is compared, and longest `stream_id` whose events are put in order; a longer one is not.
const MARK_BYTES_MAX: usize = 128;

/// By what events are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderingRule {
    /// By the envelope's `sequence`, which grows.
    Sequence,
    /// By the envelope's `event_id`, which grows as text does: that of a UUIDv7 or ULID.
    EventId,
    /// By the envelope's `ts`, which does not go back. Events of one moment have no order.
    Timestamp,
    /// Not at all.
    None,
}

/// What happens to a late event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfOrderPolicy {
    /// Dropped and counted.
    Drop,
    /// Dropped, counted and reported.
    DropWithCallback,
    /// Delivered, counted and reported.
    Accept,
    /// As [`Self::DropWithCallback`]; moreover an early event is held back until the missing ones have come. With
    /// [`OrderingRule::Sequence`] and a dedupe window only, since the other rules know of nothing that is missing.
    Reorder,
}

/// An event came after one that follows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) mark: Mark,
    pub(crate) last: Mark,
}

/// What an event is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    Sequence(u64),
    Text(String),
}

#[derive(Debug)]
pub(crate) struct OrderingGuard {
    config: OrderingConfig,
    /// Finds the field's name; building a searcher costs more than most searches.
    field: memmem::Finder<'static>,
    hasher: foldhash::quality::FixedState,
    /// Hash of the stream's id and its highest mark, the most recent stream last.
    streams: Vec<(u64, Mark)>,
    /// Highest mark of envelopes without a stream id, within this connection.
    connection: Option<Mark>,
}

impl OrderingGuard {
    pub(crate) fn new(config: OrderingConfig) -> Self {
        Self {
            config,
            field: memmem::Finder::new(match config.rule {
                OrderingRule::Sequence | OrderingRule::None => "\"sequence\"",
                OrderingRule::EventId => "\"event_id\"",
                OrderingRule::Timestamp => "\"ts\"",
            }),
            hasher: foldhash::quality::FixedState::default(),
            streams: Vec::new(),
            connection: None,
        }
    }

    pub(crate) fn rule(&self) -> OrderingRule {
        self.config.rule
    }

    pub(crate) fn policy(&self) -> OutOfOrderPolicy {
        self.config.policy
    }

    /// Counts anew: for a new connection, since its server may have begun to number anew (what it merely repeats is
    /// caught by the dedupe window), and where accepted events were given back.
    pub(crate) fn reset(&mut self) {
        self.streams.clear();
        self.connection = None;
    }

    /// The envelope's stream and its number in it, where it has one.
    pub(crate) fn number<'a>(&self, data: &'a str) -> Option<(&'a str, u64)> {
        let envelope = self.envelope(data)?;
        let stream = envelope.stream_id.unwrap_or("");
        (stream.len() <= MARK_BYTES_MAX).then_some((stream, envelope.sequence?))
    }

    /// Most data is no object, or has no such field; a search is far cheaper than a scan.
    fn envelope<'a>(&self, data: &'a str) -> Option<envelope::EnvelopeRef<'a>> {
        let is_object = data.trim_ascii_start().starts_with('{');
        if self.config.rule == OrderingRule::None || !is_object || self.field.find(data.as_bytes()).is_none()
        {
            return None;
        }
        envelope::scan(data)
    }

    /// `Some` where the event is late.
    pub(crate) fn check(&mut self, data: &str) -> Option<Late> {
        let envelope = self.envelope(data)?;
        let mark = self.mark(&envelope)?;
        let last = match envelope.stream_id {
            None => match &mut self.connection {
                Some(last) => last,
                none => {
                    *none = Some(mark);
                    return None;
                }
            },
            Some(stream) => {
                let stream = self.hasher.hash_one(stream);
                let Some(at) = self.streams.iter().rposition(|(known, _)| *known == stream) else {
                    if self.streams.len() >= self.config.scopes_max {
                        self.streams.remove(0);
                    }
                    self.streams.push((stream, mark));
                    return None;
                };
                &mut self.streams[at].1
            }
        };
        if is_late(self.config.rule, &mark, last) {
            return Some(Late { mark, last: last.clone() });
        }
        *last = mark;
        None
    }

    /// `None` where the envelope has nothing to be ordered by.
    fn mark(&self, envelope: &envelope::EnvelopeRef<'_>) -> Option<Mark> {
        let text = match self.config.rule {
            OrderingRule::None => return None,
            OrderingRule::Sequence => return envelope.sequence.map(Mark::Sequence),
            OrderingRule::EventId => envelope.event_id.filter(|id| id.len() <= MARK_BYTES_MAX)?,
            OrderingRule::Timestamp => envelope.ts.filter(|ts| time::instant_us(ts).is_some())?,
        };
        Some(Mark::Text(text.to_owned()))
    }
}

fn is_late(rule: OrderingRule, mark: &Mark, last: &Mark) -> bool {
    match (mark, last) {
        (Mark::Sequence(sequence), Mark::Sequence(last)) => sequence <= last,
        (Mark::Text(ts), Mark::Text(last)) if rule == OrderingRule::Timestamp => {
            time::instant_us(ts) < time::instant_us(last)
        }
        (Mark::Text(id), Mark::Text(last)) => id <= last,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_within_its_own_scope() {
        let mut guard = OrderingGuard::new(OrderingConfig { scopes_max: 2, ..OrderingConfig::default() });
        let mut check = |data: &str, late: Option<(u64, u64)>| {
            let late =
                late.map(|(mark, last)| Late { mark: Mark::Sequence(mark), last: Mark::Sequence(last) });
            assert_eq!(guard.check(data), late, "{data}");
        };
        check(r#"{"sequence":5}"#, None);
        check(r#"{"sequence":7}"#, None);
        check(r#"{"sequence":6}"#, Some((6, 7)));
        check(r#"{"sequence":7}"#, Some((7, 7)));
        check(r#"{"stream_id":"a","sequence":1}"#, None);
        check(r#"{"stream_id":"b","sequence":1}"#, None);
        check(r#"{"stream_id":"a","sequence":1}"#, Some((1, 1)));
        check(r#"{"stream_id":"c","sequence":1}"#, None);
        check(r#"{"stream_id":"a","sequence":1}"#, None);
        check(r#"not json "sequence""#, None);
        check(r#"{"payload":{"sequence":1}}"#, None);
    }

    /// Each mark, and the one that it comes too late behind, within one connection. // K11
    fn check_marks(rule: OrderingRule, field: &str, marks: &[(&str, Option<&str>)]) {
        let mut guard = OrderingGuard::new(OrderingConfig { rule, ..OrderingConfig::default() });
        for (mark, last) in marks {
            let late = last
                .map(|last| Late { mark: Mark::Text((*mark).to_owned()), last: Mark::Text(last.to_owned()) });
            let data = format!(r#"{{"sequence":1,"{field}":"{mark}","payload":{{}}}}"#);
            assert_eq!(guard.check(&data), late, "{data}");
        }
        assert_eq!(guard.check(r#"{"sequence":0}"#), None, "nothing to be ordered by");
        guard.reset();
        assert_eq!(guard.check(&format!(r#"{{"{field}":"{}"}}"#, marks[0].0)), None, "a new connection");
    }

    #[test]
    fn by_event_id() {
        let (a, b, c) = (
            "0191a7c0-0000-7000-8000-00000000000a",
            "0191a7c0-0000-7000-8000-00000000000b",
            "0191a7c0-0001-7000-8000-000000000000",
        );
        let long = "z".repeat(129);
        check_marks(
            OrderingRule::EventId,
            "event_id",
            &[(b, None), (a, Some(b)), (b, Some(b)), (&long, None), (c, None), (b, Some(c))],
        );
    }

    #[test]
    fn by_timestamp() {
        let noon = "2026-01-01T12:00:00.000Z";
        let later = "2026-01-01T13:00:00.5+01:00";
        check_marks(
            OrderingRule::Timestamp,
            "ts",
            &[
                (noon, None),
                (noon, None),
                ("2026-01-01T11:59:59.999Z", Some(noon)),
                ("yesterday", None),
                (later, None),
                (noon, Some(later)),
                ("2026-01-01T12:00:00.500Z", None),
                ("2025-12-31T23:00:00-13:00", Some("2026-01-01T12:00:00.500Z")),
            ],
        );
    }
}
