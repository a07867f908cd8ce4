//! The machine: inputs in, outputs out, one state. What to do is decided by the policy files; here is when.

use std::collections::VecDeque;

use super::backoff::Backoff;
use super::batch::Batch;
use super::config::Config;
use super::intake::Intake;
use super::io::{Input, Output, Request, RequestId};
use super::ledger::StoredRecord;
use super::notice::{Code, Notice};
use super::state::{State, TransitionReason};
use super::stats::Stats;
use super::timers::{Timer, TimerTable};
use crate::wire::Parser;

/// Here the clock stands still: a time to come must stay one.
const CLOCK_MS_MAX: u64 = u64::MAX / 2;

/// How late the wait for what is missing may end. Once for each: timers of a hidden page are late all the time.
const GAP_LATE_MS_MAX: u64 = 100;

/// The client of one stream. See the module's documentation for its run loop.
#[derive(Debug)]
pub struct Client {
    pub(super) config: Config,
    /// The machine's own clock: the driver's and what that one went back in all.
    pub(super) now_ms: u64,
    pub(super) driver_now_ms: u64,
    pub(super) went_back_ms: u64,
    pub(super) state: State,
    pub(super) timers: TimerTable,
    pub(super) backoff: Backoff,
    pub(super) parser: Option<Parser>,
    pub(super) intake: Intake,
    pub(super) request: Option<RequestId>,
    pub(super) last_request: u32,
    pub(super) outputs: VecDeque<Output>,
    pub(super) restored: bool,
    /// The app forgot the past before it was restored.
    pub(super) forgotten: bool,
    /// The server asked not to come back before this time.
    pub(super) not_before_ms: u64,
    pub(super) online: bool,
    pub(super) hidden: bool,
    /// An attempt was due, or the connection to be looked after, while the app was busy.
    pub(super) put_off: bool,
    /// The page has been hidden for so long that it matters.
    pub(super) rests: bool,
    /// The page was left, and is not known to be back.
    pub(super) aside: bool,
    pub(super) was_open: bool,
    pub(super) refreshed_credentials: bool,
    /// The wait for what is missing ended late, and was begun again.
    pub(super) gap_was_late: bool,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            now_ms: 0,
            driver_now_ms: 0,
            went_back_ms: 0,
            state: State::Idle,
            timers: TimerTable::default(),
            backoff: Backoff::new(config.retry, config.rng_seed),
            parser: None,
            intake: Intake::new(&config),
            request: None,
            last_request: 0,
            outputs: VecDeque::new(),
            restored: false,
            forgotten: false,
            not_before_ms: 0,
            online: true,
            hidden: false,
            put_off: false,
            rests: false,
            aside: false,
            was_open: false,
            refreshed_credentials: false,
            gap_was_late: false,
            config,
        }
    }

    /// Takes in what happened at `now_ms`.
    pub fn handle_input(&mut self, now_ms: u64, input: Input<'_>) {
        self.read_clock(now_ms);
        match input {
            Input::Connect => self.connect(),
            Input::Restored(record) => self.restored(record),
            Input::Head(id, head) if self.request == Some(id) && self.state == State::Connecting => {
                self.head(&head, None);
            }
            Input::Decided(id, head, decision)
                if self.request == Some(id) && self.state == State::Connecting =>
            {
                self.head(&head, Some(decision));
            }
            Input::Bytes(id, bytes) if self.request == Some(id) && self.state == State::Open => {
                self.bytes(bytes);
            }
            Input::End(id) if self.request == Some(id) => self.end(),
            Input::Failed(id, error) if self.request == Some(id) => {
                self.request = None;
                self.failed(error.code, error.message, error.retry);
            }
            // Of a request that was given up.
            Input::Head(..) | Input::Decided(..) | Input::Bytes(..) | Input::End(_) | Input::Failed(..) => {}
            Input::Timer => {
                while let Some((timer, late_ms)) = self.timers.pop_due(self.now_ms) {
                    self.timer(timer, late_ms);
                }
            }
            Input::Processed(token) => {
                let was_busy = !self.is_drained();
                self.intake.ledger.finish(self.intake.batch.first_token(), token);
                self.drained(was_busy);
                self.commit();
            }
            Input::Done(token) => {
                let was_busy = !self.is_drained();
                self.intake.ledger.done(token);
                self.drained(was_busy);
                self.commit_later();
            }
            Input::Flush => self.commit(),
            Input::PutAside => {
                self.commit();
                self.put_aside();
            }
            Input::Online => self.online(),
            Input::Offline => self.online = false,
            Input::Hidden => self.hidden(),
            Input::Visible => self.visible(),
            Input::Awake => self.awake(),
            Input::Stop { started } => self.stop(started, "client_close"),
            Input::StopFor { started, reason } => self.stop(started, reason),
            Input::Reconnect { started } => self.reconnect(started),
            Input::ClearCursor => self.clear_cursor(),
        }
    }

    /// The next thing to do; [`Output::Wait`] when there is none.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let at_ms = self.timers.next_ms();
            Output::Wait(at_ms.map(|at_ms| at_ms.saturating_sub(self.went_back_ms)))
        })
    }

    /// The events of the last [`Output::Deliver`].
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.intake.batch
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The cursor: everything up to this id is processed. Empty where there is none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.intake.ledger.processed()
    }

    /// What would be stored now.
    #[must_use]
    pub fn progress(&self) -> StoredRecord {
        self.intake.ledger.record()
    }

    /// Whether more bytes may be read: the app has finished what it was given, but for so much as may be open, and the
    /// page is not hidden where that pauses the reading.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.is_behind(0) && !self.is_paused()
    }

    /// Whether the app has so much in hand that nothing is read meanwhile, and `events_min` unfinished events at least,
    /// for a source that cannot be paused.
    #[must_use]
    pub fn is_behind(&self, events_min: usize) -> bool {
        let (ledger, config) = (&self.intake.ledger, &self.config);
        let unfinished_max = config.unfinished_max.max(1);
        ledger.unfinished() >= unfinished_max.max(events_min)
            || ledger.len() >= config.records_max.max(unfinished_max)
    }

    /// Events that the app was given, or will be, and has not finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.intake.ledger.unfinished()
    }

    /// Whether the present connection announced our protocol: each of its events has a number of its own as id.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.intake.is_announced()
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.intake.stats
    }

    /// A clock that went back is taken to go on from where it was: else nothing would be due for that long.
    pub(super) fn read_clock(&mut self, driver_now_ms: u64) {
        if driver_now_ms < self.driver_now_ms {
            self.went_back_ms = self.went_back_ms.saturating_add(self.driver_now_ms - driver_now_ms);
            self.intake.stats.clock_regressions += 1;
        }
        self.driver_now_ms = driver_now_ms;
        let now_ms = driver_now_ms.saturating_add(self.went_back_ms).min(CLOCK_MS_MAX);
        self.now_ms = self.now_ms.max(now_ms);
    }

    pub(super) fn connect(&mut self) {
        if !self.transition(TransitionReason::Connect) {
            return;
        }
        self.begin_anew();
        if self.restored {
            self.open_request();
        } else {
            self.outputs.push_back(Output::Restore);
        }
    }

    /// The app asked for it: what failed before does not count.
    pub(super) fn begin_anew(&mut self) {
        self.backoff.forgive();
        self.not_before_ms = 0;
        self.refreshed_credentials = false;
    }

    pub(super) fn restored(&mut self, record: Option<StoredRecord>) {
        if self.restored {
            return;
        }
        self.restored = true;
        if let Some(record) = record.filter(|_| !self.forgotten) {
            self.intake.ledger.restore(record);
        }
        if self.state == State::Connecting {
            self.open_request();
        }
    }

    pub(super) fn open_request(&mut self) {
        self.timers.clear(Timer::Retry);
        self.watch_hidden();
        if !self.may_request() {
            // Waits for the network, or for somebody to look: no timer can know of these.
            self.transition(TransitionReason::Lost);
            return;
        }
        if !self.restored {
            // The page was left or hidden, and is back, before the store answered: that makes the request.
            return;
        }
        self.put_off = false;
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.request = Some(id);
        self.timers.set(Timer::Connect, self.now_ms.saturating_add(self.config.connect_timeout_ms));
        let last_event_id = self.intake.ledger.accepted().to_owned();
        if !last_event_id.is_empty() {
            self.notify(Notice::ResumeAttempt { last_event_id: last_event_id.clone() });
        }
        self.outputs.push_back(Output::Request(Request {
            id,
            attempt: self.backoff.attempts(),
            last_event_id,
        }));
    }

    pub(super) fn timer(&mut self, timer: Timer, late_ms: u64) {
        match timer {
            Timer::Connect => {
                self.abort();
                let message =
                    format!("the server sent no response head within {} ms", self.config.connect_timeout_ms);
                self.failed(Code::ConnectTimeout, message, true);
            }
            Timer::Retry => {
                // Else the attempt waits for `Input::Online` or `Input::Visible`, or for the app to catch up.
                if !self.is_drained() {
                    self.put_off = true;
                } else if self.may_request() && self.transition(TransitionReason::RetryDue) {
                    self.open_request();
                }
            }
            Timer::Stable => self.backoff.forgive(),
            Timer::Liveness => self.check_liveness(),
            Timer::Gap => {
                if !self.is_drained() {
                    // While the app is busy we do not read: what is missing may be on its way.
                } else if late_ms > GAP_LATE_MS_MAX && !std::mem::replace(&mut self.gap_was_late, true) {
                    // The page stood still meanwhile. What is missing may have come, and is read next.
                    let window_ms = self.config.ordering.gap_timeout_ms;
                    self.timers.set(Timer::Gap, self.now_ms.saturating_add(window_ms));
                } else if self.intake.refetch_hole() {
                    self.refetch();
                } else {
                    self.intake.begin(self.now_ms);
                    self.intake.give_up_hole();
                    self.deliver();
                    self.watch_hole();
                }
            }
            Timer::Commit => self.commit(),
            Timer::Hidden => self.rest(),
        }
    }

    pub(super) fn online(&mut self) {
        self.online = true;
        self.awake();
    }

    pub(super) fn awake(&mut self) {
        self.aside = false;
        self.look_after();
    }

    /// Makes the connection anew, or the next attempt now, as far as the state allows it.
    pub(super) fn look_after(&mut self) {
        match self.state {
            // What a new connection brings would only lie about with the rest, and more of it with each of them.
            State::Retrying | State::Open if !self.is_drained() => self.put_off = true,
            // The server's wish stands, whatever the network does.
            State::Retrying if self.may_request() && self.not_before_ms > self.now_ms => {
                self.timers.set(Timer::Retry, self.not_before_ms);
            }
            State::Retrying if self.may_request() => {
                self.timers.clear(Timer::Retry);
                self.transition(TransitionReason::RetryDue);
                self.open_request();
            }
            State::Connecting => self.renew_request(),
            // Only where nothing can get lost by it.
            State::Open if !self.intake.ledger.accepted().is_empty() && self.may_repeat() => {
                self.abort();
                self.hang_up();
                self.tell_replaced();
                self.transition(TransitionReason::Reconnect);
                self.open_request();
            }
            // Without a cursor a live socket is worth more than a new one, a dead one is not: time tells.
            State::Open if self.may_repeat() => {
                self.intake.liveness.doubt(self.now_ms);
                self.watch();
            }
            _ => {}
        }
    }

    pub(super) fn stop(&mut self, started: u64, reason: &str) {
        self.abort();
        self.intake.give_back_after(started);
        self.close(TransitionReason::Stop, reason);
    }

    pub(super) fn reconnect(&mut self, started: u64) {
        if self.state == State::Idle {
            self.connect();
            return;
        }
        self.abort();
        self.intake.give_back_after(started);
        self.hang_up();
        self.tell_replaced();
        self.begin_anew();
        self.commit();
        if self.transition(TransitionReason::Reconnect) {
            if self.restored {
                self.open_request();
            } else {
                self.outputs.push_back(Output::Restore);
            }
        }
    }

    /// An open stream is given up for a new one, at once: each `Open` has its `Close`.
    pub(super) fn tell_replaced(&mut self) {
        if self.state == State::Open {
            self.notify(Notice::Close {
                reason: "reconnect".to_owned(),
                will_reconnect: true,
                retry_in: Some(0),
            });
        }
    }

    pub(super) fn clear_cursor(&mut self) {
        self.forgotten |= !self.restored;
        self.intake.clear_cursor();
        self.commit();
        if self.state == State::Connecting {
            // What is under way still carries the old cursor.
            self.renew_request();
        }
    }

    /// Makes a request that waits for its head anew.
    pub(super) fn renew_request(&mut self) {
        if self.request.is_some() && self.may_repeat() {
            self.abort();
            self.transition(TransitionReason::Reconnect);
            self.open_request();
        }
    }

    pub(super) fn commit(&mut self) {
        self.timers.clear(Timer::Commit);
        if self.intake.ledger.is_changed() {
            self.outputs.push_back(Output::Commit(self.intake.ledger.take_record()));
        }
    }

    pub(super) fn commit_later(&mut self) {
        if self.state == State::Closed {
            self.commit();
        } else if self.intake.ledger.is_changed() && !self.timers.is_set(Timer::Commit) {
            self.timers.set(Timer::Commit, self.now_ms.saturating_add(self.config.commit_interval_ms));
        }
    }

    pub(super) fn transition(&mut self, reason: TransitionReason) -> bool {
        let Some(to) = self.state.after(reason) else { return false };
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.notify(Notice::StateChange { from, to, reason });
        }
        true
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notify(notice));
    }
}
