//! What must hold at every step of every run: the promise in README.md, as invariants over what was published, what
//! the app was given and what was stored.

mod records;
mod reports;
mod requests;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_sse::client::StoredRecord;

use super::pace::Pace;
use super::plan::{Plan, Protocol};
use super::server::{Fate, Server};

/// How long the result of an asynchronous handler may wait to be stored.
const COMMIT_MS: u64 = 250 + TIMER_MS;
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
    /// The page was left, and is not back.
    pub(crate) aside: bool,
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
    finished: BTreeSet<usize>,
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
    /// Events of several streams alternate, and pass each other's holes.
    is_mixed: bool,
    /// Events are of several streams or channels.
    alternates: bool,
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
    /// Given back so far behind the cursor that it is not remembered which of these are finished.
    unremembered: BTreeSet<usize>,
    /// Done ids stored with it that no replay brings any more.
    stale: usize,
    /// No more done ids can be stored with it.
    is_full: bool,
    /// The most records that were unfinished at once.
    unfinished_max: usize,
    has_cursor: bool,
    /// Something longer than the limits came on the wire.
    overlong: bool,
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
        if plan.is_mixed() {
            self.forgotten.extend(&self.page.bent);
        }
        self.page = Page::default();
        self.pace.begins();
        self.closed = true;
        self.put_off = false;
        self.hidden_at = None;
        self.aside = false;
        self.page.repeats = plan.may_repeat();
        self.page.is_mixed = plan.is_mixed();
        self.page.alternates = plan.streams > 1;
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
        if self.page.forgot && self.page.stripped {
            // A client without a cursor begins where the server says, though it asked with one.
            self.baseline = server.head();
        }
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
        // A number before the first that a page saw of a stream, on a later connection, is taken for a new numbering.
        let is_before_first = plan.is_mixed() && index < self.page.first_started[&stream];
        let is_excused = is_before_first || (is_repeat && is_new);
        let in_order = in_order && !is_excused;
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
        let stored = server.covered(&restored.cursor).is_some_and(|covered| index < covered)
            || id.is_some_and(|id| restored.done.iter().any(|done| done == id));
        if stored
            && !self.page.unremembered.contains(&index)
            && self.done.contains(&index)
            && !self.page.rewound
            && !self.page.overlaps
        {
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

    /// The very first events were given back, and a server that is not ours did not say what they came after.
    pub(crate) fn begins_without_place(&mut self, is_ours: bool) {
        self.page.has_cursor &= is_ours;
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

    pub(crate) fn clock_jumped(&mut self, now: u64) {
        self.thawed(now);
        self.lenient_until = now + 2_000;
        self.line_is_dead = true;
    }
}
