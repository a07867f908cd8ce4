//! The channels of a stream of our own protocol: for each its order, and its part of the cursor.
//!
//! A stream of one channel has one track without a name, and its ids are the cursor as they are. On a stream of
//! several an event's id begins with the event's own part; only that part names the event. What the other parts say
//! was true when the event was sent, which is not when it is accepted: so the cursor is put together here.

use std::fmt::Write;

use super::config::OrderingConfig;
use super::sequencer::Sequencer;
use crate::wire::id::{CURSOR_CHANNELS_MAX, Part, escape_channel};
use crate::wire::{Cursor, Position};

#[derive(Debug)]
pub(crate) struct Track {
    /// As it is written in ids; empty where the stream has one channel.
    channel: Box<str>,
    pub(crate) sequencer: Sequencer,
    /// Where the cursor stands: not ahead of what the server began with.
    cursor: Position,
}

impl Track {
    /// An id of this channel.
    pub(crate) fn id(&self, position: &Position) -> String {
        if self.channel.is_empty() { position.to_string() } else { format!("{}:{position}", self.channel) }
    }
}

#[derive(Debug)]
pub(crate) struct Tracks {
    config: OrderingConfig,
    list: Vec<Track>,
    several: bool,
}

impl Tracks {
    pub(crate) fn new(config: OrderingConfig) -> Self {
        Self { config, list: Vec::new(), several: false }
    }

    /// Whether ids have a part for each channel.
    pub(crate) fn is_several(&self) -> bool {
        self.several
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.several = false;
    }

