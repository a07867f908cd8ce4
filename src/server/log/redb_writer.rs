//! The one thread that writes to a redb log: it gathers appends, stores them in one transaction, and only after
//! its sync answers the publishers and wakes the readers.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::channel::Ring;
use super::redb::{CHANNELS, ENDS, EPOCHS, EVENTS, KEY_ORDER, KEYS, RedbOptions, Row, Shared, storage};
use super::{Appended, Frame, Key, LogError, NewEvent, PageLimit, Place, known_key};
use crate::server::clock;

type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append { channel: String, event: NewEvent, answer: Answer<Appended>, place: OwnedSemaphorePermit },
    BeginEpoch { answer: Answer<()> },
}

pub(super) struct Writer {
    database: Arc<Database>,
    shared: Arc<Shared>,
    options: RedbOptions,
    channels: HashMap<String, Meta>,
    next_number: u32,
    /// Bytes that each channel's tail holds, and all of them together.
    tails: HashMap<String, usize>,
    tails_bytes: usize,
}

/// What the writer knows of a channel; a copy is changed and replaces it when the transaction is through.
#[derive(Debug, Clone, Copy)]
struct Meta {
    number: u32,
    head: Place,
    oldest: Option<(Place, u64)>,
    count: u64,
    bytes: u64,
    key_first: u64,
    key_next: u64,
}

/// One transaction's work on the side of memory.
#[derive(Default)]
struct Batch {
    metas: HashMap<String, Meta>,
    frames: HashMap<String, Vec<Frame>>,
}

struct Tables<'t> {
    events: Table<'t, (u32, u32, u64), (u64, &'static str, &'static str)>,
    keys: Table<'t, (u32, &'static str), (u32, u64, u64)>,
    key_order: Table<'t, (u32, u64), &'static str>,
    ends: Table<'t, (u32, u32), u64>,
}

/// How often old events are looked for where an age is set, and tails without readers.
const SWEEP: Duration = Duration::from_secs(1);

impl Writer {
    pub(super) fn new(
        database: Arc<Database>,
        shared: Arc<Shared>,
        options: RedbOptions,
    ) -> Result<Self, LogError> {
        let mut channels = HashMap::new();
        let mut next_number = 0;
        let transaction = database.begin_read().map_err(storage)?;
        let events = transaction.open_table(EVENTS).map_err(storage)?;
        for entry in transaction.open_table(CHANNELS).map_err(storage)?.iter().map_err(storage)? {
            let (name, row) = entry.map_err(storage)?;
            let (number, generation, sequence, bytes, key_first, key_next) = row.value();
            next_number = next_number.max(number + 1);
            let head = Place { generation, sequence };
            let bounds = shared.channel(name.value())?.bounds();
            let oldest = match bounds.oldest {
                Some(place) => {
                    let stored = events.get((number, place.generation, place.sequence)).map_err(storage)?;
                    stored.map(|event| (place, event.value().0))
                }
                None => None,
            };
            let before = |place| bounds.before(place);
            let count = bounds.oldest.map_or(0, |oldest| bounds.distance(before(oldest), head));
            let meta = Meta { number, head, oldest, count, bytes, key_first, key_next };
            channels.insert(name.value().to_owned(), meta);
        }
        drop(events);
        drop(transaction);
        Ok(Self { database, shared, options, channels, next_number, tails: HashMap::new(), tails_bytes: 0 })
    }

