//! What must hold at every step of every run: the promise in README.md, as invariants over what was published, what
//! the app was given and what was stored.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_sse::client::{Code, Head, Notice, StoredRecord, Usage, WhenHidden};

use super::pace::{End, Pace};
use super::plan::{Plan, Protocol};
use super::server::{Fate, Server};

/// How long the result of an asynchronous handler may wait to be stored.
const COMMIT_MS: u64 = 250 + TIMER_MS;
/// So few done ids are soon used up.
const SMALL_WINDOW: usize = 100;
/// How late a timer of the page may fire.
const TIMER_MS: u64 = 5;

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// Every event is given to the app, or it is told that there is none.
    NothingLost,
    NothingTwice,
    InOrder,
    /// The app gets what was published.
    Unchanged,
    /// What the app is told to be missing is, and no more.
    TrueReports,
    /// What is stored as processed is.
    TrueRecords,
    /// What is finished is stored in time.
    Stored,
    /// Requests carry the cursor that the client has, and none that it forgot.
    Cursor,
    /// None but those that the retry policy allows.
    NoStorm,
    /// No request while offline, or behind a stop.
    NoRequest,
    Memory,
    /// Once faults end the stream is open, and at the head.
    Recovers,
}

#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Broken invariants; the first one ends the run.
    pub(crate) broken: Option<Broken>,
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
    pace: Pace,
    /// What happens now is reason enough for a request.
    prompted: bool,
    /// It was while the app was busy.
    put_off: bool,
    /// The stream was stopped, or closed itself: the app is to ask for the next request.
    pub(crate) closed: bool,
    /// The app asked for a request that was not made yet.
    asked: bool,
    /// When the page was hidden, or what else makes it count anew.
    hidden_at: Option<u64>,
    pub(crate) deliveries: u64,
    /// Events on the wire.
    sent: u64,
    /// Passed by the cursor before it showed that they are missing.
    passed: BTreeSet<usize>,
    /// The connection broke without a sign, or the clock says that its time is over: what it should bring does not come.
    pub(crate) line_is_dead: bool,
}

/// What concerns one page only.
#[derive(Debug, Default)]
struct Page {
    restored: StoredRecord,
    started: BTreeSet<usize>,
    last_started: BTreeMap<usize, usize>,
    /// Reported missing on this page.
    told: BTreeSet<usize>,
    /// Given back while they were under way: may come again.
    given_back: BTreeSet<usize>,
    /// Finished, with the time, and not stored yet.
    unsaved: BTreeMap<usize, u64>,
    /// The server did not know the cursor's epoch, and may have begun with what was seen on an earlier page.
    rewound: bool,
    overlaps: bool,
    /// The client can fetch what is missing.
    repeats: bool,
    /// No request reaches the server with its cursor.
    stripped: bool,
    /// The app forgot the cursor on this page.
    forgot: bool,
    /// The cursor that it forgot last.
    forgotten: String,
    /// The cursor of the last request.
    asked_from: String,
    /// The cursor that was stored last.
    stored: String,
    /// Done ids stored with it that no replay brings any more.
    stale: usize,
    /// The most records that were unfinished at once.
    unfinished_max: usize,
    has_cursor: bool,
    /// Events from this one on come as they are published.
    live_from: usize,
    /// The first event begun, in each stream.
    first_started: BTreeMap<usize, usize>,
    /// How much had been sent before an event was first, and when that was.
    first_sent: BTreeMap<usize, (u64, u64)>,
    /// Sent late, or not at all.
    bent: BTreeSet<usize>,
}

impl Checker {
    pub(crate) fn fail(&mut self, invariant: Invariant, what: String) {
        self.broken.get_or_insert(Broken { invariant, what });
    }

