//! One page: a client of the core, the app's handlers in the order that `pump.ts` runs them, and its clock.

use std::collections::{BTreeMap, VecDeque};

use holdfast_sse::client::{Kind, Notice};

use super::mutant::{Core, Mutant};
use super::plan::Plan;
use super::server::Server;

/// One record of a batch, copied out as a driver does.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) token: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Event { index: usize, name: String, id: Option<String>, data: String },
    Notice(Notice),
    Other,
}

/// One generation of deliveries.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) generation: u64,
    pub(crate) queue: VecDeque<Item>,
    /// Handlers under way, by token.
    pub(crate) running: BTreeMap<u64, usize>,
    /// Those of them that failed, and wait to be called again.
    pub(crate) waiting: BTreeMap<u64, usize>,
    pub(crate) started: u64,
    pub(crate) ended: bool,
}

pub(crate) struct Page {
    pub(crate) number: u64,
    pub(crate) client: Core,
    pub(crate) pump: Pump,
    /// Handlers of earlier generations: what they were given they finish.
    pub(crate) older: Vec<Pump>,
    /// Names the timer that counts; earlier ones do nothing.
    pub(crate) wake: u64,
    /// When it fires.
    pub(crate) wake_at: Option<u64>,
    pub(crate) frozen: bool,
    /// What came up meanwhile.
    pub(crate) missed_wake: bool,
    pub(crate) forgot_before_restore: bool,
    pub(crate) is_restored: bool,
    clock_offset: i64,
    /// What the clock jumped ahead in all.
    ahead_ms: u64,
}

impl Page {
    pub(crate) fn new(number: u64, plan: &Plan, mutant: Option<Mutant>) -> Self {
        Self {
            number,
            client: Core::new(&plan.config, mutant),
            pump: Pump::default(),
            older: Vec::new(),
            wake: 0,
            wake_at: None,
            frozen: false,
            missed_wake: false,
            forgot_before_restore: false,
            is_restored: false,
            // Far enough from zero, where a clock that is set back again and again would stand still.
            clock_offset: 1 << 40,
            ahead_ms: 0,
        }
    }

    pub(crate) fn clock(&self, now: u64) -> u64 {
        u64::try_from(now as i64 + self.clock_offset).unwrap_or(0)
    }

    pub(crate) fn jump(&mut self, ms: i64) {
        self.clock_offset += ms;
        self.ahead_ms += u64::try_from(ms).unwrap_or(0);
    }

    /// As far as the client's own clock may have come: it does not go back.
    pub(crate) fn clock_max(&self, now: u64) -> u64 {
        now + self.ahead_ms
    }

    /// Copies the batch out.
    pub(crate) fn take_batch(&mut self) -> Vec<Item> {
        let batch = self.client.batch();
        let mut notices = batch.notices().iter();
        let mut items = batch
            .events()
            .map(|event| Item {
                token: event.token,
                what: match event.kind {
                    Kind::Event => What::Event {
                        index: Server::index_of(event.data).unwrap_or(usize::MAX),
                        name: event.name.to_owned(),
                        id: event.id.map(str::to_owned),
                        data: event.data.to_owned(),
                    },
                    Kind::Notice => What::Notice(notices.next().expect("a notice for each record").clone()),
                    _ => What::Other,
                },
            })
            .collect();
        self.client.pass(&mut items);
        items
    }

    /// Nothing more is given to the app.
    pub(crate) fn end_pump(&mut self) {
        let pump = &mut self.pump;
        if pump.ended {
            return;
        }
        pump.ended = true;
        pump.queue.clear();
        if let Some(first) = pump.waiting.keys().next() {
            pump.started = pump.started.min(first - 1);
        }
    }

    /// What was given to the app, is not finished, and comes again all the same.
    pub(crate) fn given_back(&self) -> Vec<usize> {
        let started = self.pump.started;
        let unfinished = self.pump.running.iter().chain(&self.pump.waiting);
        unfinished.filter(|(token, _)| **token > started).map(|(_, index)| *index).collect()
    }

    pub(crate) fn renew_pump(&mut self) {
        if self.pump.ended {
            let next =
                Pump { generation: self.pump.generation + 1, started: self.pump.started, ..Pump::default() };
            self.older.push(std::mem::replace(&mut self.pump, next));
        }
    }

    pub(crate) fn pump_of(&mut self, generation: u64) -> Option<&mut Pump> {
        if self.pump.generation == generation {
            return Some(&mut self.pump);
        }
        self.older.iter_mut().find(|pump| pump.generation == generation)
    }

    /// All that the app has in hand, begun or not.
    pub(crate) fn in_hand(&self) -> Vec<usize> {
        let queued = self.pump.queue.iter().filter_map(|item| match item.what {
            What::Event { index, .. } => Some(index),
            _ => None,
        });
        let pumps = self.older.iter().chain([&self.pump]);
        queued
            .chain(pumps.flat_map(|pump| pump.running.values().chain(pump.waiting.values()).copied()))
            .collect()
    }
}
