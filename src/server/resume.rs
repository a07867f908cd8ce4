//! Decides where a stream begins: what the client asked for, held against what the log has.

use super::log::{Bounds, EventLog, Place};
use super::options::Beginning;
use crate::wire::{Cursor, Position, id};

/// Where a client wants its stream to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Behind the event of this id, in the client's words.
    pub(crate) cursor: Option<String>,
    /// Where, without one.
    pub(crate) fresh: Beginning,
}

impl Wanted {
    /// Leaves out a cursor that names no channel: on a stream that was opened for none it is the app's own matter.
    pub(crate) fn forget_foreign(&mut self) {
        self.cursor.take_if(|cursor| id::Part::first(cursor).is_none());
    }

    /// Takes a channel out of the cursor of several.
    pub(crate) fn forget(&mut self, channel: &str) {
        if let Some(Ok(Cursor::Composite(mut parts))) = self.cursor.as_deref().map(str::parse) {
            parts.retain(|part| part.0 != channel);
            self.cursor = (!parts.is_empty()).then(|| Cursor::Composite(parts).to_string());
        }
    }
}

/// Where its stream does begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The place after which it begins.
    pub(crate) place: Place,
    /// Why that is not where the client wanted to go on.
    pub(crate) refused: Option<Refused>,
    /// There was a cursor.
    pub(crate) resumed: bool,
}

impl Start {
    fn after(refused: Refused) -> Self {
        Self { place: refused.place, refused: Some(refused), resumed: true }
    }

    /// Begins elsewhere after all.
    pub(crate) fn move_to(&mut self, place: Place) {
        self.place = place;
        if let Some(refused) = &mut self.refused {
            refused.place = place;
        }
    }

    /// Leaves out all but the newest `events_max` events of a replay.
    pub(crate) fn shorten(&mut self, events_max: u64, bounds: &Bounds) {
        let left_out = bounds.distance(self.place, bounds.head).saturating_sub(events_max.max(1));
        if left_out == 0 {
            return;
        }
        if self.resumed {
            // What else is missing is missing, too.
            let before = match &self.refused {
                Some(refused) => refused.missing,
                None => Some(0),
            };
            let missing = before.map(|missing| missing + left_out);
            let refused = self.refused.take().unwrap_or_else(|| refuse(TOO_LARGE, bounds, None));
            self.refused = Some(Refused { missing, ..refused });
        }
        self.move_to(last(events_max.max(1), bounds, self.place));
    }
}

/// Why a cursor cannot be resumed. The stream goes on all the same, after `place`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// One of [`CODES`].
    pub(crate) code: &'static str,
    /// The place after which the stream goes on.
    pub(crate) place: Place,
    pub(crate) oldest: Option<Place>,
    pub(crate) newest: Place,
    /// How many events are gone, where that is known.
    pub(crate) missing: Option<u64>,
}

impl Refused {
    /// The code that is told: a log that stores nothing says that instead of what it lacks.
    pub(crate) fn code(&self, log: &dyn EventLog) -> &'static str {
        match self.code {
            code @ (INVALID | DISABLED) => code,
            code if log.replays() => code,
            _ => NO_BUFFER,
        }
    }
}

/// The events after the cursor are no longer stored.
pub(crate) const EXPIRED: &str = "buffer_expired";
/// The cursor is of an epoch that the log does not know, or beyond the end of one that it knows.
pub(crate) const NOT_FOUND: &str = "event_not_found";
/// Nothing is ever stored that a stream could resume from: said instead of [`EXPIRED`], [`NOT_FOUND`] and
/// [`FORGOTTEN`].
pub(crate) const NO_BUFFER: &str = "no_buffer";
/// The cursor lies before the beginning of the channel: one of this name was forgotten or removed, with all events.
pub(crate) const FORGOTTEN: &str = "stream_not_found";
/// The cursor is no id of ours.
pub(crate) const INVALID: &str = "invalid_event_id";
/// The server was told to resume nothing.
pub(crate) const DISABLED: &str = "resume_disabled";
/// There is more to replay than is sent at once.
pub(crate) const TOO_LARGE: &str = "replay_too_large";
/// All of them.
pub(crate) const CODES: [&str; 7] = [EXPIRED, NOT_FOUND, NO_BUFFER, FORGOTTEN, INVALID, DISABLED, TOO_LARGE];

