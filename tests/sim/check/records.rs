//! What must hold of that which is stored, and of that which the app has finished.

use holdfast_sse::client::StoredRecord;

use super::{COMMIT_MS, Checker, Invariant};
use crate::plan::{Plan, Protocol};
use crate::server::{Fate, Server};

impl Checker {
    /// A record was written.
    pub(crate) fn stored(&mut self, record: &StoredRecord, by_this_page: bool, plan: &Plan, server: &Server) {
        if record.done.len() > plan.config.done_ids_max {
            self.fail(Invariant::Memory, format!("{} done ids are stored", record.done.len()));
        }
        for id in &record.done {
            let index = server.covered(id).and_then(|covered| covered.checked_sub(1));
            // What a damaged store gave in is not known to be wrong.
            if index.is_some_and(|index| !self.done.contains(&index)) {
                self.fail(Invariant::TrueRecords, format!("{id} is stored as processed, but it was not"));
            }
        }
        let covered = server.covered(&record.cursor);
        if !by_this_page {
            covered.into_iter().for_each(|covered| {
                self.settle(covered, server, Invariant::NothingLost, "a stored cursor passed");
            });
            return;
        }
        self.not_stored(record, plan, server);
        let Some(covered) = covered else { return };
        self.page.has_cursor |= !self.page.forgot;
        self.settle(covered, server, Invariant::NothingLost, "the stored cursor passed");
    }

    /// A record is not written again because its write failed: what it tells of waits for the next one.
    pub(crate) fn not_stored(&mut self, record: &StoredRecord, plan: &Plan, server: &Server) {
        record.cursor.clone_into(&mut self.page.stored);
        let covered = server.covered(&record.cursor);
        self.page.stale = 0;
        // Mixed streams pass each other's holes: ids are stored as they come, while there is room.
        self.page.is_full = self.page.is_mixed && record.done.len() >= plan.config.done_ids_max;
        for id in &record.done {
            let done = server.covered(id);
            self.page.stale += usize::from(done.is_none() || done <= covered);
            done.iter().for_each(|done| {
                self.page.unsaved.remove(&(done - 1));
            });
        }
        self.page.unsaved.retain(|index, _| !server.covers(&record.cursor, *index));
    }

    pub(super) fn settle(&mut self, end: usize, server: &Server, invariant: Invariant, what: &str) {
        for index in self.settled..end.min(server.head()) {
            let excused =
                index < self.baseline || server.fates[index] == Fate::Lost || self.forgotten.contains(&index);
            let shows_later = self.page.is_mixed
                && (self.page.bent.contains(&index) || server.fates[index] != Fate::Stored);
            if !excused && !self.done.contains(&index) && !self.told.contains(&index) && shows_later {
                self.passed.insert(index);
            } else if !excused && !self.done.contains(&index) && !self.told.contains(&index) {
                let what = format!(
                    "{what} event {index} ({}, {:?}), which the app neither finished nor was told of",
                    server.id(index),
                    server.fates[index]
                );
                self.fail(invariant, what);
                return;
            }
        }
        self.settled = self.settled.max(end);
    }

    /// What the server has lost has no place that a cursor could name; and only so much is stored beyond the cursor.
    pub(super) fn is_storable(&self, index: usize, plan: &Plan, server: &Server) -> bool {
        let first = self.page.first_started.values().min().copied().unwrap_or(0);
        let covered = server.covered(&self.page.stored).unwrap_or(first);
        let places = plan.config.done_ids_max.saturating_sub(self.page.stale);
        server.fates[index] != Fate::Lost && index < covered + places && !self.page.is_full
    }

    /// Whether the cursor may be taken back: by a replay that begins too early, or a late event that was passed by others
    /// before it showed that it was missing.
    pub(super) fn may_go_back(&self, plan: &Plan) -> bool {
        let shows_at_once = plan.is_numbered() && !plan.is_mixed();
        self.page.overlaps || !shows_at_once && !self.page.bent.is_empty()
    }

