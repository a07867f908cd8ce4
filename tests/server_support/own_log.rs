//! An event log that knows nothing of the crate but its public API: events in a `VecDeque` a channel. (T9, E17)

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, ready};
use holdfast_sse::server::log::{
    Appended, Bounds, Channel, EventLog, Frame, Key, LogError, NewEvent, PageLimit, Place, Retention,
    check_channel, check_name, epoch_name,
};

pub struct OwnLog {
    retention: Retention,
    state: Mutex<State>,
}

struct State {
    epochs: Vec<Arc<str>>,
    stored: HashMap<String, Stored>,
    /// Channels without events, for as long as somebody holds them.
    empty: HashMap<String, Weak<Channel>>,
    closed: bool,
}

struct Stored {
    channel: Arc<Channel>,
    events: VecDeque<(Frame, u64)>,
    bytes: u64,
    keys: VecDeque<(Key, Place)>,
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis())
        .expect("a time")
}

impl OwnLog {
    pub fn new(retention: Retention) -> Self {
        let epochs = vec![epoch_name().into()];
        let state = State { epochs, stored: HashMap::new(), empty: HashMap::new(), closed: false };
        Self { retention, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    fn store(&self, name: &str, event: NewEvent) -> Result<Appended, LogError> {
        check_name(&event.name)?;
        let mut state = self.state();
        if state.closed {
            return Err(LogError::Closed);
        }
        let channel = state.channel(name)?;
        if !state.stored.contains_key(name) && state.stored.len() >= self.retention.channels_max {
            return Err(LogError::TooManyChannels(self.retention.channels_max));
        }
        let generation = state.generation();
        let epoch = Arc::clone(&state.epochs[generation as usize]);
        let stored = state.stored.entry(name.to_owned()).or_insert_with(|| Stored {
            channel,
            events: VecDeque::new(),
            bytes: 0,
            keys: VecDeque::new(),
        });
        if let Some(key) = &event.key
            && let Some((known, place)) = stored.keys.iter().find(|(known, _)| known.text == key.text)
        {
            return key.known(*place, known.content);
        }
        let head = stored.channel.bounds().head;
        let sequence = if head.generation == generation { head.sequence + 1 } else { 1 };
        let place = Place { generation, sequence };
        let data = event.data.render(sequence);
        let bytes = (event.name.len() + data.len()) as u64;
        let frame =
            Frame::encode(place, &epoch, now_ms(), &event.name, &data).map_err(|_| LogError::InvalidName)?;
        stored.events.push_back((frame.clone(), bytes));
        stored.bytes += bytes;
        stored.channel.publish(frame, PageLimit { events_max: 100, bytes_max: 1 << 20 });
        stored.keys.extend(event.key.map(|key| (key, place)));
        let beyond = stored.keys.len().saturating_sub(usize::try_from(self.retention.keys_max).expect("few"));
        stored.keys.drain(..beyond);
        self.expire(stored);
        Ok(Appended { place, duplicate: false })
    }

    fn expire(&self, stored: &mut Stored) {
        let Retention { events_max, bytes_max, age_ms_max, .. } = self.retention;
        while let Some((oldest, bytes)) = stored.events.front() {
            let old = age_ms_max > 0 && oldest.at_ms + age_ms_max < now_ms();
            if stored.events.len() as u64 <= events_max && stored.bytes <= bytes_max && !old {
                break;
            }
            stored.bytes -= bytes;
            stored.events.pop_front();
        }
        let oldest = stored.events.front().map(|(oldest, _)| oldest.place);
        stored.channel.advance(Bounds { oldest, ..stored.channel.bounds() });
    }
}

impl State {
    fn generation(&self) -> u32 {
        u32::try_from(self.epochs.len() - 1).expect("few")
    }

    fn channel(&mut self, name: &str) -> Result<Arc<Channel>, LogError> {
        check_channel(name)?;
        if let Some(stored) = self.stored.get(name) {
            return Ok(Arc::clone(&stored.channel));
        }
        if let Some(channel) = self.empty.get(name).and_then(Weak::upgrade) {
            return Ok(channel);
        }
        self.empty.retain(|_, channel| channel.strong_count() > 0);
        let channel = Arc::new(Channel::new(name, Bounds::new(self.generation(), Place::default())));
        self.empty.insert(name.to_owned(), Arc::downgrade(&channel));
        Ok(channel)
    }
}

impl EventLog for OwnLog {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        Box::pin(ready(self.store(channel, event)))
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.state().channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        if let Some(stored) = self.state().stored.get_mut(channel.name()) {
            self.expire(stored);
        }
        Box::pin(ready(Ok(channel.bounds())))
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        let mut page = Vec::new();
        let mut bytes = 0;
        if let Some(stored) = self.state().stored.get(channel.name()) {
            for (frame, _) in stored.events.iter().filter(|(frame, _)| frame.place > after) {
                bytes += frame.bytes.len();
                if page.len() >= limit.events_max || (!page.is_empty() && bytes > limit.bytes_max) {
                    break;
                }
                page.push(frame.clone());
            }
        }
        Box::pin(ready(Ok(page)))
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.state().epochs.get(generation as usize).cloned()
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        self.state()
            .epochs
            .iter()
            .position(|known| **known == *epoch)
            .and_then(|index| u32::try_from(index).ok())
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.state().epochs.push(epoch_name().into());
        Box::pin(ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.state().closed = true;
        Box::pin(ready(()))
    }

    fn durable(&self) -> bool {
        false
    }
}
