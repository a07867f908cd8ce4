//! What the client holds in memory: each bound of the configuration can be looked at.

use serde::Serialize;

use super::dedupe::DedupeWindow;
use super::machine::Client;
use crate::wire::Parser;

/// What is held now, and by which bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Records from the oldest unfinished one on. The reading pauses at `unfinished_max`; so there are as many more, at
    /// most, as one chunk brings and lets go.
    pub unfinished: usize,
    /// Early events that wait for a missing one: `ordering.held_events_max` (of each channel, on a stream of several).
    pub held_events: usize,
    /// Bytes of these: `ordering.held_bytes_max`.
    pub held_bytes: usize,
    /// Streams of other servers whose order is followed: `ordering.scopes_max`.
    pub scopes: usize,
    /// Events that would be recognised if they came again: `dedupe.size_max`.
    pub dedupe_entries: usize,
    /// Ids processed beyond the cursor, of this page or an earlier one: twice `done_ids_max`.
    pub done_ids: usize,
    /// Places that are kept so that a record can be given back: one for each unfinished record, two at most.
    pub places: usize,
    /// Records of the present batch.
    pub batch_records: usize,
    /// Bytes of their text.
    pub batch_bytes: usize,
    /// Bytes of an unfinished line or event: the sum of `limits`.
    pub parser_bytes: usize,
}

impl Client {
    /// What is held now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let intake = &self.intake;
        let (held_events, held_bytes) = intake.held();
        Usage {
            unfinished: intake.ledger.len(),
            held_events,
            held_bytes,
            scopes: intake.scopes.len(),
            dedupe_entries: intake.dedupe.as_ref().map_or(0, DedupeWindow::len),
            done_ids: intake.ledger.done_ids(),
            places: intake.places(),
            batch_records: intake.batch.len(),
            batch_bytes: intake.batch.text().len(),
            parser_bytes: self.parser.as_ref().map_or(0, Parser::buffered_bytes),
        }
    }
}
