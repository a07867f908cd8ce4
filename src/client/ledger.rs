//! What the app has been given and what it has finished: the cursor moves with the latter.
//!
//! Two ids are kept apart. *Accepted* is the last event that entered the queue; within this client a reconnect
//! resumes from there, since the queue survives it. *Processed* is the last event before the oldest unfinished
//! one; only that is ever stored. A stored window of ids that had merely arrived would swallow the replay of
//! what was never processed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::done_before::DoneBefore;
use super::entry::{Bears, Entry, What};

/// What outlives the page: the cursor, and the ids processed beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// The last event ID up to which everything is processed; may be empty.
    pub cursor: String,
    /// Ids processed beyond the cursor, while an earlier event was unfinished.
    #[serde(default)]
    pub done: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    accepted: String,
    processed: String,
    /// Unfinished records and finished ones behind them, oldest first.
    entries: VecDeque<Entry>,
    /// Token of the oldest entry, or of the next one if there is none.
    first_token: u64,
    /// Ids of the entries, one after another.
    ids: String,
    /// Bytes already cut off the front of `ids`.
    ids_cut: usize,
    /// Ids processed while the cursor waited before a hole; see `close_hole`.
    beyond: Vec<String>,
    /// So many of these belong to holes that have closed.
    beyond_closed: usize,
    /// Events for the app among the entries that it has not finished.
    unfinished: usize,
    /// What an earlier page processed beyond the cursor, or was given back behind an unfinished event.
    pub(super) done_before: DoneBefore,
    /// Records before this token are of the time before the cursor was forgotten.
    cleared_before: u64,
    done_ids_max: usize,
    changed: bool,
}

impl Ledger {
    pub(crate) fn new(done_ids_max: usize) -> Self {
        Self {
            accepted: String::new(),
            processed: String::new(),
            entries: VecDeque::new(),
            first_token: 1,
            ids: String::new(),
            ids_cut: 0,
            beyond: Vec::new(),
            beyond_closed: 0,
            unfinished: 0,
            done_before: DoneBefore::new(Vec::new(), done_ids_max),
            cleared_before: 0,
            done_ids_max,
            changed: false,
        }
    }

    /// Takes over what an earlier page stored. No id of a stream holds an end of line or NUL: a cursor that does
    /// was damaged, and could not be sent.
    pub(crate) fn restore(&mut self, record: StoredRecord) {
        if record.cursor.contains(['\r', '\n', '\0']) {
            return;
        }
        self.accepted.clone_from(&record.cursor);
        self.processed = record.cursor;
        self.done_before = DoneBefore::new(record.done, self.done_ids_max);
    }

    /// The cursor to resume from within this client.
    pub(crate) fn accepted(&self) -> &str {
        &self.accepted
    }

    /// The cursor that is stored.
    pub(crate) fn processed(&self) -> &str {
        &self.processed
    }

    pub(crate) fn first_token(&self) -> u64 {
        self.first_token
    }

    pub(crate) fn next_token(&self) -> u64 {
        self.first_token + self.entries.len() as u64
    }

    /// Records from the oldest unfinished one on, the finished ones among them included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Events among them that the app has not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// One more record, which tells of the stream and moves no cursor.
    pub(crate) fn accept_told(&mut self) {
        self.push(None, 0, Bears::Nothing, What::Told);
    }

    /// One more record; `id` where it moves the cursor (an empty one clears it).
    pub(crate) fn accept(&mut self, id: Option<&str>) {
        self.push(id, id.map_or(0, str::len), bears_cursor(id), What::Event);
    }

    /// One more record, while something before it is missing: the cursor must not pass that.
    pub(crate) fn accept_beyond(&mut self, id: Option<&str>) {
        let id = id.filter(|id| !id.is_empty());
        self.push(id, id.map_or(0, str::len), id.map_or(Bears::Nothing, |_| Bears::Beyond), What::Event);
    }

    /// One more record in place of an event that was processed before.
    pub(crate) fn accept_skipped(&mut self, id: &str, beyond: bool) {
        self.push(Some(id), id.len(), if beyond { Bears::Beyond } else { Bears::Cursor }, What::Skipped);
    }

    /// One more record, of a stream of several channels: the first `own_bytes` of the cursor are the event's own id.
    pub(crate) fn accept_part(&mut self, cursor: &str, own_bytes: usize, skipped: bool) {
        let what = if skipped { What::Skipped } else { What::Event };
        self.push(Some(cursor), own_bytes, Bears::Cursor, what);
    }

