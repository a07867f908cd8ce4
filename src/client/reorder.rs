//! Policy Reorder: envelopes of servers that are not ours, put in the order of their `sequence`.
//!
//! Each scope (a `stream_id`, else the connection) has a sequencer. While one of them waits for what is missing, the
//! others' events pass, and the cursor stays before the hole: nothing that is held back counts as processed, and a
//! new connection brings the missing events again.
//!
//! A hole shows with the next event of its own scope. Until then another scope's event may have moved the cursor past it;
//! then a new connection does not bring what is missing, and the app is told.
//!
//! The window is bounded. Once it is full, holes that were asked for in vain are given up: the connection that was to bring
//! them came past them. The others are asked for, once; while their replay is on its way, what it brings first passes.
//!
//! A connection that resumes goes on with the numbers of the one before. Where the first number of a scope on it is
//! one that another event had, the server numbers anew, and so does the scope.

use super::batch::Kind;
use super::intake::Intake;
use super::notice::Notice;
use super::ordering::{Late, Mark};
use super::scopes::Spot;
use super::sequencer::HeldEvent;
use crate::wire::EventRef;

impl Intake {
    /// An event came again, and is dropped.
    pub(super) fn repeated(&mut self, stream: &str, sequence: u64) {
        self.scopes.repeated(stream, sequence.saturating_add(1));
        self.release_reordered();
    }

    /// An event that has a number in its stream.
    pub(super) fn reordered(&mut self, event: EventRef<'_>, id: Option<&str>, stream: &str, sequence: u64) {
        // A sequencer's numbers begin at 1, a server's at 0.
        let number = sequence.saturating_add(1);
        let is_missing = self
            .scopes
            .find(stream)
            .is_some_and(|at| self.scopes.scopes[at].sequencer.misses(stream, number));
        if !is_missing && self.window_is_full(id) {
            return;
        }
        // Ends: each turn deals with the event or gives up one of the finitely many holes.
        loop {
            match self.scopes.place(stream, number) {
                Spot::Next => {
                    if let Some(at) = self.scopes.find(stream) {
                        self.note(self.scopes.scopes[at].key, number);
                    }
                    self.pass(event, id, !is_missing);
                    self.release_reordered();
                    return;
                }
                Spot::Astray => {
                    // What is missing may be right behind it.
                    self.pass(event, id, false);
                    return;
                }
                Spot::Late(last) => {
                    let beyond = self.scopes.holds();
                    if self.skip_done_before(id, beyond) {
                        return;
                    }
                    let last = Mark::Sequence(last.saturating_sub(1));
                    self.late(event, id, Late { mark: Mark::Sequence(sequence), last });
                    return;
                }
                Spot::Early => {
                    if self.scopes.hold(stream, number, HeldEvent::of(event, id)) {
                        self.scopes.came(id);
                        self.stats.out_of_order += 1;
                        return;
                    }
                    if self.fetch_instead_of(id, Some(stream)) {
                        return;
                    }
                }
                Spot::Crowded => {
                    self.give_up_any();
                    continue;
                }
            }
            self.give_up_one(Some((stream, number)));
        }
    }

    /// An event that has no number.
    pub(super) fn unnumbered(&mut self, event: EventRef<'_>, id: Option<&str>) {
        if !self.window_is_full(id) {
            self.pass(event, id, true);
        }
    }

    /// An event is delivered; where something is held it passes by, and may use up the window.
    fn pass(&mut self, event: EventRef<'_>, id: Option<&str>, counts: bool) {
        let beyond = self.scopes.holds();
        if beyond {
            self.scopes.came(id);
            self.scopes.passed += usize::from(counts);
        }
        self.deliver(event.name, event.data, id, beyond);
    }

    /// So much came since the cursor stopped that the holes are dealt with now. True where this event is to come again.
    /// While the replay of all that is missing is on its way, what it brings first passes.
    fn window_is_full(&mut self, id: Option<&str>) -> bool {
        while self.scopes.holds()
            && self.scopes.held_events + self.scopes.passed > self.ordering.held_events_max
        {
            if self.fetch_instead_of(id, None) {
                return true;
            }
            if !self.give_up_one(None) {
                break;
            }
        }
        false
    }

