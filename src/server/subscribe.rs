//! Channels for Rust code of the same process: the events of one as a stream, from an id on.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;

use super::feed::{Feed, News, Step};
use super::hub::{Hub, Inner};
use super::log::{Frame, LogError, Place};
use super::options::{Beginning, SlowConsumer};
use super::resume::{Refused, Wanted};
use crate::wire::{EventRef, Parser, ParserLimits, Sink};

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// Behind the event of this id.
    Event(String),
    /// As a client without a cursor.
    Fresh(Beginning),
}

/// An event of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, to go on behind it: see [`Since::Event`].
    pub id: String,
    /// The event name.
    pub name: String,
    /// Its data; of an envelope its JSON.
    pub data: String,
    /// When it was stored, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Some events cannot be had any more. The subscription goes on all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotResume {
    /// `buffer_expired`, `event_not_found`, `stream_not_found`, `no_buffer` or `invalid_event_id`, as clients are told.
    pub code: &'static str,
    /// The id behind which events are missing.
    pub requested: String,
    /// The id of the oldest event that is stored, where there is one.
    pub oldest: Option<String>,
    /// The id of the newest event.
    pub newest: String,
    /// The id behind which the subscription goes on.
    pub position: String,
    /// How many events are gone, where that is known.
    pub missing: Option<u64>,
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next event.
    Event(Event),
    /// A gap before the next one.
    CannotResume(CannotResume),
}

/// A channel's events, in order and without a gap that is not told. It holds its place in the log and one page,
/// however slowly it is read. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    hub: Arc<Inner>,
    feed: Feed,
    ready: VecDeque<Frame>,
}

/// What [`Hub::events_after`] found. (K23)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsAfter {
    /// Whether the log has all events behind the id.
    pub found: bool,
    /// Those events, oldest first; none where not all are there.
    pub events: Vec<Event>,
    /// There are more than were asked for.
    pub truncated: bool,
    /// Why it was not found: as [`CannotResume::code`].
    pub reason: Option<&'static str>,
    /// How many events there are behind the id, or where it was not found, in all.
    pub total: u64,
}

impl Hub {
    /// The events of a channel for code of this process, as they are published, after those that are stored behind
    /// `since`. Hooks and limits of streams do not apply, and it does not count as a listener.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use holdfast_sse::server::subscribe::{Delivery, Since};
    /// use holdfast_sse::server::{Beginning, Hub, MemoryLog, Message, StreamOptions};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
    /// let mut orders = hub.subscribe("orders", Since::Fresh(Beginning::Start)).await?;
    /// # hub.publisher().publish("orders", Message::text("created", "7")).await.unwrap();
    /// match orders.next().await? {
    ///     Delivery::Event(event) => println!("{}: {}", event.id, event.data),
    ///     Delivery::CannotResume(gap) => println!("{:?} events are gone", gap.missing),
    /// }
    /// # Ok::<(), holdfast_sse::server::LogError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The channel's name is none, or the log cannot be read.
    pub async fn subscribe(&self, channel: &str, since: Since) -> Result<Events, LogError> {
        let hub = Arc::clone(&self.inner);
        let feed = Feed::begin_at(&hub, channel, &since.wanted(), false, true).await?;
        Ok(Events { hub, feed, ready: VecDeque::new() })
    }