    /// One more record, which only moves the cursor.
    pub(crate) fn accept_cursor(&mut self, id: &str) {
        if self.begins_anew() {
            // What the app has in hand of the past does not hold the new beginning up, nor take it back when it fails.
            self.push(None, 0, Bears::Nothing, What::Told);
            id.clone_into(&mut self.accepted);
            id.clone_into(&mut self.processed);
            self.changed = true;
            return;
        }
        self.push(Some(id), id.len(), Bears::Cursor, What::Place);
    }

    /// Whether the cursor was forgotten, and nothing came since that would have to be finished before it moves.
    fn begins_anew(&self) -> bool {
        let old = self.cleared_before.saturating_sub(self.first_token) as usize;
        old > 0
            && self.accepted.is_empty()
            && self.entries.iter().skip(old).all(|entry| entry.what == What::Told)
    }

    /// Everything that was missing has come, or is told about; `id` came last. Whether the server's log has these events
    /// in the order in which they came or in that of their numbers is not known: with the cursor at `id` and the others
    /// remembered as processed, a replay in either order brings nothing twice.
    pub(crate) fn close_hole(&mut self, id: &str) {
        self.push(Some(id), id.len(), Bears::Close, What::Place);
    }

    fn push(&mut self, id: Option<&str>, own_bytes: usize, bears: Bears, what: What) {
        let start = self.ids_cut + self.ids.len();
        if let Some(id) = id {
            self.ids.push_str(id);
            if bears != Bears::Beyond {
                self.accepted.clear();
                self.accepted.push_str(id);
            }
        }
        let end = self.ids_cut + self.ids.len();
        let own_end = start + own_bytes;
        self.unfinished += usize::from(what == What::Event);
        self.entries.push_back(Entry { start, end, own_end, bears, what, done: false });
    }

    /// The records from `first` to `last` are finished; earlier ones may still be at work.
    pub(crate) fn finish(&mut self, first: u64, last: u64) {
        let known = self.entries.len() as u64;
        let end = last.saturating_add(1).saturating_sub(self.first_token).min(known);
        let start = first.saturating_sub(self.first_token).min(end);
        for entry in self.entries.range_mut(start as usize..end as usize) {
            self.changed |= !entry.done && entry.bears != Bears::Nothing;
            self.unfinished -= usize::from(entry.is_at_work());
            entry.done = true;
        }
        self.pop_finished();
    }

    /// Whether the app has finished this event, or an earlier page has.
    pub(crate) fn is_finished(&self, token: u64) -> bool {
        let entry = token.checked_sub(self.first_token).and_then(|at| self.entries.get(at as usize));
        entry.is_some_and(|entry| entry.done && entry.what == What::Event || entry.what == What::Skipped)
    }

    /// One record is finished, perhaps before earlier ones.
    pub(crate) fn done(&mut self, token: u64) {
        let entry = token.checked_sub(self.first_token).and_then(|at| self.entries.get_mut(at as usize));
        let Some(entry) = entry else { return };
        self.changed |= !entry.done && entry.bears != Bears::Nothing;
        self.unfinished -= usize::from(entry.is_at_work());
        entry.done = true;
        self.pop_finished();
    }

    /// Gives back the records behind `token`, which the app was never given; `forget` hears each event's id.
    /// Answers how many. What is finished among them is skipped when it comes again.
    pub(crate) fn discard_after(&mut self, token: u64, mut forget: impl FnMut(&str)) -> usize {
        let keep = token.saturating_add(1).saturating_sub(self.first_token) as usize;
        let discarded = self.entries.len().saturating_sub(keep);
        let given_back = self.entries.range(self.entries.len() - discarded..);
        self.unfinished -= given_back.clone().filter(|entry| entry.is_at_work()).count();
        let events = given_back.filter(|entry| entry.is_stored());
        self.done_before.put_off(events.clone().count());
        for (entry, distance) in events.zip(1..) {
            let id = &self.ids[entry.start - self.ids_cut..entry.own_end - self.ids_cut];
            forget(id);
            if entry.done || entry.what == What::Skipped {
                self.done_before.push(id, distance);
            }
        }
        self.entries.truncate(self.entries.len() - discarded);
        if discarded > 0 {
            let last =
                self.entries.iter().rev().find(|entry| matches!(entry.bears, Bears::Cursor | Bears::Close));
            self.accepted = match last {
                Some(entry) => self.ids[entry.start - self.ids_cut..entry.end - self.ids_cut].to_owned(),
                None => self.processed.clone(),
            };
        }
        discarded
    }

