//! Everything in one thread and in virtual time: the page, the store, the network, the server and what goes wrong.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use holdfast_sse::client::{
    CannotResumeFallback, Code, Head, Input, Notice, Output, Request, RequestId, State, StoredRecord,
    TransportError,
};

use super::check::Checker;
use super::page::{Item, Page, What};
use super::plan::Plan;
use super::rng::Rng;
use super::server::{Fate, Server};

/// What comes out of the network at a client's end.
#[derive(Debug, Clone)]
enum Arrival {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed,
}

#[derive(Debug)]
enum Happening {
    Wake { page: u64, wake: u64 },
    Ask { connection: usize },
    Arrive { connection: usize, arrival: Arrival },
    LateFrame { connection: usize, index: usize },
    HandlerEnds { page: u64, pump: u64, token: u64 },
    TryAgain { page: u64, pump: u64, token: u64 },
    Restored { page: u64 },
    Stored { page: u64, record: StoredRecord },
    AppConnects { page: u64 },
    Publish,
    Beat,
    Fault,
    ServerUp,
    Online,
    Thaw { page: u64, tells: bool },
    Calm,
}

/// Why the server answers with something else than a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Status(u16),
    WrongType,
    Refuses,
    NeverAnswers,
    /// 200, a greeting, the end; again and again.
    OpensAndCloses,
}

struct Connection {
    page: u64,
    request: RequestId,
    cursor: String,
    /// The client still wants it.
    wanted: bool,
    /// Answers may reach the client after it gave the request up.
    leaks: bool,
    /// Index of the next event, while the server serves it.
    next: Option<usize>,
    inbox: VecDeque<Arrival>,
    last_arrival: u64,
    /// Bytes until it breaks, and whether anybody is told.
    breaks_after: Option<usize>,
    breaks_silently: bool,
    broken: bool,
}

struct Entry {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
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
    /// A handler asked for a stop or a new connection.
    command_due: bool,
    trace: Option<Vec<String>>,
}

/// How a run went.
pub(crate) struct Outcome {
    pub(crate) broken: Option<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) deliveries: u64,
    pub(crate) pages: u64,
}

macro_rules! trace {
    ($world:expr, $($format:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>7} {}", $world.now, format_args!($($format)*)));
        }
    };
}

