//! The model server: a log with epochs, retention and losses, and what it says to a client that comes.

use holdfast_sse::wire::{Position, control, encode};

use super::plan::{Plan, Protocol};

/// What became of a published event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    /// Older than the log keeps.
    Expired,
    /// Lost with the end of a log, whose epoch ended thereby, or with all of it.
    Lost,
    /// Damaged in the middle of the log: numbered, but not to be had.
    Vanished,
}

#[derive(Debug)]
struct Epoch {
    name: String,
    /// Index of its first event.
    start: usize,
    /// The number of its last event.
    last: u64,
    /// The log still remembers it.
    known: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    protocol: Protocol,
    envelopes: bool,
    streams: usize,
    retention: usize,
    heartbeat_ms: u64,
    heartbeat_ids: bool,
    retry_ms: Option<u64>,
    pub(crate) up: bool,
    /// Events that vanished.
    pub(crate) holes: u64,
    epochs: Vec<Epoch>,
    /// All events ever published, by index, and the epoch of each.
    pub(crate) fates: Vec<Fate>,
    epoch_of: Vec<usize>,
    oldest: usize,
}

/// What a client is sent first, and the index of the next event that it gets.
pub(crate) struct Greeting {
    pub(crate) bytes: Vec<u8>,
    pub(crate) next: usize,
}