    pub(crate) fn page_begins(&mut self, plan: &Plan) {
        // On another page they show no more.
        self.forgotten.extend(std::mem::take(&mut self.passed));
        if plan.streams > 1 {
            self.forgotten.extend(&self.page.bent);
        }
        self.page = Page::default();
        self.pace.begins();
        self.closed = true;
        self.put_off = false;
        self.hidden_at = None;
        self.page.repeats = plan.may_repeat();
        // A replay that begins too early cannot be told from new events by a page that has not seen them.
        self.page.stripped = plan.strips_cursor;
        self.page.overlaps = matches!(plan.protocol, Protocol::Foreign { overlap: 1.., .. });
    }

    pub(crate) fn restored(&mut self, record: Option<&StoredRecord>) {
        self.page.restored = record.cloned().unwrap_or_default();
        self.page.has_cursor |= !self.page.restored.cursor.is_empty();
    }

    /// The server answers with a stream, and a replay up to here.
    pub(crate) fn greeted(&mut self, server: &Server) {
        self.page.live_from = server.head();
    }

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

    /// The server is asked for what comes from now on: nobody promised what was published before.
    pub(crate) fn fresh_start(&mut self, server: &Server) {
        self.baseline = server.head();
        self.page.first_started.clear();
        // No cursor comes to stand behind what was before.
        self.page.unsaved.clear();
        // The place where it begins may be the old one.
        self.page.forgotten.clear();
    }

