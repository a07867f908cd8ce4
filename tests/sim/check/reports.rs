//! What must hold of that which the app is told to be missing, late or gone.

use holdfast_sse::client::{Code, Notice};

use super::{Checker, Invariant};
use crate::plan::Plan;
use crate::server::{Fate, Server};

impl Checker {
    pub(super) fn missing(&mut self, index: usize, server: &Server) {
        // Without a cursor a hole cannot be fetched, nor one that another stream's events have moved it past.
        let is_passed =
            self.page.is_mixed && server.covered(&self.page.asked_from).is_none_or(|covered| index < covered);
        if !is_passed
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
        let may_be_told = match self.page.finished.contains(&index) {
            true => self.page.unremembered.contains(&index),
            false => self.page.given_back.contains(&index),
        };
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
                // Which gaps were given back is known roughly where streams are mixed: the app may have heard of this one.
                let was_told = self.page.given_back.contains(&index) && self.told.contains(&index);
                if !is_first
                    && !may_be_late
                    && !was_told
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
            Notice::Error { code: Code::LineTooLong | Code::EventTooLarge, .. } if self.page.overlong => {}
            Notice::Error { code: Code::LineTooLong | Code::EventTooLarge | Code::InvalidOption, .. } => {
                self.fail(Invariant::TrueReports, format!("an error without cause: {notice:?}"));
            }
            _ => {}
        }
    }

    /// The server has no more of these, and does not say so. By numbers it shows, but for what is before the first.
    pub(crate) fn passed_over(&mut self, events: std::ops::Range<usize>, plan: &Plan, server: &Server) {
        let is_known = |index: &usize| self.page.first_started.contains_key(&server.stream_of(*index));
        self.forgotten.extend(events.filter(|index| !plan.is_numbered() || !is_known(index)));
    }

    /// Something longer than the limits is on the wire.
    pub(crate) fn overlong(&mut self) {
        self.page.overlong = true;
    }

    /// The server does not know the cursor, and says nothing of it: what is missing cannot be fetched.
    pub(crate) fn cursor_unknown(&mut self) {
        self.page.repeats = false;
    }

    /// An event does not come when it should.
    pub(crate) fn bent(&mut self, index: usize, shows: bool) {
        self.page.bent.insert(index);
        if !shows {
            self.forgotten.insert(index);
        }
    }
}
