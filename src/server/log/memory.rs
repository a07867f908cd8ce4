//! A log in memory: a bounded ring of frames a channel, gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::channel::{Directory, Ring};
use super::{
    Appended, Bounds, Channel, EventLog, Frame, Key, LogError, NewEvent, PageLimit, Place, Retention,
    check_channel, check_name, known_key,
};
use crate::server::clock;

/// See the module's text. Cheap, and honest about it: its epoch is new with each process, so that a client that
/// comes back after a restart is told that what it missed is gone.
#[derive(Debug)]
pub struct MemoryLog {
    retention: Retention,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    epochs: Vec<Arc<str>>,
    directory: Directory,
    keys: HashMap<String, Keys>,
    /// Channels with events.
    stored: usize,
    closed: bool,
}

/// The idempotency keys of one channel, oldest first.
#[derive(Debug, Default)]
struct Keys {
    places: HashMap<String, (Place, u64)>,
    order: VecDeque<String>,
}

impl MemoryLog {
    /// An empty log of a new epoch.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        let state = State {
            epochs: vec![clock::epoch().into()],
            directory: Directory::default(),
            keys: HashMap::new(),
            stored: 0,
            closed: false,
        };
        Self { retention, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, name: &str, event: NewEvent) -> Result<Appended, LogError> {
        check_name(&event.name)?;
        let mut state = self.state();
        if state.closed {
            return Err(LogError::Closed);
        }
        if let Some(key) = &event.key
            && let Some((place, content)) = state.keys.get(name).and_then(|keys| keys.places.get(&key.text))
        {
            return known_key(key, *place, *content);
        }
        let channel = state.channel(name)?;
        let head = channel.bounds().head;
        if head.sequence == 0 {
            if state.stored >= self.retention.channels_max {
                return Err(LogError::TooManyChannels(self.retention.channels_max));
            }
            state.stored += 1;
        }
        let (generation, epoch) = state.epoch();
        let sequence = if generation == head.generation { head.sequence + 1 } else { 1 };
        let place = Place { generation, sequence };
        let frame = Frame::encode(place, &epoch, clock::unix_ms(), &event.name, &event.data.render(sequence))
            .map_err(|_| LogError::InvalidName)?;
        channel.change(|ring| {
            ring.push(frame);
            self.expire(ring);
        });
        if let Some(key) = event.key {
            state.keys.entry(name.to_owned()).or_default().insert(key, place, self.retention.keys_max);
        }
        Ok(Appended { place, duplicate: false })
    }

    fn expire(&self, ring: &mut Ring) {
        let Retention { events_max, bytes_max, age_ms_max, .. } = self.retention;
        let too_old = clock::unix_ms().saturating_sub(age_ms_max);
        while ring.oldest().is_some_and(|oldest| {
            ring.len() as u64 > events_max
                || ring.bytes() as u64 > bytes_max
                || (age_ms_max > 0 && oldest.at_ms < too_old)
        }) {
            ring.pop();
        }
        ring.bounds.oldest = ring.oldest().map(|frame| frame.place);
    }
}

impl State {
    fn epoch(&self) -> (u32, Arc<str>) {
        let newest = self.epochs.len() - 1;
        (u32::try_from(newest).unwrap_or(u32::MAX), Arc::clone(&self.epochs[newest]))
    }

    fn channel(&mut self, name: &str) -> Result<Arc<Channel>, LogError> {
        if let Some(channel) = self.directory.get(name) {
            return Ok(Arc::clone(channel));
        }
        check_channel(name)?;
        let head = Place { generation: self.epoch().0, sequence: 0 };
        Ok(self.directory.insert(name, Bounds { oldest: None, head, ends: Vec::new() }))
    }
}

impl Keys {
    fn insert(&mut self, key: Key, place: Place, keys_max: u64) {
        self.places.insert(key.text.clone(), (place, key.content));
        self.order.push_back(key.text);
        while self.order.len() as u64 > keys_max {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
    }
}

impl EventLog for MemoryLog {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        ready(self.store(channel, event)).boxed()
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.state().channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        channel.change(|ring| self.expire(ring));
        ready(Ok(channel.bounds())).boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        let frames = channel.change(|ring| {
            self.expire(ring);
            ring.stored_after(after, limit)
        });
        ready(Ok(frames)).boxed()
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.state().epochs.get(generation as usize).cloned()
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        let index = self.state().epochs.iter().position(|known| **known == *epoch)?;
        u32::try_from(index).ok()
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.state().epochs.push(clock::epoch().into());
        ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.state().closed = true;
        ready(()).boxed()
    }

    fn durable(&self) -> bool {
        false
    }
}
