//! What happens when: everything that is under way waits in one queue, in the order of virtual time.

use std::cmp::{Ordering, Reverse};

use holdfast_sse::client::{Input, StoredRecord};

use super::network::Arrival;
use super::{World, trace};

#[derive(Debug)]
pub(super) enum Happening {
    Wake { page: u64, wake: u64 },
    Ask { connection: usize },
    Arrive { connection: usize, arrival: Arrival },
    LateFrame { connection: usize, index: usize },
    HandlerEnds { page: u64, flight: u64 },
    TryAgain { page: u64, flight: u64 },
    Acks { page: u64, flight: u64 },
    Restored { page: u64 },
    Stored { page: u64, record: StoredRecord },
    AppConnects { page: u64 },
    Publish,
    Beat,
    Fault,
    ServerUp,
    Online,
    Thaw { page: u64, tells: bool },
    Seen { page: u64 },
    Returns { page: u64 },
    WakesUp { page: u64 },
    Calm,
}

/// Happenings of one time keep the order in which they were asked for.
pub(super) struct Entry {
    pub(super) at: u64,
    order: u64,
    pub(super) what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    pub(super) fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at, order: self.order, what }));
    }

    pub(super) fn after(&mut self, ms: u64, what: Happening) {
        self.at(self.now + ms, what);
    }

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake { page, wake } if page == self.page.number && wake == self.page.wake => {
                self.page.wake_at = None;
                if self.page.frozen {
                    self.page.missed_wake = true;
                } else {
                    self.input(Input::Timer);
                }
            }
            Happening::Ask { connection } => self.ask(connection),
            Happening::Arrive { connection, arrival } => {
                self.connections[connection].inbox.push_back(arrival);
                self.read(connection);
            }
            Happening::LateFrame { connection, index } => {
                let bytes = self.server.event(index);
                self.send(connection, bytes);
            }
            // A task of a frozen page waits.
            what @ (Happening::HandlerEnds { page, .. }
            | Happening::TryAgain { page, .. }
            | Happening::Acks { page, .. }
            | Happening::Restored { page }
            | Happening::AppConnects { page }
            | Happening::Returns { page }
            | Happening::Seen { page })
                if page == self.page.number && self.page.frozen =>
            {
                self.after(50, what);
            }
            Happening::HandlerEnds { page, flight } if page == self.page.number => self.handler_ends(flight),
            Happening::TryAgain { page, flight } if page == self.page.number => self.try_again(flight),
            Happening::Acks { page, flight } if page == self.page.number => self.acks(flight),
            Happening::Restored { page } if page == self.page.number => self.restored(true),
            // Also of a page that is gone: the write was begun.
            Happening::Stored { page, record } => self.write(page, record),
            Happening::AppConnects { page } if page == self.page.number => {
                trace!(self, "app: connect()");
                self.page.pump.closed = false;
                self.tell_network();
                self.input(Input::Connect);
            }
            Happening::Seen { page } if page == self.page.number => {
                trace!(self, "the page is seen");
                self.page_is_seen();
            }
            Happening::Returns { page } if page == self.page.number => self.page_returns(),
            Happening::WakesUp { page } if page == self.page.number && self.page.frozen => self.wake_up(),
            // Of an earlier page, or an earlier timer.
            Happening::Wake { .. }
            | Happening::HandlerEnds { .. }
            | Happening::TryAgain { .. }
            | Happening::Acks { .. }
            | Happening::Restored { .. }
            | Happening::AppConnects { .. }
            | Happening::Seen { .. }
            | Happening::Returns { .. }
            | Happening::WakesUp { .. } => {}
            Happening::Publish => self.publish(),
            Happening::Beat => {
                for connection in 0..self.connections.len() {
                    if self.connections[connection].next.is_some() {
                        let bytes = self.server.beat();
                        self.send(connection, bytes);
                    }
                }
                self.after(self.plan.heartbeat_ms, Happening::Beat);
            }
            Happening::Fault if self.calm => {}
            Happening::Fault => self.fault(),
            Happening::ServerUp => {
                trace!(self, "the server is up again");
                self.server.up = true;
            }
            Happening::Online => {
                if !self.online {
                    trace!(self, "online");
                    self.online = true;
                    if !self.page.frozen {
                        self.hear_of_network();
                    }
                }
            }
            Happening::Thaw { page, tells } => {
                if page == self.page.number && self.page.frozen {
                    self.thaw(tells);
                }
            }
            Happening::Calm => self.calm_down(),
        }
    }
}