    /// Forgets the cursor. What the app still has in hand moves it no more.
    pub(crate) fn clear(&mut self) {
        for entry in &mut self.entries {
            entry.bears = Bears::Nothing;
        }
        self.cleared_before = self.next_token();
        self.accepted.clear();
        self.processed.clear();
        self.beyond.clear();
        self.beyond_closed = 0;
        self.done_before.clear();
        self.changed = true;
    }

    /// Whether there is something new to store.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// What is to be stored now.
    pub(crate) fn take_record(&mut self) -> StoredRecord {
        self.changed = false;
        self.record()
    }

    /// The cursor, and what is processed beyond it.
    pub(crate) fn record(&self) -> StoredRecord {
        // A place has the id of an event that may still be at work. Of the oldest unfinished event and so many behind it:
        // a page that begins with this record knows then when the last of them must have come.
        let within = (self.done_ids_max + 1).saturating_sub(self.beyond.len());
        let events = self.entries.iter().filter(|entry| entry.is_stored());
        let before = within.saturating_sub(events.clone().count());
        let finished = events
            .take(within)
            .filter(|entry| entry.done)
            .map(|entry| self.ids[entry.start - self.ids_cut..entry.own_end - self.ids_cut].to_owned());
        let done = self
            .beyond
            .iter()
            .cloned()
            .chain(finished)
            .chain(self.done_before.within(before).cloned())
            .take(self.done_ids_max)
            .collect();
        StoredRecord { cursor: self.processed.clone(), done }
    }

    /// Ids processed beyond the cursor that are remembered apart from the records.
    pub(crate) fn done_ids(&self) -> usize {
        self.beyond.len() + self.done_before.len()
    }

    fn pop_finished(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.done) {
            self.pop_front();
        }
        self.compact();
    }

    fn pop_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first_token += 1;
        let id = &self.ids[entry.start - self.ids_cut..entry.end - self.ids_cut];
        match entry.bears {
            Bears::Nothing => {}
            Bears::Cursor => {
                self.processed.clear();
                self.processed.push_str(id);
                // The cursor has passed them.
                self.beyond.clear();
                self.beyond_closed = 0;
                self.changed = true;
            }
            Bears::Close => {
                self.processed.clear();
                self.processed.push_str(id);
                self.beyond.drain(..self.beyond_closed);
                self.beyond.retain(|beyond| beyond != id);
                self.beyond_closed = self.beyond.len();
                self.changed = true;
            }
            Bears::Beyond if self.beyond.len() < self.done_ids_max => self.beyond.push(id.to_owned()),
            Bears::Beyond => {}
        }
    }

    /// Gives the ids of finished records back, without moving the rest each time.
    fn compact(&mut self) {
        let Some(first) = self.entries.front() else {
            self.ids.clear();
            self.ids_cut = 0;
            return;
        };
        let dead = first.start - self.ids_cut;
        if dead > (16 << 10) && dead > self.ids.len() / 2 {
            self.ids.drain(..dead);
            self.ids_cut += dead;
        }
    }
}

