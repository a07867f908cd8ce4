//! What must hold of requests, and of what the client holds in memory.

use holdfast_sse::client::{Head, Usage, WhenHidden};

use super::{Checker, Invariant, TIMER_MS};
use crate::pace::End;
use crate::plan::Plan;

impl Checker {
    /// The app asks for a connection.
    pub(crate) fn app_connects(&mut self, now: u64) {
        self.pace.begins();
        self.closed = false;
        self.asked = true;
        self.thawed(now);
    }

    pub(crate) fn hidden(&mut self, now: u64) {
        self.hidden_at.get_or_insert(now);
    }

    pub(crate) fn seen(&mut self) {
        self.hidden_at = None;
    }

    /// The page is left, and what it had under way can be made good.
    pub(crate) fn left(&mut self, is_connected: bool) {
        self.aside = true;
        if is_connected {
            self.fail(Invariant::NoRequest, "a page that is left keeps its connection".to_owned());
        }
    }

    pub(crate) fn asks_before_restored(&mut self) {
        self.fail(Invariant::Cursor, "a request before the store answered".to_owned());
    }

    /// The page woke up, and did not replace its connection.
    pub(crate) fn stays_dead(&mut self) {
        self.fail(Invariant::Recovers, "a page that slept goes on with its dead connection".to_owned());
    }

    /// How long the page has been hidden counts anew: its timers did not run, or began again.
    pub(crate) fn thawed(&mut self, now: u64) {
        self.hidden_at = self.hidden_at.map(|_| now);
    }

    /// Whether what happens now is reason enough for a request.
    /// While the app is busy it may be put off.
    pub(crate) fn prompt(&mut self, clock_ms: u64, prompted: bool, is_busy: bool) {
        self.prompted = prompted;
        self.put_off |= prompted && is_busy;
        if prompted {
            self.pace.prompted(clock_ms);
        }
    }

    /// The client is told how its request goes.
    pub(crate) fn answered(&mut self, clock_ms: u64, head: &Head, plan: &Plan) {
        match (head.status, head.content_type.as_deref()) {
            (200, Some(content_type)) if content_type.starts_with("text/event-stream") => {
                self.pace.opened(clock_ms);
            }
            (401, _) => self.pace.ended(clock_ms, End::Unauthorised, None, &plan.config),
            _ => self.pace.ended(clock_ms, End::Failed, head.retry_after_ms, &plan.config),
        }
    }

    pub(crate) fn request_ended(&mut self, clock_ms: u64, end: End, plan: &Plan) {
        self.pace.ended(clock_ms, end, None, &plan.config);
    }

    /// `clock_ms`: as far as the client's clock may have come.
    pub(crate) fn request(&mut self, now: u64, clock_ms: u64, cursor: &str, online: bool, plan: &Plan) {
        if !online {
            self.fail(Invariant::NoRequest, "a request while offline".to_owned());
        }
        if self.closed {
            self.fail(Invariant::NoRequest, "a request of a stream that is closed".to_owned());
        }
        if self.aside {
            self.fail(Invariant::NoRequest, "a request of a page that was left".to_owned());
        }
        let asked = std::mem::take(&mut self.asked);
        if asked {
            // The record had to be read first.
            self.thawed(now);
        }
        let renews = plan.config.can_refresh_credentials && self.pace.is_unauthorised();
        if !asked && !renews && !plan.may_repeat() {
            self.fail(Invariant::NoRequest, "a request is repeated that must not be".to_owned());
        }
        let rests_after_ms = plan.config.hidden_after_ms + TIMER_MS;
        let rests = self.hidden_at.is_some_and(|at| at + rests_after_ms < now) && now >= self.lenient_until;
        if rests && !asked && plan.may_repeat() && plan.config.when_hidden == WhenHidden::Close {
            self.fail(Invariant::NoRequest, "a request of a page that nobody sees".to_owned());
        }
        if cursor.is_empty() && self.page.has_cursor {
            self.fail(Invariant::Cursor, "a request without the cursor that the client has".to_owned());
        }
        self.carries_forgotten(cursor, "a request carries");
        cursor.clone_into(&mut self.page.asked_from);
        let prompted = std::mem::take(&mut self.put_off) || self.prompted;
        let retry_ms = plan.server_retry_ms;
        if let Err(what) = self.pace.request(clock_ms, prompted, &plan.config, retry_ms) {
            self.fail(Invariant::NoStorm, format!("a request {what}"));
        }
    }

    pub(super) fn carries_forgotten(&mut self, cursor: &str, what: &str) {
        // What was seen before may be all that such a server has.
        let may_return = self.page.rewound || self.page.overlaps;
        if self.page.forgot && !cursor.is_empty() && cursor == self.page.forgotten && !may_return {
            self.fail(Invariant::Cursor, format!("{what} {cursor}, which the app forgot"));
        }
    }

    /// What is held in memory, after something came. `chunk_bytes` of it, where it was read from the network.
    pub(crate) fn memory(&mut self, now: Usage, before: Usage, chunk_bytes: usize, plan: &Plan) {
        let config = &plan.config;
        let limits = config.limits.line_bytes_max + config.limits.event_bytes_max;
        // Of each channel, on a stream of several.
        let channels = if plan.is_ours() { plan.streams } else { 1 };
        let batch_bytes_max = 2 * (chunk_bytes + before.parser_bytes + before.held_bytes) + 1_000;
        self.page.unfinished_max = self.page.unfinished_max.max(now.unfinished);
        for (what, held, max) in [
            ("early events", now.held_events, channels * config.ordering.held_events_max),
            ("bytes of early events", now.held_bytes, channels * config.ordering.held_bytes_max),
            ("streams in order", now.scopes, config.ordering.scopes_max),
            ("dedupe entries", now.dedupe_entries, config.dedupe.map_or(0, |dedupe| dedupe.size_max)),
            ("done ids", now.done_ids, 2 * config.done_ids_max),
            ("places of records", now.places, 2 * self.page.unfinished_max + 2),
            ("bytes of an unfinished event", now.parser_bytes, limits),
            ("bytes of a batch", now.batch_bytes, batch_bytes_max.max(before.batch_bytes)),
        ] {
            if held > max {
                self.fail(Invariant::Memory, format!("{held} {what} are held, of {max}"));
            }
        }
    }

    /// Bytes are read, though the app has enough to do.
    pub(crate) fn read_while_busy(&mut self, unfinished: usize) {
        self.fail(Invariant::Memory, format!("more is read while {unfinished} records are unfinished"));
    }
}
