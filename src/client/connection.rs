//! One connection, from the head of its response to its end, and what follows from the way it ended.

use super::backoff::{Exhausted, RETRY_AFTER_MS_MAX};
use super::io::Output;
use super::machine::Client;
use super::notice::{Code, GiveUpReason, Notice, describe_parse_error};
use super::response::{Decision, Head, Verdict, close_reason, describe_head, judge};
use super::state::{State, TransitionReason};
use super::timers::Timer;
use crate::wire::Parser;

/// Why a server closes a stream whose credentials are no longer valid.
const AUTH_EXPIRED: &str = "auth_expired";
/// How long a new connection may take to come as far as the last one before what is missing there is given up.
const REPLAY_MS: u64 = 5_000;

/// What went wrong, before it is known whether another attempt follows.
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) status: Option<u16>,
}

impl Client {
    pub(super) fn head(&mut self, head: &Head, decision: Option<Decision>) {
        self.timers.clear(Timer::Connect);
        let can_refresh = self.config.can_refresh_credentials && !self.refreshed_credentials;
        match decision.map_or_else(|| judge(head, self.was_open, can_refresh), Verdict::from) {
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

    pub(super) fn refused(&mut self, code: Code, head: &Head, will_retry: bool) {
        self.abort();
        let failure = Failure { code, message: describe_head(code, head), status: Some(head.status) };
        let reason = close_reason(code, head);
        if will_retry {
            self.lost(reason, head.retry_after_ms, Some(failure));
        } else {
            self.tell(failure, false);
            self.close(TransitionReason::Refused, reason);
        }
    }

    /// Whether the request may be sent again at all.
    pub(super) fn may_repeat(&self) -> bool {
        self.config.repeatable && self.config.auto_reconnect
    }

    pub(super) fn opened(&mut self) {
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
        if self.intake.has_hole() {
            // The window begins anew when this connection has come as far as the hole.
            self.gap_was_late = false;
            let window_ms = self.config.ordering.gap_timeout_ms.max(REPLAY_MS);
            self.timers.set(Timer::Gap, self.now_ms.saturating_add(window_ms));
        }
        self.notify(Notice::Open {
            reconnect_count,
            attempt: self.backoff.attempts(),
            last_event_id: Some(last_event_id).filter(|id| !id.is_empty()),
        });
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let Some(parser) = &mut self.parser else { return };
        self.intake.stats.bytes_received += bytes.len() as u64;
        self.intake.liveness.byte(self.now_ms);
        self.intake.begin(self.now_ms);
        let was_carried = self.intake.scopes.is_carried();
        let parsed = parser.feed(bytes, &mut self.intake);
        if was_carried && !self.intake.scopes.is_carried() {
            self.timers.clear(Timer::Gap);
        }
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
            let message = "the server cannot resume from the cursor, and cannotResumeFallback is 'close'";
            self.notify(Notice::Error {
                code: Code::CannotResume,
                message: message.to_owned(),
                status: None,
                will_retry: false,
            });
            self.close(TransitionReason::Refused, "cannot_resume");
        } else if self.intake.effects.refetch {
            self.refetch();
        } else {
            self.watch_hole();
        }
    }

    /// Announces the batch, if there is one.
    pub(super) fn deliver(&mut self) {
        if !self.intake.batch.is_empty() {
            self.outputs.push_back(Output::Deliver);
        }
    }

    pub(super) fn end(&mut self) {
        self.request = None;
        let reason = self.intake.effects.close_reason.take();
        if reason.as_deref() == Some(AUTH_EXPIRED) && self.renews_credentials() {
            self.lost_for_fresh_credentials();
            return;
        }
        self.lost(reason.as_deref().unwrap_or("stream_ended"), None, None);
    }

    /// Whether there is nothing to wait for: fresh credentials can be had, and the stream was no flash in the pan.
    fn renews_credentials(&mut self) -> bool {
        self.config.can_refresh_credentials
            && self.may_repeat()
            && (self.timers.take_due(Timer::Stable, self.now_ms) || !self.timers.is_set(Timer::Stable))
    }

    /// The credentials expired under way: the app is asked for fresh ones by the next request, at once.
    fn lost_for_fresh_credentials(&mut self) {
        self.backoff.forgive();
        self.hang_up();
        self.notify(Notice::Close {
            reason: AUTH_EXPIRED.to_owned(),
            will_reconnect: true,
            retry_in: Some(0),
        });
        if self.transition(TransitionReason::Reconnect) {
            self.open_request();
        }
    }

    /// An attempt or a stream failed for a reason that the app can be given.
    pub(super) fn failed(&mut self, code: Code, message: String, retry: bool) {
        let failure = Failure { code, message, status: None };
        let own = if code == Code::ConnectTimeout { "client_timeout" } else { code.as_str() };
        if retry && self.may_repeat() {
            let reason = self.intake.effects.close_reason.take();
            self.lost(reason.as_deref().unwrap_or(own), None, Some(failure));
        } else {
            self.tell(failure, false);
            self.close(TransitionReason::Refused, own);
        }
    }

    /// The connection is gone; another follows if the policy allows it.
    pub(super) fn lost(&mut self, reason: &str, floor_ms: Option<u64>, failure: Option<Failure>) {
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

    pub(super) fn retry_in(&mut self, delay_ms: u64, reason: &str, was_open: bool) {
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

    pub(super) fn tell(&mut self, failure: Failure, will_retry: bool) {
        let Failure { code, message, status } = failure;
        self.notify(Notice::Error { code, message, status, will_retry });
    }

    pub(super) fn give_up(&mut self, reason: &str, exhausted: Exhausted) {
        let attempts = self.backoff.attempts();
        let elapsed_ms = self.backoff.failing_for_ms(self.now_ms);
        let (why, message) = match exhausted {
            Exhausted::Attempts => (
                GiveUpReason::MaxAttemptsReached,
                format!("gave up after {attempts} retries in a row; connect() starts again"),
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
    pub(super) fn close(&mut self, why: TransitionReason, reason: &str) {
        self.hang_up();
        if !self.transition(why) {
            return;
        }
        self.timers.clear(Timer::Retry);
        self.timers.clear(Timer::Hidden);
        self.rests = false;
        self.aside = false;
        self.notify(Notice::Close { reason: reason.to_owned(), will_reconnect: false, retry_in: None });
        self.commit();
    }

    /// Nothing of the present connection is waited for any more.
    pub(super) fn hang_up(&mut self) {
        self.let_go();
        self.request = None;
        self.parser = None;
        for timer in [Timer::Connect, Timer::Stable, Timer::Liveness, Timer::Gap] {
            self.timers.clear(timer);
        }
        self.intake.closed();
    }

    pub(super) fn abort(&mut self) {
        if let Some(id) = self.request.take() {
            self.outputs.push_back(Output::Abort(id));
        }
    }
}
