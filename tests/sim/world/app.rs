//! The app: its handlers, given events in the order that `pump.ts` gives them, and what it calls at any moment.

use holdfast_sse::client::{Input, State};

use super::schedule::Happening;
use super::{World, trace};
use crate::page::{Item, What};

impl World {
    pub(super) fn deliver(&mut self) {
        let items = self.page.take_batch();
        let (first, idle) = (items.first().map(|item| item.token), self.page.pump.running.is_empty());
        let idle = idle && self.page.pump.waiting.is_empty() && self.page.pump.queue.is_empty();
        self.page.pump.queue.extend(items);
        let finished = self.run_pump();
        if self.dead {
            return;
        }
        // As pump.ts: an unbroken row from the first is reported at once, the rest one by one.
        let row =
            finished.iter().zip(first.unwrap_or(0)..).take_while(|(token, expected)| *token == expected);
        let row = if idle { row.count() } else { 0 };
        let clock = self.page.clock(self.now);
        for token in &finished[row..] {
            self.page.client.handle_input(clock, Input::Done(*token));
        }
        if row > 0 {
            self.page.client.handle_input(clock, Input::Processed(finished[row - 1]));
        }
    }

    /// Gives the app what it can take; answers the tokens that are finished at once.
    fn run_pump(&mut self) -> Vec<u64> {
        let mut finished = Vec::new();
        loop {
            let pump = &mut self.page.pump;
            let busy = pump.running.len() + pump.waiting.len();
            if pump.ended || (self.plan.concurrency > 0 && busy >= self.plan.concurrency) {
                return finished;
            }
            let Some(Item { token, what }) = pump.queue.pop_front() else { return finished };
            if self.step() {
                return finished;
            }
            self.page.pump.started = token;
            match what {
                What::Other => finished.push(token),
                What::Notice(notice) => {
                    trace!(self, "app hears: {notice:?}");
                    self.check.told(&notice, &self.server);
                    finished.push(token);
                }
                What::Event { index, name, id, data } => {
                    trace!(self, "handler begins: {index} ({id:?})");
                    self.check.started(index, &name, id.as_deref(), &data, &self.server);
                    if !self.calm && self.rng.below(400) == 0 {
                        self.command_from_within();
                    }
                    if self.plan.concurrency == 0 || self.rng.chance(20) {
                        if self.step() {
                            return finished;
                        }
                        self.check.finished(self.now, index);
                        finished.push(token);
                    } else {
                        let pump = &mut self.page.pump;
                        pump.running.insert(token, index);
                        let generation = pump.generation;
                        self.handler_runs(generation, token);
                    }
                }
            }
        }
    }

    fn handler_runs(&mut self, pump: u64, token: u64) {
        // The backlog must be through some day.
        let ms = if self.calm {
            self.rng.below(3)
        } else if self.rng.chance(self.plan.slow_pct) {
            self.rng.between(500, 3_000)
        } else {
            self.rng.below(30)
        };
        let page = self.page.number;
        self.after(ms, Happening::HandlerEnds { page, pump, token });
    }

    pub(super) fn handler_ends(&mut self, generation: u64, token: u64) {
        let fails = !self.calm && self.rng.chance(self.plan.failing_pct);
        let page = self.page.number;
        let Some(pump) = self.page.pump_of(generation) else { return };
        let Some(index) = pump.running.remove(&token) else { return };
        if fails && !pump.ended {
            pump.waiting.insert(token, index);
            trace!(self, "handler fails: {index}");
            self.after(100, Happening::TryAgain { page, pump: generation, token });
            return;
        }
        let counts = !(pump.ended && token > pump.started);
        trace!(self, "handler ends: {index}{}", if counts { "" } else { " (was given back)" });
        if self.step() {
            return;
        }
        if counts {
            self.check.finished(self.now, index);
            self.input(Input::Done(token));
        }
        self.go_on();
    }

    pub(super) fn try_again(&mut self, generation: u64, token: u64) {
        let Some(pump) = self.page.pump_of(generation) else { return };
        let Some(index) = pump.waiting.remove(&token) else { return };
        if pump.ended {
            return;
        }
        pump.running.insert(token, index);
        trace!(self, "handler begins again: {index}");
        self.handler_runs(generation, token);
    }

    fn go_on(&mut self) {
        let finished = self.run_pump();
        for token in finished {
            self.input(Input::Done(token));
        }
    }

    pub(super) fn forget(&mut self) {
        trace!(self, "app: clearCursor()");
        let in_hand = self.page.in_hand();
        // A stream that is open goes on from where it is.
        let is_open = self.page.client.state() == State::Open;
        let cursor = if is_open { String::new() } else { self.page.client.last_event_id().to_owned() };
        self.check.cursor_forgotten(&cursor, in_hand.into_iter(), &self.server);
        self.check.prompt(self.page.clock_max(self.now), true);
        self.page.forgot_before_restore |= !self.page.is_restored;
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, Input::ClearCursor);
    }

    /// What a handler asks for ends its pump at once, and is done right behind the task.
    fn command_from_within(&mut self) {
        trace!(self, "a handler calls stop() or reconnect()");
        self.page.end_pump();
        self.command_due = true;
    }

    /// stop() and connect(), or reconnect(), at any moment.
    pub(super) fn app_changes_its_mind(&mut self) {
        if self.page.frozen {
            return;
        }
        let started = self.end_pump();
        if self.rng.chance(50) {
            trace!(self, "app: reconnect() behind {started}");
            self.page.renew_pump();
            self.tell_network();
            self.input(Input::Reconnect { started });
        } else {
            trace!(self, "app: stop() behind {started}");
            self.input(Input::Stop { started });
            let (wait, page) = (self.rng.below(2_000), self.page.number);
            self.after(wait, Happening::AppConnects { page });
        }
    }

    /// Answers the last record that the app was given.
    pub(super) fn end_pump(&mut self) -> u64 {
        self.page.end_pump();
        self.check.given_back(self.page.given_back().into_iter());
        if !self.plan.is_ours() && self.page.client.last_event_id().is_empty() {
            self.check.begins_without_place();
        }
        self.page.pump.started
    }
}
