//! Trouble on demand: what the debug routes switch on, and how it bends what one stream sends.
//!
//! Faults act between the log and the socket. The log, and so every later replay, stays right.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::log::Frame;

/// Visitors that can have faults of their own; the longest unused one makes room for another.
const CLIENTS_MAX: usize = 1000;
/// Frames a stream remembers to repeat.
pub(crate) const REPEAT_MAX: usize = 100;

/// What is wrong now, for everybody or for one visitor. Counters grow with each order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) drops: u64,
    pub(crate) swaps: u64,
    pub(crate) repeats: u64,
    /// How many events the latest repeat is about.
    pub(crate) repeat_count: usize,
    pub(crate) refuse_until: Option<Instant>,
    pub(crate) silent_until: Option<Instant>,
    pub(crate) events_paused: bool,
    pub(crate) heartbeats_stopped: bool,
}

/// The faults of everybody and of single visitors.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    everybody: watch::Sender<Fault>,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    faults: HashMap<String, (watch::Sender<Fault>, u64)>,
    used: u64,
}

impl Faults {
    /// Changes what is wrong: for `client`, or for everybody without one.
    pub(crate) fn order(&self, client: Option<&str>, change: impl FnOnce(&mut Fault)) {
        match client {
            None => self.everybody.send_modify(change),
            Some(client) => self.with(client, |fault| fault.send_modify(change)),
        }
    }

    /// What is wrong for a stream, for as long as it lives.
    pub(crate) fn watch(&self, client: Option<&str>) -> Trouble {
        let own = client.map(|client| self.with(client, watch::Sender::subscribe));
        Trouble::new(self.everybody.subscribe(), own)
    }

    fn with<T>(&self, client: &str, act: impl FnOnce(&watch::Sender<Fault>) -> T) -> T {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.used += 1;
        let used = clients.used;
        if clients.faults.len() >= CLIENTS_MAX && !clients.faults.contains_key(client) {
            let oldest = clients.faults.iter().min_by_key(|entry| entry.1.1).map(|entry| entry.0.clone());
            oldest.and_then(|oldest| clients.faults.remove(&oldest));
        }
        let entry = clients.faults.entry(client.to_owned()).or_default();
        entry.1 = used;
        act(&entry.0)
    }
}

/// The faults of one stream, and what they have done to it so far.
#[derive(Debug)]
pub(crate) struct Trouble {
    sources: Vec<(watch::Receiver<Fault>, Fault)>,
    recent: VecDeque<Frame>,
    /// Events that are still to be sent twice.
    repeat_next: usize,
    /// Swap the next two events; the first of them waits here.
    swapping: bool,
    held: Option<Frame>,
}

impl Trouble {
    fn new(everybody: watch::Receiver<Fault>, own: Option<watch::Receiver<Fault>>) -> Self {
        let sources = std::iter::once(everybody)
            .chain(own)
            .map(|source| {
                let seen = *source.borrow();
                (source, seen)
            })
            .collect();
        Self { sources, recent: VecDeque::new(), repeat_next: 0, swapping: false, held: None }
    }

    /// Until when new streams are refused.
    pub(crate) fn refused_until(&self) -> Option<Instant> {
        self.latest(|fault| fault.refuse_until)
    }

    /// Until when this stream sends nothing.
    pub(crate) fn silent_until(&self) -> Option<Instant> {
        self.latest(|fault| fault.silent_until)
    }

    pub(crate) fn events_paused(&self) -> bool {
        self.sources.iter().any(|source| source.0.borrow().events_paused)
    }

    pub(crate) fn heartbeats_stopped(&self) -> bool {
        self.sources.iter().any(|source| source.0.borrow().heartbeats_stopped)
    }

    /// Takes up new orders. Answers what has to be sent again, or `None` where the stream must be cut.
    pub(crate) fn take_orders(&mut self) -> Option<Vec<Frame>> {
        let mut again = Vec::new();
        for (source, seen) in &mut self.sources {
            let now = *source.borrow_and_update();
            if now.drops != seen.drops {
                return None;
            }
            self.swapping |= now.swaps != seen.swaps;
            if now.repeats != seen.repeats {
                let from = self.recent.len().saturating_sub(now.repeat_count);
                again.extend(self.recent.range(from..).cloned());
                self.repeat_next = now.repeat_count.saturating_sub(self.recent.len());
            }
            *seen = now;
        }
        Some(again)
    }

    /// Waits for new orders.
    pub(crate) async fn changed(&mut self) {
        let waits = self.sources.iter_mut().map(|source| Box::pin(source.0.changed()));
        // An error means that this visitor's table entry made room for another: nothing more will come from it.
        if futures_util::future::select_all(waits).await.0.is_err() {
            self.sources.truncate(1);
        }
    }

    /// What goes out in place of `frames`.
    pub(crate) fn bend(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        let mut out = Vec::with_capacity(frames.len());
        for frame in frames {
            self.recent.push_back(frame.clone());
            if self.recent.len() > REPEAT_MAX {
                self.recent.pop_front();
            }
            if self.swapping && self.held.is_none() {
                self.held = Some(frame);
                continue;
            }
            if self.repeat_next > 0 {
                self.repeat_next -= 1;
                out.push(frame.clone());
            }
            out.push(frame);
            if let Some(held) = self.held.take() {
                self.swapping = false;
                out.push(held);
            }
        }
        out
    }

    fn latest(&self, field: impl Fn(&Fault) -> Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        self.sources.iter().filter_map(|source| field(&source.0.borrow())).filter(|until| *until > now).max()
    }
}
