//! One state as this process knows it: reads its channel, and publishes changes that nobody else was faster with.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep};

use super::{REMOVED, StateError, StateOptions};
use crate::server::clock;
use crate::server::hub::Inner;
use crate::server::log::{Bounds, Channel, EventLog, Frame, LogError, PageLimit, Place, StateMark};
use crate::server::options::Beginning;
use crate::server::publisher::{Message, PublishError, Publisher};
use crate::server::resume::{self, Wanted};
use crate::wire::{EventRef, Parser, ParserLimits, Sink};

/// How often a change is tried while others are faster. Each loss is another's success.
const ATTEMPTS_MAX: u32 = 1_000;
/// From this loss on, a change waits before it is tried again, at random, up to [`BACKOFF_MS_MAX`].
const LOSSES_WITHOUT_BACKOFF: u32 = 4;
const BACKOFF_MS_MAX: u64 = 32;
/// How soon a log that could not be read is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What becomes of a state.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(Encoded),
    Remove,
}

/// A value as JSON, in both forms.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) text: String,
    pub(super) value: Arc<Value>,
}

/// What the log says about a state.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The place of the state's newest event; where there is none, that before all events of the channel.
    base: Place,
    /// When that event was stored, in milliseconds since 1970; 0 where there is none.
    at_ms: u64,
    /// `None` where there is no state.
    pub(super) value: Option<Arc<Value>>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Core {
    log: Arc<dyn EventLog>,
    channel: Arc<Channel>,
    key: String,
    page: PageLimit,
    refresh_ms: u64,
    pub(super) value_bytes_max: usize,
    entry: watch::Sender<Entry>,
    /// Up to where the channel was read; `None` before the first time. Held while reading.
    seen: tokio::sync::Mutex<Option<Place>>,
    /// Held while changing: changes of one process need not race each other.
    turn: tokio::sync::Mutex<()>,
    follower: Mutex<Option<AbortHandle>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        let follower = self.follower.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.take() {
            follower.abort();
        }
    }
}

impl Core {
    pub(super) fn new(hub: &Inner, channel: &str, options: &StateOptions) -> Result<Self, LogError> {
        let channel = hub.log.channel(channel)?;
        Ok(Self {
            log: Arc::clone(&hub.log),
            channel,
            key: options.key.clone(),
            page: hub.options.page,
            refresh_ms: options.refresh_ms,
            value_bytes_max: options.value_bytes_max,
            entry: watch::Sender::new(Entry {
                base: Place { generation: 0, sequence: 0 },
                at_ms: 0,
                value: None,
            }),
            seen: tokio::sync::Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
            follower: Mutex::new(None),
        })
    }

    /// Channel and key.
    pub(super) fn name(&self) -> (String, String) {
        (self.channel.name().to_owned(), self.key.clone())
    }

    pub(super) fn entry(&self) -> watch::Receiver<Entry> {
        self.entry.subscribe()
    }

    pub(super) fn exists(&self) -> bool {
        self.entry.borrow().value.is_some()
    }

    /// Reads what was published since the last time. Afterwards the entry holds all changes that were acknowledged
    /// before this was called.
    pub(super) async fn catch_up(&self) -> Result<(), LogError> {
        let mut seen = self.seen.lock().await;
        let bounds = self.log.bounds(&self.channel).await?;
        if self.went(&bounds) {
            *seen = None;
        }
        *seen = match *seen {
            Some(place) => Some(self.read(place, bounds.head).await?.max(place)),
            None => Some(self.find(&bounds).await?),
        };
        Ok(())
    }

    /// Takes over that the channel was removed, where it was, and the state with it: it is not to come back.
    fn went(&self, bounds: &Bounds) -> bool {
        let mut gone = false;
        self.entry.send_if_modified(|entry| {
            gone = entry.at_ms > 0 && entry.base <= bounds.begin;
            if gone {
                entry.at_ms = 0;
            }
            gone && entry.value.take().is_some()
        });
        gone
    }

