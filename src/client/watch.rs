//! What is watched over while a stream is open: silence, and holes in it.

use super::connection::Failure;
use super::io::Output;
use super::machine::Client;
use super::notice::{Code, LivenessKind, Notice};
use super::state::State;
use super::timers::Timer;

impl Client {
    /// Resumes from before a hole.
    pub(super) fn refetch(&mut self) {
        self.abort();
        if self.timers.take_due(Timer::Stable, self.now_ms) {
            self.backoff.forgive();
        }
        self.hang_up();
        let delay_ms = self.backoff.fetch_delay_ms();
        self.retry_in(delay_ms, "gap", true);
    }

    pub(super) fn check_liveness(&mut self) {
        // While the app is busy we do not read: silence is our own doing then.
        if !self.is_drained() {
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
    pub(super) fn watch(&mut self) {
        match self.intake.liveness.deadline_ms() {
            Some(at) if self.state == State::Open => self.timers.set(Timer::Liveness, at),
            _ => self.timers.clear(Timer::Liveness),
        }
    }

    pub(super) fn watch_hole(&mut self) {
        if !self.intake.has_hole() {
            self.timers.clear(Timer::Gap);
        } else if !self.timers.is_set(Timer::Gap) {
            self.gap_was_late = false;
            self.timers.set(Timer::Gap, self.now_ms.saturating_add(self.config.ordering.gap_timeout_ms));
        }
    }

    /// What is held back, and no new connection brings again, goes to the app now.
    pub(super) fn let_go(&mut self) {
        if self.intake.holds_the_last_of_it() {
            // Several timers may be due at once: what one of them delivered is still to be taken.
            let is_waiting = self.outputs.contains(&Output::Deliver);
            if !is_waiting {
                self.intake.begin(self.now_ms);
            }
            self.intake.give_up_all_reordered();
            if !is_waiting {
                self.deliver();
            }
        }
    }

    /// The app has caught up: from now on silence is the server's again.
    pub(super) fn drained(&mut self, was_busy: bool) {
        if !was_busy || !self.is_drained() {
            return;
        }
        if self.state == State::Open {
            self.intake.liveness.rested(self.now_ms);
            self.watch();
            self.watch_hole();
        }
        if std::mem::take(&mut self.put_off) {
            // A page that was left meanwhile still waits for its return.
            self.look_after();
        }
    }
}