    /// Works until the last sender is gone and all that was queued is stored.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let mut swept = Instant::now();
        loop {
            // By the clock, not only when idle: one busy channel must not keep the others from growing old.
            if swept.elapsed() >= SWEEP {
                self.sweep();
                swept = Instant::now();
            }
            let first = match inbox.recv_timeout(SWEEP) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut appends = Vec::new();
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Append { channel, event, answer, place } => {
                        appends.push((channel, event, answer, place));
                        if appends.len() < self.options.commit_events_max {
                            next = inbox.try_recv().ok();
                        }
                    }
                    Command::BeginEpoch { answer } => {
                        // What was queued before belongs to the epoch before.
                        self.store(std::mem::take(&mut appends));
                        let _ = answer.send(self.begin_epoch());
                    }
                }
            }
            self.store(appends);
        }
    }

    fn store(&mut self, appends: Vec<(String, NewEvent, Answer<Appended>, OwnedSemaphorePermit)>) {
        if appends.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(appends.len());
        let stored = self.transact(|writer, tables, batch| {
            for (channel, event, answer, place) in appends {
                match writer.append(tables, batch, &channel, event) {
                    // What only this event's sender did wrong must not undo its neighbours.
                    Err(error @ LogError::Storage(_)) => {
                        answers.push((answer, Err(error.clone()), place));
                        return Err(error);
                    }
                    result => answers.push((answer, result, place)),
                }
            }
            Ok(())
        });
        for (answer, result, place) in answers {
            let _ = answer.send(stored.clone().and(result));
            drop(place);
        }
    }

    /// Runs `work` in one transaction; what it left in the batch becomes visible only when that is on disk.
    fn transact(
        &mut self,
        work: impl FnOnce(&Self, &mut Tables<'_>, &mut Batch) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut batch = Batch::default();
        // redb's default durability: commit() returns after the sync.
        let transaction = self.database.begin_write().map_err(storage)?;
        {
            let mut tables = Tables::open(&transaction)?;
            work(self, &mut tables, &mut batch)?;
            let mut channels = transaction.open_table(CHANNELS).map_err(storage)?;
            for (name, meta) in &batch.metas {
                channels.insert(name.as_str(), meta.row()).map_err(storage)?;
            }
        }
        transaction.commit().map_err(storage)?;
        self.publish(batch);
        Ok(())
    }

    fn append(
        &self,
        tables: &mut Tables<'_>,
        batch: &mut Batch,
        name: &str,
        event: NewEvent,
    ) -> Result<Appended, LogError> {
        let mut meta = match batch.metas.get(name).or_else(|| self.channels.get(name)) {
            Some(meta) => *meta,
            None => self.new_channel(batch)?,
        };
        if let Some(key) = &event.key
            && let Some(known) = tables.keys.get((meta.number, key.text.as_str())).map_err(storage)?
        {
            let (generation, sequence, content) = known.value();
            return known_key(key, Place { generation, sequence }, content);
        }
        let (generation, epoch) = self.shared.newest_epoch();
        let sequence = if meta.head.generation == generation { meta.head.sequence + 1 } else { 1 };
        let place = Place { generation, sequence };
        let at_ms = clock::unix_ms();
        let data = event.data.render(sequence);
        let frame =
            Frame::encode(place, &epoch, at_ms, &event.name, &data).map_err(|_| LogError::InvalidName)?;
        if meta.head.generation != generation && meta.head.sequence > 0 {
            let ended = (meta.number, meta.head.generation);
            tables.ends.insert(ended, meta.head.sequence).map_err(storage)?;
        }
        tables
            .events
            .insert((meta.number, generation, sequence), (at_ms, event.name.as_str(), data.as_str()))
            .map_err(storage)?;
        meta.head = place;
        meta.count += 1;
        meta.bytes += (event.name.len() + data.len()) as u64;
        meta.oldest.get_or_insert((place, at_ms));
        if let Some(key) = &event.key {
            tables.remember(&mut meta, key, self.options.retention.keys_max)?;
        }
        tables.expire(&mut meta, &self.options, at_ms)?;
        batch.metas.insert(name.to_owned(), meta);
        batch.frames.entry(name.to_owned()).or_default().push(frame);
        Ok(Appended { place, duplicate: false })
    }

    fn new_channel(&self, batch: &Batch) -> Result<Meta, LogError> {
        let known = |name: &String| self.channels.contains_key(name);
        let new = batch.metas.keys().filter(|name| !known(name)).count();
        let channels_max = self.options.retention.channels_max;
        if self.channels.len() + new >= channels_max {
            return Err(LogError::TooManyChannels(channels_max));
        }
        let number = self.next_number + u32::try_from(new).unwrap_or(u32::MAX);
        let head = Place { generation: self.shared.newest_epoch().0, sequence: 0 };
        Ok(Meta { number, head, oldest: None, count: 0, bytes: 0, key_first: 0, key_next: 0 })
    }

    /// Makes a finished transaction visible: to later ones, and to the readers.
    fn publish(&mut self, batch: Batch) {
        let mut frames = batch.frames;
        for (name, meta) in batch.metas {
            self.next_number = self.next_number.max(meta.number + 1);
            self.channels.insert(name.clone(), meta);
            // The name was checked when its event came.
            let Ok(channel) = self.shared.channel(&name) else { continue };
            let others = self.tails_bytes - self.tails.get(&name).copied().unwrap_or(0);
            // Without readers nobody needs a tail; over the limit of all tails the disk serves.
            let limit = if channel.readers() == 0 || others > self.options.tails_bytes_max {
                PageLimit { events_max: 0, bytes_max: 0 }
            } else {
                self.options.tail
            };
            let bytes = channel.change(|ring| {
                for frame in frames.remove(&name).unwrap_or_default() {
                    ring.push(frame);
                }
                while ring.len() > limit.events_max || (ring.bytes() > limit.bytes_max && ring.len() > 0) {
                    ring.pop();
                }
                ring.bounds.oldest = meta.oldest.map(|oldest| oldest.0);
                ring.bytes()
            });
            self.tails_bytes = others + bytes;
            if bytes == 0 {
                self.tails.remove(&name)
            } else {
                self.tails.insert(name, bytes)
            };
        }
    }

    fn begin_epoch(&mut self) -> Result<(), LogError> {
        let epoch = clock::epoch();
        let generation = self.shared.newest_epoch().0.checked_add(1).ok_or(LogError::Closed)?;
        let transaction = self.database.begin_write().map_err(storage)?;
        transaction
            .open_table(EPOCHS)
            .map_err(storage)?
            .insert(generation, epoch.as_str())
            .map_err(storage)?;
        transaction.commit().map_err(storage)?;
        self.shared.epochs.write().unwrap_or_else(PoisonError::into_inner).push(epoch.into());
        Ok(())
    }

    /// Deletes what has grown too old in channels that nobody appends to, and lets go of tails without readers.
    fn sweep(&mut self) {
        let age_ms_max = self.options.retention.age_ms_max;
        let now = clock::unix_ms();
        let too_old = now.saturating_sub(age_ms_max);
        let old: Vec<String> = self
            .channels
            .iter()
            .filter(|(_, meta)| age_ms_max > 0 && meta.oldest.is_some_and(|oldest| oldest.1 < too_old))
            .map(|(name, _)| name.clone())
            .collect();
        if !old.is_empty() {
            let swept = self.transact(|writer, tables, batch| {
                for name in old {
                    let Some(mut meta) = writer.channels.get(&name).copied() else { continue };
                    tables.expire(&mut meta, &writer.options, now)?;
                    batch.metas.insert(name, meta);
                }
                Ok(())
            });
            if let Err(error) = swept {
                tracing::error!(event = "log.sweep_failed", %error);
            }
        }
        let shared = Arc::clone(&self.shared);
        let mut freed = 0;
        self.tails.retain(|name, bytes| {
            let Some(channel) =
                shared.directory().get(name).filter(|channel| channel.readers() == 0).cloned()
            else {
                return true;
            };
            channel.change(Ring::clear);
            freed += *bytes;
            false
        });
        self.tails_bytes -= freed;
    }
}