/// Where a stream of `channel` begins, alone or as one of `several`.
pub(crate) fn resolve(
    wanted: &Wanted,
    channel: &str,
    several: bool,
    bounds: &Bounds,
    log: &dyn EventLog,
    may_resume: bool,
) -> Start {
    let fresh = || {
        let oldest = first_place(bounds);
        match wanted.fresh {
            Beginning::Now => bounds.head,
            Beginning::Start => oldest,
            Beginning::Last(count) => last(count, bounds, oldest),
        }
    };
    let part = wanted.cursor.as_deref().map(|id| part(id, channel, several));
    match part {
        None | Some(Part::Absent) => Start { place: fresh(), refused: None, resumed: false },
        Some(_) if !may_resume => Start::after(Refused { place: fresh(), ..refuse(DISABLED, bounds, None) }),
        Some(Part::At(position)) => resume(&position, bounds, log),
        Some(Part::Invalid) => Start::after(refuse(INVALID, bounds, None)),
    }
}

/// What is missing between a place and the oldest event that is stored.
pub(crate) fn gap(place: Place, bounds: &Bounds) -> Option<Refused> {
    let missing = bounds.distance(place, first_place(bounds));
    (missing > 0).then(|| refuse(EXPIRED, bounds, Some(missing)))
}

fn resume(position: &Position, bounds: &Bounds, log: &dyn EventLog) -> Start {
    let Some(generation) = log.generation(&position.epoch) else {
        return Start::after(refuse(NOT_FOUND, bounds, None));
    };
    if (Place { generation, sequence: position.sequence }) < bounds.begin {
        return Start::after(refuse(FORGOTTEN, bounds, None));
    }
    let end = bounds.end_of(generation);
    let place = Place { generation, sequence: position.sequence.min(end) };
    let gap = gap(place, bounds);
    if position.sequence <= end {
        return gap.map_or(Start { place, refused: None, resumed: true }, Start::after);
    }
    // What the epoch gave out beyond its end is lost, nobody knows how much. All before it was seen: to begin with
    // the oldest event would repeat it.
    let refused = refuse(NOT_FOUND, bounds, None);
    Start::after(if gap.is_none() { Refused { place, ..refused } } else { refused })
}

/// What a cursor says of one channel.
enum Part {
    At(Position),
    /// Nothing: the channel is new on this stream.
    Absent,
    Invalid,
}

fn part(id: &str, channel: &str, several: bool) -> Part {
    match id.parse() {
        Ok(Cursor::Single(position)) if !several => Part::At(position),
        Ok(Cursor::Composite(parts)) => match parts.into_iter().find(|part| part.0 == channel) {
            Some((_, position)) => Part::At(position),
            None if several => Part::Absent,
            None => Part::Invalid,
        },
        _ => Part::Invalid,
    }
}

/// Goes on from the oldest event: then only what is really gone is missing.
fn refuse(code: &'static str, bounds: &Bounds, missing: Option<u64>) -> Refused {
    Refused { code, place: first_place(bounds), oldest: bounds.oldest, newest: bounds.head, missing }
}

/// The place after which all that is stored comes.
fn first_place(bounds: &Bounds) -> Place {
    bounds.oldest.map_or(bounds.head, |oldest| bounds.before(oldest))
}

