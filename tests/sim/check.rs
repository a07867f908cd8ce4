//! What must hold at every step of every run: the promise in README.md, as invariants over what was published, what
//! the app was given and what was stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_sse::client::{Code, Notice, StoredRecord};

use super::plan::{Plan, Protocol};
use super::server::{Fate, Server};

/// Requests that a client may make within a minute by itself.
const REQUESTS_A_MINUTE_MAX: usize = 90;
/// How long the result of an asynchronous handler may wait to be stored.
const COMMIT_MS: u64 = 250 + TIMER_MS;
/// How late a timer of the page may fire.
const TIMER_MS: u64 = 5;

#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Broken invariants; the first one ends the run.
    pub(crate) broken: Option<String>,
    /// Events before this one were published while nobody had a cursor.
    baseline: usize,
    /// Finished by the app, on whichever page.
    done: BTreeSet<usize>,
    /// The app was told that they are missing.
    told: BTreeSet<usize>,
    /// In the app's hands when it forgot the cursor.
    forgotten: BTreeSet<usize>,
    /// The page's clock jumped: what it times may be late until then.
    lenient_until: u64,
    /// All before this one is settled: done, told, or nothing that could be delivered.
    settled: usize,
    page: Page,
    requests: VecDeque<u64>,
    /// Requests that something outside the client gave reason for.
    prompts: VecDeque<u64>,
    pub(crate) deliveries: u64,
}

/// What concerns one page only.
#[derive(Debug, Default)]
struct Page {
    restored: StoredRecord,
    started: BTreeSet<usize>,
    last_started: Option<usize>,
    /// Reported missing on this page.
    told: BTreeSet<usize>,
    /// Given back while they were under way: may come again.
    given_back: BTreeSet<usize>,
    /// Finished, with the time, and not stored yet.
    unsaved: BTreeMap<usize, u64>,
    /// The server did not know the cursor's epoch, and may have begun with what was seen on an earlier page.
    rewound: bool,
    overlaps: bool,
    /// The app forgot the cursor on this page.
    forgot: bool,
    has_cursor: bool,
}

impl Checker {
    fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(crate) fn page_begins(&mut self, plan: &Plan) {
        self.page = Page::default();
        // A replay that begins too early cannot be told from new events by a page that has not seen them.
        self.page.overlaps = matches!(plan.protocol, Protocol::Foreign { overlap: 1.., .. });
    }

    pub(crate) fn restored(&mut self, record: Option<&StoredRecord>) {
        self.page.restored = record.cloned().unwrap_or_default();
        self.page.has_cursor |= !self.page.restored.cursor.is_empty();
    }

    /// Something outside gives reason for another request.
    pub(crate) fn prompt(&mut self, now: u64) {
        self.prompts.push_back(now);
    }

    /// The server is asked for what comes from now on: nobody promised what was published before.
    pub(crate) fn fresh_start(&mut self, server: &Server) {
        self.baseline = server.head();
    }

    pub(crate) fn request(&mut self, now: u64, cursor: &str, online: bool) {
        if !online {
            self.fail("a request while offline".to_owned());
        }
        if cursor.is_empty() && self.page.has_cursor {
            self.fail("a request without the cursor that the client has".to_owned());
        }
        self.requests.push_back(now);
        for times in [&mut self.requests, &mut self.prompts] {
            while times.front().is_some_and(|at| at + 60_000 < now) {
                times.pop_front();
            }
        }
        if self.requests.len() > REQUESTS_A_MINUTE_MAX + 2 * self.prompts.len() {
            self.fail(format!("{} requests within a minute", self.requests.len()));
        }
    }

