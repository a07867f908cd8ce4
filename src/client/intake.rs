//! The way of one event from the parser to the batch: control events are read, repeats dropped, the order
//! kept, and the ledger told.

use std::collections::VecDeque;

use super::batch::{Batch, Kind};
use super::config::{CannotResumeFallback, Config, DedupeConfig, OrderingConfig};
use super::dedupe::DedupeWindow;
use super::ledger::Ledger;
use super::liveness::Liveness;
use super::notice::Notice;
use super::ordering::{Late, Mark, OrderingGuard, OrderingRule, OutOfOrderPolicy};
use super::scopes::Scopes;
use super::sequencer::{HeldEvent, Missing, Place};
use super::stats::Stats;
use super::tracks::Tracks;
use crate::wire::id::Part;
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
    pub(super) tracks: Tracks,
    pub(super) scopes: Scopes,
    /// Early events of servers that are not ours are held back.
    reorders: bool,
    /// Gaps of our protocol that the app may not have heard of yet: the record's token, and the id that is missing first.
    gaps: VecDeque<(u64, String)>,
    /// The present connection announced our protocol.
    pub(super) announced: bool,
    pub(super) replayable: bool,
    /// Whether a request may be sent again, and so a hole be fetched.
    pub(super) may_repeat: bool,
    pub(super) ordering: OrderingConfig,
    pub(super) fallback: CannotResumeFallback,
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
            tracks: Tracks::new(config.ordering),
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
            self.tracks.clear();
        }
        self.guard.reset();
        self.scopes.opened(!self.ledger.accepted().is_empty());
        self.liveness.opened(now_ms);
    }

    /// A connection ended: early events come again with the next one.
    pub(crate) fn closed(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.sequencer.drop_held());
    }

    /// Starts a new batch.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.batch.clear(self.ledger.next_token());
    }

    /// Whether the present connection announced our protocol.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    /// Whether early events wait for a missing one.
    pub(crate) fn has_hole(&self) -> bool {
        self.announced && self.tracks.has_held() || self.scopes.holds()
    }

    /// Early events that wait, and their bytes.
    pub(crate) fn held(&self) -> (usize, usize) {
        let tracks = self.tracks.iter().map(|track| &track.sequencer);
        let (events, bytes) = tracks.fold((0, 0), |(events, bytes), known| {
            (events + known.held().count(), bytes + known.held_bytes())
        });
        let reordered = self.scopes.held();
        reordered.fold((events, bytes), |(events, bytes), event| (events + 1, bytes + event.bytes()))
    }

    /// Places that are kept so that a record can be given back.
    pub(crate) fn places(&self) -> usize {
        self.gaps.len() + self.scopes.places()
    }

    /// Whether the hole can be fetched by resuming from before it; true once for each hole.
    pub(crate) fn refetch_hole(&mut self) -> bool {
        let mut any = false;
        if self.can_refetch() {
            for track in self.tracks.iter_mut().filter(|track| track.sequencer.has_held()) {
                any |= track.sequencer.refetch("");
            }
        }
        any || self.fetch_reordered()
    }

    fn can_refetch(&self) -> bool {
        self.replayable && self.may_repeat && !self.ledger.accepted().is_empty()
    }

    /// The server does not have what is missing: says so, and goes on behind the hole.
    pub(crate) fn give_up_hole(&mut self) {
        for index in 0..self.tracks.len() {
            self.give_up_before(index, None);
        }
        self.give_up_overdue();
    }

    fn give_up_before(&mut self, index: usize, event: Option<(&str, u64)>) {
        let missing = self.tracks.get(index).and_then(|track| track.sequencer.give_up_hole(event));
        if let Some(missing) = missing {
            self.tell_missing(index, missing);
            self.release_held(index);
        }
    }

    /// What was processed before, and will not come again either, is not missing.
    fn tell_missing(&mut self, index: usize, missing: Missing) {
        let Missing { epoch, mut first, last } = missing;
        let Some(track) = self.tracks.get(index) else { return };
        let any_id = track.id(&Position { epoch: epoch.clone(), sequence: first });
        let prefix = any_id.rsplit_once('-').map_or("", |(prefix, _)| prefix);
        let numbers = self.ledger.done_before.iter().filter_map(|id| {
            let (_, digits) = id.rsplit_once('-').filter(|(before, _)| *before == prefix)?;
            digits.parse::<u64>().ok().filter(|number| (first..=last).contains(number))
        });
        let processed: Vec<u64> = numbers.collect();
        while let Some(number) = processed.iter().copied().filter(|number| *number >= first).min() {
            self.tell_gap(index, &epoch, first, number - 1);
            first = number + 1;
        }
        self.tell_gap(index, &epoch, first, last);
    }

    fn tell_gap(&mut self, index: usize, epoch: &str, first: u64, last: u64) {
        let Some(track) = self.tracks.get(index).filter(|_| first <= last) else { return };
        let first_missing = track.id(&Position { epoch: epoch.to_owned(), sequence: first });
        let last_missing = track.id(&Position { epoch: epoch.to_owned(), sequence: last });
        let count = last - first + 1;
        self.stats.events_missing = self.stats.events_missing.saturating_add(count);
        while self.gaps.pop_front_if(|(token, _)| *token < self.ledger.first_token()).is_some() {}
        self.gaps.push_back((self.ledger.next_token(), first_missing.clone()));
        self.notice(Notice::Gap { first_missing, last_missing, count, stream_id: None });
    }

    /// The app was never given what came after `token`: its replay must get through.
    pub(crate) fn give_back_after(&mut self, token: u64) {
        let ledger = &self.ledger;
        self.scopes.note_finished(token, |given| ledger.is_finished(given));
        let (dedupe, tracks) = (&mut self.dedupe, &mut self.tracks);
        let discarded = self.ledger.discard_after(token, |id| {
            if let Some(dedupe) = dedupe {
                dedupe.forget(id);
            }
            if let Some((track, epoch, sequence)) = tracks.locate(id) {
                track.sequencer.forget(epoch, sequence);
            }
        });
        // The app did not hear of them: each is to show again.
        while let Some((_, id)) = self.gaps.pop_back_if(|(given, _)| *given > token) {
            if let Some((track, epoch, first)) = tracks.locate(&id) {
                track.sequencer.forget(epoch, first);
            }
        }
        if tracks.is_several() {
            tracks.restore(self.ledger.accepted());
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
        if let Some(dedupe) = &mut self.dedupe {
            // These are still to be given to the app: when they come again, it is no news.
            for event in self.scopes.held() {
                event.id.iter().for_each(|id| {
                    dedupe.is_repeat(self.now_ms, id, &event.name, &event.data);
                });
            }
        }
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
        let Some(id) = id.filter(|id| self.ledger.done_before.take(id, !self.announced)) else {
            return false;
        };
        self.stats.duplicates_ignored += 1;
        self.batch.push(Kind::Cursor, "", "", Some(id));
        self.ledger.accept_skipped(id, beyond);
        true
    }

    /// An event of our own server: `id` names it; on a stream of several channels the cursor is put together.
    fn deliver_numbered(&mut self, index: usize, name: &str, data: &str, id: &str, at: (&str, u64)) {
        if self.ledger.accepted().is_empty() {
            // The cursor was forgotten, and the stream goes on: it begins anew before this event.
            let place = match self.tracks.is_several() {
                true => self.tracks.cursor(index).0,
                false => Position { epoch: at.0.to_owned(), sequence: at.1 - 1 }.to_string(),
            };
            self.move_cursor(&place);
        }
        if !self.tracks.is_several() {
            self.deliver(name, data, Some(id), false);
            return;
        }
        self.tracks.stand_at(index, at.0, at.1);
        let (cursor, own_bytes) = self.tracks.cursor(index);
        if self.ledger.done_before.take(id, false) {
            self.stats.duplicates_ignored += 1;
            self.batch.push(Kind::Cursor, "", "", Some(id));
            self.ledger.accept_part(&cursor, own_bytes, true);
        } else {
            self.stats.events_delivered += 1;
            self.batch.push(Kind::Event, name, data, Some(id));
            self.ledger.accept_part(&cursor, own_bytes, false);
        }
    }

    /// The cursor of several channels has changed by something that is no event.
    pub(super) fn move_parts(&mut self) {
        let cursor = self.tracks.cursor(0).0;
        self.move_cursor(&cursor);
    }

    pub(super) fn move_cursor(&mut self, id: &str) {
        self.batch.push(Kind::Cursor, "", "", Some(id));
        self.ledger.accept_cursor(id);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.batch.push_notice(notice);
        self.ledger.accept_told();
    }

    fn duplicate(&mut self, id: &str, name: &str) {
        self.stats.duplicates_ignored += 1;
        if self.report_duplicates {
            self.notice(Notice::Duplicate { event_id: id.to_owned(), event_type: name.to_owned() });
        }
    }

    /// An event of our own server, whose id is a position in one of the channels.
    fn numbered(&mut self, event: EventRef<'_>, index: usize, id: &str, epoch: &str, sequence: u64) {
        // Ends: each turn either places the event, holds it, or gives up one of the finitely many holes.
        while let Some(track) = self.tracks.get(index) {
            let sequencer = &mut track.sequencer;
            match sequencer.place(epoch, sequence) {
                Place::Next => {
                    self.deliver_numbered(index, event.name, event.data, id, (epoch, sequence));
                    self.release_held(index);
                    return;
                }
                Place::Repeat => {
                    self.duplicate(id, event.name);
                    self.follow_repeat(index, id, epoch, sequence);
                    return;
                }
                Place::Early => {}
            }
            if sequencer.hold(epoch, sequence, HeldEvent::of(event, Some(id))) {
                self.stats.out_of_order += 1;
                return;
            }
            if self.can_refetch()
                && self.tracks.get(index).is_some_and(|track| track.sequencer.refetch(epoch))
            {
                self.effects.refetch = true;
                return;
            }
            self.give_up_before(index, Some((epoch, sequence)));
        }
    }

    /// A server that could not resume begins with what was seen: the cursor follows, so that a cut in the middle
    /// does not begin it all again.
    fn follow_repeat(&mut self, index: usize, id: &str, epoch: &str, sequence: u64) {
        let accepted =
            self.tracks.get(index).is_some_and(|track| track.sequencer.has_accepted(epoch, sequence));
        if !accepted {
            return;
        }
        if self.tracks.is_several() {
            if self.tracks.is_before(index, epoch, sequence) {
                self.tracks.stand_at(index, epoch, sequence);
                self.move_parts();
            }
        } else if Position::split(self.ledger.accepted())
            .is_some_and(|(cursor_epoch, cursor)| cursor_epoch == epoch && cursor < sequence)
        {
            self.move_cursor(id);
        }
    }

    fn release_held(&mut self, index: usize) {
        while let Some(event) = self.tracks.get(index).and_then(|track| track.sequencer.release()) {
            let id = event.id.as_deref().unwrap_or_default();
            let position = Part::split(id).map(|part| (part.epoch, part.sequence));
            let at = position.or_else(|| Position::split(id)).unwrap_or_default();
            self.deliver_numbered(index, &event.name, &event.data, id, at);
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
        let id = event.last_event_id;
        if self.announced && event.own_id {
            // A stream of one channel, most of all.
            if let (false, Some((epoch, sequence @ 1..))) = (self.tracks.is_several(), Position::split(id)) {
                self.numbered(event, 0, id, epoch, sequence);
                return;
            }
            if let (true, Some(part)) = (self.tracks.is_several(), Part::first(id))
                && part.sequence > 0
                && let Some(index) = self.tracks.find(part.channel)
            {
                self.numbered(event, index, part.text, part.epoch, part.sequence);
                return;
            }
        }
        self.opaque(event);
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
