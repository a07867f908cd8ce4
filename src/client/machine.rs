//! The machine: inputs in, outputs out, one state. What to do is decided by the policy files; here is when.

use std::collections::VecDeque;

use super::backoff::{Backoff, Exhausted, RETRY_AFTER_MS_MAX};
use super::batch::Batch;
use super::config::Config;
use super::intake::Intake;
use super::io::{Input, Output, Request, RequestId};
use super::ledger::StoredRecord;
use super::notice::{Code, GiveUpReason, LivenessKind, Notice, describe_parse_error};
use super::response::{Head, Verdict, describe_head, judge};
use super::state::{State, TransitionReason};
use super::stats::Stats;
use super::timers::{Timer, TimerTable};
use crate::wire::Parser;

/// Here the clock stands still: a time to come must stay one.
const CLOCK_MS_MAX: u64 = u64::MAX / 2;

/// What went wrong, before it is known whether another attempt follows.
struct Failure {
    code: Code,
    message: String,
    status: Option<u16>,
}

/// The client of one stream. See the module's documentation for its run loop.
#[derive(Debug)]
pub struct Client {
    config: Config,
    /// The machine's own clock: the driver's and what that one went back in all.
    now_ms: u64,
    driver_now_ms: u64,
    went_back_ms: u64,
    state: State,
    timers: TimerTable,
    backoff: Backoff,
    parser: Option<Parser>,
    intake: Intake,
    request: Option<RequestId>,
    last_request: u32,
    outputs: VecDeque<Output>,
    restored: bool,
    /// The app forgot the past before it was restored.
    forgotten: bool,
    /// The server asked not to come back before this time.
    not_before_ms: u64,
    online: bool,
    was_open: bool,
    refreshed_credentials: bool,
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
            was_open: false,
            refreshed_credentials: false,
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
                self.head(&head);
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
            Input::Head(..) | Input::Bytes(..) | Input::End(_) | Input::Failed(..) => {}
            Input::Timer => {
                while let Some(timer) = self.timers.pop_due(self.now_ms) {
                    self.timer(timer);
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
            Input::Online => self.online(),
            Input::Offline => self.online = false,
            Input::Awake => self.awake(),
            Input::Stop { started } => self.stop(started),
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

    /// Whether the app has finished everything it was given: then more bytes may be read.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.intake.ledger.is_drained()
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.intake.stats
    }

    /// A clock that went back is taken to go on from where it was: else nothing would be due for that long.
    fn read_clock(&mut self, driver_now_ms: u64) {
        if driver_now_ms < self.driver_now_ms {
            self.went_back_ms = self.went_back_ms.saturating_add(self.driver_now_ms - driver_now_ms);
            self.intake.stats.clock_regressions += 1;
        }
        self.driver_now_ms = driver_now_ms;
        let now_ms = driver_now_ms.saturating_add(self.went_back_ms).min(CLOCK_MS_MAX);
        self.now_ms = self.now_ms.max(now_ms);
    }

    fn connect(&mut self) {
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
    fn begin_anew(&mut self) {
        self.backoff.forgive();
        self.not_before_ms = 0;
        self.refreshed_credentials = false;
    }

    fn restored(&mut self, record: Option<StoredRecord>) {
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

    fn open_request(&mut self) {
        self.timers.clear(Timer::Retry);
        if !self.online {
            // Waits for the network, which no timer can know of.
            self.transition(TransitionReason::Lost);
            return;
        }
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

    fn head(&mut self, head: &Head) {
        self.timers.clear(Timer::Connect);
        let can_refresh = self.config.can_refresh_credentials && !self.refreshed_credentials;
        match judge(head, self.was_open, can_refresh) {
            Verdict::Accept => self.opened(),
            Verdict::End => {
                self.abort();
                self.close(TransitionReason::Ended, "stream_ended");
            }
            Verdict::Refresh => {
                self.refreshed_credentials = true;
                self.abort();
                if self.transition(TransitionReason::Reconnect) {
                    self.open_request();
                }
            }
            Verdict::Retry(code) => self.refused(code, head, self.may_repeat()),
            Verdict::Stop(code) => self.refused(code, head, false),
        }
    }

    fn refused(&mut self, code: Code, head: &Head, will_retry: bool) {
        self.abort();
        let failure = Failure { code, message: describe_head(code, head), status: Some(head.status) };
        if will_retry {
            self.lost(code.as_str(), head.retry_after_ms, Some(failure));
        } else {
            self.tell(failure, false);
            self.close(TransitionReason::Refused, code.as_str());
        }
    }

    /// Whether the request may be sent again at all.
    fn may_repeat(&self) -> bool {
        self.config.repeatable && self.config.auto_reconnect
    }

    fn opened(&mut self) {
        self.transition(TransitionReason::Accepted);
        self.was_open = true;
        self.refreshed_credentials = false;
        let last_event_id = self.intake.ledger.accepted().to_owned();
        self.parser = Some(Parser::new(self.config.limits, &last_event_id));
        self.intake.opened(self.now_ms);
        let stats = &mut self.intake.stats;
        let reconnect_count = stats.connections_opened;
        stats.connections_opened += 1;
        stats.reconnect_count = reconnect_count;
        self.timers.set(Timer::Stable, self.now_ms.saturating_add(self.config.stable_after_ms));
        self.watch();
        self.notify(Notice::Open {
            reconnect_count,
            attempt: self.backoff.attempts(),
            last_event_id: Some(last_event_id).filter(|id| !id.is_empty()),
        });
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let Some(parser) = &mut self.parser else { return };
        self.intake.stats.bytes_received += bytes.len() as u64;
        self.intake.liveness.byte(self.now_ms);
        self.intake.begin(self.now_ms);
        let parsed = parser.feed(bytes, &mut self.intake);
        self.deliver();
        self.watch();
        if let Some(ms) = self.intake.effects.server_retry_ms.take() {
            self.backoff.set_server_retry(ms);
        }
        if let Err(error) = parsed {
            self.abort();
            let (code, message) = describe_parse_error(error);
            self.notify(Notice::Error { code, message, status: None, will_retry: false });
            self.close(TransitionReason::Refused, "parse_error");
        } else if self.intake.effects.close {
            self.abort();
            self.close(TransitionReason::Refused, "cannot_resume");
        } else if self.intake.effects.refetch {
            self.refetch();
        } else {
            self.watch_hole();
        }
    }

    /// Announces the batch, if there is one.
    fn deliver(&mut self) {
        if !self.intake.batch.is_empty() {
            self.outputs.push_back(Output::Deliver);
        }
    }

    fn end(&mut self) {
        self.request = None;
        let reason = self.intake.effects.close_reason.take();
        self.lost(reason.as_deref().unwrap_or("stream_ended"), None, None);
    }

    /// An attempt or a stream failed for a reason that the app can be given.
    fn failed(&mut self, code: Code, message: String, retry: bool) {
        let failure = Failure { code, message, status: None };
        if retry && self.may_repeat() {
            let reason = self.intake.effects.close_reason.take();
            self.lost(reason.as_deref().unwrap_or("network_error"), None, Some(failure));
        } else {
            self.tell(failure, false);
            self.close(TransitionReason::Refused, code.as_str());
        }
    }

    /// The connection is gone; another follows if the policy allows it.
    fn lost(&mut self, reason: &str, floor_ms: Option<u64>, failure: Option<Failure>) {
        let was_open = self.state == State::Open;
        if self.timers.take_due(Timer::Stable, self.now_ms) {
            self.backoff.forgive();
        }
        self.hang_up();
        if !self.may_repeat() {
            failure.into_iter().for_each(|failure| self.tell(failure, false));
            self.close(TransitionReason::Ended, reason);
            return;
        }
        let delay = match self.backoff.next_delay_ms(self.now_ms, floor_ms) {
            Ok(delay) => delay,
            Err(exhausted) => {
                failure.into_iter().for_each(|failure| self.tell(failure, false));
                self.give_up(reason, exhausted);
                return;
            }
        };
        failure.into_iter().for_each(|failure| self.tell(failure, true));
        let floor_ms = floor_ms.map_or(0, |floor| floor.min(RETRY_AFTER_MS_MAX));
        self.not_before_ms = self.now_ms.saturating_add(floor_ms);
        self.retry_in(delay, reason, was_open);
    }

    fn retry_in(&mut self, delay_ms: u64, reason: &str, was_open: bool) {
        self.transition(TransitionReason::Lost);
        self.timers.set(Timer::Retry, self.now_ms.saturating_add(delay_ms));
        if was_open {
            self.notify(Notice::Close {
                reason: reason.to_owned(),
                will_reconnect: true,
                retry_in: Some(delay_ms),
            });
        }
        self.notify(Notice::Retry {
            attempt: self.backoff.attempts().max(1),
            delay_ms,
            reason: reason.to_owned(),
        });
    }

    fn tell(&mut self, failure: Failure, will_retry: bool) {
        let Failure { code, message, status } = failure;
        self.notify(Notice::Error { code, message, status, will_retry });
    }

    fn give_up(&mut self, reason: &str, exhausted: Exhausted) {
        let attempts = self.backoff.attempts();
        let elapsed_ms = self.backoff.failing_for_ms(self.now_ms);
        let (why, message) = match exhausted {
            Exhausted::Attempts => (
                GiveUpReason::MaxAttemptsReached,
                format!("gave up after {attempts} failed attempts in a row; connect() starts again"),
            ),
            Exhausted::Time => (
                GiveUpReason::MaxRetryTimeExceeded,
                format!("gave up {elapsed_ms} ms after the stream was lost; connect() starts again"),
            ),
        };
        self.notify(Notice::Error { code: Code::GaveUp, message, status: None, will_retry: false });
        self.notify(Notice::GiveUp { reason: why, attempts, elapsed_ms });
        self.close(TransitionReason::GaveUp, reason);
    }

    /// Ends the stream; the app's `connect` may start it again.
    fn close(&mut self, why: TransitionReason, reason: &str) {
        self.hang_up();
        if !self.transition(why) {
            return;
        }
        self.timers.clear(Timer::Retry);
        self.notify(Notice::Close { reason: reason.to_owned(), will_reconnect: false, retry_in: None });
        self.commit();
    }

    /// Nothing of the present connection is waited for any more.
    fn hang_up(&mut self) {
        self.request = None;
        self.parser = None;
        for timer in [Timer::Connect, Timer::Stable, Timer::Liveness, Timer::Gap] {
            self.timers.clear(timer);
        }
        self.intake.closed();
    }

    fn abort(&mut self) {
        if let Some(id) = self.request.take() {
            self.outputs.push_back(Output::Abort(id));
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Connect => {
                self.abort();
                let message =
                    format!("the server sent no response head within {} ms", self.config.connect_timeout_ms);
                self.failed(Code::ConnectTimeout, message, true);
            }
            Timer::Retry => {
                // Offline, the attempt waits for `Input::Online` instead.
                if self.online && self.transition(TransitionReason::RetryDue) {
                    self.open_request();
                }
            }
            Timer::Stable => self.backoff.forgive(),
            Timer::Liveness => self.check_liveness(),
            Timer::Gap => {
                if !self.is_drained() {
                    // While the app is busy we do not read: what is missing may be on its way.
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
        }
    }

    /// Resumes from before a hole.
    fn refetch(&mut self) {
        self.abort();
        if self.timers.take_due(Timer::Stable, self.now_ms) {
            self.backoff.forgive();
        }
        self.hang_up();
        let delay_ms = self.backoff.fetch_delay_ms();
        self.retry_in(delay_ms, "gap", true);
    }

    fn check_liveness(&mut self) {
        // While the app is busy we do not read: silence is our own doing then.
        if !self.intake.ledger.is_drained() {
            return;
        }
        let Some(failure) = self.intake.liveness.check(self.now_ms) else {
            self.watch();
            return;
        };
        self.intake.stats.liveness_failures += 1;
        self.notify(Notice::LivenessFailure {
            failure: failure.kind,
            silent_ms: failure.silent_ms,
            cut: failure.cut,
        });
        if failure.cut {
            self.abort();
            let (code, what) = match failure.kind {
                LivenessKind::NoFirstByte => {
                    (Code::NoFirstByte, "headers came but no bytes; a proxy on the way may hold them back")
                }
                LivenessKind::Silence => {
                    (Code::Silence, "a stream that sends heartbeats fell silent; the connection is made anew")
                }
            };
            let message = format!("{what} ({} ms without a byte)", failure.silent_ms);
            self.lost("liveness_timeout", None, Some(Failure { code, message, status: None }));
        }
    }

    /// Sets the timer that looks after a silent stream.
    fn watch(&mut self) {
        match self.intake.liveness.deadline_ms() {
            Some(at) if self.state == State::Open => self.timers.set(Timer::Liveness, at),
            _ => self.timers.clear(Timer::Liveness),
        }
    }

    fn watch_hole(&mut self) {
        if !self.intake.has_hole() {
            self.timers.clear(Timer::Gap);
        } else if !self.timers.is_set(Timer::Gap) {
            self.timers.set(Timer::Gap, self.now_ms.saturating_add(self.config.ordering.gap_timeout_ms));
        }
    }

    /// The app has caught up: from now on silence is the server's again.
    fn drained(&mut self, was_busy: bool) {
        if was_busy && self.is_drained() && self.state == State::Open {
            self.intake.liveness.rested(self.now_ms);
            self.watch();
            self.watch_hole();
        }
    }

    fn online(&mut self) {
        self.online = true;
        self.awake();
    }

    fn awake(&mut self) {
        match self.state {
            // The server's wish stands, whatever the network does.
            State::Retrying if self.online && self.not_before_ms > self.now_ms => {
                self.timers.set(Timer::Retry, self.not_before_ms);
            }
            State::Retrying if self.online => {
                self.timers.clear(Timer::Retry);
                self.transition(TransitionReason::RetryDue);
                self.open_request();
            }
            State::Connecting => self.renew_request(),
            // Only where nothing can get lost by it: without a cursor the watch over silence must do.
            State::Open if !self.intake.ledger.accepted().is_empty() && self.may_repeat() => {
                self.abort();
                self.hang_up();
                self.tell_replaced();
                self.transition(TransitionReason::Reconnect);
                self.open_request();
            }
            _ => {}
        }
    }

    fn stop(&mut self, started: u64) {
        self.abort();
        self.intake.give_back_after(started);
        self.close(TransitionReason::Stop, "client_close");
    }

    fn reconnect(&mut self, started: u64) {
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
    fn tell_replaced(&mut self) {
        if self.state == State::Open {
            self.notify(Notice::Close {
                reason: "reconnect".to_owned(),
                will_reconnect: true,
                retry_in: Some(0),
            });
        }
    }

    fn clear_cursor(&mut self) {
        self.forgotten |= !self.restored;
        self.intake.clear_cursor();
        self.commit();
        if self.state == State::Connecting {
            // What is under way still carries the old cursor.
            self.renew_request();
        }
    }

    /// Makes a request that waits for its head anew.
    fn renew_request(&mut self) {
        if self.request.is_some() && self.may_repeat() {
            self.abort();
            self.transition(TransitionReason::Reconnect);
            self.open_request();
        }
    }

    fn commit(&mut self) {
        self.timers.clear(Timer::Commit);
        if self.intake.ledger.is_changed() {
            self.outputs.push_back(Output::Commit(self.intake.ledger.take_record()));
        }
    }

    fn commit_later(&mut self) {
        if self.state == State::Closed {
            self.commit();
        } else if self.intake.ledger.is_changed() && !self.timers.is_set(Timer::Commit) {
            self.timers.set(Timer::Commit, self.now_ms.saturating_add(self.config.commit_interval_ms));
        }
    }

    fn transition(&mut self, reason: TransitionReason) -> bool {
        let Some(to) = self.state.after(reason) else { return false };
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.notify(Notice::StateChange { from, to, reason });
        }
        true
    }

    fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notify(notice));
    }
}
