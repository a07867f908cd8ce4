//! Everything in one thread and in virtual time: the page, the store, the network, the server and what goes wrong.

mod app;
mod driver;
mod faults;
mod network;
mod schedule;
mod service;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use holdfast_sse::client::{State, StoredRecord};

use self::app::Command;
use self::network::Connection;
use self::schedule::{Entry, Happening};
use self::service::Mood;
use super::check::{Broken, Checker, Invariant};
use super::mutant::Mutant;
use super::page::Page;
use super::plan::Plan;
use super::rng::Rng;
use super::server::Server;

pub(crate) struct World {
    mutant: Option<Mutant>,
    rng: Rng,
    plan: Plan,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    server: Server,
    connections: Vec<Connection>,
    page: Page,
    store: Option<StoredRecord>,
    check: Checker,
    mood: Mood,
    mood_until: u64,
    online: bool,
    calm: bool,
    /// The page is killed after so many more steps of its task.
    kill_in: Option<u64>,
    dead: bool,
    /// What the app asked for in the midst of a task.
    command_due: Option<Command>,
    /// A handler failed behind a stop: the core is to hear what comes again.
    given_back_due: bool,
    trace: Option<Trace>,
}

/// What happened, line by line; it outlives a panic.
pub(crate) type Trace = Rc<RefCell<Vec<String>>>;

/// How a run went.
pub(crate) struct Outcome {
    pub(crate) broken: Option<Broken>,
    pub(crate) deliveries: u64,
    pub(crate) pages: u64,
}

macro_rules! trace {
    ($world:expr, $($format:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.borrow_mut().push(format!("{:>7} {}", $world.now, format_args!($($format)*)));
        }
    };
}
use trace;

/// A run of a client with a defect, in a world that brings it to light.
pub(crate) struct Trial {
    pub(crate) mutant: Mutant,
    pub(crate) plan: fn(&mut Plan),
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Option<&Trace>, trial: Option<&Trial>) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::draw(&mut rng);
    if let Some(trial) = trial {
        (trial.plan)(&mut plan);
    }
    let mutant = trial.map(|trial| trial.mutant);
    if let Some(trace) = trace {
        trace.borrow_mut().push(format!("{plan:#?}"));
    }
    let mut world = World {
        mutant,
        now: 0,
        order: 0,
        queue: BinaryHeap::new(),
        server: Server::new(&plan),
        connections: Vec::new(),
        page: Page::new(0, &plan, mutant),
        store: None,
        check: Checker::default(),
        mood: Mood::Well,
        mood_until: 0,
        online: true,
        calm: false,
        kill_in: None,
        dead: false,
        command_due: None,
        given_back_due: false,
        trace: trace.cloned(),
        rng,
        plan,
    };
    world.play();
    Outcome { broken: world.check.broken, deliveries: world.check.deliveries, pages: world.page.number + 1 }
}

impl World {
    fn play(&mut self) {
        let fault_ms = self.plan.fault_ms;
        for _ in 0..self.plan.faults {
            let at = self.rng.below(fault_ms);
            self.at(at, Happening::Fault);
        }
        self.at(fault_ms, Happening::Calm);
        let first = self.rng.below(2_000);
        self.at(first, Happening::Publish);
        if self.plan.heartbeat_ms > 0 {
            self.at(self.plan.heartbeat_ms, Happening::Beat);
        }
        self.check.page_begins(&self.plan);
        self.at(0, Happening::AppConnects { page: 0 });
        let end = fault_ms + self.plan.recovery_ms();
        while self.check.broken.is_none() {
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            // Each hole takes one more connection.
            if entry.at > end + self.server.holes * (self.plan.config.retry.max_delay_ms + 2_000) {
                break;
            }
            self.now = self.now.max(entry.at);
            self.happen(entry.what);
            if let Some(command) = self.command_due.take()
                && !self.dead
            {
                self.command(command);
            }
            if self.dead {
                self.dead = false;
                self.given_back_due = false;
                trace!(self, "the page is killed");
                self.load_page();
            }
            if !self.page.frozen {
                self.check.task_ends(self.now, &self.plan, &self.server);
            }
            // The head is reached and nothing is under way: the rest would be quiet.
            if self.calm
                && self.now > fault_ms + 6_000
                && self.page.client.state() == State::Open
                && self.page.client.is_drained()
                && self.check.has_reached_head(&self.server)
            {
                break;
            }
        }
        if self.check.broken.is_none() {
            if self.page.client.state() != State::Open {
                let state = self.page.client.state();
                let what = format!("long after the last fault the stream is {state:?}");
                self.check.fail(Invariant::Recovers, what);
            }
            self.check.run_ends(&self.server);
        }
        if let Some(broken) = self.check.broken.clone() {
            trace!(self, "BROKEN: {:?}: {}", broken.invariant, broken.what);
        }
    }
}