    /// The stored events behind the event `id`, `max` at most. (K23)
    ///
    /// # Errors
    /// As [`Hub::subscribe`].
    pub async fn events_after(&self, channel: &str, id: &str, max: usize) -> Result<EventsAfter, LogError> {
        let mut events = self.subscribe(channel, Since::Event(id.to_owned())).await?;
        let total = events.feed.replay_count();
        if let Some((_, refused)) = events.feed.take_refusal() {
            let reason = Some(refused.code(self.inner.log.as_ref()));
            return Ok(EventsAfter { found: false, events: Vec::new(), truncated: false, reason, total });
        }
        let wanted = usize::try_from(total).unwrap_or(usize::MAX).min(max);
        let mut after =
            EventsAfter { found: true, events: Vec::new(), truncated: false, reason: None, total };
        while after.events.len() < wanted {
            match events.step().await? {
                Some(Delivery::Event(event)) => after.events.push(event),
                // They expired while we read.
                Some(Delivery::CannotResume(gap)) => {
                    return Ok(EventsAfter {
                        found: false,
                        events: Vec::new(),
                        reason: Some(gap.code),
                        ..after
                    });
                }
                None => break,
            }
        }
        after.truncated = total > after.events.len() as u64;
        Ok(after)
    }
}

impl Since {
    fn wanted(self) -> Wanted {
        match self {
            Self::Event(id) => Wanted { cursor: Some(id), fresh: Beginning::Now },
            Self::Fresh(fresh) => Wanted { cursor: None, fresh },
        }
    }
}

impl Events {
    /// The next event, or what of them is gone. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// The log cannot be read. It may be tried again: the place is kept.
    pub async fn next(&mut self) -> Result<Delivery, LogError> {
        loop {
            if let Some(delivery) = self.step().await? {
                return Ok(delivery);
            }
            if self.feed.moved().await == News::LogGone {
                return Err(LogError::Closed);
            }
        }
    }

    /// The id behind which [`Events::next`] goes on.
    #[must_use]
    pub fn position(&self) -> String {
        match self.ready.front() {
            Some(next) => self.hub.id(Place { sequence: next.place.sequence - 1, ..next.place }),
            None => self.feed.position(&self.hub),
        }
    }

    /// The same as a `Stream`. It does not end; an error does not end it either.
    pub fn into_stream(self) -> impl Stream<Item = Result<Delivery, LogError>> + Send {
        futures_util::stream::unfold(self, async |mut events| Some((events.next().await, events)))
    }

    /// What is there now; nothing at the head.
    async fn step(&mut self) -> Result<Option<Delivery>, LogError> {
        if let Some((requested, refused)) = self.feed.take_refusal() {
            return Ok(Some(self.cannot_resume(requested, &refused)));
        }
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(Delivery::Event(event(&frame))));
            }
            // A reader of the same process may take its time.
            match self.feed.step(&self.hub, SlowConsumer::Reread).await? {
                Step::AtHead => return Ok(None),
                Step::TooSlow | Step::Moved => {}
                Step::Gone { requested, refused } => {
                    return Ok(Some(self.cannot_resume(requested, &refused)));
                }
                Step::Events(frames) => self.ready.extend(frames),
            }
        }
    }

    fn cannot_resume(&self, requested: String, refused: &Refused) -> Delivery {
        Delivery::CannotResume(CannotResume {
            code: refused.code(self.hub.log.as_ref()),
            requested,
            oldest: refused.oldest.map(|oldest| self.hub.id(oldest)),
            newest: self.hub.id(refused.newest),
            position: self.hub.id(refused.place),
            missing: refused.missing,
        })
    }
}

/// Reads our own encoding, of an event that was within the log's limits.
fn event(frame: &Frame) -> Event {
    struct Found(Event);
    impl Sink for Found {
        fn event(&mut self, event: EventRef<'_>) {
            event.name.clone_into(&mut self.0.name);
            event.data.clone_into(&mut self.0.data);
        }
        fn id_only(&mut self, _: &str) {}
        fn retry(&mut self, _: u64) {}
    }
    let id = String::from_utf8_lossy(frame.id()).into_owned();
    let mut found = Found(Event { id, name: String::new(), data: String::new(), at_ms: frame.at_ms });
    let limits = ParserLimits { line_bytes_max: usize::MAX, event_bytes_max: usize::MAX };
    // It has no limits that it could meet.
    let _ = Parser::new(limits, "").feed(&frame.bytes, &mut found);
    found.0
}
