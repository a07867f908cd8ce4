//! What a channel holds, and how far two places of it lie apart.

use super::Place;

/// What a channel holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The place of the oldest event that is stored, where there is one.
    pub oldest: Option<Place>,
    /// The place behind which the channel began. Of what lies before it the log knows nothing: a channel of this name may
    /// have lived there, and was forgotten. A log that forgets no channels says `Place::default()`.
    pub begin: Place,
    /// The place of the newest event ever stored; where there was none, that after which the first one comes.
    pub head: Place,
    /// The newest sequence of each epoch before that of `head`, as `(generation, sequence)`, in their order; an epoch
    /// that is absent stored no event in this channel.
    pub ends: Vec<(u32, u64)>,
}

impl Bounds {
    /// Those of a channel without events in the epoch `generation`, of a log whose forgotten channels came as far as
    /// `retired`: it begins behind them, so that none of their ids is given a second time.
    #[must_use]
    pub fn new(generation: u32, retired: Place) -> Self {
        let head = retired.max(Place { generation, sequence: 0 });
        Self { oldest: None, begin: retired, head, ends: Vec::new() }
    }

    /// Whether an event was ever stored.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.head.sequence > 0 && self.head > self.begin
    }

    /// The last sequence that was given out in an epoch.
    #[must_use]
    pub fn end_of(&self, generation: u32) -> u64 {
        if generation == self.head.generation {
            return self.head.sequence;
        }
        let end = self.ends.iter().find(|end| end.0 == generation).map(|end| end.1);
        end.unwrap_or(if generation == self.begin.generation { self.begin.sequence } else { 0 })
    }

    /// How many events were stored after `from`, up to and with `to`.
    #[must_use]
    pub fn distance(&self, from: Place, to: Place) -> u64 {
        let from = from.max(self.begin);
        if from >= to {
            return 0;
        }
        if from.generation == to.generation {
            return to.sequence - from.sequence;
        }
        let between = |end: &&(u32, u64)| from.generation < end.0 && end.0 < to.generation;
        let between: u64 = self.ends.iter().filter(between).map(|end| end.1).sum();
        self.end_of(from.generation).saturating_sub(from.sequence) + between + to.sequence
    }

    /// The place right before an event: after it, that event is the next.
    #[must_use]
    pub fn before(&self, place: Place) -> Place {
        Place { sequence: place.sequence.saturating_sub(1), ..place }
    }
}