    /// An event is handed to the app.
    pub(crate) fn started(
        &mut self,
        index: usize,
        name: &str,
        id: Option<&str>,
        data: &str,
        server: &Server,
    ) {
        self.deliveries += 1;
        self.page.has_cursor |= !self.forgotten.contains(&index);
        if index >= server.head() || data != Server::data(index) || name != Server::name(index) {
            self.fail(format!("event {index} was not published like this: {name:?} {id:?} {data:?}"));
            return;
        }
        if id != Some(&server.id(index)) {
            self.fail(format!("event {index} came with id {id:?}"));
        }
        let comes_again = self.page.given_back.remove(&index);
        // After clearCursor() a server may begin with what was seen before it.
        let is_new = self.page.forgot && (self.page.rewound || self.page.overlaps);
        if !self.page.started.insert(index) && !comes_again && !is_new {
            self.fail(format!("event {index} came twice within one connector"));
        }
        // A server that does not know the epoch begins with its oldest event, which this page may never have seen.
        let in_order = !comes_again && !self.page.overlaps && !self.page.rewound;
        if let Some(last) = self.page.last_started.filter(|last| *last > index && in_order) {
            self.fail(format!("event {index} came after event {last}"));
        }
        self.page.last_started = self.page.last_started.max(Some(index));
        if self.page.told.contains(&index) && server.fates[index] != Fate::Lost {
            self.fail(format!("event {index} came after the app was told that it is missing"));
        }
        let restored = &self.page.restored;
        let stored = server.covered(&restored.cursor).is_some_and(|covered| index < covered)
            || id.is_some_and(|id| restored.done.iter().any(|done| done == id));
        if stored && self.done.contains(&index) && !self.page.rewound && !self.page.overlaps {
            self.fail(format!("event {index} came again, though it is stored as processed"));
        }
    }

    /// The handler of an event is through.
    pub(crate) fn finished(&mut self, now: u64, index: usize) {
        self.done.insert(index);
        if !self.forgotten.contains(&index) {
            self.page.unsaved.entry(index).or_insert(now);
        }
    }

    /// These were begun, are not finished, and come again all the same.
    pub(crate) fn given_back(&mut self, indices: impl Iterator<Item = usize>) {
        self.page.given_back.extend(indices);
    }

    /// The very first events were given back, and a server that is not ours did not say what they came after.
    pub(crate) fn begins_without_place(&mut self) {
        self.page.has_cursor = false;
    }

    pub(crate) fn cursor_forgotten(&mut self, in_hand: impl Iterator<Item = usize>, server: &Server) {
        // Nobody asks for what was published before any more.
        self.baseline = server.head();
        self.page.has_cursor = false;
        self.page.forgot = true;
        if self.page.overlaps {
            // The stream's past is forgotten: what a replay brings of it is new.
            self.page.started.clear();
        }
        self.page.restored = StoredRecord::default();
        self.page.unsaved.clear();
        self.forgotten.extend(in_hand);
    }

    pub(crate) fn told(&mut self, notice: &Notice, server: &Server) {
        match notice {
            Notice::Gap { first_missing, last_missing, count, .. } => {
                let (Some(first), Some(end)) = (server.covered(first_missing), server.covered(last_missing))
                else {
                    self.fail(format!("a gap of ids that never were: {notice:?}"));
                    return;
                };
                if *count != (end + 1 - first) as u64 {
                    self.fail(format!("a gap with a wrong count: {notice:?}"));
                }
                for index in first - 1..end {
                    // Without a cursor a hole cannot be fetched.
                    if server.fates.get(index) == Some(&Fate::Stored) && !self.page.forgot {
                        self.fail(format!("event {index} is reported missing, but the server has it"));
                    }
                    if self.page.started.contains(&index) {
                        self.fail(format!("event {index} is reported missing, but it was delivered"));
                    }
                    self.told.insert(index);
                    self.page.told.insert(index);
                }
            }
            Notice::CannotResume { requested_id, oldest_available, newest_available, missing, .. } => {
                // Where the epoch is known, the server goes on from its end at the earliest.
                self.page.rewound |= !requested_id.as_deref().is_some_and(|id| server.knows(id));
                let from = requested_id.as_deref().and_then(|id| server.covered(id)).unwrap_or(0);
                let oldest = oldest_available.as_deref().and_then(|id| server.covered(id));
                let newest = newest_available.as_deref().and_then(|id| server.covered(id));
                let Some(to) = oldest.map(|covered| covered - 1).or(newest) else {
                    self.fail(format!("cannot_resume without bounds: {notice:?}"));
                    return;
                };
                let mut gone = 0;
                for index in from..to {
                    if matches!(server.fates[index], Fate::Stored) {
                        self.fail(format!("event {index} is reported expired, but the server has it"));
                    }
                    gone += u64::from(server.fates[index] != Fate::Lost);
                    self.told.insert(index);
                }
                if missing.is_some_and(|count| count < gone) {
                    self.fail(format!("too few are reported missing: {missing:?} of {gone}"));
                }
            }
            Notice::Error { code: Code::LineTooLong | Code::EventTooLarge | Code::InvalidOption, .. } => {
                self.fail(format!("an error without cause: {notice:?}"));
            }
            _ => {}
        }
    }

