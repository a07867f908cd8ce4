//! The order of a stream of our own protocol: every event of a channel has a number, so that a repeat, a hole
//! and a new epoch are facts, not guesses.
//!
//! An event that comes early is held back while the missing one may still come. If it does not, the client
//! resumes from before the hole; if the server sends the same hole again, it does not have the events: the app
//! is told which are missing, and the stream goes on.

use std::collections::BTreeMap;

use super::config::OrderingConfig;
use crate::wire::Position;

/// An event that waits for the ones before it.
#[derive(Debug)]
pub(crate) struct HeldEvent {
    pub(crate) name: Box<str>,
    pub(crate) data: Box<str>,
    pub(crate) id: Box<str>,
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

#[derive(Debug)]
pub(crate) struct Sequencer {
    config: OrderingConfig,
    /// The last accepted event.
    at: Position,
    /// The epoch before: what comes from it now is a repeat.
    past_epoch: Option<String>,
    /// Early events by sequence, all of `held_epoch`.
    held: BTreeMap<u64, HeldEvent>,
    held_epoch: String,
    held_bytes: usize,
    /// The hole behind this position was asked for again already.
    refetched_at: Option<Position>,
}

impl Sequencer {
    pub(crate) fn new(config: OrderingConfig, at: Position) -> Self {
        Self {
            config,
            held_epoch: at.epoch.clone(),
            at,
            past_epoch: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            refetched_at: None,
        }
    }

    /// The stream goes on behind `at`; nothing is held over from before.
    pub(crate) fn move_to(&mut self, at: Position) {
        if at.epoch != self.at.epoch {
            self.past_epoch = Some(std::mem::take(&mut self.at.epoch));
        }
        self.at = at;
        self.drop_held();
    }

    /// Where an event stands; [`Place::Next`] counts it as accepted.
    pub(crate) fn place(&mut self, epoch: &str, sequence: u64) -> Place {
        if epoch == self.at.epoch {
            if sequence <= self.at.sequence || self.is_held(epoch, sequence) {
                return Place::Repeat;
            }
            if sequence > self.at.sequence + 1 {
                return Place::Early;
            }
            self.at.sequence = sequence;
            return Place::Next;
        }
        if self.past_epoch.as_deref() == Some(epoch) || self.is_held(epoch, sequence) {
            return Place::Repeat;
        }
        // Each epoch numbers from 1, so a hole across its border shows, too.
        if sequence != 1 {
            return Place::Early;
        }
        self.past_epoch = Some(std::mem::replace(&mut self.at.epoch, epoch.to_owned()));
        self.at.sequence = 1;
        Place::Next
    }

    /// Keeps an early event. False where it does not fit: the hole must be dealt with now.
    pub(crate) fn hold(&mut self, epoch: &str, sequence: u64, event: HeldEvent) -> bool {
        let bytes = event.name.len() + event.data.len() + event.id.len();
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
        let next = if self.held_epoch == self.at.epoch { self.at.sequence + 1 } else { 1 };
        let event = self.held.remove(&next)?;
        self.held_bytes -= event.name.len() + event.data.len() + event.id.len();
        self.accept(next);
        Some(event)
    }

    /// Whether the hole should be fetched anew; true once for each position.
    pub(crate) fn refetch(&mut self) -> bool {
        if self.refetched_at.as_ref() == Some(&self.at) {
            return false;
        }
        self.refetched_at = Some(self.at.clone());
        true
    }

    /// Gives the hole up: what is missing, and the sequencer stands right before the first held event.
    pub(crate) fn give_up_hole(&mut self) -> Option<Missing> {
        let first_held = *self.held.keys().next()?;
        let same_epoch = self.held_epoch == self.at.epoch;
        let first = if same_epoch { self.at.sequence + 1 } else { 1 };
        if first < first_held {
            self.accept(first_held - 1);
        }
        Some(Missing { epoch: self.held_epoch.clone(), first, last: first_held - 1 })
    }

    pub(crate) fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    fn accept(&mut self, sequence: u64) {
        if self.held_epoch != self.at.epoch {
            self.past_epoch = Some(std::mem::replace(&mut self.at.epoch, self.held_epoch.clone()));
        }
        self.at.sequence = sequence;
    }

    fn is_held(&self, epoch: &str, sequence: u64) -> bool {
        self.held_epoch == epoch && self.held.contains_key(&sequence)
    }
}