/// The place before the last `count` events, which may lie in an earlier epoch.
fn last(count: u64, bounds: &Bounds, oldest: Place) -> Place {
    let newest = (bounds.head.generation, bounds.head.sequence);
    let mut left = count;
    for (generation, end) in std::iter::once(newest).chain(bounds.ends.iter().rev().copied()) {
        if left <= end {
            return Place { generation, sequence: end - left }.max(oldest);
        }
        left -= end;
    }
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::{MemoryLog, Retention};

    fn at(generation: u32, sequence: u64) -> Place {
        Place { generation, sequence }
    }

    #[test]
    fn streams_begin_where_the_client_asked_or_say_why_not() {
        let log = MemoryLog::new(Retention::default());
        let epoch = log.epoch(0).expect("the first epoch");
        let bounds = Bounds { oldest: Some(at(0, 5)), begin: at(0, 0), head: at(0, 10), ends: Vec::new() };
        let check = |id: &str, place: Place, refused: Option<(&str, Option<u64>)>| {
            let wanted = Wanted { cursor: Some(id.to_owned()), fresh: Beginning::Now };
            let start = resolve(&wanted, "c", false, &bounds, &log, true);
            assert_eq!(start.place, place, "{id}");
            assert_eq!(start.refused.map(|refused| (refused.code, refused.missing)), refused, "{id}");
        };
        check(&format!("{epoch}-7"), at(0, 7), None);
        check(&format!("{epoch}-10"), at(0, 10), None);
        check(&format!("{epoch}-4"), at(0, 4), None);
        check(&format!("c:{epoch}-7"), at(0, 7), None);
        check(&format!("{epoch}-3"), at(0, 4), Some((EXPIRED, Some(1))));
        check(&format!("{epoch}-0"), at(0, 4), Some((EXPIRED, Some(4))));
        check(&format!("{epoch}-11"), at(0, 10), Some((NOT_FOUND, None)));
        check(&format!("{epoch}-18446744073709551615"), at(0, 10), Some((NOT_FOUND, None)));
        check("other-7", at(0, 4), Some((NOT_FOUND, None)));
        check("-7", at(0, 4), Some((INVALID, None)));
        check(&format!("d:{epoch}-7"), at(0, 4), Some((INVALID, None)));
        check(&"9".repeat(1 << 20), at(0, 4), Some((INVALID, None)));
    }

    #[test]
    fn one_of_several_channels_begins_at_its_own_part_of_the_cursor() {
        let log = MemoryLog::new(Retention::default());
        let epoch = log.epoch(0).expect("the first epoch");
        let bounds = Bounds { oldest: Some(at(0, 5)), begin: at(0, 0), head: at(0, 10), ends: Vec::new() };
        for (id, place, refused) in [
            (format!("b:{epoch}-1,c:{epoch}-7"), at(0, 7), None),
            (format!("c:{epoch}-2,b:{epoch}-9"), at(0, 4), Some(EXPIRED)),
            // Not there: it was not listened to, and begins as a fresh one.
            (format!("b:{epoch}-1"), at(0, 10), None),
            // Of which channel this is, nobody knows.
            (format!("{epoch}-7"), at(0, 4), Some(INVALID)),
            (format!("b:{epoch}-1,"), at(0, 4), Some(INVALID)),
        ] {
            let wanted = Wanted { cursor: Some(id.clone()), fresh: Beginning::Now };
            let start = resolve(&wanted, "c", true, &bounds, &log, true);
            assert_eq!((start.place, start.refused.map(|refused| refused.code)), (place, refused), "{id}");
        }
    }

    #[test]
    fn the_last_events_may_reach_into_an_earlier_epoch() {
        let bounds = Bounds { oldest: Some(at(0, 5)), begin: at(0, 0), head: at(2, 3), ends: vec![(0, 10)] };
        for (count, place) in [
            (0, at(2, 3)),
            (2, at(2, 1)),
            (3, at(2, 0)),
            (4, at(0, 9)),
            (9, at(0, 4)),
            (10, at(0, 4)),
            (u64::MAX, at(0, 4)),
        ] {
            assert_eq!(last(count, &bounds, at(0, 4)), place, "last {count}");
        }
    }

    #[test]
    fn distances_count_what_each_epoch_held() {
        let bounds = Bounds { oldest: None, begin: at(0, 0), head: at(2, 3), ends: vec![(0, 10)] };
        for (from, to, expected) in [
            (at(0, 10), at(2, 0), 0),
            (at(0, 8), at(2, 1), 3),
            (at(1, 0), at(2, 3), 3),
            (at(2, 3), at(0, 1), 0),
        ] {
            assert_eq!(bounds.distance(from, to), expected);
        }
    }
}
