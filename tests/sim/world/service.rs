//! What the server does about a connection: answers it, in its mood, and sends what is published.

use holdfast_sse::client::Head;

use super::network::Arrival;
use super::schedule::Happening;
use super::{World, trace};
use crate::server::Fate;

/// Why the server answers with something else than a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Status(u16),
    WrongType,
    Refuses,
    NeverAnswers,
    /// 200, a greeting, the end; again and again.
    OpensAndCloses,
}

impl World {
    /// The server is asked.
    pub(super) fn ask(&mut self, connection: usize) {
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
                let is_unknown = !self.plan.is_ours() && self.server.covered(&cursor).is_none();
                if cursor.is_empty() || is_unknown {
                    self.check.fresh_start(&self.server);
                }
                if is_unknown && !cursor.is_empty() {
                    self.check.cursor_unknown();
                }
                if let (false, Some(covered)) = (self.plan.is_ours(), self.server.covered(&cursor)) {
                    self.check.passed_over(covered..self.server.oldest(), &self.plan, &self.server);
                }
                // Where the cursor is no prefix of the log, it says which events of it are had.
                let seen = if self.plan.strips_cursor { "" } else { cursor.as_str() };
                let greeting = self.server.greet(seen);
                self.send(connection, greeting.bytes);
                if mood == Mood::OpensAndCloses {
                    self.arrive(connection, Arrival::End);
                    return;
                }
                self.check.greeted(&self.server);
                let mut replay = Vec::new();
                for index in greeting.next..self.server.head() {
                    if self.server.fates[index] == Fate::Stored && !self.server.covers(seen, index) {
                        replay.extend(self.server.event(index));
                        self.check.sent(self.page.clock_max(self.now), index);
                    }
                }
                self.connections[connection].next = Some(self.server.head());
                self.send(connection, replay);
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let vanished = self.plan.is_numbered() && !self.calm && self.rng.chance(self.plan.vanish_pct);
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
        self.check.sent(self.page.clock_max(self.now), index);
        if self.calm || !self.rng.chance(self.plan.bend_pct) {
            self.send(connection, bytes);
            return;
        }
        let way = self.rng.below(3);
        if way > 0 {
            self.check.bent(index, self.plan.is_numbered());
        }
        match way {
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
}