    /// Looks for the newest event of the state, in ever more of the channel's end. Mostly it is the last event.
    async fn find(&self, bounds: &Bounds) -> Result<Place, LogError> {
        let place = |fresh| {
            let wanted = Wanted { cursor: None, fresh };
            resume::resolve(&wanted, self.channel.name(), false, bounds, self.log.as_ref(), true).place
        };
        let oldest = place(Beginning::Start);
        self.entry.send_if_modified(|entry| {
            entry.base = oldest;
            false
        });
        let mut count = 1_u64;
        loop {
            let from = place(Beginning::Last(count));
            let seen = self.read(from, bounds.head).await?;
            if self.entry.borrow().at_ms > 0 || from <= oldest {
                return Ok(seen);
            }
            count = count.saturating_mul(256);
        }
    }

    /// Reads the events after `place` up to `head`, at least, and answers where it stopped.
    async fn read(&self, mut place: Place, head: Place) -> Result<Place, LogError> {
        while place < head {
            let frames = match self.channel.tail(place, self.page) {
                Some(frames) if !frames.is_empty() => frames,
                _ => self.log.page(&self.channel, place, self.page).await?,
            };
            let Some(last) = frames.last() else { return Ok(head) };
            place = last.place;
            for frame in &frames {
                if let Some(value) = self.decode(frame) {
                    self.apply(frame.place, frame.at_ms, value);
                }
            }
        }
        Ok(place)
    }

    /// What an event makes of the state: nothing, a value, or its end.
    fn decode(&self, frame: &Frame) -> Option<Option<Arc<Value>>> {
        let mut found = Found { core: self, change: None };
        // Our own encoding, of an event that was within the log's limits.
        let limits = ParserLimits { line_bytes_max: usize::MAX, event_bytes_max: usize::MAX };
        Parser::new(limits, "").feed(&frame.bytes, &mut found).ok()?;
        found.change
    }

    /// Takes over what the event at `place` says, unless a later one is known.
    fn apply(&self, place: Place, at_ms: u64, value: Option<Arc<Value>>) {
        self.entry.send_if_modified(|entry| {
            if entry.at_ms > 0 && place <= entry.base {
                return false;
            }
            let differs = entry.value != value;
            *entry = Entry { base: place, at_ms: at_ms.max(1), value };
            differs
        });
    }

