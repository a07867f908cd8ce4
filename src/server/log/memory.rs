//! A log in memory: a bounded ring of frames a channel, gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::channel::{Directory, Ring};
use super::{
    Appended, Bounds, Channel, EventLog, Frame, Key, LogError, NewEvent, PageLimit, Place, Retention,
    check_keys, check_name,
};
use crate::server::clock;

/// See the module's text. Cheap, and honest about it: its epoch is new with each process, so that a client that
/// comes back after a restart is told that what it missed is gone.
#[derive(Debug)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    /// Ends the sweeping thread when it is dropped.
    _sweeper: Option<mpsc::Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    retention: Retention,
    /// Nothing is kept for those who come later, only for those who listen.
    volatile: bool,
    state: Mutex<State>,
    /// Bytes of all frames.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct State {
    epochs: Vec<Arc<str>>,
    directory: Directory,
    /// The channels with events, or that had some and are not forgotten.
    used: HashMap<String, Used>,
    closed: bool,
}

/// What is known of a channel beside its events.
#[derive(Debug, Default)]
struct Used {
    keys: Keys,
    /// When the last event came, in milliseconds since 1970.
    at_ms: u64,
}

/// The idempotency keys of one channel, oldest first.
#[derive(Debug, Default)]
struct Keys {
    places: HashMap<String, (Place, u64)>,
    order: VecDeque<String>,
}

impl MemoryLog {
    /// An empty log of a new epoch. With an age it has a thread that looks for old events, once a second or more often.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self::with(retention, false)
    }

    /// One that keeps events for those who listen, and nothing of a channel without listeners.
    pub(super) fn volatile(retention: Retention) -> Self {
        Self::with(retention, true)
    }

    fn with(retention: Retention, volatile: bool) -> Self {
        let state = State {
            epochs: vec![clock::epoch().into()],
            directory: Directory::default(),
            used: HashMap::new(),
            closed: false,
        };
        let shared =
            Arc::new(Shared { retention, volatile, state: Mutex::new(state), bytes: AtomicUsize::new(0) });
        let sweeper = (volatile || retention.age_ms_max > 0).then(|| Arc::clone(&shared).sweeper()).flatten();
        Self { shared, _sweeper: sweeper }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores all events or none.
    fn store(&self, name: &str, events: Vec<NewEvent>) -> Result<Vec<Appended>, LogError> {
        events.iter().try_for_each(|event| check_name(&event.name))?;
        let mut state = self.state();
        if state.closed {
            return Err(LogError::Closed);
        }
        let channel = state.channel(name)?;
        if !state.used.contains_key(name) && !self.volatile {
            let channels_max = self.retention.channels_max;
            if state.used.len() >= channels_max {
                return Err(LogError::TooManyChannels(channels_max));
            }
        }
        if let Some(used) = state.used.get(name) {
            used.keys.check(&events)?;
        }
        check_keys(&events)?;
        let (generation, epoch) = state.epoch();
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            let keys = state.used.get(name).map(|used| &used.keys);
            if let (Some(key), Some(keys)) = (&event.key, keys)
                && let Some((place, content)) = keys.places.get(&key.text)
            {
                answers.push(key.known(*place, *content)?);
                continue;
            }
            let head = channel.bounds().head;
            let sequence = if generation == head.generation { head.sequence + 1 } else { 1 };
            let place = Place { generation, sequence };
            let at_ms = clock::unix_ms();
            let frame = Frame::encode(place, &epoch, at_ms, &event.name, &event.data.render(sequence))
                .map_err(|_| LogError::InvalidName)?;
            if let Some(mark) = event.state {
                channel.mark_state(place, mark);
            }
            self.change(&channel, |ring| {
                ring.push(frame);
                self.expire(ring);
            });
            if !self.volatile {
                let used = state.used.entry(name.to_owned()).or_default();
                used.at_ms = at_ms;
                if let Some(key) = event.key {
                    used.keys.insert(key, place, self.retention.keys_max);
                }
            }
            answers.push(Appended { place, duplicate: false });
        }
        self.shrink(&state);
        if self.volatile && channel.readers() == 0 {
            self.change(&channel, Ring::clear);
            drop(channel);
            if !state.directory.is_held(name) {
                state.forget(name);
            }
        }
        Ok(answers)
    }

    /// Lets `change` alter a channel's frames, and keeps count of all of them.
    fn change<T>(&self, channel: &Channel, change: impl FnOnce(&mut Ring) -> T) -> T {
        channel.change(|ring| {
            let before = ring.bytes();
            let answer = change(ring);
            self.bytes.fetch_add(ring.bytes(), Ordering::Relaxed);
            self.bytes.fetch_sub(before, Ordering::Relaxed);
            answer
        })
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

    /// Takes from the largest channels until all together are within their limit, and some more, so that not each
    /// append looks at all channels.
    fn shrink(&self, state: &State) {
        let max = usize::try_from(self.retention.total_bytes_max).unwrap_or(usize::MAX);
        let all = || self.bytes.load(Ordering::Relaxed);
        if all() <= max {
            return;
        }
        let target = max - max / 16;
        while all() > target {
            let sizes = state.directory.all().map(|channel| (channel.change(|ring| ring.bytes()), channel));
            let Some((size, largest)) = sizes.max_by_key(|(size, _)| *size).filter(|largest| largest.0 > 0)
            else {
                return;
            };
            let keep = (size / 2).max(size.saturating_sub(all() - target));
            self.change(largest, |ring| {
                ring.trim(PageLimit { events_max: usize::MAX, bytes_max: keep });
                ring.bounds.oldest = ring.oldest().map(|frame| frame.place);
            });
        }
    }

    /// A thread that sweeps until the sender is dropped. Without one (the system has no more), events expire when
    /// somebody looks at their channel.
    fn sweeper(self: Arc<Self>) -> Option<mpsc::Sender<()>> {
        let (stop, stopped) = mpsc::channel();
        let every = self.retention.sweep();
        let run = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                self.sweep();
            }
        };
        std::thread::Builder::new().name("holdfast-sweep".to_owned()).spawn(run).ok()?;
        Some(stop)
    }

    /// Lets go of what is too old, or has no listeners, and forgets the channels of which nothing is left.
    fn sweep(&self) {
        let channels: Vec<_> = self.state().directory.all().cloned().collect();
        let mut empty = Vec::new();
        for channel in channels {
            let is_empty = self.change(&channel, |ring| {
                if self.volatile && channel.readers() == 0 {
                    ring.clear();
                }
                self.expire(ring);
                ring.oldest().is_none() && ring.bounds.is_used()
            });
            if is_empty {
                empty.push(channel.name().to_owned());
            }
        }
        let too_old = clock::unix_ms().saturating_sub(self.retention.age_ms_max);
        for name in empty {
            let mut state = self.state();
            let idle = self.volatile || state.used.get(&name).is_some_and(|used| used.at_ms < too_old);
            if idle && !state.directory.is_held(&name) {
                state.forget(&name);
            }
        }
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        super::check_channel(name)?;
        let mut state = self.state();
        if let Some(channel) = state.directory.get(name).cloned() {
            self.change(&channel, Ring::clear);
            drop(channel);
            state.forget(name);
        }
        Ok(())
    }
}