/// Runs one seed.
pub(crate) fn run(seed: u64, traced: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng);
    let mut world = World {
        now: 0,
        order: 0,
        queue: BinaryHeap::new(),
        server: Server::new(&plan),
        connections: Vec::new(),
        page: Page::new(0, &plan),
        store: None,
        check: Checker::default(),
        mood: Mood::Well,
        mood_until: 0,
        online: true,
        calm: false,
        kill_in: None,
        dead: false,
        command_due: false,
        trace: traced.then(|| vec![format!("{plan:#?}")]),
        rng,
        plan,
    };
    world.play();
    Outcome {
        broken: world.check.broken,
        trace: world.trace.unwrap_or_default(),
        deliveries: world.check.deliveries,
        pages: world.page.number + 1,
    }
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
            if std::mem::take(&mut self.command_due) && !self.dead {
                self.app_changes_its_mind();
            }
            if self.dead {
                self.dead = false;
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
                self.check.broken = Some(format!("long after the last fault the stream is {state:?}"));
            }
            self.check.run_ends(&self.server);
        }
        if let Some(broken) = self.check.broken.clone() {
            trace!(self, "BROKEN: {broken}");
        }
    }

    fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at, order: self.order, what }));
    }

    fn after(&mut self, ms: u64, what: Happening) {
        self.at(self.now + ms, what);
    }

    fn happen(&mut self, what: Happening) {
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
            Happening::HandlerEnds { page, pump, token } if page == self.page.number => {
                if self.page.frozen {
                    self.after(50, Happening::HandlerEnds { page, pump, token });
                } else {
                    self.handler_ends(pump, token);
                }
            }
            Happening::TryAgain { page, pump, token } if page == self.page.number => {
                if self.page.frozen {
                    self.after(50, Happening::TryAgain { page, pump, token });
                } else {
                    self.try_again(pump, token);
                }
            }
            Happening::Restored { page } if page == self.page.number => {
                if self.page.frozen {
                    self.after(50, Happening::Restored { page });
                } else {
                    self.restored();
                }
            }
            Happening::Stored { page, record } if page == self.page.number => self.write(record),
            Happening::AppConnects { page } if page == self.page.number => {
                if self.page.frozen {
                    self.after(50, Happening::AppConnects { page });
                } else {
                    trace!(self, "app: connect()");
                    self.check.prompt(self.now);
                    self.page.renew_pump();
                    self.tell_network();
                    self.input(Input::Connect);
                }
            }
            // Of an earlier page, or an earlier timer.
            Happening::Wake { .. }
            | Happening::HandlerEnds { .. }
            | Happening::TryAgain { .. }
            | Happening::Restored { .. }
            | Happening::Stored { .. }
            | Happening::AppConnects { .. } => {}
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
                    self.check.prompt(self.now);
                    if !self.page.frozen {
                        self.input(Input::Online);
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

    // --- the page ---

    fn input(&mut self, input: Input<'_>) {
        if self.dead {
            return;
        }
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, input);
        self.drain();
    }

    /// Nobody listened to the network while the stream was down.
    fn tell_network(&mut self) {
        if matches!(self.page.client.state(), State::Idle | State::Closed) {
            self.input(if self.online { Input::Online } else { Input::Offline });
        }
    }

    /// One more step of the page's task; answers whether the page died at it.
    fn step(&mut self) -> bool {
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

    fn drain(&mut self) {
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
                if self.plan.store_ms == 0 {
                    self.restored();
                } else {
                    let page = self.page.number;
                    self.after(self.plan.store_ms, Happening::Restored { page });
                }
            }
            Output::Request(request) => self.request(request),
            Output::Abort(id) => {
                trace!(self, "client: abort {}", id.0);
                let page = self.page.number;
                for connection in &mut self.connections {
                    if connection.page == page && connection.request == id {
                        connection.wanted = false;
                        connection.next = None;
                    }
                }
            }
            Output::Deliver => self.deliver(),
            Output::Commit(record) => {
                if self.plan.store_ms == 0 {
                    self.write(record);
                } else {
                    let page = self.page.number;
                    self.after(self.plan.store_ms, Happening::Stored { page, record });
                }
            }
            Output::Notify(notice) => {
                trace!(self, "app hears: {notice:?}");
                self.check.told(&notice, &self.server);
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

    fn restored(&mut self) {
        let record = self.store.clone();
        trace!(self, "restored: {record:?}");
        if !self.page.forgot_before_restore && !self.page.is_restored {
            self.check.restored(record.as_ref());
        }
        self.page.is_restored = true;
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, Input::Restored(record));
        if self.plan.store_ms > 0 {
            self.drain();
        }
    }

    fn write(&mut self, record: StoredRecord) {
        if self.step() {
            return;
        }
        if self.rng.chance(self.plan.store_fails_pct) {
            trace!(self, "storing fails: {record:?}");
            return;
        }
        trace!(self, "stored: {record:?}");
        self.check.stored(&record, &self.plan, &self.server);
        self.store = Some(record);
    }

    fn deliver(&mut self) {
        let items = self.page.take_batch();
        let (first, idle) = (items.first().map(|item| item.token), self.page.pump.running.is_empty());
        let idle = idle && self.page.pump.waiting.is_empty() && self.page.pump.queue.is_empty();
        self.page.pump.queue.extend(items);
        let finished = self.run_pump();
        if self.dead {
            return;
        }
        // As pump.ts: an unbroken row from the first is reported at once, the rest one by one.
        let row =
            finished.iter().zip(first.unwrap_or(0)..).take_while(|(token, expected)| *token == expected);
        let row = if idle { row.count() } else { 0 };
        let clock = self.page.clock(self.now);
        for token in &finished[row..] {
            self.page.client.handle_input(clock, Input::Done(*token));
        }
        if row > 0 {
            self.page.client.handle_input(clock, Input::Processed(finished[row - 1]));
        }
    }

    /// Gives the app what it can take; answers the tokens that are finished at once.
    fn run_pump(&mut self) -> Vec<u64> {
        let mut finished = Vec::new();
        loop {
            let pump = &mut self.page.pump;
            let busy = pump.running.len() + pump.waiting.len();
            if pump.ended || (self.plan.concurrency > 0 && busy >= self.plan.concurrency) {
                return finished;
            }
            let Some(Item { token, what }) = pump.queue.pop_front() else { return finished };
            if self.step() {
                return finished;
            }
            self.page.pump.started = token;
            match what {
                What::Other => finished.push(token),
                What::Notice(notice) => {
                    trace!(self, "app hears: {notice:?}");
                    self.check.told(&notice, &self.server);
                    finished.push(token);
                }
                What::Event { index, name, id, data } => {
                    trace!(self, "handler begins: {index} ({id:?})");
                    self.check.started(index, &name, id.as_deref(), &data, &self.server);
                    if !self.calm && self.rng.below(400) == 0 {
                        self.command_from_within();
                    }
                    if self.plan.concurrency == 0 || self.rng.chance(20) {
                        if self.step() {
                            return finished;
                        }
                        self.check.finished(self.now, index);
                        finished.push(token);
                    } else {
                        let pump = &mut self.page.pump;
                        pump.running.insert(token, index);
                        let generation = pump.generation;
                        self.handler_runs(generation, token);
                    }
                }
            }
        }
    }

    /// What a handler asks for ends its pump at once, and is done right behind the task.
    fn command_from_within(&mut self) {
        trace!(self, "a handler calls stop() or reconnect()");
        self.page.end_pump();
        self.command_due = true;
    }

    /// Answers the last record that the app was given.
    fn end_pump(&mut self) -> u64 {
        self.page.end_pump();
        self.check.given_back(self.page.given_back().into_iter());
        if !self.plan.is_ours() && self.page.client.last_event_id().is_empty() {
            self.check.begins_without_place();
        }
        self.page.pump.started
    }

    fn handler_runs(&mut self, pump: u64, token: u64) {
        // The backlog must be through some day.
        let ms = if self.calm {
            self.rng.below(3)
        } else if self.rng.chance(self.plan.slow_pct) {
            self.rng.between(500, 3_000)
        } else {
            self.rng.below(30)
        };
        let page = self.page.number;
        self.after(ms, Happening::HandlerEnds { page, pump, token });
    }

    fn handler_ends(&mut self, generation: u64, token: u64) {
        let fails = !self.calm && self.rng.chance(self.plan.failing_pct);
        let page = self.page.number;
        let Some(pump) = self.page.pump_of(generation) else { return };
        let Some(index) = pump.running.remove(&token) else { return };
        if fails && !pump.ended {
            pump.waiting.insert(token, index);
            trace!(self, "handler fails: {index}");
            self.after(100, Happening::TryAgain { page, pump: generation, token });
            return;
        }
        let counts = !(pump.ended && token > pump.started);
        trace!(self, "handler ends: {index}{}", if counts { "" } else { " (was given back)" });
        if self.step() {
            return;
        }
        if counts {
            self.check.finished(self.now, index);
            self.input(Input::Done(token));
        }
        self.go_on();
    }

    fn try_again(&mut self, generation: u64, token: u64) {
        let Some(pump) = self.page.pump_of(generation) else { return };
        let Some(index) = pump.waiting.remove(&token) else { return };
        if pump.ended {
            return;
        }
        pump.running.insert(token, index);
        trace!(self, "handler begins again: {index}");
        self.handler_runs(generation, token);
    }

    fn go_on(&mut self) {
        let finished = self.run_pump();
        for token in finished {
            self.input(Input::Done(token));
        }
    }

    fn forget(&mut self) {
        trace!(self, "app: clearCursor()");
        let in_hand = self.page.in_hand();
        self.check.cursor_forgotten(in_hand.into_iter(), &self.server);
        self.page.forgot_before_restore |= !self.page.is_restored;
        let clock = self.page.clock(self.now);
        self.page.client.handle_input(clock, Input::ClearCursor);
    }

    /// A new page takes the place of this one.
    fn load_page(&mut self) {
        let number = self.page.number + 1;
        self.page = Page::new(number, &self.plan);
        for connection in &mut self.connections {
            connection.wanted = false;
            connection.next = None;
        }
        self.check.page_begins(&self.plan);
        self.check.prompt(self.now);
        let wait = self.rng.below(500);
        self.after(wait, Happening::AppConnects { page: number });
    }

    fn thaw(&mut self, tells: bool) {
        trace!(self, "the page thaws");
        self.page.frozen = false;
        self.check.prompt(self.now);
        self.input(if self.online { Input::Online } else { Input::Offline });
        if tells {
            self.input(Input::Awake);
        }
        if std::mem::take(&mut self.page.missed_wake) {
            self.input(Input::Timer);
        }
        if let Some(current) = self.current() {
            self.read(current);
        }
    }

    // --- the network ---

    fn current(&self) -> Option<usize> {
        self.connections
            .iter()
            .rposition(|connection| connection.page == self.page.number && connection.wanted)
    }

    fn request(&mut self, request: Request) {
        trace!(self, "client: request {} from {:?}", request.id.0, request.last_event_id);
        self.check.request(self.now, &request.last_event_id, self.online);
        let breaks = !self.calm && self.rng.chance(self.plan.cut_pct);
        let breaks_after = breaks.then(|| {
            let bytes_max = self.rng.pick(&[400, 6_000]);
            self.rng.below(bytes_max) as usize
        });
        self.connections.push(Connection {
            page: self.page.number,
            request: request.id,
            cursor: request.last_event_id,
            wanted: true,
            leaks: self.rng.chance(30),
            next: None,
            inbox: VecDeque::new(),
            last_arrival: self.now,
            breaks_after,
            breaks_silently: self.plan.heartbeat_ms > 0 && self.rng.chance(30),
            broken: false,
        });
        let connection = self.connections.len() - 1;
        let latency = self.latency();
        self.after(latency, Happening::Ask { connection });
    }

    fn latency(&mut self) -> u64 {
        self.rng.between(self.plan.latency_ms / 2, self.plan.latency_ms * 2)
    }

    fn arrive(&mut self, connection: usize, arrival: Arrival) {
        let at = (self.now + self.latency()).max(self.connections[connection].last_arrival);
        self.connections[connection].last_arrival = at;
        self.at(at, Happening::Arrive { connection, arrival });
    }

    /// The server is asked.
    fn ask(&mut self, connection: usize) {
        if !self.connections[connection].wanted {
            return;
        }
        let mood = if self.now < self.mood_until { self.mood } else { Mood::Well };
        let mood = if self.server.up && self.online { mood } else { Mood::Refuses };
        trace!(self, "server is asked: {mood:?}");
        let answer = |status, content_type: &str, retry_after_ms| {
            Arrival::Head(Head { status, content_type: Some(content_type.to_owned()), retry_after_ms })
        };
        match mood {
            Mood::Refuses => self.arrive(connection, Arrival::Failed),
            Mood::NeverAnswers => {}
            Mood::Status(status) => {
                let floor = (status == 503).then(|| self.rng.between(0, 4_000));
                self.arrive(connection, answer(status, "text/plain", floor));
            }
            Mood::WrongType => self.arrive(connection, answer(200, "text/html", None)),
            Mood::Well | Mood::OpensAndCloses => {
                self.arrive(connection, answer(200, "text/event-stream; charset=utf-8", None));
                let cursor = self.connections[connection].cursor.clone();
                if cursor.is_empty() {
                    self.check.fresh_start(&self.server);
                }
                let greeting = self.server.greet(&cursor);
                self.send(connection, greeting.bytes);
                if mood == Mood::OpensAndCloses {
                    self.arrive(connection, Arrival::End);
                    return;
                }
                let mut replay = Vec::new();
                for index in greeting.next..self.server.head() {
                    if self.server.fates[index] == Fate::Stored {
                        replay.extend(self.server.event(index));
                    }
                }
                self.connections[connection].next = Some(self.server.head());
                self.send(connection, replay);
            }
        }
    }

    /// Bytes go out, in pieces; perhaps not all of them.
    fn send(&mut self, connection: usize, mut bytes: Vec<u8>) {
        if bytes.is_empty() || self.connections[connection].broken {
            return;
        }
        let mut breaks = false;
        if let Some(left) = &mut self.connections[connection].breaks_after {
            breaks = bytes.len() > *left;
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let end = if self.rng.chance(40) {
                self.rng.between(1, rest.len() as u64) as usize
            } else {
                rest.len()
            };
            let (piece, tail) = rest.split_at(end);
            self.arrive(connection, Arrival::Bytes(piece.to_vec()));
            rest = tail;
        }
        if breaks {
            self.break_connection(connection);
        }
    }

    fn break_connection(&mut self, connection: usize) {
        let silently = self.connections[connection].breaks_silently;
        self.connections[connection].broken = true;
        self.connections[connection].next = None;
        if !silently {
            let ends = self.rng.chance(30);
            self.arrive(connection, if ends { Arrival::End } else { Arrival::Failed });
        }
    }

    /// Hands what has arrived to the client, as far as it reads.
    fn read(&mut self, connection: usize) {
        while !self.page.frozen && !self.dead {
            let line = &mut self.connections[connection];
            if line.page != self.page.number || (!line.wanted && !line.leaks) {
                line.inbox.clear();
                return;
            }
            if line.wanted && !self.page.client.is_drained() {
                return;
            }
            let Some(arrival) = line.inbox.pop_front() else { return };
            let id = line.request;
            match arrival {
                Arrival::Head(head) => {
                    trace!(self, "head {} for {}", head.status, id.0);
                    self.input(Input::Head(id, head));
                }
                Arrival::Bytes(bytes) => {
                    trace!(self, "bytes for {}: {:?}", id.0, String::from_utf8_lossy(&bytes));
                    self.input(Input::Bytes(id, &bytes));
                }
                Arrival::End => {
                    trace!(self, "end of {}", id.0);
                    self.connections[connection].wanted = false;
                    self.input(Input::End(id));
                }
                Arrival::Failed => {
                    trace!(self, "failure of {}", id.0);
                    self.connections[connection].wanted = false;
                    let message = "simulated".to_owned();
                    let error = TransportError { code: Code::NetworkError, message, retry: true };
                    self.input(Input::Failed(id, error));
                }
            }
        }
    }

    // --- the server ---

    fn publish(&mut self) {
        let vanished = self.plan.is_ours() && !self.calm && self.rng.chance(self.plan.vanish_pct);
        if self.server.up {
            let index = self.server.publish(vanished);
            trace!(self, "published {index} as {}", self.server.id(index));
            if !vanished {
                for connection in 0..self.connections.len() {
                    if self.connections[connection].next.is_some() {
                        self.send_live(connection, index);
                    }
                }
            }
        }
        if self.now < self.plan.fault_ms + 4_000 {
            let burst = self.rng.chance(30);
            let wait = if burst { 0 } else { self.rng.between(1, self.plan.publish_ms * 2) };
            self.after(wait, Happening::Publish);
        }
    }

    fn send_live(&mut self, connection: usize, index: usize) {
        let bytes = self.server.event(index);
        if !self.plan.is_ours() || self.calm || !self.rng.chance(self.plan.bend_pct) {
            self.send(connection, bytes);
            return;
        }
        match self.rng.below(3) {
            0 => {
                trace!(self, "twice on the wire: {index}");
                self.send(connection, bytes.clone());
                self.send(connection, bytes);
            }
            1 => {
                trace!(self, "late on the wire: {index}");
                let late = self.rng.pick(&[1, 50, 2_000]);
                self.after(late, Happening::LateFrame { connection, index });
            }
            _ => {
                trace!(self, "left out on the wire: {index}");
            }
        }
    }

    // --- what goes wrong ---

    fn fault(&mut self) {
        match self.rng.below(16) {
            0 | 1 => {
                trace!(self, "FAULT: all connections are cut");
                self.cut_all();
            }
            2 => {
                trace!(self, "FAULT: connections go dead without a sign");
                if self.plan.heartbeat_ms > 0 {
                    for connection in &mut self.connections {
                        connection.broken = true;
                        connection.next = None;
                    }
                }
            }
            3 | 4 => self.crash(),
            5 => {
                self.mood = self.rng.pick(&[
                    Mood::Status(500),
                    Mood::Status(503),
                    Mood::Status(429),
                    Mood::Status(401),
                    Mood::Status(204),
                    Mood::Status(404),
                    Mood::WrongType,
                    Mood::Refuses,
                    Mood::NeverAnswers,
                    Mood::OpensAndCloses,
                    Mood::OpensAndCloses,
                ]);
                self.mood_until = self.now + self.rng.between(500, 15_000);
                trace!(self, "FAULT: {:?} until {}", self.mood, self.mood_until);
                self.cut_all();
            }
            6 => {
                trace!(self, "FAULT: offline");
                self.online = false;
                if !self.page.frozen {
                    self.input(Input::Offline);
                }
                let wait = self.rng.between(100, 10_000);
                self.after(wait, Happening::Online);
                self.cut_all();
            }
            7 | 8 => {
                trace!(self, "FAULT: the page is reloaded");
                if !self.page.frozen {
                    self.input(Input::Flush);
                    if !self.dead {
                        self.check.page_leaves(&self.plan, &self.server);
                    }
                }
                self.load_page();
            }
            9 | 10 => {
                let steps = self.rng.below(40);
                trace!(self, "FAULT: the page is killed in {steps} steps");
                self.kill_in = Some(steps);
            }
            11 => {
                trace!(self, "FAULT: the page is frozen");
                if !self.page.frozen {
                    self.input(Input::Flush);
                    self.page.frozen = true;
                    let wait = self.rng.between(100, 20_000);
                    let (page, tells) = (self.page.number, self.rng.chance(70));
                    self.after(wait, Happening::Thaw { page, tells });
                }
            }
            12 => {
                let ms = self.rng.pick(&[-3_600_000, -5_000, -300, 300, 5_000, 3_600_000]);
                trace!(self, "FAULT: the page's clock jumps by {ms}");
                self.page.jump(ms);
                self.check.clock_jumped(self.now);
            }
            13 | 14 => self.app_changes_its_mind(),
            _ => {
                if !self.page.frozen && self.rng.chance(30) {
                    self.forget();
                    self.drain();
                }
            }
        }
    }

    fn cut_all(&mut self) {
        for connection in 0..self.connections.len() {
            if self.connections[connection].next.is_some() && !self.connections[connection].broken {
                self.break_connection(connection);
            }
        }
    }

    fn crash(&mut self) {
        if !self.server.up {
            return;
        }
        self.server.up = false;
        match self.rng.below(if self.plan.is_ours() { 6 } else { 1 }) {
            0..=2 => trace!(self, "FAULT: the server crashes, its log stays"),
            3 | 4 => {
                let count = self.rng.below(6);
                trace!(self, "FAULT: the server crashes and loses its last {count} events");
                self.server.lose_tail(count);
            }
            _ => {
                trace!(self, "FAULT: the server crashes and loses its log");
                self.server.lose_everything();
            }
        }
        self.cut_all();
        let wait = self.rng.between(100, 5_000);
        self.after(wait, Happening::ServerUp);
    }

    /// stop() and connect(), or reconnect(), at any moment.
    fn app_changes_its_mind(&mut self) {
        if self.page.frozen {
            return;
        }
        let started = self.end_pump();
        self.check.prompt(self.now);
        if self.rng.chance(50) {
            trace!(self, "app: reconnect() behind {started}");
            self.page.renew_pump();
            self.tell_network();
            self.input(Input::Reconnect { started });
        } else {
            trace!(self, "app: stop() behind {started}");
            self.input(Input::Stop { started });
            let (wait, page) = (self.rng.below(2_000), self.page.number);
            self.after(wait, Happening::AppConnects { page });
        }
    }

    fn calm_down(&mut self) {
        trace!(self, "calm from here on");
        self.calm = true;
        self.mood = Mood::Well;
        self.kill_in = None;
        self.at(self.now, Happening::ServerUp);
        self.at(self.now, Happening::Online);
        if self.page.frozen {
            self.thaw(true);
        }
        for connection in &mut self.connections {
            connection.breaks_after = None;
        }
        // Where the client cannot know that the server beats, a dead connection stays unnoticed: there a person
        // would have to help.
        let dead = self.current().is_some_and(|current| self.connections[current].broken);
        if dead && self.page.client.stats().heartbeats == 0 {
            let started = self.end_pump();
            self.page.renew_pump();
            self.input(Input::Reconnect { started });
        }
    }
}
