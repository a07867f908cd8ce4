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

use std::collections::VecDeque;

use super::batch::Kind;
use super::config::OrderingConfig;
use super::intake::Intake;
use super::notice::Notice;
use super::ordering::{Late, Mark};
use super::sequencer::{HeldEvent, Missing, Place, Sequencer};
use crate::wire::{EventRef, Position};

/// Holes told whose numbers are remembered, in each scope.
const TOLD_MAX: usize = 8;
/// Finished events that were given back whose numbers are remembered, in each scope.
const FINISHED_MAX: usize = 1_000;

/// Where an event of a scope stands.
#[derive(Debug, PartialEq, Eq)]
enum Spot {
    Next,
    /// It has no place in the present order, and passes.
    Astray,
    /// Not behind this number.
    Late(u64),
    Early,
    /// There are too many scopes, and what the oldest holds must be let go first.
    Crowded,
}

#[derive(Debug)]
struct Scope {
    key: u32,
    sequencer: Sequencer,
    /// Something of it came on this connection that goes on with its numbers.
    seen: bool,
    /// The highest number of it that came on this connection; 0 where none did.
    came: u64,
    /// The last number that did not, while something was held.
    astray: Option<u64>,
    /// First and last number of holes that the app was told of: these stay missing.
    told: Vec<(u64, u64)>,
    /// Numbers of events that the app finished and that were given back: these come again, or are gone, and are not missing.
    finished: Vec<u64>,
}

/// The scopes of one stream, and the window that they share.
#[derive(Debug)]
pub(super) struct Scopes {
    config: OrderingConfig,
    scopes: Vec<Scope>,
    held_events: usize,
    held_bytes: usize,
    /// Events delivered since the cursor stopped.
    passed: usize,
    /// The last id that came since then.
    place: Option<String>,
    /// What is held is of an earlier connection, and this one has not come as far yet.
    carried: bool,
    /// Unfinished records, by token, with their scope and number; a gap has its first. What is given back comes again.
    delivered: VecDeque<(u64, u32, u64)>,
    next_key: u32,
}

impl Scopes {
    pub(super) fn new(config: OrderingConfig) -> Self {
        Self {
            config,
            scopes: Vec::new(),
            held_events: 0,
            held_bytes: 0,
            passed: 0,
            place: None,
            carried: false,
            delivered: VecDeque::new(),
            next_key: 0,
        }
    }

