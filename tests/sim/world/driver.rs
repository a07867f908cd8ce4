//! What a driver does for the client: its outputs, its timer, its store, and the page's life.

use holdfast_sse::client::{CannotResumeFallback, Input, Notice, Output, State, StoredRecord};

use super::schedule::Happening;
use super::{World, trace};
use crate::pace::End;
use crate::page::Page;

impl World {
    pub(super) fn input(&mut self, input: Input<'_>) {
        if self.dead {
            return;
        }
        let prompted = matches!(
            input,
            Input::Connect | Input::Reconnect { .. } | Input::Online | Input::Awake | Input::Visible
        );
        let is_busy = !self.page.client.is_drained();
        self.check.prompt(self.page.clock_max(self.now), prompted, is_busy);
        match input {
            Input::Connect | Input::Reconnect { .. } => self.check.app_connects(self.now),
            Input::Stop { .. } => self.check.closed = true,
            Input::Online | Input::Awake => self.check.aside = false,
            _ => {}
        }
        let chunk_bytes = if let Input::Bytes(_, bytes) = &input { bytes.len() } else { 0 };
        let before = self.page.client.usage();
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, input);
        self.check.memory(self.page.client.usage(), before, chunk_bytes, &self.plan);
        self.drain();
    }

    /// Nobody listened to the network while the stream was down.
    pub(super) fn tell_network(&mut self) {
        if matches!(self.page.client.state(), State::Idle | State::Closed) {
            self.hear_of_network();
        }
    }

    pub(super) fn hear_of_network(&mut self) {
        self.page.heard_online = self.online;
        self.input(if self.online { Input::Online } else { Input::Offline });
    }

    pub(super) fn page_is_seen(&mut self) {
        self.page.hidden = false;
        self.check.seen();
        self.input(Input::Visible);
    }

    /// One more step of the page's task; answers whether the page died at it.
    pub(super) fn step(&mut self) -> bool {
        if let Some(left) = &mut self.kill_in {
            if *left == 0 {
                self.kill_in = None;
                self.dead = true;
            } else {
                *left -= 1;
            }
        }
        self.dead
    }

    pub(super) fn drain(&mut self) {
        loop {
            if self.step() {
                return;
            }
            match self.page.client.poll_output() {
                Output::Wait(at) => {
                    self.set_wake(at);
                    break;
                }
                output => self.perform(output),
            }
        }
        if self.page.client.is_drained()
            && let Some(current) = self.current()
        {
            self.read(current);
        }
    }

    /// As the timer of a page: it may fire early or late, and one that fires before is left alone.
    fn set_wake(&mut self, at: Option<u64>) {
        let Some(at) = at else {
            self.page.wake += 1;
            self.page.wake_at = None;
            return;
        };
        let wait = at.saturating_sub(self.page.clock(self.now));
        let wait = if self.rng.chance(5) { wait / 2 } else { wait + self.rng.below(3) };
        let fires_at = self.now + wait;
        if self.page.wake_at.is_some_and(|pending| pending <= fires_at) {
            return;
        }
        self.page.wake += 1;
        self.page.wake_at = Some(fires_at);
        let (page, wake) = (self.page.number, self.page.wake);
        self.at(fires_at, Happening::Wake { page, wake });
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Restore => {
                let page = self.page.number;
                if !self.calm && self.rng.chance(self.plan.store_hangs_pct) {
                    let wait = self.rng.between(1_000, 15_000);
                    let at = (self.now + wait).min(self.plan.fault_ms.max(self.now));
                    self.at(at, Happening::Restored { page });
                } else if self.plan.store_ms == 0 {
                    self.restored(false);
                } else {
                    self.after(self.plan.store_ms, Happening::Restored { page });
                }
            }
            Output::Request(request) => self.request(request),
            Output::Abort(id) => {
                trace!(self, "client: abort {}", id.0);
                let (page, clock) = (self.page.number, self.page.clock_max(self.now));
                for connection in &mut self.connections {
                    if connection.page == page && connection.request == id {
                        if connection.wanted && !connection.answered {
                            self.check.request_ended(clock, End::GivenUp, &self.plan);
                        }
                        connection.wanted = false;
                        connection.next = None;
                    }
                }
            }
            Output::Deliver => self.deliver(),
            Output::Commit(record) => {
                if self.plan.store_ms == 0 {
                    self.write(self.page.number, record);
                } else {
                    let page = self.page.number;
                    self.after(self.plan.store_ms, Happening::Stored { page, record });
                }
            }
            Output::Notify(notice) => {
                trace!(self, "app hears: {notice:?}");
                self.check.told(&notice, &self.plan, &self.server);
                if let Notice::Close { will_reconnect: false, reason, .. } = &notice {
                    let page = self.page.number;
                    if reason == "cannot_resume"
                        && self.plan.config.cannot_resume == CannotResumeFallback::Close
                    {
                        self.forget();
                    }
                    let wait = self.rng.between(1, 2_000);
                    self.after(wait, Happening::AppConnects { page });
                }
            }
            Output::Wait(_) => {}
        }
    }

    /// The store answers; in a task of its own, where it `is_late`.
    pub(super) fn restored(&mut self, is_late: bool) {
        let record = self.read_store();
        trace!(self, "restored: {record:?}");
        if !self.page.forgot_before_restore && !self.page.is_restored {
            // A cursor that no header can carry is none.
            let is_whole = |record: &&StoredRecord| !record.cursor.contains('\n');
            self.check.restored(record.as_ref().filter(is_whole));
        }
        self.page.is_restored = true;
        self.check.prompt(self.page.clock_max(self.now), true, false);
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, Input::Restored(record));
        if is_late {
            self.drain();
        }
    }

    /// What the store answers: nothing, or rubbish, where it fails.
    fn read_store(&mut self) -> Option<StoredRecord> {
        if self.calm || !self.rng.chance(self.plan.store_fails_pct) {
            return self.store.clone();
        }
        let done = vec!["x".to_owned()];
        match self.rng.below(3) {
            0 => None,
            1 => Some(StoredRecord { cursor: "dam\naged".to_owned(), done }),
            _ => Some(StoredRecord { cursor: "another-7".to_owned(), done }),
        }
    }

    /// A page may be gone by the time that its write is done.
    pub(super) fn write(&mut self, page: u64, record: StoredRecord) {
        if page == self.page.number && self.step() {
            return;
        }
        if self.rng.chance(self.plan.store_fails_pct) {
            trace!(self, "storing fails: {record:?}");
            self.check.not_stored(&record, &self.plan, &self.server);
            return;
        }
        trace!(
            self,
            "stored{}: {record:?}",
            if page == self.page.number { "" } else { " by an earlier page" }
        );
        self.check.stored(&record, page == self.page.number, &self.plan, &self.server);
        self.store = Some(record);
    }

    /// A new page takes the place of this one.
    pub(super) fn load_page(&mut self) {
        let number = self.page.number + 1;
        self.page = Page::new(number, &self.plan, self.mutant);
        for connection in &mut self.connections {
            connection.wanted = false;
            connection.next = None;
        }
        self.check.page_begins(&self.plan);
        let wait = self.rng.below(500);
        self.after(wait, Happening::AppConnects { page: number });
    }

    pub(super) fn thaw(&mut self, tells: bool) {
        trace!(self, "the page thaws");
        self.page.frozen = false;
        // Who comes back asks for the network; else it is heard of where it changed.
        self.check.thawed(self.now);
        if tells || self.page.heard_online != self.online {
            self.hear_of_network();
        }
        if std::mem::take(&mut self.page.missed_wake) {
            self.input(Input::Timer);
        }
        if let Some(current) = self.current() {
            self.read(current);
        }
    }
}
