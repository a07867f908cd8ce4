//! The app: its handlers, given events in the order and with the account of `pump.ts`, and what it calls at any moment.

use holdfast_sse::client::{Input, State};

use super::schedule::Happening;
use super::{World, trace};
use crate::page::{Account, Flight, Item, Stage, What};
use crate::plan::OnError;

/// What the app wants done behind the task in which it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Stop,
    Reconnect,
}

impl World {
    pub(super) fn deliver(&mut self) {
        let items = self.page.take_batch();
        if self.page.pump.closed {
            return;
        }
        let (first, idle) = (items.first().map(|item| item.token), self.page.pump.queue.is_empty());
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
            if pump.closed || pump.is_busy(&self.plan) {
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
                    self.check.told(&notice, &self.plan, &self.server);
                    finished.push(token);
                }
                What::Event { index, name, id, data } => {
                    trace!(self, "handler begins: {index} ({id:?})");
                    let clock = self.page.clock_max(self.now);
                    self.check.started(clock, index, &name, id.as_deref(), &data, &self.plan, &self.server);
                    if !self.calm && self.rng.below(400) == 0 {
                        self.command_from_within();
                    }
                    let pump = &mut self.page.pump;
                    let number = pump.next_flight;
                    pump.next_flight += 1;
                    let flight = Flight { token, index, account: Account::Open, stage: Stage::Working };
                    pump.flights.insert(number, flight);
                    if self.handler_is_called(number) && !self.dead {
                        finished.push(token);
                    } else if token > self.page.pump.started {
                        // The handler itself ended the pump, while an earlier event waited to be called again.
                        let given_back = self.page.pump.give_back(token);
                        self.check.given_back(given_back.into_iter());
                    }
                    self.forget_flight(number);
                }
            }
        }
    }

    /// Calls the handler of an event; answers whether the event is finished at once.
    fn handler_is_called(&mut self, number: u64) -> bool {
        let page = self.page.number;
        if self.plan.acks {
            // Before the handler is through, or long after, and in any order.
            let ms = if self.calm { self.rng.below(5) } else { self.rng.below(self.plan.ack_ms) };
            self.after(ms, Happening::Acks { page, flight: number });
        }
        if self.plan.concurrency == 0 || self.rng.chance(20) {
            return self.handler_returns(number);
        }
        // The backlog must be through some day.
        let ms = if self.calm {
            self.rng.below(3)
        } else if self.rng.chance(self.plan.slow_pct) {
            self.rng.between(500, 3_000)
        } else {
            self.rng.below(30)
        };
        self.after(ms, Happening::HandlerEnds { page, flight: number });
        false
    }

    /// A handler is through, or failed; answers whether that finished its event.
    fn handler_returns(&mut self, number: u64) -> bool {
        let fails = !self.calm && self.rng.chance(self.plan.failing_pct);
        let Some(flight) = self.page.pump.flights.get_mut(&number) else { return false };
        let was_open = flight.account == Account::Open;
        flight.stage = Stage::Over;
        trace!(
            self,
            "handler {}: {} ({:?})",
            if fails { "fails" } else { "ends" },
            flight.index,
            flight.account
        );
        if self.step() {
            return false;
        }
        if fails {
            self.handler_fails(number);
        } else if self.plan.acks {
            if let Some(flight) = self.page.pump.flights.get_mut(&number).filter(|_| was_open) {
                flight.stage = Stage::Unacked;
            }
        } else {
            self.finish(number);
        }
        let account = self.page.pump.flights.get(&number).map(|flight| flight.account);
        was_open && account == Some(Account::Finished)
    }

    fn handler_fails(&mut self, number: u64) {
        let page = self.page.number;
        let Some(flight) = self.page.pump.flights.get_mut(&number) else { return };
        let (token, is_open) = (flight.token, flight.account == Account::Open);
        if flight.account == Account::GivenBack {
            return;
        }
        match self.plan.on_error {
            OnError::Skip => self.finish(number),
            OnError::Retry if !self.page.pump.closed => {
                if is_open {
                    flight.stage = Stage::Waiting;
                    self.after(100, Happening::TryAgain { page, flight: number });
                }
            }
            OnError::Retry | OnError::Stop => {
                if is_open {
                    let given_back = self.page.pump.give_back(token);
                    self.check.given_back(given_back.into_iter());
                }
                if !self.page.pump.closed {
                    self.end_pump();
                    self.command_due = Some(Command::Stop);
                } else if self.command_due.is_none() {
                    // The core has heard of an end, and hears more of it.
                    self.given_back_due = true;
                }
            }
        }
    }

    fn finish(&mut self, number: u64) {
        let Some(flight) = self.page.pump.flights.get_mut(&number) else { return };
        if flight.account == Account::Open {
            flight.account = Account::Finished;
            let index = flight.index;
            self.check.finished(self.now, index);
        }
    }

    pub(super) fn handler_ends(&mut self, number: u64) {
        let token = self.page.pump.flights.get(&number).map_or(0, |flight| flight.token);
        let finished = self.handler_returns(number);
        if self.dead {
            return;
        }
        if std::mem::take(&mut self.given_back_due) {
            self.input(Input::Stop { started: self.page.pump.started });
        }
        if finished {
            self.input(Input::Done(token));
        }
        self.forget_flight(number);
        self.go_on();
    }

    pub(super) fn try_again(&mut self, number: u64) {
        let Some(flight) = self.page.pump.flights.get_mut(&number) else { return };
        if flight.stage != Stage::Waiting {
            self.forget_flight(number);
            return;
        }
        flight.stage = Stage::Working;
        let token = flight.token;
        trace!(self, "handler begins again: {}", flight.index);
        if self.handler_is_called(number) && !self.dead {
            self.input(Input::Done(token));
        }
        self.forget_flight(number);
        self.go_on();
    }

    pub(super) fn acks(&mut self, number: u64) {
        let Some(flight) = self.page.pump.flights.get_mut(&number) else { return };
        trace!(self, "app acks {} ({:?})", flight.index, flight.account);
        if flight.account == Account::Open {
            if flight.stage != Stage::Working {
                flight.stage = Stage::Over;
            }
            let token = flight.token;
            self.finish(number);
            self.input(Input::Done(token));
        }
        self.forget_flight(number);
        self.go_on();
    }

    /// What is over, and gets no ack any more, counts no more.
    fn forget_flight(&mut self, number: u64) {
        let flights = &mut self.page.pump.flights;
        let is_over = |flight: &&Flight| flight.stage == Stage::Over && flight.account != Account::Open;
        if flights.get(&number).filter(is_over).is_some() {
            flights.remove(&number);
        }
    }

    fn go_on(&mut self) {
        if self.dead {
            return;
        }
        let finished = self.run_pump();
        for token in finished {
            self.input(Input::Done(token));
        }
    }

    pub(super) fn forget(&mut self) {
        trace!(self, "app: clearCursor()");
        let in_hand = self.page.in_hand();
        // A stream that is open goes on from where it is, and so does a request that may not be made anew.
        let goes_on = self.page.client.state() == State::Open || !self.plan.may_repeat();
        let cursor = if goes_on { String::new() } else { self.page.client.last_event_id().to_owned() };
        self.check.cursor_forgotten(&cursor, in_hand.into_iter(), &self.server);
        self.check.prompt(self.page.clock_max(self.now), true, false);
        self.page.forgot_before_restore |= !self.page.is_restored;
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, Input::ClearCursor);
    }

    /// What a handler asks for ends its pump at once, and is done right behind the task.
    fn command_from_within(&mut self) {
        let command = if self.rng.chance(50) { Command::Reconnect } else { Command::Stop };
        trace!(self, "a handler calls for {command:?}");
        self.end_pump();
        self.command_due = Some(command);
    }

    /// stop() and connect(), or reconnect(), at any moment.
    pub(super) fn app_changes_its_mind(&mut self) {
        let command = if self.rng.chance(50) { Command::Reconnect } else { Command::Stop };
        if !self.page.frozen {
            self.command(command);
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        self.given_back_due = false;
        let started = self.end_pump();
        match command {
            Command::Reconnect => {
                trace!(self, "app: reconnect() behind {started}");
                self.page.pump.closed = false;
                self.tell_network();
                self.input(Input::Reconnect { started });
            }
            Command::Stop => {
                trace!(self, "app: stop() behind {started}");
                self.input(Input::Stop { started });
                let (wait, page) = (self.rng.below(2_000), self.page.number);
                self.after(wait, Happening::AppConnects { page });
            }
        }
    }

    /// Answers the last record that the app was given.
    pub(super) fn end_pump(&mut self) -> u64 {
        let given_back = self.page.pump.close();
        self.check.given_back(given_back.into_iter());
        self.check.gives_up_beyond(self.page.client.last_event_id(), &self.plan, &self.server);
        if self.page.client.last_event_id().is_empty() {
            self.check.begins_without_place(self.plan.is_ours());
        }
        self.page.pump.started
    }
}
