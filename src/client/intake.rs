//! The way of one event from the parser to the batch: control events are read, repeats dropped, the order
//! kept, and the ledger told.

use std::collections::VecDeque;

use super::batch::{Batch, Kind};
use super::config::{CannotResumeFallback, Config, DedupeConfig, OrderingConfig};
use super::control::{self, Announcement, ControlEvent};
use super::dedupe::DedupeWindow;
use super::ledger::Ledger;
use super::liveness::Liveness;
use super::notice::Notice;
use super::ordering::{Late, Mark, OrderingGuard, OrderingRule, OutOfOrderPolicy};
use super::reorder::Scopes;
use super::sequencer::{HeldEvent, Missing, Place, Sequencer};
use super::stats::Stats;
use crate::wire::{self, EventRef, Position, Sink};

/// What a chunk asks the machine to do, beside delivering.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) server_retry_ms: Option<u64>,
    /// The server said why it will close.
    pub(crate) close_reason: Option<String>,
    /// The cursor cannot be resumed, and the app chose to close then.
    pub(crate) close: bool,
    /// A hole must be fetched now: what follows it is dropped.
    pub(crate) refetch: bool,
}

#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) batch: Batch,
    pub(crate) ledger: Ledger,
    pub(crate) liveness: Liveness,
    pub(crate) stats: Stats,
    pub(crate) effects: Effects,
    now_ms: u64,
    pub(super) dedupe: Option<DedupeWindow>,
    guard: OrderingGuard,
    sequencer: Option<Sequencer>,
    pub(super) scopes: Scopes,
    /// Early events of servers that are not ours are held back.
    reorders: bool,
    /// Gaps of our protocol that the app may not have heard of yet: the record's token, and what is missing first.
    gaps: VecDeque<(u64, Position)>,
    /// The present connection announced our protocol.
    announced: bool,
    replayable: bool,
    /// Whether a request may be sent again, and so a hole be fetched.
    pub(super) may_repeat: bool,
    pub(super) ordering: OrderingConfig,
    fallback: CannotResumeFallback,
    report_duplicates: bool,
    dedupe_config: Option<DedupeConfig>,
}