    /// A task of the page is over: what must be stored by now?
    pub(crate) fn task_ends(&mut self, now: u64, plan: &Plan, server: &Server) {
        if now < self.lenient_until || self.may_go_back(plan) {
            return;
        }
        if plan.store_ms == 0 {
            let stored = self.page.stored.clone();
            self.carries_forgotten(&stored, "the store keeps");
        }
        let allowed = plan.store_ms + if plan.finishes_at_once() { 0 } else { COMMIT_MS };
        let late = self
            .page
            .unsaved
            .iter()
            .find(|(index, since)| **since + allowed < now && self.is_storable(**index, plan, server));
        if let Some((index, since)) = late {
            let what = format!("event {index} was finished at {since} and is not stored at {now}");
            self.fail(Invariant::Stored, what);
        }
    }

    /// The page leaves, and has flushed: a synchronous store has everything now.
    pub(crate) fn page_leaves(&mut self, plan: &Plan, server: &Server) {
        if plan.store_ms > 0 || self.may_go_back(plan) {
            return;
        }
        if let Some(index) = self.page.unsaved.keys().find(|index| self.is_storable(**index, plan, server)) {
            let what = format!("the page leaves, and event {index} is finished but not stored");
            self.fail(Invariant::Stored, what);
        }
    }

    /// Whether everything that can be had was delivered.
    pub(crate) fn has_reached_head(&self, server: &Server) -> bool {
        (self.settled..self.end(server)).all(|index| {
            index < self.baseline
                || server.fates[index] == Fate::Lost
                || self.done.contains(&index)
                || self.told.contains(&index)
                || self.forgotten.contains(&index)
        })
    }

    /// Where the server does not hear the cursor, what is lost shows only with the next event: there the stored cursor
    /// alone must not pass it.
    pub(super) fn end(&self, server: &Server) -> usize {
        if self.page.stripped { self.settled } else { server.head() }
    }

    pub(crate) fn run_ends(&mut self, server: &Server) {
        self.settle(self.end(server), server, Invariant::Recovers, "at the end the app still lacks");
        let untold = self.passed.iter().find(|index| {
            let last = self.page.last_started.get(&server.stream_of(**index));
            let is_settled = self.done.contains(index) || self.told.contains(index);
            !is_settled && !self.forgotten.contains(index) && last.is_some_and(|last| last > index)
        });
        if let Some(index) = untold {
            let what = format!("event {index} is missing, and the app was not told");
            self.fail(Invariant::NothingLost, what);
        }
    }

    /// The handler of an event is through.
    pub(crate) fn finished(&mut self, now: u64, index: usize) {
        self.done.insert(index);
        self.page.finished.insert(index);
        if !self.forgotten.contains(&index) {
            self.page.unsaved.entry(index).or_insert(now);
        }
    }

    /// These were begun, are not finished, and come again all the same: and with them what was told missing behind them.
    pub(crate) fn given_back(&mut self, indices: impl Iterator<Item = usize>) {
        let indices: Vec<_> = indices.collect();
        let Some(first) = indices.iter().min() else { return };
        // Streams that alternate come in another order than they were published in.
        let first = if self.page.alternates { &0 } else { first };
        let told = self.page.told.split_off(first);
        self.page.given_back.extend(told.into_iter().chain(indices));
    }

    /// Events are given back. Of those that were finished among them only so many behind the cursor are remembered.
    pub(crate) fn gives_up_beyond(&mut self, cursor: &str, plan: &Plan, server: &Server) {
        let first = self.page.first_started.values().min().copied().unwrap_or(0);
        // A replay that begins too early takes the cursor back, and what is remembered is further off.
        let overlap = match plan.protocol {
            Protocol::Foreign { overlap, .. } => overlap as usize,
            Protocol::Ours => 0,
        };
        let places = plan.config.done_ids_max.saturating_sub(overlap);
        let remembered = server.covered(cursor).unwrap_or(first) + places;
        self.page.unremembered.extend(self.page.started.range(remembered..));
        self.page.given_back.extend(self.page.started.range(remembered..));
        self.page.unsaved.split_off(&remembered);
    }
}