    /// Publishes what `decide` makes of the present entry, as often as it takes to be the first with it. False where it
    /// decides for nothing.
    pub(super) async fn change(
        &self,
        hub: &Arc<Inner>,
        mut decide: impl FnMut(&Entry) -> Result<Option<Change>, StateError>,
    ) -> Result<bool, StateError> {
        let publisher = Publisher { hub: Arc::clone(hub) };
        let _turn = self.turn.lock().await;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt >= LOSSES_WITHOUT_BACKOFF {
                sleep(Duration::from_millis(clock::random_up_to(BACKOFF_MS_MAX))).await;
            }
            self.catch_up().await?;
            let entry = self.entry.borrow().clone();
            let Some(change) = decide(&entry)? else { return Ok(false) };
            // The log takes one event a key: of all changes to the value of this event, the first.
            let key = format!("holdfast.state:{}:{}", self.key, hub.id(entry.base));
            let message = self.message(&change).contested_key(key);
            let place = match publisher.append(self.channel.name(), message).await {
                // A duplicate is this very change: it was stored, and the log tried again since the answer got lost.
                Ok(appended) => appended.place,
                // Somebody was faster, with the same value or with another.
                Err(PublishError::Log(LogError::KeyReused)) => continue,
                Err(error) => return Err(error.into()),
            };
            let value = match change {
                Change::Set(encoded) => Some(encoded.value),
                Change::Remove => None,
            };
            self.apply(place, clock::unix_ms(), value);
            return Ok(true);
        }
        Err(StateError::Contended(ATTEMPTS_MAX))
    }

    fn message(&self, change: &Change) -> Message {
        let key = Value::from(self.key.as_str());
        let message = match change {
            Change::Set(encoded) => Message::text(self.channel.name(), format!("{{{key}:{}}}", encoded.text)),
            Change::Remove => Message::text(REMOVED, format!(r#"{{"key":{key}}}"#)),
        };
        message.state(StateMark { key: self.key.clone(), removed: matches!(change, Change::Remove) })
    }

    /// Publishes the value anew where its event is no longer in the log, or older than it should be. Of all nodes that
    /// do so at once, one gets through.
    pub(super) async fn keep_stored(&self, hub: &Arc<Inner>) -> Result<(), StateError> {
        let bounds = self.log.bounds(&self.channel).await?;
        let oldest_ms = clock::unix_ms().saturating_sub(self.refresh_ms);
        let lost = |entry: &Entry| {
            let is_stored = bounds.oldest.is_some_and(|oldest| oldest <= entry.base)
                && entry.base.sequence <= bounds.end_of(entry.base.generation);
            !is_stored || (self.refresh_ms > 0 && entry.at_ms < oldest_ms)
        };
        let base = {
            let entry = self.entry.borrow();
            if entry.value.is_none() || !lost(&entry) {
                return Ok(());
            }
            entry.base
        };
        self.change(hub, |entry| {
            let value = entry.value.as_ref().filter(|_| entry.base == base);
            Ok(value.map(|value| Change::Set(Encoded { text: value.to_string(), value: Arc::clone(value) })))
        })
        .await?;
        Ok(())
    }

    /// The event that holds the value.
    pub(super) fn place(&self) -> Option<Place> {
        let entry = self.entry.borrow();
        entry.value.is_some().then_some(entry.base)
    }

    /// Keeps the entry up to date for as long as somebody holds the state.
    pub(super) fn follow(self: &Arc<Self>, hub: &Arc<Inner>) {
        let head = self.channel.head();
        let task = follow(Arc::downgrade(self), Arc::downgrade(hub), head, self.refresh_ms);
        let handle = tokio::spawn(task).abort_handle();
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    }
}

async fn follow(core: Weak<Core>, hub: Weak<Inner>, mut head: watch::Receiver<Place>, refresh_ms: u64) {
    loop {
        let (Some(core), Some(hub)) = (core.upgrade(), hub.upgrade()) else { return };
        let outcome = core.step(&hub).await;
        drop((core, hub));
        let again = match outcome {
            Ok(()) if refresh_ms > 0 => Duration::from_millis(refresh_ms / 2 + 1),
            Ok(()) => Duration::MAX,
            Err(StateError::Publish(PublishError::Log(LogError::Closed))) => return,
            Err(error) => {
                tracing::warn!(event = "state.failed", code = error.code(), %error);
                RETRY
            }
        };
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = sleep(again) => {}
        }
    }
}

impl Core {
    async fn step(self: &Arc<Self>, hub: &Arc<Inner>) -> Result<(), StateError> {
        let generation = self.entry.borrow().base.generation;
        self.catch_up().await?;
        hub.states.settle(self);
        // A new epoch may mean that the log lost its end, and the value's event with it.
        if self.refresh_ms > 0 || self.channel.head().borrow().generation != generation {
            self.keep_stored(hub).await?;
        }
        Ok(())
    }
}

/// Finds the state's change in one event.
struct Found<'c> {
    core: &'c Core,
    change: Option<Option<Arc<Value>>>,
}

impl Sink for Found<'_> {
    fn event(&mut self, event: EventRef<'_>) {
        let key = self.core.key.as_str();
        if event.name == REMOVED {
            let data: Option<Value> = serde_json::from_str(event.data).ok();
            if data.is_some_and(|data| data["key"] == key) {
                self.change = Some(None);
            }
        } else if event.name == self.core.channel.name()
            && let Ok(Value::Object(mut data)) = serde_json::from_str(event.data)
            && let Some(value) = data.remove(key)
        {
            self.change = Some(Some(Arc::new(value)));
        }
    }

    fn id_only(&mut self, _: &str) {}

    fn retry(&mut self, _: u64) {}
}
