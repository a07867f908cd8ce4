//! A log that stores nothing: what is published reaches those who listen at that moment.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{
    Appended, Bounds, Channel, EventLog, Frame, LogError, MemoryLog, NewEvent, PageLimit, Place, Retention,
};

/// See the module's text. Events are numbered all the same, so that a client that comes back while others listen is told
/// how many it missed. Of a channel without listeners nothing is kept, however many there are. Idempotency keys mean
/// nothing here: each append is an event.
#[derive(Debug)]
pub struct NullLog {
    /// Holds what listeners have not read yet.
    handover: MemoryLog,
}

impl NullLog {
    /// A log whose listeners may fall behind by `tail` each; one that does by more is told what it missed.
    #[must_use]
    pub fn new(tail: PageLimit) -> Self {
        let retention = Retention {
            events_max: tail.events_max as u64,
            bytes_max: tail.bytes_max as u64,
            ..Retention::default()
        };
        Self { handover: MemoryLog::volatile(retention) }
    }
}

/// A tail of 1,024 events and 1 MiB for each channel with listeners.
impl Default for NullLog {
    fn default() -> Self {
        Self::new(PageLimit { events_max: 1024, bytes_max: 1 << 20 })
    }
}

impl EventLog for NullLog {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        self.handover.append(channel, NewEvent { key: None, ..event })
    }

    fn append_all(
        &self,
        channel: &str,
        events: Vec<NewEvent>,
    ) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        let events = events.into_iter().map(|event| NewEvent { key: None, ..event }).collect();
        self.handover.append_all(channel, events)
    }

    fn remove(&self, channel: &str) -> BoxFuture<'_, Result<(), LogError>> {
        self.handover.remove(channel)
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.handover.channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        let bounds = Bounds { oldest: None, ..channel.bounds() };
        std::future::ready(Ok(bounds)).boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        self.handover.page(channel, after, limit)
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.handover.epoch(generation)
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        self.handover.generation(epoch)
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.handover.begin_epoch()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.handover.close()
    }

    fn durable(&self) -> bool {
        false
    }

    fn replays(&self) -> bool {
        false
    }
}