impl Intake {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            batch: Batch::new(config.names_max),
            ledger: Ledger::new(config.done_ids_max),
            liveness: Liveness::new(config.liveness),
            stats: Stats::default(),
            effects: Effects::default(),
            now_ms: 0,
            dedupe: config.dedupe.map(DedupeWindow::new),
            guard: OrderingGuard::new(config.ordering),
            sequencer: None,
            scopes: Scopes::new(config.ordering),
            gaps: VecDeque::new(),
            reorders: config.ordering.policy == OutOfOrderPolicy::Reorder
                && config.ordering.rule == OrderingRule::Sequence
                && config.dedupe.is_some(),
            announced: false,
            replayable: false,
            may_repeat: config.repeatable && config.auto_reconnect,
            ordering: config.ordering,
            fallback: config.cannot_resume,
            report_duplicates: config.report_duplicates,
            dedupe_config: config.dedupe,
        }
    }

    /// A connection opened: whose ids these are is open until the server announces itself.
    pub(crate) fn opened(&mut self, now_ms: u64) {
        self.effects = Effects::default();
        self.announced = false;
        if self.ledger.accepted().is_empty() {
            // Not a continuation: what the server sends is what was asked for.
            self.sequencer = None;
        }
        self.guard.reset();
        self.scopes.opened(!self.ledger.accepted().is_empty());
        self.liveness.opened(now_ms);
    }

    /// A connection ended: early events come again with the next one.
    pub(crate) fn closed(&mut self) {
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.drop_held();
        }
    }

    /// Starts a new batch.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.batch.clear(self.ledger.next_token());
    }

    /// Whether early events wait for a missing one.
    pub(crate) fn has_hole(&self) -> bool {
        self.announced && self.sequencer.as_ref().is_some_and(Sequencer::has_held) || self.scopes.holds()
    }

    /// Whether the hole can be fetched by resuming from before it; true once for each hole.
    pub(crate) fn refetch_hole(&mut self) -> bool {
        self.refetch_before("") || self.fetch_reordered()
    }

    fn refetch_before(&mut self, epoch: &str) -> bool {
        self.can_refetch() && self.sequencer.as_mut().is_some_and(|sequencer| sequencer.refetch(epoch))
    }

    fn can_refetch(&self) -> bool {
        self.replayable && self.may_repeat && !self.ledger.accepted().is_empty()
    }

    /// The server does not have what is missing: says so, and goes on behind the hole.
    pub(crate) fn give_up_hole(&mut self) {
        self.give_up_before(None);
        self.give_up_overdue();
    }

    fn give_up_before(&mut self, event: Option<(&str, u64)>) {
        let missing = self.sequencer.as_mut().and_then(|sequencer| sequencer.give_up_hole(event));
        if let Some(missing) = missing {
            self.tell_missing(missing);
            self.release_held();
        }
    }

    fn tell_missing(&mut self, missing: Missing) {
        if missing.first > missing.last {
            return;
        }
        let count = missing.last - missing.first + 1;
        self.stats.events_missing = self.stats.events_missing.saturating_add(count);
        let first = Position { epoch: missing.epoch.clone(), sequence: missing.first };
        let first_missing = first.to_string();
        while self.gaps.pop_front_if(|(token, _)| *token < self.ledger.first_token()).is_some() {}
        self.gaps.push_back((self.ledger.next_token(), first));
        let last_missing = Position { epoch: missing.epoch, sequence: missing.last }.to_string();
        self.notice(Notice::Gap { first_missing, last_missing, count, stream_id: None });
    }

    /// The app was never given what came after `token`: its replay must get through.
    pub(crate) fn give_back_after(&mut self, token: u64) {
        let (dedupe, sequencer) = (&mut self.dedupe, &mut self.sequencer);
        let discarded = self.ledger.discard_after(token, |id| {
            if let Some(dedupe) = dedupe {
                dedupe.forget(id);
            }
            if let (Some(sequencer), Some((epoch, sequence))) = (&mut *sequencer, Position::split(id)) {
                sequencer.forget(epoch, sequence);
            }
        });
        // The app did not hear of them: each is to show again.
        while let Some((_, first)) = self.gaps.pop_back_if(|(given, _)| *given > token) {
            if let Some(sequencer) = &mut self.sequencer {
                sequencer.forget(&first.epoch, first.sequence);
            }
        }
        if discarded > 0 {
            self.guard.reset();
        }
        if discarded > 0 || self.holds_the_last_of_it() {
            self.drop_reordered(token);
        }
        self.announced = false;
    }

    /// Forgets the cursor and everything that hangs on it.
    pub(crate) fn clear_cursor(&mut self) {
        self.ledger.clear();
        self.dedupe = self.dedupe_config.map(DedupeWindow::new);
        self.guard.reset();
        self.scopes.forget_place();
        // A stream that is open goes on in its order; the next connection begins anew.
    }

    /// `beyond`: something before it is missing.
    pub(super) fn deliver(&mut self, name: &str, data: &str, id: Option<&str>, beyond: bool) {
        if self.skip_done_before(id, beyond) {
            return;
        }
        self.stats.events_delivered += 1;
        self.batch.push(Kind::Event, name, data, id);
        if beyond {
            self.ledger.accept_beyond(id);
        } else {
            self.ledger.accept(id);
        }
    }

    /// An earlier page processed this event.
    pub(super) fn skip_done_before(&mut self, id: Option<&str>, beyond: bool) -> bool {
        let Some(id) = id.filter(|id| self.ledger.take_done_before(id)) else { return false };
        self.stats.duplicates_ignored += 1;
        self.batch.push(Kind::Cursor, "", "", Some(id));
        self.ledger.accept_skipped(id, beyond);
        true
    }

    fn move_cursor(&mut self, id: &str) {
        self.batch.push(Kind::Cursor, "", "", Some(id));
        self.ledger.accept_cursor(id);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.batch.push_notice(notice);
        self.ledger.accept(None);
    }

    fn duplicate(&mut self, id: &str, name: &str) {
        self.stats.duplicates_ignored += 1;
        if self.report_duplicates {
            self.notice(Notice::Duplicate { event_id: id.to_owned(), event_type: name.to_owned() });
        }
    }

    /// An event of our own server, whose id is a position.
    fn numbered(&mut self, event: EventRef<'_>, epoch: &str, sequence: u64) {
        // Ends: each turn either places the event, holds it, or gives up one of the finitely many holes.
        while let Some(sequencer) = &mut self.sequencer {
            match sequencer.place(epoch, sequence) {
                Place::Next => {
                    self.deliver(event.name, event.data, Some(event.last_event_id), false);
                    self.release_held();
                    return;
                }
                Place::Repeat => {
                    self.duplicate(event.last_event_id, event.name);
                    self.follow_repeat(event.last_event_id, epoch, sequence);
                    return;
                }
                Place::Early => {}
            }
            if sequencer.hold(epoch, sequence, HeldEvent::of(event, Some(event.last_event_id))) {
                self.stats.out_of_order += 1;
                return;
            }
            if self.refetch_before(epoch) {
                self.effects.refetch = true;
                return;
            }
            self.give_up_before(Some((epoch, sequence)));
        }
    }

    /// A server that could not resume begins with what was seen: the cursor follows, so that a cut in the middle
    /// does not begin it all again.
    fn follow_repeat(&mut self, id: &str, epoch: &str, sequence: u64) {
        let is_accepted = self.sequencer.as_ref().is_some_and(|known| known.has_accepted(epoch, sequence));
        let is_ahead = Position::split(self.ledger.accepted())
            .is_some_and(|(cursor_epoch, cursor)| cursor_epoch == epoch && cursor < sequence);
        if is_accepted && is_ahead {
            self.move_cursor(id);
        }
    }

    fn release_held(&mut self) {
        while let Some(event) = self.sequencer.as_mut().and_then(Sequencer::release) {
            self.deliver(&event.name, &event.data, event.id.as_deref(), false);
        }
    }

    /// An event of a server whose ids mean nothing to us.
    fn opaque(&mut self, event: EventRef<'_>) {
        let id = event.own_id.then_some(event.last_event_id);
        let reorders = self.reorders && !self.announced;
        let number = if reorders { self.guard.number(event.data) } else { None };
        if let (Some(dedupe), Some(id)) = (&mut self.dedupe, id.filter(|id| !id.is_empty()))
            && dedupe.is_repeat(self.now_ms, id, event.name, event.data)
        {
            self.duplicate(id, event.name);
            if let Some((stream, sequence)) = number {
                self.repeated(stream, sequence);
            }
            return;
        }
        if reorders {
            match number {
                Some((stream, sequence)) => self.reordered(event, id, stream, sequence),
                None => self.unnumbered(event, id),
            }
            return;
        }
        if let Some(late) = self.guard.check(event.data)
            && self.late(event, id, late)
        {
            return;
        }
        self.deliver(event.name, event.data, id, false);
    }

    /// Counts a late event, and says so as far as the policy wants it. Answers whether it is dropped.
    pub(super) fn late(&mut self, event: EventRef<'_>, id: Option<&str>, late: Late) -> bool {
        let policy = self.guard.policy();
        let dropped = policy != OutOfOrderPolicy::Accept;
        self.stats.out_of_order += 1;
        if policy != OutOfOrderPolicy::Drop {
            let (last_sequence, last_mark) = split_mark(late.last);
            let (sequence, mark) = split_mark(late.mark);
            self.notice(Notice::OutOfOrder {
                event_id: id.map(str::to_owned),
                event_type: event.name.to_owned(),
                rule: self.guard.rule(),
                last_sequence,
                sequence,
                last_mark,
                mark,
                dropped,
            });
        }
        dropped
    }

    fn control(&mut self, event: EventRef<'_>) {
        let kind = if event.name == wire::control::HEARTBEAT { Kind::Heartbeat } else { Kind::Control };
        // Whatever id it may carry is not one that can be resumed from.
        self.batch.push(kind, event.name, event.data, None);
        self.ledger.accept(None);
        match control::read(event.name, event.data) {
            ControlEvent::Open(announcement) => self.announce(announcement),
            ControlEvent::Heartbeat { interval_ms } => {
                self.stats.heartbeats += 1;
                self.liveness.beat(interval_ms);
            }
            ControlEvent::CannotResume { notice, position, newest, missing } => {
                self.stats.events_missing = self.stats.events_missing.saturating_add(missing.unwrap_or(0));
                self.notice(notice);
                self.give_up_all_reordered();
                if self.fallback == CannotResumeFallback::Close {
                    self.effects.close = true;
                    return;
                }
                // The app has been told: from here on the old cursor would only be refused again.
                self.move_cursor(&position.as_ref().map(Position::to_string).unwrap_or_default());
                if let (Some(newest), Some(sequencer)) = (newest, &mut self.sequencer) {
                    sequencer.end_at(&newest);
                }
                self.place_at(position);
            }
            ControlEvent::Close { reason } => self.effects.close_reason = Some(reason),
            ControlEvent::Other => {}
        }
    }

    fn announce(&mut self, announcement: Announcement) {
        self.liveness.beat(announcement.heartbeat_interval_ms);
        if !announcement.ours {
            return;
        }
        self.give_up_all_reordered();
        self.replayable = announcement.replayable;
        if let Some(position) = &announcement.position
            && self.ledger.accepted().is_empty()
        {
            // A fresh client resumes from where its stream began, even if no event came before a cut.
            self.move_cursor(&position.to_string());
        }
        self.announced = announcement.position.is_some();
        match (announcement.position, &mut self.sequencer) {
            // Where the server begins proves nothing about what came before: our cursor may not have reached it. What
            // lies between shows as a hole.
            (Some(_), Some(sequencer)) => sequencer.drop_held(),
            (Some(position), None) => {
                let accepted = self.ledger.accepted().parse().unwrap_or(position);
                self.sequencer = Some(Sequencer::new(self.ordering, accepted));
            }
            (None, sequencer) => *sequencer = None,
        }
    }

    fn place_at(&mut self, position: Option<Position>) {
        match (position, &mut self.sequencer) {
            (None, sequencer) => *sequencer = None,
            (Some(position), Some(sequencer)) => sequencer.move_to(position),
            (Some(position), None) => {
                // What is accepted may be ahead of where the server begins.
                let accepted = self.ledger.accepted().parse().unwrap_or_else(|_| position.clone());
                let mut sequencer = Sequencer::new(self.ordering, accepted);
                sequencer.move_to(position);
                self.sequencer = Some(sequencer);
            }
        }
    }
}

