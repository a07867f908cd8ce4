//! The order of numbered events: of a stream of our own protocol, where every event of a channel has a number and
//! a repeat, a hole and a new epoch are facts; and of one scope of another server's envelopes (`reorder.rs`).
//!
//! An event that comes early is held back while the missing one may still come. If it does not, the client
//! resumes from before the hole; if the server sends the same hole again, it does not have the events: the app
//! is told which are missing, and the stream goes on.

use std::collections::BTreeMap;

use super::config::OrderingConfig;
use crate::wire::{EventRef, Position};

/// An event that waits for the ones before it.
#[derive(Debug)]
pub(crate) struct HeldEvent {
    pub(crate) name: Box<str>,
    pub(crate) data: Box<str>,
    /// `None` where the event has no id of its own.
    pub(crate) id: Option<Box<str>>,
}

impl HeldEvent {
    pub(crate) fn of(event: EventRef<'_>, id: Option<&str>) -> Self {
        Self { name: event.name.into(), data: event.data.into(), id: id.map(Into::into) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.name.len() + self.data.len() + self.id.as_deref().map_or(0, str::len)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next one.
    Next,
    /// Seen before.
    Repeat,
    /// Events before it are missing.
    Early,
}

/// Events that the server does not have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) epoch: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Epochs that were left whose last number is remembered.
const PAST_EPOCHS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Sequencer {
    config: OrderingConfig,
    /// The last accepted event.
    at: Position,
    /// Epochs that were left, each with the last number accepted of it: a server that cannot resume may begin
    /// with its oldest event, most of which was seen.
    past: Vec<Position>,
    /// Early events by sequence, all of `held_epoch`.
    held: BTreeMap<u64, HeldEvent>,
    held_epoch: String,
    held_bytes: usize,
    /// The hole that begins with this event was asked for again already.
    refetched: Option<Position>,
}

impl Sequencer {
    /// Everything up to `at` was accepted.
    pub(crate) fn new(config: OrderingConfig, at: Position) -> Self {
        Self {
            config,
            held_epoch: at.epoch.clone(),
            at,
            past: Vec::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            refetched: None,
        }
    }

    /// The stream goes on behind `position`; nothing is held over from before. What was accepted beyond it is a
    /// repeat when it comes again.
    pub(crate) fn move_to(&mut self, position: Position) {
        self.drop_held();
        self.accept(&position.epoch, position.sequence);
    }

    /// The server's newest event is `newest`: what it numbers higher from now on is new, whatever was accepted.
    pub(crate) fn end_at(&mut self, newest: &Position) {
        for position in self.past.iter_mut().chain([&mut self.at]) {
            if position.epoch == newest.epoch {
                position.sequence = position.sequence.min(newest.sequence);
            }
        }
    }

    /// This event was accepted, but never given to the app: it, and what follows it, is to come again.
    pub(crate) fn forget(&mut self, epoch: &str, sequence: u64) {
        self.drop_held();
        self.refetched = None;
        for position in self.past.iter_mut().chain([&mut self.at]) {
            if position.epoch == epoch {
                position.sequence = position.sequence.min(sequence.saturating_sub(1));
            }
        }
    }

    /// Where an event stands; [`Place::Next`] counts it as accepted. Numbers begin at 1.
    pub(crate) fn place(&mut self, epoch: &str, sequence: u64) -> Place {
        if self.has_accepted(epoch, sequence) || self.is_held(epoch, sequence) {
            return Place::Repeat;
        }
        // Each epoch numbers from 1, so a hole across its border shows, too.
        if sequence != self.next_of(epoch) {
            return Place::Early;
        }
        // What is held stands before the border: its hole comes first.
        if epoch != self.at.epoch && self.has_held() && self.held_epoch != epoch {
            return Place::Early;
        }
        self.accept(epoch, sequence);
        Place::Next
    }

    /// Whether this event, and with it all before it in its epoch, was accepted.
    pub(crate) fn has_accepted(&self, epoch: &str, sequence: u64) -> bool {
        self.last_of(epoch).is_some_and(|last| sequence <= last)
    }

    /// Keeps an early event. False where it does not fit: the hole must be dealt with now.
    pub(crate) fn hold(&mut self, epoch: &str, sequence: u64, event: HeldEvent) -> bool {
        let bytes = event.bytes();
        if self.held.is_empty() {
            epoch.clone_into(&mut self.held_epoch);
        }
        let fits = self.held_epoch == epoch
            && self.held.len() < self.config.held_events_max
            && self.held_bytes + bytes <= self.config.held_bytes_max;
        if fits {
            self.held_bytes += bytes;
            self.held.insert(sequence, event);
        }
        fits
    }

    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the next held event whose turn has come; counts it as accepted.
    pub(crate) fn release(&mut self) -> Option<HeldEvent> {
        let next = self.next_of(&self.held_epoch);
        let event = self.held.remove(&next)?;
        self.held_bytes -= event.bytes();
        let epoch = std::mem::take(&mut self.held_epoch);
        self.accept(&epoch, next);
        self.held_epoch = epoch;
        Some(event)
    }

    /// Whether the hole should be fetched anew, true once for each. It stands before what is held, else before an
    /// event of `epoch`.
    pub(crate) fn refetch(&mut self, epoch: &str) -> bool {
        let epoch = if self.has_held() { &self.held_epoch } else { epoch };
        let hole = Position { epoch: epoch.to_owned(), sequence: self.next_of(epoch) };
        if self.refetched.as_ref() == Some(&hole) {
            return false;
        }
        self.refetched = Some(hole);
        true
    }

    /// Gives up what is missing before the first held event, or before this one, which cannot be held: what is missing,
    /// and the sequencer stands right behind it.
    pub(crate) fn give_up_hole(&mut self, before: Option<(&str, u64)>) -> Option<Missing> {
        let first_held = self.held.keys().next().copied();
        let (epoch, end) = match (first_held, before) {
            (Some(first), Some((epoch, sequence))) if epoch == self.held_epoch => {
                (epoch, first.min(sequence))
            }
            (Some(first), _) => (self.held_epoch.as_str(), first),
            (None, Some((epoch, sequence))) => (epoch, sequence),
            (None, None) => return None,
        };
        let epoch = epoch.to_owned();
        let first = self.next_of(&epoch);
        self.accept(&epoch, end - 1);
        Some(Missing { epoch, first, last: end - 1 })
    }

    /// The scope: an epoch of ours, or another server's `stream_id`.
    pub(crate) fn epoch(&self) -> &str {
        &self.at.epoch
    }

    /// The last accepted number.
    pub(crate) fn last(&self) -> u64 {
        self.at.sequence
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = &HeldEvent> {
        self.held.values()
    }

    /// Whether this event is missing before what is held.
    pub(crate) fn misses(&self, epoch: &str, sequence: u64) -> bool {
        self.has_held() && self.held_epoch == epoch && self.next_of(epoch) == sequence
    }

    /// Whether the hole before what is held was asked for again already.
    pub(crate) fn is_refetched(&self) -> bool {
        self.refetched.as_ref().is_some_and(|hole| {
            hole.epoch == self.held_epoch && hole.sequence == self.next_of(&self.held_epoch)
        })
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(crate) fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    fn last_of(&self, epoch: &str) -> Option<u64> {
        [&self.at]
            .into_iter()
            .chain(&self.past)
            .find(|known| known.epoch == epoch)
            .map(|known| known.sequence)
    }

    fn next_of(&self, epoch: &str) -> u64 {
        self.last_of(epoch).unwrap_or(0).saturating_add(1)
    }

    /// Stands behind this event, or behind a later one of its epoch that was accepted before.
    fn accept(&mut self, epoch: &str, sequence: u64) {
        if epoch == self.at.epoch {
            self.at.sequence = self.at.sequence.max(sequence);
            return;
        }
        let known = self.past.iter().position(|past| past.epoch == epoch);
        let mut next = known
            .map_or_else(|| Position { epoch: epoch.to_owned(), sequence }, |index| self.past.remove(index));
        next.sequence = next.sequence.max(sequence);
        if self.past.len() >= PAST_EPOCHS_MAX {
            self.past.remove(0);
        }
        self.past.push(std::mem::replace(&mut self.at, next));
    }

    fn is_held(&self, epoch: &str, sequence: u64) -> bool {
        self.held_epoch == epoch && self.held.contains_key(&sequence)
    }
}
