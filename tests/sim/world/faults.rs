//! What goes wrong, until it is calm.

use holdfast_sse::client::{Input, State};

use super::app::Command;
use super::schedule::Happening;
use super::service::Mood;
use super::{World, trace};

impl World {
    pub(super) fn fault(&mut self) {
        match self.rng.below(22) {
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
                    self.check.line_is_dead = true;
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
                    self.hear_of_network();
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
                // So late a timer tells of a sleep, in which sockets die.
                if ms > 90_000 && !self.page.frozen && self.rng.chance(50) {
                    trace!(self, "the page wakes up");
                    self.hear_of_network();
                }
            }
            13 | 14 => self.app_changes_its_mind(),
            15 | 16 => {
                if !self.page.frozen {
                    trace!(self, "FAULT: nobody sees the page");
                    self.input(Input::Flush);
                    self.page.hidden = true;
                    self.check.hidden(self.now);
                    self.input(Input::Hidden);
                    let (wait, page) = (self.rng.between(100, 10_000), self.page.number);
                    self.after(wait, Happening::Seen { page });
                }
            }
            17 => {
                if !self.page.frozen && self.rng.chance(30) {
                    self.forget();
                    self.drain();
                }
            }
            18 | 19 => {
                if !self.page.frozen {
                    self.leave_page();
                }
            }
            20 => {
                if !self.page.frozen {
                    self.fall_asleep();
                }
            }
            _ => {
                if let Some(current) = self.current().filter(|at| self.connections[*at].next.is_some()) {
                    trace!(self, "FAULT: something without an end on the wire");
                    let limits = self.plan.config.limits;
                    let bytes = 3 * (limits.line_bytes_max + limits.event_bytes_max);
                    let line = self.rng.pick(&["x", "x\ndata:"]);
                    let text = format!("data: {}", line.repeat(bytes / line.len()));
                    self.check.overlong();
                    self.send(current, text.into_bytes());
                }
            }
        }
    }

    /// The page is left, and may come back out of the browser's cache.
    fn leave_page(&mut self) {
        trace!(self, "FAULT: the page is left");
        let client = &self.page.client;
        let lets_go = self.plan.may_repeat()
            && match client.state() {
                State::Open => !client.last_event_id().is_empty(),
                State::Connecting | State::Retrying => true,
                State::Idle | State::Closed => false,
            };
        self.input(Input::PutAside);
        if self.dead {
            return;
        }
        if lets_go {
            self.check.left(self.current().is_some());
        }
        self.page.aside = true;
        let (wait, page) = (self.rng.between(10, 10_000), self.page.number);
        self.after(wait, Happening::Returns { page });
    }

    pub(super) fn page_returns(&mut self) {
        trace!(self, "the page comes back");
        self.page.aside = false;
        self.input(Input::Awake);
    }

    /// For so long that sockets die of it.
    fn fall_asleep(&mut self) {
        trace!(self, "FAULT: the computer sleeps");
        self.input(Input::Flush);
        self.page.frozen = true;
        for connection in &mut self.connections {
            connection.broken = true;
            connection.next = None;
        }
        self.check.line_is_dead = true;
        let (wait, page) = (self.rng.between(100, 5_000), self.page.number);
        self.after(wait, Happening::WakesUp { page });
    }

    pub(super) fn wake_up(&mut self) {
        // Clocks stand still in a sleep on some systems, and go on in others.
        let ms = self.rng.pick(&[0, 95_000, 3_600_000]);
        trace!(self, "the computer wakes up, by the page's clock {ms} ms later");
        self.page.frozen = false;
        self.page.jump(ms);
        self.check.clock_jumped(self.now);
        let client = &self.page.client;
        let asks = client.state() == State::Open
            && client.is_drained()
            && !client.last_event_id().is_empty()
            && self.plan.may_repeat()
            && self.online;
        let dead = self.current();
        if self.page.heard_online != self.online {
            self.hear_of_network();
        }
        self.input(Input::Awake);
        if asks && !self.dead && self.current() == dead && self.page.client.state() == State::Open {
            self.check.stays_dead();
        }
        if std::mem::take(&mut self.page.missed_wake) {
            self.input(Input::Timer);
        }
        if let Some(current) = self.current() {
            self.read(current);
        }
    }

    fn crash(&mut self) {
        if !self.server.up {
            return;
        }
        self.server.up = false;
        // What a log loses shows by the cursor alone.
        let loses = self.plan.is_ours() && !self.plan.strips_cursor && self.plan.streams == 1;
        match self.rng.below(if loses { 6 } else { 1 }) {
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

    pub(super) fn calm_down(&mut self) {
        trace!(self, "calm from here on");
        self.calm = true;
        self.mood = Mood::Well;
        self.kill_in = None;
        self.at(self.now, Happening::ServerUp);
        self.at(self.now, Happening::Online);
        if self.page.frozen {
            self.thaw(true);
        }
        if self.page.hidden {
            self.page_is_seen();
        }
        if self.page.aside {
            self.page_returns();
        }
        for connection in &mut self.connections {
            connection.breaks_after = None;
        }
        // Where the client cannot know that the server beats, a dead connection stays unnoticed: there a person
        // would have to help.
        let dead = self.current().is_some_and(|current| self.connections[current].broken);
        if dead && self.page.client.stats().heartbeats == 0 {
            self.command(Command::Reconnect);
        }
    }
}
