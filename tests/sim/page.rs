//! One page: a client of the core, the app's handlers as `pump.ts` keeps account of them, and its clock.

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

/// What the core knows of an event that was given to the app. Once it is finished or given back, nothing that comes
/// later counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    Open,
    Finished,
    GivenBack,
}

/// Where an event is on its way through the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Working,
    /// Its handler failed, and is to be called again.
    Waiting,
    /// Handled, and waiting for the app's ack.
    Unacked,
    /// Through, or not called again. An ack may still come.
    Over,
}

#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) token: u64,
    pub(crate) index: usize,
    pub(crate) account: Account,
    pub(crate) stage: Stage,
}

/// What the app has in hand. Tokens are used again for what comes in place of records that were given back; so flights
/// have numbers of their own.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) queue: VecDeque<Item>,
    pub(crate) flights: BTreeMap<u64, Flight>,
    pub(crate) next_flight: u64,
    pub(crate) started: u64,
    pub(crate) closed: bool,
}

impl Pump {
    fn count(&self, stages: &[Stage]) -> usize {
        self.flights.values().filter(|flight| stages.contains(&flight.stage)).count()
    }

    pub(crate) fn is_busy(&self, plan: &Plan) -> bool {
        let working = self.count(&[Stage::Working, Stage::Waiting]);
        let in_hand = working + self.count(&[Stage::Unacked]);
        working >= plan.concurrency.max(1) || (plan.acks && in_hand >= plan.config.unfinished_max)
    }

    /// The record with this token goes back, and with it all that was begun behind it. Answers which these are.
    pub(crate) fn give_back(&mut self, token: u64) -> Vec<usize> {
        self.started = self.started.min(token - 1);
        let mut given_back = Vec::new();
        for flight in self.flights.values_mut() {
            if flight.token <= self.started || flight.account != Account::Open {
                continue;
            }
            flight.account = Account::GivenBack;
            if flight.stage != Stage::Working {
                flight.stage = Stage::Over;
            }
            given_back.push(flight.index);
        }
        given_back
    }

    /// Nothing more is given to the app. Answers what comes again, though it was begun.
    pub(crate) fn close(&mut self) -> Vec<usize> {
        self.closed = true;
        self.queue.clear();
        let waiting = self.flights.values().filter(|flight| flight.stage == Stage::Waiting);
        match waiting.map(|flight| flight.token).min() {
            Some(token) => self.give_back(token),
            None => Vec::new(),
        }
    }
}

pub(crate) struct Page {
    pub(crate) number: u64,
    pub(crate) client: Core,
    pub(crate) pump: Pump,
    /// Names the timer that counts; earlier ones do nothing.
    pub(crate) wake: u64,
    /// When it fires.
    pub(crate) wake_at: Option<u64>,
    pub(crate) frozen: bool,
    pub(crate) hidden: bool,
    /// It was left, and may come back.
    pub(crate) aside: bool,
    /// What came up meanwhile.
    pub(crate) missed_wake: bool,
    /// Whether there was a network when the page heard of it last.
    pub(crate) heard_online: bool,
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
            wake: 0,
            wake_at: None,
            frozen: false,
            hidden: false,
            aside: false,
            missed_wake: false,
            heard_online: true,
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

    /// All that the app has in hand, begun or not.
    pub(crate) fn in_hand(&self) -> Vec<usize> {
        let queued = self.pump.queue.iter().filter_map(|item| match item.what {
            What::Event { index, .. } => Some(index),
            _ => None,
        });
        let flights = self.pump.flights.values().filter(|flight| flight.account != Account::Finished);
        queued.chain(flights.map(|flight| flight.index)).collect()
    }
}
