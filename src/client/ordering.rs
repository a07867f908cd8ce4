//! The order of envelopes from servers whose ids mean nothing to us: by the envelope's `sequence`, within its
//! `stream_id`, within one connection. Early events pass (a gap may be all right there), late ones are
//! subject to the policy. Streams of our own protocol are ordered by the sequencer instead.

use std::hash::BuildHasher;

use memchr::memmem;

use crate::wire::envelope;

use super::config::OrderingConfig;

/// By what events are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderingRule {
    /// By the envelope's `sequence`.
    Sequence,
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
}

/// An event came after one that follows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) sequence: u64,
    pub(crate) last_sequence: u64,
}

#[derive(Debug)]
pub(crate) struct OrderingGuard {
    config: OrderingConfig,
    /// Finds the field's name; building a searcher costs more than most searches.
    field: memmem::Finder<'static>,
    hasher: foldhash::quality::FixedState,
    /// Hash of the stream's id and its highest sequence, the most recent stream last.
    streams: Vec<(u64, u64)>,
    /// Highest sequence of envelopes without a stream id, within this connection.
    connection: Option<u64>,
}

impl OrderingGuard {
    pub(crate) fn new(config: OrderingConfig) -> Self {
        Self {
            config,
            field: memmem::Finder::new("\"sequence\""),
            hasher: foldhash::quality::FixedState::default(),
            streams: Vec::new(),
            connection: None,
        }
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

    /// `Some` where the event is late.
    pub(crate) fn check(&mut self, data: &str) -> Option<Late> {
        // Most data is no object, or has no such field; a search is far cheaper than a scan.
        let is_object = data.trim_ascii_start().starts_with('{');
        if self.config.rule == OrderingRule::None || !is_object || self.field.find(data.as_bytes()).is_none()
        {
            return None;
        }
        let envelope = envelope::scan(data)?;
        let sequence = envelope.sequence?;
        let last = match envelope.stream_id {
            None => &mut self.connection,
            Some(stream) => return self.check_stream(self.hasher.hash_one(stream), sequence),
        };
        match last {
            Some(last) if sequence <= *last => Some(Late { sequence, last_sequence: *last }),
            _ => {
                *last = Some(sequence);
                None
            }
        }
    }

    fn check_stream(&mut self, stream: u64, sequence: u64) -> Option<Late> {
        let Some(at) = self.streams.iter().rposition(|(known, _)| *known == stream) else {
            if self.streams.len() >= self.config.scopes_max {
                self.streams.remove(0);
            }
            self.streams.push((stream, sequence));
            return None;
        };
        let last = &mut self.streams[at].1;
        if sequence <= *last {
            return Some(Late { sequence, last_sequence: *last });
        }
        *last = sequence;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_within_its_own_scope() {
        let mut guard = OrderingGuard::new(OrderingConfig { scopes_max: 2, ..OrderingConfig::default() });
        let mut check = |data: &str, late: Option<(u64, u64)>| {
            let found = guard.check(data).map(|late| (late.sequence, late.last_sequence));
            assert_eq!(found, late, "{data}");
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
}
