//! The network: connections, what travels on them, and how they break.

use std::collections::VecDeque;

use holdfast_sse::client::{Code, Head, Input, Request, RequestId, TransportError};

use super::schedule::Happening;
use super::{World, trace};
use crate::pace::End;
use crate::plan::Protocol;

/// What comes out of the network at a client's end.
#[derive(Debug, Clone)]
pub(super) enum Arrival {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed,
}

pub(super) struct Connection {
    pub(super) page: u64,
    pub(super) request: RequestId,
    pub(super) cursor: String,
    /// The client still wants it.
    pub(super) wanted: bool,
    /// Its head was one that ended it.
    pub(super) answered: bool,
    /// Answers may reach the client after it gave the request up.
    pub(super) leaks: bool,
    /// Index of the next event, while the server serves it.
    pub(super) next: Option<usize>,
    pub(super) inbox: VecDeque<Arrival>,
    pub(super) last_arrival: u64,
    /// Bytes until it breaks, and whether anybody is told.
    pub(super) breaks_after: Option<usize>,
    pub(super) breaks_silently: bool,
    pub(super) broken: bool,
}

impl World {
    pub(super) fn current(&self) -> Option<usize> {
        self.connections
            .iter()
            .rposition(|connection| connection.page == self.page.number && connection.wanted)
    }

    pub(super) fn request(&mut self, request: Request) {
        trace!(self, "client: request {} from {:?}", request.id.0, request.last_event_id);
        self.check.line_is_dead = false;
        if !self.page.is_restored && !self.page.forgot_before_restore {
            self.check.asks_before_restored();
        }
        let clock = self.page.clock_max(self.now);
        self.check.request(self.now, clock, &request.last_event_id, self.online, &self.plan);
        let breaks = !self.calm && self.rng.chance(self.plan.cut_pct);
        let breaks_after = breaks.then(|| {
            let bytes_max = self.rng.pick(&[400, 6_000]);
            self.rng.below(bytes_max) as usize
        });
        if matches!(self.plan.protocol, Protocol::Foreign { overlap: 1.., .. }) {
            self.check.gives_up_beyond(&request.last_event_id, &self.plan, &self.server);
        }
        self.connections.push(Connection {
            page: self.page.number,
            request: request.id,
            cursor: request.last_event_id,
            wanted: true,
            answered: false,
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

    pub(super) fn arrive(&mut self, connection: usize, arrival: Arrival) {
        let at = (self.now + self.latency()).max(self.connections[connection].last_arrival);
        self.connections[connection].last_arrival = at;
        self.at(at, Happening::Arrive { connection, arrival });
    }

    /// Bytes go out, in pieces; perhaps not all of them.
    pub(super) fn send(&mut self, connection: usize, mut bytes: Vec<u8>) {
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
        self.check.line_is_dead |= silently && self.current() == Some(connection);
        self.connections[connection].broken = true;
        self.connections[connection].next = None;
        if !silently {
            let ends = self.rng.chance(30);
            self.arrive(connection, if ends { Arrival::End } else { Arrival::Failed });
        }
    }

    pub(super) fn cut_all(&mut self) {
        for connection in 0..self.connections.len() {
            if self.connections[connection].next.is_some() && !self.connections[connection].broken {
                self.break_connection(connection);
            }
        }
    }

    /// Hands what has arrived to the client, as far as it reads.
    pub(super) fn read(&mut self, connection: usize) {
        while !self.page.frozen && !self.dead {
            let line = &mut self.connections[connection];
            if line.page != self.page.number || (!line.wanted && !line.leaks) {
                line.inbox.clear();
                return;
            }
            // As fetch.rs: the head is taken in whatever the app does, the body while it is not busy.
            let is_head = matches!(line.inbox.front(), Some(Arrival::Head(_)));
            if line.wanted && !is_head && !self.page.client.is_drained() {
                return;
            }
            let Some(arrival) = line.inbox.pop_front() else { return };
            let (id, wanted, clock) = (line.request, line.wanted, self.page.clock_max(self.now));
            match arrival {
                Arrival::Head(head) => {
                    line.answered = head.status != 200 || head.content_type.as_deref() == Some("text/html");
                    if wanted {
                        self.check.answered(clock, &head, &self.plan);
                    }
                    trace!(self, "head {} for {}", head.status, id.0);
                    self.input(Input::Head(id, head));
                }
                Arrival::Bytes(bytes) => {
                    let unfinished = self.page.client.unfinished();
                    if wanted && unfinished >= self.plan.config.unfinished_max.max(1) {
                        self.check.read_while_busy(unfinished);
                    }
                    trace!(self, "bytes for {}: {:?}", id.0, String::from_utf8_lossy(&bytes));
                    self.input(Input::Bytes(id, &bytes));
                }
                Arrival::End => {
                    trace!(self, "end of {}", id.0);
                    self.connections[connection].wanted = false;
                    if wanted {
                        self.check.request_ended(clock, End::Failed, &self.plan);
                    }
                    self.input(Input::End(id));
                }
                Arrival::Failed => {
                    trace!(self, "failure of {}", id.0);
                    self.connections[connection].wanted = false;
                    if wanted {
                        self.check.request_ended(clock, End::Failed, &self.plan);
                    }
                    let message = "simulated".to_owned();
                    let error = TransportError { code: Code::NetworkError, message, retry: true };
                    self.input(Input::Failed(id, error));
                }
            }
        }
    }
}
