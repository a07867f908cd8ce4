//! One record of the ledger: what its id does, and what it is.

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Where the id of this record stands in `ids`, counted with what was cut off.
    pub(super) start: usize,
    pub(super) end: usize,
    /// How much of it names the event: all of it, but on a stream of several channels its first part only.
    pub(super) own_end: usize,
    pub(super) bears: Bears,
    pub(super) what: What,
    pub(super) done: bool,
}

impl Entry {
    /// An event whose id is stored once it is finished.
    pub(super) fn is_stored(&self) -> bool {
        self.bears != Bears::Nothing && self.what != What::Place
    }

    /// An event that the app has not finished.
    pub(super) fn is_at_work(self) -> bool {
        !self.done && self.what == What::Event
    }
}

/// What an entry's id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bears {
    /// There is none that counts.
    Nothing,
    /// It is the cursor once everything up to here is finished.
    Cursor,
    /// It is remembered as processed; the cursor stays before a hole.
    Beyond,
    /// It is the cursor, and what was processed beyond the hole stays remembered.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Something for the app.
    Event,
    /// An event that an earlier page processed.
    Skipped,
    /// Only a place of the cursor.
    Place,
    /// Something about the stream.
    Told,
}