impl Server {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut server = Self {
            protocol: plan.protocol,
            envelopes: plan.envelopes,
            streams: plan.streams,
            retention: plan.retention,
            heartbeat_ms: plan.heartbeat_ms,
            heartbeat_ids: plan.heartbeat_ids,
            retry_ms: plan.server_retry_ms,
            up: true,
            holes: 0,
            epochs: Vec::new(),
            fates: Vec::new(),
            epoch_of: Vec::new(),
            oldest: 0,
        };
        server.begin_epoch();
        server
    }

    /// Whether its events are numbered envelopes.
    pub(crate) fn is_envelopes(&self) -> bool {
        matches!(self.protocol, Protocol::Foreign { numbered: true, .. })
    }

    /// The stream that an event belongs to.
    pub(crate) fn stream_of(&self, index: usize) -> usize {
        index % self.streams
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams
    }

    /// The event of a number in a stream.
    pub(crate) fn index_at(&self, number: &str, stream: &str) -> Option<usize> {
        let stream: usize = stream.strip_prefix('s')?.parse().ok()?;
        Some(number.parse::<usize>().ok()? * self.streams + stream)
    }

    /// Events before this one are not kept any more.
    pub(crate) fn oldest(&self) -> usize {
        self.oldest
    }

    pub(crate) fn head(&self) -> usize {
        self.fates.len()
    }

    pub(crate) fn publish(&mut self, vanished: bool) -> usize {
        let index = self.fates.len();
        self.holes += u64::from(vanished);
        self.fates.push(if vanished { Fate::Vanished } else { Fate::Stored });
        self.epoch_of.push(self.epochs.len() - 1);
        self.epochs.last_mut().expect("an epoch").last += 1;
        while self.fates.len() - self.oldest > self.retention {
            if self.fates[self.oldest] != Fate::Lost {
                self.fates[self.oldest] = Fate::Expired;
            }
            self.oldest += 1;
        }
        index
    }

    /// The end of the log is lost, which a new epoch makes known.
    pub(crate) fn lose_tail(&mut self, count: u64) {
        let epoch = self.epochs.last_mut().expect("an epoch");
        let count = count.min(epoch.last);
        epoch.last -= count;
        let end = self.fates.len();
        for fate in &mut self.fates[end - count as usize..] {
            *fate = Fate::Lost;
        }
        // A hole that nothing follows shows to nobody.
        for fate in self.fates.iter_mut().rev().skip_while(|fate| **fate == Fate::Lost) {
            if *fate != Fate::Vanished {
                break;
            }
            *fate = Fate::Lost;
        }
        self.begin_epoch();
    }

    pub(crate) fn lose_everything(&mut self) {
        for epoch in &mut self.epochs {
            epoch.known = false;
        }
        for fate in &mut self.fates[self.oldest..] {
            *fate = Fate::Lost;
        }
        self.oldest = self.fates.len();
        self.begin_epoch();
    }

    fn begin_epoch(&mut self) {
        let name = format!("e{}", self.epochs.len());
        self.epochs.push(Epoch { name, start: self.fates.len(), last: 0, known: true });
    }

    pub(crate) fn id(&self, index: usize) -> String {
        match self.protocol {
            Protocol::Ours if self.streams > 1 => {
                format!("c{}:e0-{}", self.stream_of(index), index / self.streams + 1)
            }
            Protocol::Ours => {
                let epoch = &self.epochs[self.epoch_of[index]];
                format!("{}-{}", epoch.name, index - epoch.start + 1)
            }
            Protocol::Foreign { looks_like_ours: true, .. } => format!("1526919030474-{}", index * 3 + 1),
            Protocol::Foreign { .. } => format!("n{index}"),
        }
    }

    pub(crate) fn name(index: usize) -> &'static str {
        ["message", "tick", "order.created", "note"][index % 4]
    }

    pub(crate) fn data(&self, index: usize) -> String {
        if self.is_envelopes() || self.envelopes {
            let text = "é".repeat(index % 40);
            let (number, stream) = (index / self.streams, self.stream_of(index));
            let time = format!(
                "2026-01-01T00:{:02}:{:02}.{:03}Z",
                index / 60_000,
                index / 1_000 % 60,
                index % 1_000
            );
            return format!(
                r#"{{"sequence":{number},"event_id":"e{index:08}","ts":"{time}","stream_id":"s{stream}","payload":"{index} {text}"}}"#
            );
        }
        let size = if index.is_multiple_of(13) { 300 } else { index % 40 };
        let line_end = if index.is_multiple_of(7) { "\n" } else { " " };
        format!("{index}{line_end}{}", "é".repeat(size))
    }

    /// The index of the event that `data` is of.
    pub(crate) fn index_of(data: &str) -> Option<usize> {
        let text = data.split_once(r#""payload":""#).map_or(data, |(_, text)| text);
        text.split([' ', '\n']).next()?.parse().ok()
    }

    /// How many events a cursor covers; `None` where it is no id of this server, past or present.
    pub(crate) fn covered(&self, cursor: &str) -> Option<usize> {
        match self.protocol {
            Protocol::Ours if self.streams > 1 => self.covered_of_channels(cursor),
            Protocol::Ours => {
                let position: Position = cursor.parse().ok()?;
                let epoch = self.epochs.iter().find(|epoch| epoch.name == position.epoch)?;
                Some(epoch.start + position.sequence as usize)
            }
            Protocol::Foreign { looks_like_ours: true, .. } => {
                let number: usize = cursor.strip_prefix("1526919030474-")?.parse().ok()?;
                Some((number - 1) / 3 + 1)
            }
            Protocol::Foreign { .. } => Some(cursor.strip_prefix('n')?.parse::<usize>().ok()? + 1),
        }
    }

    /// Which events a part of a composite cursor covers up to: its channel and its number.
    fn parts(cursor: &str) -> Option<Vec<(usize, usize)>> {
        let part = |part: &str| {
            let (channel, number) = part.strip_prefix('c')?.split_once(":e0-")?;
            Some((channel.parse().ok()?, number.parse().ok()?))
        };
        cursor.split(',').map(part).collect()
    }

    /// All before the first that a composite cursor does not cover; one part alone is the id of an event.
    fn covered_of_channels(&self, cursor: &str) -> Option<usize> {
        match &Self::parts(cursor)?[..] {
            [(channel, number)] => Some((number.checked_sub(1)?) * self.streams + channel + 1),
            parts => parts.iter().map(|(channel, number)| number * self.streams + channel).min(),
        }
    }

    /// Whether a cursor covers this event.
    pub(crate) fn covers(&self, cursor: &str, index: usize) -> bool {
        if self.is_envelopes() || self.streams == 1 {
            return self.covered(cursor).is_some_and(|covered| index < covered);
        }
        let parts = Self::parts(cursor).unwrap_or_default();
        let number = parts.iter().find(|part| part.0 == self.stream_of(index)).map_or(0, |part| part.1);
        index / self.streams < number
    }

    /// The composite cursor that covers all before this event, one channel first.
    fn composite(&self, end: usize, first: usize) -> String {
        let channels = (0..self.streams).map(|turn| (first + turn) % self.streams);
        let parts = channels.map(|c| format!("c{c}:e0-{}", (end + self.streams - 1 - c) / self.streams));
        parts.collect::<Vec<_>>().join(",")
    }

    pub(crate) fn event(&self, index: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let id = match self.protocol == Protocol::Ours && self.streams > 1 {
            true => self.composite(index + 1, self.stream_of(index)),
            false => self.id(index),
        };
        encode::event(&mut bytes, Some(Self::name(index)), Some(&id), &self.data(index))
            .expect("a valid event");
        if index.is_multiple_of(5) {
            bytes = String::from_utf8(bytes).expect("text").replace('\n', "\r\n").into_bytes();
        }
        bytes
    }

    /// A sign of life.
    pub(crate) fn beat(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.protocol != Protocol::Ours {
            encode::comment(&mut bytes, "beat");
            return bytes;
        }
        let id = self.heartbeat_ids.then_some("hb-1");
        let data =
            format!(r#"{{"type":"system.heartbeat","payload":{{"interval_ms":{}}}}}"#, self.heartbeat_ms);
        encode::event(&mut bytes, Some(control::HEARTBEAT), id, &data).expect("a valid event");
        bytes
    }

    /// Answers a request that carries `cursor`.
    pub(crate) fn greet(&self, cursor: &str) -> Greeting {
        let mut bytes = Vec::new();
        if let Some(ms) = self.retry_ms {
            encode::retry(&mut bytes, ms);
        }
        if let Protocol::Foreign { overlap, .. } = self.protocol {
            let covered = self.covered(cursor);
            let next = covered.map_or(self.head(), |covered| covered.saturating_sub(overlap as usize));
            // What it has no more it passes over, and says nothing.
            let next = next.max(self.oldest);
            return Greeting { bytes, next };
        }
        let (next, position, refused) = self.resume(cursor);
        let mut say = |name: &str, payload: String| {
            let data = format!(r#"{{"type":"{name}","payload":{payload}}}"#);
            encode::event(&mut bytes, Some(name), None, &data).expect("a valid event");
        };
        say(
            control::OPEN,
            format!(
                r#"{{"protocol":"holdfast/1","heartbeat_interval":{},"position":"{position}","replayable":true}}"#,
                self.heartbeat_ms
            ),
        );
        if let Some((code, missing)) = refused {
            let oldest =
                self.oldest_there().map_or("null".to_owned(), |index| format!("\"{}\"", self.id(index)));
            let missing = missing.map_or(String::new(), |count| format!(r#","missing":{count}"#));
            say(
                control::CANNOT_RESUME,
                format!(
                    r#"{{"code":"{code}","requestedId":"{cursor}","oldestAvailable":{oldest},"newestAvailable":"{}","position":"{position}"{missing}}}"#,
                    self.position_before(self.head())
                ),
            );
        }
        if next < self.head() {
            say(control::REPLAY_START, format!(r#"{{"requestedId":"{cursor}"}}"#));
        }
        Greeting { bytes, next }
    }

    /// As `src/server/resume.rs` decides it.
    fn resume(&self, cursor: &str) -> (usize, String, Option<(&'static str, Option<usize>)>) {
        if cursor.is_empty() {
            return (self.head(), self.position_before(self.head()), None);
        }
        if self.streams > 1
            && let Some(next) = self.covered(cursor)
        {
            return (next, cursor.to_owned(), None);
        }
        let first = self.oldest_there().unwrap_or(self.head());
        let first_position = self.position_before(first);
        let Ok(position) = cursor.parse::<Position>() else {
            return (first, first_position, Some(("invalid_event_id", None)));
        };
        let Some(epoch) = self.epochs.iter().find(|epoch| epoch.known && epoch.name == position.epoch) else {
            return (first, first_position, Some(("event_not_found", None)));
        };
        let sequence = position.sequence.min(epoch.last);
        let after = epoch.start + sequence as usize;
        let missing = (after..first).filter(|index| self.fates[*index] != Fate::Lost).count();
        if position.sequence > epoch.last {
            let refused = Some(("event_not_found", None));
            return match missing {
                0 => (after, format!("{}-{sequence}", epoch.name), refused),
                _ => (first, first_position, refused),
            };
        }
        if missing > 0 {
            return (first, first_position, Some(("buffer_expired", Some(missing))));
        }
        (after, cursor.to_owned(), None)
    }

    fn oldest_there(&self) -> Option<usize> {
        (self.oldest..self.head()).find(|index| self.fates[*index] != Fate::Lost)
    }

    /// Whether this id is of an epoch that the log remembers.
    pub(crate) fn knows(&self, cursor: &str) -> bool {
        cursor
            .parse::<Position>()
            .is_ok_and(|position| self.epochs.iter().any(|epoch| epoch.known && epoch.name == position.epoch))
    }

    /// The id after which the event of this index comes.
    fn position_before(&self, index: usize) -> String {
        if self.streams > 1 {
            return self.composite(index, 0);
        }
        let epoch = match self.epoch_of.get(index) {
            Some(epoch) => &self.epochs[*epoch],
            None => self.epochs.last().expect("an epoch"),
        };
        format!("{}-{}", epoch.name, index - epoch.start)
    }
}