    /// Whether holes can be fetched; each is, once.
    pub(super) fn fetch_reordered(&mut self) -> bool {
        self.comes_again() && self.scopes.fetch(None)
    }

    /// What is missing is overdue: it was fetched, or cannot be.
    pub(super) fn give_up_overdue(&mut self) {
        for at in self.scopes.holes(self.comes_again()) {
            self.give_up_at(at, None);
        }
    }

    /// Whether something is held that no new connection brings again.
    pub(super) fn holds_the_last_of_it(&self) -> bool {
        self.scopes.holds() && !self.comes_again()
    }

    /// Nobody will bring what is missing.
    pub(super) fn give_up_all_reordered(&mut self) {
        while self.scopes.holds() {
            self.give_up_any();
        }
    }

    /// The app asked for an end, or a new connection. Where events were given back, what is held came after them and
    /// comes again with them.
    pub(super) fn drop_reordered(&mut self, token: u64) {
        let Self { scopes, dedupe: Some(dedupe), .. } = self else { return };
        scopes.held().filter_map(|event| event.id.as_deref()).for_each(|id| dedupe.forget(id));
        scopes.give_back(token);
    }

    /// Whether a new connection brings again what is missing, and all that is held.
    fn comes_again(&self) -> bool {
        let has_id = |event: &HeldEvent| event.id.as_deref().is_some_and(|id| !id.is_empty());
        self.may_repeat && !self.ledger.accepted().is_empty() && self.scopes.held().all(has_id)
    }

    /// Fetches the holes and, with what is missing, this event.
    fn fetch_instead_of(&mut self, id: Option<&str>, early: Option<&str>) -> bool {
        let Some(id) = id.filter(|id| !id.is_empty() && self.comes_again()) else { return false };
        self.effects.refetch = self.scopes.fetch(early);
        if let Some(dedupe) = self.dedupe.as_mut().filter(|_| self.effects.refetch) {
            dedupe.forget(id);
        }
        self.effects.refetch
    }

    /// Gives up one hole: one that was asked for in vain, else the one before this event, else any. False where it may
    /// still come.
    fn give_up_one(&mut self, before: Option<(&str, u64)>) -> bool {
        let stream = before.map(|event| event.0);
        if let Some(at) = self.scopes.vain_hole(stream).or_else(|| self.scopes.find(stream?)) {
            self.give_up_at(at, before);
        } else if self.comes_again() && !self.scopes.holes(true).is_empty() {
            return false;
        } else {
            self.give_up_any();
        }
        true
    }

    /// Gives up one hole before what is held: one that was asked for, if there is one.
    fn give_up_any(&mut self) {
        let hole = |fetched| self.scopes.holes(fetched).first().copied();
        if let Some(at) = hole(true).or_else(|| hole(false)) {
            self.give_up_at(at, None);
        }
    }

    fn give_up_at(&mut self, at: usize, before: Option<(&str, u64)>) {
        for missing in self.scopes.give_up(at, before) {
            self.note(self.scopes.scopes[at].key, missing.first);
            let count = missing.last - missing.first + 1;
            self.stats.events_missing = self.stats.events_missing.saturating_add(count);
            self.notice(Notice::Gap {
                first_missing: (missing.first - 1).to_string(),
                last_missing: (missing.last - 1).to_string(),
                count,
                stream_id: Some(missing.epoch).filter(|stream| !stream.is_empty()),
            });
        }
        self.release_reordered();
    }

    /// The next record is of this number.
    fn note(&mut self, key: u32, number: u64) {
        let first = self.ledger.first_token();
        let delivered = &mut self.scopes.delivered;
        while delivered.pop_front_if(|(token, ..)| *token < first).is_some() {}
        delivered.push_back((self.ledger.next_token(), key, number));
    }

    fn release_reordered(&mut self) {
        while let Some((event, key, number)) = self.scopes.release() {
            self.note(key, number);
            self.deliver(&event.name, &event.data, event.id.as_deref(), true);
        }
        if self.scopes.holds() {
            return;
        }
        self.scopes.passed = 0;
        if let Some(id) = self.scopes.place.take() {
            self.batch.push(Kind::Cursor, "", "", Some(&id));
            self.ledger.close_hole(&id);
        }
    }
}