    pub(crate) fn find(&self, channel: &str) -> Option<usize> {
        self.list.iter().position(|track| *track.channel == *channel)
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn get(&mut self, index: usize) -> Option<&mut Track> {
        self.list.get_mut(index)
    }

    /// The channel and the number of an event by its id.
    pub(crate) fn locate<'a>(&mut self, id: &'a str) -> Option<(&mut Track, &'a str, u64)> {
        let (channel, epoch, sequence) = if self.several {
            let part = Part::first(id)?;
            (part.channel, part.epoch, part.sequence)
        } else {
            let (epoch, sequence) = Position::split(id)?;
            ("", epoch, sequence)
        };
        let index = self.find(channel)?;
        self.list.get_mut(index).map(|track| (track, epoch, sequence))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Track> {
        self.list.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Track> {
        self.list.iter()
    }

    pub(crate) fn has_held(&self) -> bool {
        self.list.iter().any(|track| track.sequencer.has_held())
    }

    /// The stream begins at `position`, for a client that has accepted everything up to `accepted`. What is known of
    /// a channel stays. Answers whether the cursor is another one now.
    pub(crate) fn announce(&mut self, position: &Cursor, accepted: &str) -> bool {
        let several = matches!(position, Cursor::Composite(_));
        let accepted = parts(accepted.parse().ok());
        let announced = parts(Some(position.clone()));
        let known = self.list.len();
        if several == self.several {
            self.list.retain(|track| announced.iter().any(|part| part.0 == track.channel));
        } else {
            self.list.clear();
        }
        self.several = several;
        let mut changed = self.list.len() != known;
        for (channel, position) in announced {
            match self.find(&channel).and_then(|index| self.list.get_mut(index)) {
                // Where the server begins proves nothing about what came before: our cursor may not have reached it.
                // What lies between shows as a hole.
                Some(track) => track.sequencer.drop_held(),
                None => {
                    let known = accepted.iter().find(|part| part.0 == channel).map(|part| part.1.clone());
                    changed |= known.is_none();
                    self.add(channel, known.unwrap_or(position));
                }
            }
        }
        changed && several
    }

    /// A channel, which was not there, goes on behind `position`.
    pub(crate) fn add(&mut self, channel: Box<str>, position: Position) {
        if self.list.len() < CURSOR_CHANNELS_MAX {
            let sequencer = Sequencer::new(self.config, position.clone());
            self.list.push(Track { channel, sequencer, cursor: position });
        }
    }

    /// One channel more, on a stream of several. False where it is known already.
    pub(crate) fn listen(&mut self, cursor: &Cursor, accepted: &str) -> bool {
        let accepted = parts(accepted.parse().ok());
        let Cursor::Composite(_) = cursor else { return false };
        self.several = true;
        let mut changed = false;
        for (channel, position) in parts(Some(cursor.clone())) {
            if self.find(&channel).is_none() {
                let known = accepted.iter().find(|part| part.0 == channel).map(|part| part.1.clone());
                self.add(channel, known.unwrap_or(position));
                changed = true;
            }
        }
        changed
    }

    /// One channel less.
    pub(crate) fn unlisten(&mut self, channel: &str) {
        let channel = escape_channel(channel);
        self.list.retain(|track| *track.channel != *channel);
    }

    /// The stream goes on behind `position`: of its one channel, or of those that it names.
    pub(crate) fn move_to(&mut self, position: &Cursor, accepted: &str) {
        let accepted = parts(accepted.parse().ok());
        for (channel, position) in parts(Some(position.clone())) {
            if self.find(&channel).is_none() {
                // What is accepted may be ahead of where the server begins.
                let known = accepted.iter().find(|part| part.0 == channel).map(|part| part.1.clone());
                self.add(channel.clone(), known.unwrap_or_else(|| position.clone()));
            }
            if let Some(track) = self.find(&channel).and_then(|index| self.list.get_mut(index)) {
                track.sequencer.move_to(position.clone());
                track.cursor = position;
            }
        }
    }

    /// What the server numbers higher from now on is new.
    pub(crate) fn end_at(&mut self, newest: &Cursor) {
        for (channel, newest) in parts(Some(newest.clone())) {
            if let Some(track) = self.find(&channel).and_then(|index| self.list.get_mut(index)) {
                track.sequencer.end_at(&newest);
            }
        }
    }

    /// Goes back to an earlier cursor.
    pub(crate) fn restore(&mut self, cursor: &str) {
        for (channel, position) in parts(cursor.parse().ok()) {
            if let Some(track) = self.find(&channel).and_then(|index| self.list.get_mut(index)) {
                track.cursor = position;
            }
        }
    }

    /// Whether the cursor stands before this event.
    pub(crate) fn is_before(&self, index: usize, epoch: &str, sequence: u64) -> bool {
        let cursor = self.list.get(index).map(|track| &track.cursor);
        cursor.is_some_and(|cursor| cursor.epoch == epoch && cursor.sequence < sequence)
    }

    /// Moves one channel's part of the cursor.
    pub(crate) fn stand_at(&mut self, index: usize, epoch: &str, sequence: u64) {
        if let Some(track) = self.list.get_mut(index) {
            if track.cursor.epoch != epoch {
                epoch.clone_into(&mut track.cursor.epoch);
            }
            track.cursor.sequence = sequence;
        }
    }

    /// The cursor of a stream of several channels, one channel first; and how long its part is.
    pub(crate) fn cursor(&self, first: usize) -> (String, usize) {
        let mut text = String::new();
        let mut own = 0;
        let order = self
            .list
            .get(first)
            .into_iter()
            .chain(self.list.iter().enumerate().filter(|track| track.0 != first).map(|track| track.1));
        for track in order {
            let comma = if text.is_empty() { "" } else { "," };
            let Position { epoch, sequence } = &track.cursor;
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{}:{epoch}-{sequence}", track.channel);
            if own == 0 {
                own = text.len();
            }
        }
        (text, own)
    }
}

/// The channels of a cursor as they are written in it; the one of a single position has no name.
fn parts(cursor: Option<Cursor>) -> Vec<(Box<str>, Position)> {
    match cursor {
        None => Vec::new(),
        Some(Cursor::Single(position)) => vec![("".into(), position)],
        Some(Cursor::Composite(parts)) => {
            parts.into_iter().map(|(channel, position)| (escape_channel(&channel).into(), position)).collect()
        }
    }
}
