//! What becomes of a stream whose page nobody looks at: it stays, its reading pauses, or its connection is closed until
//! the page is seen again. One whose page is left, and may come back out of a cache, is closed until it does.

use super::machine::Client;
use super::notice::Notice;
use super::state::{State, TransitionReason};
use super::timers::Timer;

/// What follows when a page has been hidden for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenHidden {
    /// Nothing: the stream goes on.
    Stay,
    /// No more is read. The connection stays, and the server feels that it is not read.
    Pause,
    /// The connection is closed, the cursor kept, and no other made before the page is seen. A request that may not be
    /// sent again stays.
    Close,
}

impl Client {
    pub(super) fn hidden(&mut self) {
        self.hidden = true;
        if !matches!(self.state, State::Idle | State::Closed) {
            self.watch_hidden();
        }
    }

    /// Waits until a hidden page has been so for long enough.
    pub(super) fn watch_hidden(&mut self) {
        let is_known = self.rests || self.timers.is_set(Timer::Hidden);
        if self.hidden && self.config.when_hidden != WhenHidden::Stay && !is_known {
            self.timers.set(Timer::Hidden, self.now_ms.saturating_add(self.config.hidden_after_ms));
        }
    }

    /// The page has been hidden for long enough.
    pub(super) fn rest(&mut self) {
        if self.config.when_hidden == WhenHidden::Close && !self.may_repeat() {
            return;
        }
        self.rests = true;
        if self.is_paused() {
            return;
        }
        match self.state {
            State::Open | State::Connecting => self.close_for_now("hidden"),
            State::Retrying => self.timers.clear(Timer::Retry),
            State::Idle | State::Closed => {}
        }
    }

    /// The page is left: browsers keep one for its return only where it holds no connection. What could not be made good
    /// after it stays, and costs the page its place in the cache.
    pub(super) fn put_aside(&mut self) {
        let has_cursor = !self.intake.ledger.accepted().is_empty();
        match self.state {
            State::Open if !has_cursor || !self.may_repeat() => return,
            State::Connecting if !self.may_repeat() => return,
            State::Open | State::Connecting => self.close_for_now("page_left"),
            State::Retrying => self.timers.clear(Timer::Retry),
            State::Idle | State::Closed => return,
        }
        self.aside = true;
    }

    /// Closes the connection, until an input says that there may be another one.
    fn close_for_now(&mut self, reason: &str) {
        let was_open = self.state == State::Open;
        if self.timers.take_due(Timer::Stable, self.now_ms) {
            self.backoff.forgive();
        }
        self.abort();
        self.hang_up();
        self.transition(TransitionReason::Lost);
        if was_open {
            self.notify(Notice::Close { reason: reason.to_owned(), will_reconnect: true, retry_in: None });
        }
    }

    pub(super) fn visible(&mut self) {
        self.hidden = false;
        self.timers.clear(Timer::Hidden);
        let was_paused = self.is_paused();
        if !std::mem::take(&mut self.rests) {
            return;
        }
        if was_paused {
            self.drained(true);
        } else if self.state == State::Retrying && !self.aside {
            self.awake();
        }
    }

    /// Nothing is read, since nobody looks.
    pub(super) fn is_paused(&self) -> bool {
        self.rests && self.config.when_hidden == WhenHidden::Pause
    }

    /// Whether a request can be made now: there is a network, and the page is not one that waits to be seen or to come back.
    pub(super) fn may_request(&self) -> bool {
        self.online && !self.aside && (!self.rests || self.is_paused())
    }
}