impl Meta {
    fn row(&self) -> Row {
        (self.number, self.head.generation, self.head.sequence, self.bytes, self.key_first, self.key_next)
    }
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            events: transaction.open_table(EVENTS).map_err(storage)?,
            keys: transaction.open_table(KEYS).map_err(storage)?,
            key_order: transaction.open_table(KEY_ORDER).map_err(storage)?,
            ends: transaction.open_table(ENDS).map_err(storage)?,
        })
    }

    /// Stores the key of the channel's newest event, and forgets the oldest beyond the limit.
    fn remember(&mut self, meta: &mut Meta, key: &Key, keys_max: u64) -> Result<(), LogError> {
        let stands_for = (meta.head.generation, meta.head.sequence, key.content);
        self.keys.insert((meta.number, key.text.as_str()), stands_for).map_err(storage)?;
        self.key_order.insert((meta.number, meta.key_next), key.text.as_str()).map_err(storage)?;
        meta.key_next += 1;
        while meta.key_next - meta.key_first > keys_max {
            let oldest = self.key_order.remove((meta.number, meta.key_first)).map_err(storage)?;
            if let Some(oldest) = oldest {
                self.keys.remove((meta.number, oldest.value())).map_err(storage)?;
            }
            meta.key_first += 1;
        }
        Ok(())
    }

    /// Deletes events from the oldest on until the channel is within its limits.
    fn expire(&mut self, meta: &mut Meta, options: &RedbOptions, now_ms: u64) -> Result<(), LogError> {
        let keep = options.retention;
        let too_old = now_ms.saturating_sub(keep.age_ms_max);
        while let Some((place, at_ms)) = meta.oldest {
            let old = keep.age_ms_max > 0 && at_ms < too_old;
            if meta.count <= keep.events_max && meta.bytes <= keep.bytes_max && !old {
                break;
            }
            let key = (meta.number, place.generation, place.sequence);
            if let Some(event) = self.events.remove(key).map_err(storage)? {
                let (_, name, data) = event.value();
                meta.bytes = meta.bytes.saturating_sub((name.len() + data.len()) as u64);
            }
            meta.count = meta.count.saturating_sub(1);
            let mut rest = self.events.range(key..=(meta.number, u32::MAX, u64::MAX)).map_err(storage)?;
            meta.oldest = match rest.next() {
                Some(next) => {
                    let (key, value) = next.map_err(storage)?;
                    let (_, generation, sequence) = key.value();
                    Some((Place { generation, sequence }, value.value().0))
                }
                None => None,
            };
        }
        Ok(())
    }
}