fn bears_cursor(id: Option<&str>) -> Bears {
    if id.is_some() { Bears::Cursor } else { Bears::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cursor: &str, done: &[&str]) -> StoredRecord {
        StoredRecord { cursor: cursor.to_owned(), done: done.iter().map(|id| (*id).to_owned()).collect() }
    }

    #[test]
    fn the_cursor_stays_behind_the_oldest_unfinished_event() {
        let mut ledger = Ledger::new(10);
        for id in ["1", "2", "3", "4"] {
            ledger.accept(Some(id));
        }
        assert_eq!(ledger.take_record(), record("", &[]));
        ledger.done(3);
        assert_eq!(ledger.take_record(), record("", &["3"]));
        ledger.done(1);
        assert_eq!(ledger.take_record(), record("1", &["3"]));
        ledger.done(2);
        assert_eq!(ledger.take_record(), record("3", &[]));
        ledger.done(2);
        ledger.done(99);
        assert!(!ledger.is_changed(), "repeated and unknown tokens do nothing");
        ledger.finish(1, 4);
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.take_record(), record("4", &[]));
    }

    #[test]
    fn events_without_an_id_do_not_move_the_cursor_and_an_empty_id_clears_it() {
        let mut ledger = Ledger::new(10);
        ledger.accept(Some("1"));
        ledger.accept(None);
        ledger.accept(Some(""));
        ledger.finish(1, 2);
        assert_eq!((ledger.processed(), ledger.accepted()), ("1", ""));
        ledger.take_record();
        ledger.finish(1, 3);
        assert_eq!(ledger.processed(), "");
        assert!(ledger.is_changed());
    }

    #[test]
    fn a_later_batch_does_not_finish_what_is_still_at_work() {
        let mut ledger = Ledger::new(10);
        for id in ["1", "2", "3"] {
            ledger.accept(Some(id));
        }
        ledger.finish(2, 3);
        assert_eq!(ledger.take_record(), record("", &["2", "3"]));
        ledger.done(1);
        assert_eq!(ledger.take_record(), record("3", &[]));
    }

    #[test]
    fn what_was_given_back_is_asked_for_again() {
        let mut ledger = Ledger::new(10);
        for id in ["1", "2", "3"] {
            ledger.accept(Some(id));
        }
        let mut forgotten = Vec::new();
        assert_eq!(ledger.discard_after(2, |id| forgotten.push(id.to_owned())), 1);
        assert_eq!(
            (forgotten, ledger.accepted()),
            (vec!["3".to_owned()], "2"),
            "the second is still in the app's hands"
        );
        assert_eq!(ledger.discard_after(0, |_| {}), 2);
        assert_eq!(ledger.accepted(), "", "back to what is processed");
        assert_eq!(ledger.next_token(), 1);
    }

    #[test]
    fn a_long_queue_does_not_keep_the_ids_of_finished_events() {
        let mut ledger = Ledger::new(10);
        for index in 0..100_000_u64 {
            ledger.accept(Some(&format!("id-{index}")));
            if index >= 10 {
                ledger.done(index - 9);
            }
        }
        assert_eq!(ledger.processed(), "id-99989");
        assert!(ledger.ids.len() < 64 << 10, "{} bytes", ledger.ids.len());
    }

    #[test]
    fn the_cursor_waits_before_a_hole_and_what_is_processed_behind_it_is_remembered() {
        let mut ledger = Ledger::new(2);
        ledger.accept(Some("1"));
        for id in ["4", "3", "5"] {
            ledger.accept_beyond(Some(id));
        }
        ledger.accept_beyond(None);
        ledger.finish(1, 3);
        assert_eq!(ledger.take_record(), record("1", &["4", "3"]));
        ledger.finish(1, 5);
        assert_eq!((ledger.take_record(), ledger.accepted()), (record("1", &["4", "3"]), "1"), "bounded");
        ledger.close_hole("3");
        assert_eq!(ledger.accepted(), "3");
        ledger.done(6);
        assert_eq!(ledger.take_record(), record("3", &["4"]), "what came last, and the rest of it");
        ledger.accept_beyond(Some("7"));
        ledger.close_hole("7");
        ledger.done(8);
        assert_eq!(ledger.record(), record("3", &["4"]), "a place is no event");
        ledger.done(7);
        assert_eq!(ledger.take_record(), record("7", &[]), "an earlier hole is far behind");
        ledger.accept(Some("6"));
        ledger.done(9);
        assert_eq!(ledger.take_record(), record("6", &[]));
        ledger.accept_beyond(Some("8"));
        let mut forgotten = Vec::new();
        assert_eq!(ledger.discard_after(9, |id| forgotten.push(id.to_owned())), 1);
        assert_eq!((forgotten, ledger.accepted()), (vec!["8".to_owned()], "6"));
        ledger.accept_beyond(Some("8"));
        ledger.clear();
        ledger.done(10);
        assert_eq!(ledger.record(), record("", &[]));
    }

    #[test]
    fn ids_of_an_earlier_page_are_skipped_once() {
        let mut ledger = Ledger::new(2);
        ledger.restore(record("1", &["3", "5", "7"]));
        assert!(ledger.done_before.take("3", false));
        assert!(!ledger.done_before.take("3", false));
        assert!(!ledger.done_before.take("7", false), "beyond the bound");
        assert_eq!(ledger.take_record(), record("1", &["5"]));
    }
}