impl State {
    fn epoch(&self) -> (u32, Arc<str>) {
        let newest = self.epochs.len() - 1;
        (u32::try_from(newest).unwrap_or(u32::MAX), Arc::clone(&self.epochs[newest]))
    }

    fn channel(&mut self, name: &str) -> Result<Arc<Channel>, LogError> {
        let generation = self.epoch().0;
        self.directory.open(name, generation)
    }

    fn forget(&mut self, name: &str) {
        let generation = self.epoch().0;
        self.used.remove(name);
        self.directory.forget(name, generation);
    }
}

impl Keys {
    /// Whether a key stands for something else already.
    fn check(&self, events: &[NewEvent]) -> Result<(), LogError> {
        for key in events.iter().filter_map(|event| event.key.as_ref()) {
            if let Some((place, content)) = self.places.get(&key.text) {
                key.known(*place, *content)?;
            }
        }
        Ok(())
    }

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
        let stored = self.shared.store(channel, vec![event]);
        ready(stored.map(|all| all[0])).boxed()
    }

    fn append_all(
        &self,
        channel: &str,
        events: Vec<NewEvent>,
    ) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        ready(self.shared.store(channel, events)).boxed()
    }

    fn remove(&self, channel: &str) -> BoxFuture<'_, Result<(), LogError>> {
        ready(self.shared.remove(channel)).boxed()
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.shared.state().channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        self.shared.change(channel, |ring| self.shared.expire(ring));
        ready(Ok(channel.bounds())).boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        let frames = self.shared.change(channel, |ring| {
            self.shared.expire(ring);
            ring.stored_after(after, limit)
        });
        ready(Ok(frames)).boxed()
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.shared.state().epochs.get(generation as usize).cloned()
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        let index = self.shared.state().epochs.iter().position(|known| **known == *epoch)?;
        u32::try_from(index).ok()
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.shared.state().epochs.push(clock::epoch().into());
        ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.state().closed = true;
        ready(()).boxed()
    }

    fn durable(&self) -> bool {
        false
    }
}