    /// `clock_ms`: as far as the client's clock may have come.
    pub(crate) fn request(&mut self, now: u64, clock_ms: u64, cursor: &str, online: bool, plan: &Plan) {
        if !online {
            self.fail(Invariant::NoRequest, "a request while offline".to_owned());
        }
        if self.closed {
            self.fail(Invariant::NoRequest, "a request of a stream that is closed".to_owned());
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

    fn carries_forgotten(&mut self, cursor: &str, what: &str) {
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
        let batch_bytes_max = 2 * (chunk_bytes + before.parser_bytes + before.held_bytes) + 1_000;
        self.page.unfinished_max = self.page.unfinished_max.max(now.unfinished);
        for (what, held, max) in [
            ("early events", now.held_events, config.ordering.held_events_max),
            ("bytes of early events", now.held_bytes, config.ordering.held_bytes_max),
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

    /// An event is handed to the app.
    #[allow(clippy::too_many_arguments, reason = "an event as it comes")]
    pub(crate) fn started(
        &mut self,
        clock_ms: u64,
        index: usize,
        name: &str,
        id: Option<&str>,
        data: &str,
        plan: &Plan,
        server: &Server,
    ) {
        self.deliveries += 1;
        // What the client held back when the cursor was forgotten does not bring it back.
        let held = self.page.forgot && server.is_envelopes();
        self.page.has_cursor |= !self.forgotten.contains(&index) && !held;
        if index >= server.head() || data != server.data(index) || name != Server::name(index) {
            self.fail(
                Invariant::Unchanged,
                format!("event {index} was not published like this: {name:?} {id:?} {data:?}"),
            );
            return;
        }
        if id != Some(&server.id(index)) {
            self.fail(Invariant::Unchanged, format!("event {index} came with id {id:?}"));
        }
        let stream = server.stream_of(index);
        if !self.page.first_started.contains_key(&stream) && server.is_envelopes() {
            // What is missing before the first number that a page sees does not show; the replay has the rest.
            let unseen = (0..index).filter(|before| server.stream_of(*before) == stream).filter(|before| {
                matches!(server.fates[*before], Fate::Vanished | Fate::Expired)
                    || *before >= self.page.live_from
                    || server.streams() > 1 && self.page.bent.contains(before)
            });
            self.forgotten.extend(unseen);
        }
        self.page.first_started.entry(stream).or_insert(index);
        let comes_again = self.page.given_back.remove(&index);
        // It is to be finished anew.
        self.page.unsaved.remove(&index);
        // After clearCursor() a server may begin with what was seen before it.
        let is_new = self.page.forgot && (self.page.rewound || self.page.overlaps || server.is_envelopes());
        let is_forgotten = self.is_out_of_window(clock_ms, index, plan);
        let is_repeat = !self.page.started.insert(index);
        if is_repeat && !comes_again && !is_new && !is_forgotten {
            self.fail(Invariant::NothingTwice, format!("event {index} came twice within one connector"));
        }
        // A server that does not know the epoch begins with its oldest event, which this page may never have seen.
        let in_order = !comes_again && !self.page.overlaps && !self.page.rewound && !is_forgotten;
        let in_order = in_order && !(is_repeat && is_new);
        // Where nothing shows what is missing, what comes late may be given to the app late.
        let in_order = in_order && (plan.is_numbered() || !self.page.bent.contains(&index));
        let last = self.page.last_started.get(&stream).copied();
        if let Some(last) = last.filter(|last| *last > index && in_order) {
            self.fail(Invariant::InOrder, format!("event {index} came after event {last}"));
        }
        self.page.last_started.insert(stream, last.unwrap_or(0).max(index));
        if self.page.told.contains(&index) && server.fates[index] != Fate::Lost {
            self.fail(
                Invariant::TrueReports,
                format!("event {index} came after the app was told that it is missing"),
            );
        }
        let restored = &self.page.restored;
        // Done ids are of so many events behind the cursor.
        let covered = server.covered(&restored.cursor);
        let is_near = covered.is_none_or(|covered| index <= covered + plan.config.done_ids_max);
        let stored = covered.is_some_and(|covered| index < covered)
            || is_near && id.is_some_and(|id| restored.done.iter().any(|done| done == id));
        if stored && self.done.contains(&index) && !self.page.rewound && !self.page.overlaps {
            self.fail(
                Invariant::NothingTwice,
                format!("event {index} came again, though it is stored as processed"),
            );
        }
    }

    /// Whether so much came, or so much time passed, since this event that it is not known any more.
    fn is_out_of_window(&self, clock_ms: u64, index: usize, plan: &Plan) -> bool {
        let (Some((sent, at)), Some(dedupe)) = (self.page.first_sent.get(&index), plan.config.dedupe) else {
            return false;
        };
        let is_pushed_out = self.sent - sent >= dedupe.size_max as u64;
        is_pushed_out || dedupe.ttl_ms > 0 && clock_ms - at >= dedupe.ttl_ms
    }

    /// An event goes out on the wire.
    pub(crate) fn sent(&mut self, clock_ms: u64, index: usize) {
        self.page.first_sent.entry(index).or_insert((self.sent, clock_ms));
        self.sent += 1;
    }

    /// An event does not come when it should.
    pub(crate) fn bent(&mut self, index: usize, shows: bool) {
        self.page.bent.insert(index);
        if !shows {
            self.forgotten.insert(index);
        }
    }

    /// The server has no more of these, and does not say so. By numbers it shows, but for what is before the first.
    pub(crate) fn passed_over(&mut self, events: std::ops::Range<usize>, plan: &Plan, server: &Server) {
        let is_known = |index: &usize| self.page.first_started.contains_key(&server.stream_of(*index));
        self.forgotten.extend(events.filter(|index| !plan.is_numbered() || !is_known(index)));
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

    /// Events are given back. Of those that were finished among them only so many are remembered, and in a small window ids
    /// that no replay brings any more may take the places.
    pub(crate) fn gives_up_beyond(&mut self, cursor: &str, plan: &Plan, server: &Server) {
        let first = self.page.first_started.values().min().copied().unwrap_or(0);
        let places = plan.config.done_ids_max;
        let remembered =
            server.covered(cursor).unwrap_or(first) + if places < SMALL_WINDOW { 0 } else { places };
        self.page.given_back.extend(self.page.started.range(remembered..));
        self.page.unsaved.split_off(&remembered);
    }

    /// The very first events were given back, and a server that is not ours did not say what they came after. One of ours
    /// did, but where that stands behind what the app had in hand when it forgot the cursor.
    pub(crate) fn begins_without_place(&mut self, is_ours: bool) {
        if !is_ours || self.page.forgot {
            self.page.has_cursor = false;
        }
    }

    /// The server does not know the cursor, and says nothing of it: what is missing cannot be fetched.
    pub(crate) fn cursor_unknown(&mut self) {
        self.page.repeats = false;
    }

    pub(crate) fn cursor_forgotten(
        &mut self,
        cursor: &str,
        in_hand: impl Iterator<Item = usize>,
        server: &Server,
    ) {
        cursor.clone_into(&mut self.page.forgotten);
        // Nobody asks for what was published before any more.
        self.baseline = server.head();
        self.page.has_cursor = false;
        self.page.forgot = true;
        // What was finished out of turn and given back is no longer known to be so.
        if let Some(covered) = server.covered(&self.page.asked_from) {
            self.page.given_back.extend(self.page.started.range(covered..));
        }
        if self.page.overlaps {
            // The stream's past is forgotten: what a replay brings of it is new.
            self.page.started.clear();
        }
        self.page.restored = StoredRecord::default();
        self.page.unsaved.clear();
        self.forgotten.extend(in_hand);
    }

    fn missing(&mut self, index: usize, server: &Server) {
        // Without a cursor a hole cannot be fetched, nor one that another stream's events have moved it past; and several
        // streams share a window, which may be full before a replay comes as far.
        if server.streams() == 1
            && server.fates.get(index) == Some(&Fate::Stored)
            && !self.page.forgot
            && !self.page.stripped
            && self.page.repeats
            && !self.line_is_dead
        {
            self.fail(
                Invariant::TrueReports,
                format!("event {index} is reported missing, but the server has it"),
            );
        }
        // What is finished and comes again with what was given back lies within the hole, where nothing comes again.
        let is_gone = server.fates.get(index) != Some(&Fate::Stored);
        let no_replay = self.page.stripped || !self.page.repeats || is_gone;
        let may_be_told = self.page.given_back.contains(&index) || no_replay && self.done.contains(&index);
        if self.page.started.contains(&index) && !may_be_told {
            self.fail(
                Invariant::TrueReports,
                format!("event {index} is reported missing, but it was delivered"),
            );
        }
        self.told.insert(index);
        self.page.told.insert(index);
    }

    pub(crate) fn told(&mut self, notice: &Notice, plan: &Plan, server: &Server) {
        match notice {
            Notice::Close { will_reconnect: false, .. } => self.closed = true,
            Notice::OutOfOrder { event_id: Some(id), dropped: true, .. } => {
                let Some(index) = server.covered(id).and_then(|covered| covered.checked_sub(1)) else {
                    self.fail(Invariant::TrueReports, format!("an event that never was is late: {notice:?}"));
                    return;
                };
                // Where the order of a stream begins a page learns from the first event that it sees.
                let first = self.page.first_started.get(&server.stream_of(index));
                let is_first = first.is_none_or(|first| index < *first);
                let may_be_late = !plan.is_numbered() && self.page.bent.contains(&index);
                if !is_first
                    && !may_be_late
                    && !self.page.told.contains(&index)
                    && !self.page.started.contains(&index)
                {
                    self.fail(
                        Invariant::NothingLost,
                        format!("event {index} is dropped as late, and was never had: {notice:?}"),
                    );
                }
                self.told.insert(index);
            }
            Notice::Gap { first_missing, last_missing, count, stream_id } => {
                let stream = stream_id.as_deref().unwrap_or("s0");
                let end = |missing: &str| match server.is_envelopes() {
                    true => server.index_at(missing, stream).map(|index| index + 1),
                    false => server.covered(missing),
                };
                let (Some(first), Some(end)) = (end(first_missing), end(last_missing)) else {
                    self.fail(Invariant::TrueReports, format!("a gap of ids that never were: {notice:?}"));
                    return;
                };
                if *count != ((end - first) / server.streams() + 1) as u64 {
                    self.fail(Invariant::TrueReports, format!("a gap with a wrong count: {notice:?}"));
                }
                for index in (first - 1..end).step_by(server.streams()) {
                    self.missing(index, server);
                }
            }
            Notice::CannotResume { requested_id, oldest_available, newest_available, missing, .. } => {
                // Where the epoch is known, the server goes on from its end at the earliest.
                self.page.rewound |= !requested_id.as_deref().is_some_and(|id| server.knows(id));
                let from = requested_id.as_deref().and_then(|id| server.covered(id)).unwrap_or(0);
                let oldest = oldest_available.as_deref().and_then(|id| server.covered(id));
                let newest = newest_available.as_deref().and_then(|id| server.covered(id));
                let Some(to) = oldest.map(|covered| covered - 1).or(newest) else {
                    self.fail(Invariant::TrueReports, format!("cannot_resume without bounds: {notice:?}"));
                    return;
                };
                let mut gone = 0;
                for index in from..to {
                    if matches!(server.fates[index], Fate::Stored) {
                        self.fail(
                            Invariant::TrueReports,
                            format!("event {index} is reported expired, but the server has it"),
                        );
                    }
                    gone += u64::from(server.fates[index] != Fate::Lost);
                    self.told.insert(index);
                }
                if missing.is_some_and(|count| count < gone) {
                    self.fail(
                        Invariant::TrueReports,
                        format!("too few are reported missing: {missing:?} of {gone}"),
                    );
                }
            }
            Notice::Error { code: Code::LineTooLong | Code::EventTooLarge | Code::InvalidOption, .. } => {
                self.fail(Invariant::TrueReports, format!("an error without cause: {notice:?}"));
            }
            _ => {}
        }
    }

    pub(crate) fn clock_jumped(&mut self, now: u64) {
        self.thawed(now);
        self.lenient_until = now + 2_000;
        self.line_is_dead = true;
    }

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
        self.not_stored(record, server);
        let Some(covered) = covered else { return };
        self.page.has_cursor |= !self.page.forgot;
        self.settle(covered, server, Invariant::NothingLost, "the stored cursor passed");
    }

    /// A record is not written again because its write failed: what it tells of waits for the next one.
    pub(crate) fn not_stored(&mut self, record: &StoredRecord, server: &Server) {
        record.cursor.clone_into(&mut self.page.stored);
        let covered = server.covered(&record.cursor);
        self.page.stale = 0;
        for id in &record.done {
            let done = server.covered(id);
            self.page.stale += usize::from(done.is_none() || done <= covered);
            done.iter().for_each(|done| {
                self.page.unsaved.remove(&(done - 1));
            });
        }
        if let Some(covered) = covered {
            self.page.unsaved = self.page.unsaved.split_off(&covered);
        }
    }

    fn settle(&mut self, end: usize, server: &Server, invariant: Invariant, what: &str) {
        for index in self.settled..end.min(server.head()) {
            let excused =
                index < self.baseline || server.fates[index] == Fate::Lost || self.forgotten.contains(&index);
            let shows_later = server.streams() > 1
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
    fn is_storable(&self, index: usize, plan: &Plan, server: &Server) -> bool {
        let first = self.page.first_started.values().min().copied().unwrap_or(0);
        let covered = server.covered(&self.page.stored).unwrap_or(first);
        let places = plan.config.done_ids_max.saturating_sub(self.page.stale);
        server.fates[index] != Fate::Lost && index < covered + places
    }

    /// Whether the cursor may be taken back: by a replay that begins too early, or a late event that was passed by others
    /// before it showed that it was missing.
    fn may_go_back(&self, plan: &Plan) -> bool {
        let shows_at_once = plan.is_numbered() && plan.streams == 1;
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
    fn end(&self, server: &Server) -> usize {
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
}