fn split_mark(mark: Mark) -> (Option<u64>, Option<String>) {
    match mark {
        Mark::Sequence(sequence) => (Some(sequence), None),
        Mark::Text(text) => (None, Some(text)),
    }
}

impl Sink for Intake {
    fn event(&mut self, event: EventRef<'_>) {
        if self.effects.refetch || self.effects.close {
            return;
        }
        if wire::control::is_reserved(event.name) {
            self.control(event);
            return;
        }
        self.stats.events_received += 1;
        if self.announced
            && event.own_id
            && let Some((epoch, sequence @ 1..)) = Position::split(event.last_event_id)
        {
            self.numbered(event, epoch, sequence);
        } else {
            self.opaque(event);
        }
    }

    fn id_only(&mut self, last_event_id: &str) {
        if self.effects.refetch || self.effects.close {
            return;
        }
        if self.announced
            && let Ok(position) = last_event_id.parse()
        {
            self.place_at(Some(position));
        }
        if self.scopes.holds() {
            self.scopes.came(Some(last_event_id));
            return;
        }
        self.move_cursor(last_event_id);
    }

    fn retry(&mut self, ms: u64) {
        self.effects.server_retry_ms = Some(ms);
    }

    fn comment(&mut self) {
        self.liveness.comment(self.now_ms);
    }
}
