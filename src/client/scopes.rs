//! The scopes of policy Reorder (`reorder.rs`), by a sequencer each, and the window that they share.

use std::collections::VecDeque;

use super::config::OrderingConfig;
use super::sequencer::{HeldEvent, Missing, Place, Sequencer};
use crate::wire::Position;

/// Holes told whose numbers are remembered, in each scope.
const TOLD_MAX: usize = 8;
/// Finished events that were given back whose numbers are remembered, in each scope.
const FINISHED_MAX: usize = 1_000;

/// Where an event of a scope stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spot {
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
pub(super) struct Scope {
    pub(super) key: u32,
    pub(super) sequencer: Sequencer,
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
    pub(super) scopes: Vec<Scope>,
    pub(super) held_events: usize,
    held_bytes: usize,
    /// Events delivered since the cursor stopped.
    pub(super) passed: usize,
    /// The last id that came since then.
    pub(super) place: Option<String>,
    /// What is held is of an earlier connection, and this one has not come as far yet.
    carried: bool,
    /// Unfinished records, by token, with their scope and number; a gap has its first. What is given back comes again.
    pub(super) delivered: VecDeque<(u64, u32, u64)>,
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

    pub(super) fn find(&self, stream: &str) -> Option<usize> {
        self.scopes.iter().position(|scope| scope.sequencer.epoch() == stream)
    }

    pub(super) fn place(&mut self, stream: &str, number: u64) -> Spot {
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
    pub(super) fn repeated(&mut self, stream: &str, number: u64) {
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
    pub(super) fn hold(&mut self, stream: &str, number: u64, event: HeldEvent) -> bool {
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
    pub(super) fn release(&mut self) -> Option<(HeldEvent, u32, u64)> {
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
    pub(super) fn give_back(&mut self, token: u64) {
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
    pub(super) fn fetch(&mut self, early: Option<&str>) -> bool {
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
    pub(super) fn holes(&self, fetched: bool) -> Vec<usize> {
        let known = self.scopes.iter().map(|scope| &scope.sequencer).enumerate();
        let holes = known.filter(|(_, known)| known.has_held() && (!fetched || known.is_refetched()));
        holes.map(|(at, _)| at).collect()
    }

    /// A hole that was asked for in vain.
    pub(super) fn vain_hole(&self, early: Option<&str>) -> Option<usize> {
        self.scopes.iter().position(|scope| scope.has_hole(early) && scope.is_vain())
    }

    /// Gives up what is missing before what this scope holds, or before this event. Answers what the app lacks of it.
    pub(super) fn give_up(&mut self, at: usize, before: Option<(&str, u64)>) -> Vec<Missing> {
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
    pub(super) fn has_hole(&self, early: Option<&str>) -> bool {
        self.sequencer.has_held() || early == Some(self.sequencer.epoch())
    }

    /// Whether what is missing was asked for, and this connection came past it without bringing it.
    pub(super) fn is_vain(&self) -> bool {
        self.sequencer.is_refetched() && self.came > self.sequencer.last()
    }

    pub(super) fn begin_anew(&mut self, config: OrderingConfig, number: u64) {
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