    pub(crate) fn clock_jumped(&mut self, now: u64) {
        self.lenient_until = now + 2_000;
    }

    /// A record was written.
    pub(crate) fn stored(&mut self, record: &StoredRecord, plan: &Plan, server: &Server) {
        if record.done.len() > plan.config.done_ids_max {
            self.fail(format!("{} done ids are stored", record.done.len()));
        }
        for id in &record.done {
            let index = server.covered(id).and_then(|covered| covered.checked_sub(1));
            if !index.is_some_and(|index| self.done.contains(&index)) {
                self.fail(format!("{id} is stored as processed, but it was not"));
            }
            if let Some(index) = index {
                self.page.unsaved.remove(&index);
            }
        }
        let Some(covered) = server.covered(&record.cursor) else { return };
        self.page.has_cursor |= !self.page.forgot;
        self.settle(covered, server, "the stored cursor passed");
        self.page.unsaved = self.page.unsaved.split_off(&covered);
    }

    fn settle(&mut self, end: usize, server: &Server, what: &str) {
        for index in self.settled..end.min(server.head()) {
            let excused =
                index < self.baseline || server.fates[index] == Fate::Lost || self.forgotten.contains(&index);
            if !excused && !self.done.contains(&index) && !self.told.contains(&index) {
                self.fail(format!(
                    "{what} event {index} ({}, {:?}), which the app neither finished nor was told of",
                    server.id(index),
                    server.fates[index]
                ));
                return;
            }
        }
        self.settled = self.settled.max(end);
    }

    /// A task of the page is over: what must be stored by now?
    pub(crate) fn task_ends(&mut self, now: u64, plan: &Plan, server: &Server) {
        // A replay that begins too early may take the cursor back.
        if plan.store_fails_pct > 0 || now < self.lenient_until || self.page.overlaps {
            return;
        }
        let allowed = plan.store_ms + if plan.concurrency == 0 { 0 } else { COMMIT_MS };
        // What the server has lost has no place that a cursor could name.
        let late = self
            .page
            .unsaved
            .iter()
            .find(|(index, since)| **since + allowed < now && server.fates[**index] != Fate::Lost);
        if let Some((index, since)) = late {
            let what = format!("event {index} was finished at {since} and is not stored at {now}");
            self.fail(what);
        }
    }

    /// The page leaves, and has flushed: a synchronous store has everything now.
    pub(crate) fn page_leaves(&mut self, plan: &Plan, server: &Server) {
        if plan.store_fails_pct > 0 || plan.store_ms > 0 || self.page.overlaps {
            return;
        }
        if let Some(index) = self.page.unsaved.keys().find(|index| server.fates[**index] != Fate::Lost) {
            let what = format!("the page leaves, and event {index} is finished but not stored");
            self.fail(what);
        }
    }

    /// Whether everything that can be had was delivered.
    pub(crate) fn has_reached_head(&self, server: &Server) -> bool {
        (self.settled..server.head()).all(|index| {
            index < self.baseline
                || server.fates[index] == Fate::Lost
                || self.done.contains(&index)
                || self.told.contains(&index)
                || self.forgotten.contains(&index)
        })
    }

    pub(crate) fn run_ends(&mut self, server: &Server) {
        self.settle(server.head(), server, "at the end the app still lacks");
    }
}