    /// A connection opened. One that does not go on where the last one ended has numbers of its own.
    pub(super) fn opened(&mut self, resumes: bool) {
        if resumes {
            self.scopes.iter_mut().for_each(|scope| (scope.seen, scope.came) = (false, 0));
            self.carried = self.holds();
        } else {
            *self = Self::new(self.config);
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.held_events > 0
    }

    pub(super) fn len(&self) -> usize {
        self.scopes.len()
    }

    /// Records that can be given back, and are remembered for that.
    pub(super) fn places(&self) -> usize {
        self.delivered.len()
    }

    pub(super) fn is_carried(&self) -> bool {
        self.carried
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &HeldEvent> {
        self.scopes.iter().flat_map(|scope| scope.sequencer.held())
    }

    /// An id came; the cursor may move there when all holes are closed.
    pub(super) fn came(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            self.place = Some(id.to_owned());
        }
    }

    /// The cursor is forgotten, and what came before with it.
    pub(super) fn forget_place(&mut self) {
        self.place = None;
    }

    fn find(&self, stream: &str) -> Option<usize> {
        self.scopes.iter().position(|scope| scope.sequencer.epoch() == stream)
    }

    fn place(&mut self, stream: &str, number: u64) -> Spot {
        let Some(at) = self.find(stream) else {
            if self.scopes.len() >= self.config.scopes_max.max(1) {
                if self.scopes[0].sequencer.has_held() {
                    return Spot::Crowded;
                }
                self.scopes.remove(0);
            }
            let sequencer = begin_at(self.config, stream, number);
            self.scopes.push(Scope {
                key: self.next_key,
                sequencer,
                seen: true,
                came: number,
                astray: None,
                told: Vec::new(),
                finished: Vec::new(),
            });
            self.next_key = self.next_key.wrapping_add(1);
            return Spot::Next;
        };
        let scope = &mut self.scopes[at];
        scope.came = scope.came.max(number);
        self.carried &= scope.sequencer.has_accepted(stream, number);
        if let Some(last) = scope.astray
            && !scope.sequencer.has_held()
        {
            scope.begin_anew(self.config, last);
        }
        let place = scope.sequencer.place(stream, number);
        if place == Place::Repeat {
            let is_told = scope.told.iter().any(|(first, last)| (*first..=*last).contains(&number));
            let is_held = !scope.sequencer.has_accepted(stream, number);
            if scope.seen || is_told || is_held {
                return Spot::Late(scope.sequencer.last().max(number));
            }
            if scope.sequencer.has_held() {
                // New numbers, or a replay that begins before this page's time? The held events will tell.
                scope.astray = Some(number);
                return Spot::Astray;
            }
            scope.begin_anew(self.config, number);
        }
        (scope.seen, scope.astray) = (true, None);
        if place == Place::Early {
            return Spot::Early;
        }
        Spot::Next
    }

    /// An event that was delivered, or is held, came again: the numbers go on.
    fn repeated(&mut self, stream: &str, number: u64) {
        if let Some(at) = self.find(stream) {
            let scope = &mut self.scopes[at];
            scope.came = scope.came.max(number);
            self.carried &= scope.sequencer.has_accepted(stream, number);
            if scope.astray.is_none_or(|last| last < number) {
                (scope.seen, scope.astray) = (true, None);
                scope.sequencer.place(stream, number);
            }
        }
    }

    /// Keeps an early event. False where it does not fit.
    fn hold(&mut self, stream: &str, number: u64, event: HeldEvent) -> bool {
        let bytes = event.bytes();
        let fits = self.held_events + self.passed < self.config.held_events_max
            && self.held_bytes.saturating_add(bytes) <= self.config.held_bytes_max;
        let Some(at) = self.find(stream).filter(|_| fits) else { return false };
        let held = self.scopes[at].sequencer.hold(stream, number, event);
        self.held_events += usize::from(held);
        self.held_bytes += if held { bytes } else { 0 };
        held
    }

    /// The next held event whose turn has come, with its scope's key and its number.
    fn release(&mut self) -> Option<(HeldEvent, u32, u64)> {
        if !self.holds() {
            return None;
        }
        let released = self.scopes.iter_mut().find_map(|scope| {
            let event = scope.sequencer.release()?;
            Some((event, scope.key, scope.sequencer.last()))
        })?;
        self.held_events -= 1;
        self.held_bytes -= released.0.bytes();
        Some(released)
    }

    /// The events behind `token` that are finished are about to be given back.
    pub(super) fn note_finished(&mut self, token: u64, is_finished: impl Fn(u64) -> bool) {
        let given_back = self.delivered.iter().rev().take_while(|(given, ..)| *given > token);
        for (_, key, number) in given_back.filter(|(given, ..)| is_finished(*given)) {
            if let Some(scope) = self.scopes.iter_mut().find(|scope| scope.key == *key)
                && !scope.finished.contains(number)
            {
                if scope.finished.len() >= FINISHED_MAX {
                    scope.finished.remove(0);
                }
                scope.finished.push(*number);
            }
        }
    }

    /// The records behind `token` come again, and so does what is held.
    fn give_back(&mut self, token: u64) {
        self.scopes.iter_mut().for_each(|scope| scope.sequencer.drop_held());
        while let Some((_, key, number)) = self.delivered.pop_back_if(|(given, ..)| *given > token) {
            if let Some(scope) = self.scopes.iter_mut().find(|scope| scope.key == key) {
                let stream = scope.sequencer.epoch().to_owned();
                scope.sequencer.forget(&stream, number);
                scope.told.retain(|(first, _)| *first < number);
            }
        }
        (self.held_events, self.held_bytes, self.passed, self.place) = (0, 0, 0, None);
    }

    /// Whether no hole was asked for yet; each counts as asked for from now on. `early`: the scope of an event that could
    /// not be held, and whose hole is asked for with those whose replay is on its way.
    fn fetch(&mut self, early: Option<&str>) -> bool {
        let mut holes: Vec<_> = self.scopes.iter_mut().filter(|scope| scope.has_hole(early)).collect();
        let is_asked_for = |scope: &&mut Scope| match early {
            Some(_) => scope.is_vain(),
            None => scope.sequencer.is_refetched(),
        };
        if holes.is_empty() || holes.iter().any(is_asked_for) {
            return false;
        }
        for scope in &mut holes {
            let stream = scope.sequencer.epoch().to_owned();
            scope.sequencer.refetch(&stream);
        }
        true
    }

    /// Scopes with a hole; only those whose hole was asked for, if `fetched`.
    fn holes(&self, fetched: bool) -> Vec<usize> {
        let known = self.scopes.iter().map(|scope| &scope.sequencer).enumerate();
        let holes = known.filter(|(_, known)| known.has_held() && (!fetched || known.is_refetched()));
        holes.map(|(at, _)| at).collect()
    }

    /// A hole that was asked for in vain.
    fn vain_hole(&self, early: Option<&str>) -> Option<usize> {
        self.scopes.iter().position(|scope| scope.has_hole(early) && scope.is_vain())
    }

    /// Gives up what is missing before what this scope holds, or before this event. Answers what the app lacks of it.
    fn give_up(&mut self, at: usize, before: Option<(&str, u64)>) -> Vec<Missing> {
        let scope = &mut self.scopes[at];
        let Some(missing) = scope.sequencer.give_up_hole(before) else { return Vec::new() };
        if scope.told.len() >= TOLD_MAX {
            scope.told.remove(0);
        }
        scope.told.push((missing.first, missing.last));
        // They stay known: what is told may be given back, and told again.
        let is_missing = |number: &u64| (missing.first..=missing.last).contains(number);
        let mut finished: Vec<_> = scope.finished.iter().copied().filter(is_missing).collect();
        finished.sort_unstable();
        let (mut lacks, mut first) = (Vec::new(), missing.first);
        for number in finished.into_iter().chain([missing.last + 1]) {
            if first < number {
                lacks.push(Missing { epoch: missing.epoch.clone(), first, last: number - 1 });
            }
            first = number.saturating_add(1);
        }
        lacks
    }
}

impl Scope {
    /// Whether something waits for what is missing; `early`: the scope of an event that could not be held.
    fn has_hole(&self, early: Option<&str>) -> bool {
        self.sequencer.has_held() || early == Some(self.sequencer.epoch())
    }

    /// Whether what is missing was asked for, and this connection came past it without bringing it.
    fn is_vain(&self) -> bool {
        self.sequencer.is_refetched() && self.came > self.sequencer.last()
    }

    fn begin_anew(&mut self, config: OrderingConfig, number: u64) {
        self.sequencer = begin_at(config, self.sequencer.epoch(), number);
        self.told.clear();
        self.finished.clear();
        (self.seen, self.astray) = (true, None);
    }
}

/// Everything up to `number` is accepted.
fn begin_at(config: OrderingConfig, stream: &str, number: u64) -> Sequencer {
    Sequencer::new(config, Position { epoch: stream.to_owned(), sequence: number })
}

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
