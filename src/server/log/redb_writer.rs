//! The one thread that writes to a redb log: it gathers appends, stores them in one transaction, and only after
//! its sync answers the publishers and wakes the readers.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::oneshot;

use super::channel::Ring;
use super::redb::{EPOCHS, File, RedbOptions, Room, Row, Shared, storage};
use super::redb_load::{self, Loaded};
use super::redb_tables::{Keep, Tables};
use super::{Appended, Bounds, Channel, Frame, LogError, NewEvent, PageLimit, Place};
use crate::server::clock;

type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    BeginEpoch { answer: Answer<()> },
    Remove { channel: String, answer: Answer<()> },
}

/// Events that are stored together or not at all.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) channel: String,
    pub(super) events: Vec<NewEvent>,
    pub(super) answer: Answer<Vec<Appended>>,
    pub(super) room: Room,
}

impl Append {
    fn bytes(&self) -> usize {
        self.events.iter().map(NewEvent::bytes).sum()
    }
}

pub(super) struct Writer {
    path: PathBuf,
    /// `None` after an error, until the file is open again.
    database: Option<Arc<Database>>,
    /// When to open it anew.
    mend_at: Option<Instant>,
    shared: Arc<Shared>,
    options: RedbOptions,
    channels: HashMap<String, Meta>,
    numbers: Numbers,
    /// Bytes of names and data that are stored.
    bytes: u64,
    /// Bytes that each channel's tail holds, and all of them together.
    tails: HashMap<String, usize>,
    tails_bytes: usize,
}

/// What the writer knows of a channel; a copy is changed and replaces it when the transaction is through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) number: u32,
    pub(super) head: Place,
    pub(super) oldest: Option<(Place, u64)>,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) key_first: u64,
    pub(super) key_next: u64,
    /// When the last event came, in milliseconds since 1970, or when the file was opened.
    pub(super) touched_ms: u64,
}

/// The numbers by which tables name channels. Those of forgotten channels are given again.
#[derive(Debug, Default)]
struct Numbers {
    free: BTreeSet<u32>,
    next: u32,
}

/// One transaction's work on the side of memory.
#[derive(Default)]
struct Batch {
    metas: HashMap<String, Meta>,
    frames: HashMap<String, Vec<Frame>>,
    forgotten: Vec<String>,
    /// Channels that begin, held so that nobody finds another one of their name meanwhile.
    begun: Vec<Arc<Channel>>,
}

/// How often a file that failed is opened anew.
const MEND: Duration = Duration::from_secs(1);
/// Channels that are forgotten in one transaction, so that publishers need not wait for long.
const FORGET_AT_ONCE: usize = 1024;

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        database: Arc<Database>,
        shared: Arc<Shared>,
        options: RedbOptions,
        loaded: Loaded,
    ) -> Self {
        let mut writer = Self {
            path,
            database: Some(database),
            mend_at: None,
            shared,
            options,
            channels: HashMap::new(),
            numbers: Numbers::default(),
            bytes: 0,
            tails: HashMap::new(),
            tails_bytes: 0,
        };
        writer.take(loaded);
        writer
    }

    fn take(&mut self, loaded: Loaded) {
        self.channels = loaded.channels.into_iter().map(|stored| (stored.name, stored.meta)).collect();
        let used: BTreeSet<u32> = self.channels.values().map(|meta| meta.number).collect();
        let next = used.last().map_or(0, |last| last + 1);
        self.numbers = Numbers { free: (0..next).filter(|number| !used.contains(number)).collect(), next };
        self.bytes = self.channels.values().map(|meta| meta.bytes).sum();
    }

    /// Works until the last sender is gone and all that was queued is stored.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let sweep = self.options.retention.sweep();
        let mut swept = Instant::now();
        loop {
            self.mend();
            // By the clock, not only when idle: one busy channel must not keep the others from growing old.
            if swept.elapsed() >= sweep {
                self.sweep();
                swept = Instant::now();
            }
            let first = match inbox.recv_timeout(sweep) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut appends = Vec::new();
            let (mut events, mut bytes) = (0, 0);
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        events += append.events.len();
                        bytes += append.bytes();
                        appends.push(append);
                        if events < self.options.commit_events_max && bytes < self.options.commit_bytes_max {
                            next = inbox.try_recv().ok();
                        }
                    }
                    // What was queued before belongs to the epoch before, or goes with the channel.
                    Command::BeginEpoch { answer } => {
                        self.store(std::mem::take(&mut appends));
                        let _ = answer.send(self.begin_epoch());
                    }
                    Command::Remove { channel, answer } => {
                        self.store(std::mem::take(&mut appends));
                        let _ = answer.send(self.forget(vec![channel]));
                    }
                }
            }
            self.store(appends);
        }
    }

    /// Stores what was taken, and answers each of it whatever happens.
    fn store(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(appends.len());
        let mut work = Vec::with_capacity(appends.len());
        for Append { channel, events, answer, room } in appends {
            answers.push((answer, room));
            work.push((channel, events));
        }
        let mut results = Vec::with_capacity(work.len());
        let stored = self.transact(|writer, tables, batch| {
            for (channel, events) in work {
                match writer.append(tables, batch, &channel, events) {
                    // What only this event's sender did wrong must not undo its neighbours.
                    Err(error @ LogError::Storage(_)) => return Err(error),
                    result => results.push(result),
                }
            }
            writer.shrink(tables, batch)
        });
        if let Err(error) = stored {
            results.clear();
            results.resize(answers.len(), Err(error));
        }
        for ((answer, room), result) in answers.into_iter().zip(results) {
            let _ = answer.send(result);
            drop(room);
        }
    }

    /// Runs `work` in one transaction; what it left in the batch becomes visible only when that is on disk. An error of the
    /// storage closes the file: redb does nothing more with one that failed.
    fn transact(
        &mut self,
        work: impl FnOnce(&Self, &mut Tables<'_>, &mut Batch) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let done = self.database().and_then(|database| {
            // redb's default durability: commit() returns after the sync.
            let transaction = database.begin_write().map_err(storage)?;
            {
                let mut tables = Tables::open(&transaction)?;
                work(self, &mut tables, &mut batch)?;
                batch.metas.iter().try_for_each(|(name, meta)| tables.put(name, meta))?;
            }
            transaction.commit().map_err(storage)
        });
        if let Err(error) = done {
            return Err(self.fail(error));
        }
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.publish(batch);
        Ok(())
    }

    fn database(&self) -> Result<&Arc<Database>, LogError> {
        match (&self.database, &*self.shared.file()) {
            (Some(_), File::Failed(error)) => Err(error.clone()),
            (Some(database), _) => Ok(database),
            (None, File::Failed(error)) => Err(error.clone()),
            (None, _) => Err(LogError::Closed),
        }
    }

    fn fail(&mut self, error: LogError) -> LogError {
        if matches!(error, LogError::Storage(_)) && self.database.take().is_some() {
            tracing::error!(event = "log.failed", %error, path = %self.path.display());
            let mut file = self.shared.file();
            if !matches!(*file, File::Closed) {
                *file = File::Failed(error.clone());
            }
        }
        error
    }

    /// Opens the file anew after an error, by a reader or by us.
    fn mend(&mut self) {
        if !matches!(*self.shared.file(), File::Failed(_)) {
            return;
        }
        self.database = None;
        if *self.mend_at.get_or_insert_with(|| Instant::now() + MEND) > Instant::now() {
            return;
        }
        self.mend_at = None;
        match self.reopen() {
            Ok(()) => tracing::warn!(event = "log.mended", path = %self.path.display()),
            Err(error) => {
                self.database = None;
                tracing::error!(event = "log.failed", %error, path = %self.path.display());
                let mut file = self.shared.file();
                if matches!(*file, File::Failed(_)) {
                    *file = File::Failed(error);
                }
            }
        }
    }

    fn reopen(&mut self) -> Result<(), LogError> {
        // Fails while a reader still holds the old one.
        let database = redb_load::builder(self.options).open(&self.path).map_err(storage)?;
        let loaded = redb_load::load(&database)?;
        let known = self.shared.epochs.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !loaded.epochs.starts_with(&known) {
            let reason = "the file was replaced by another log's: start the server anew to serve it";
            return Err(LogError::Storage(reason.to_owned()));
        }
        *self.shared.epochs.write().unwrap_or_else(PoisonError::into_inner) = loaded.epochs.clone();
        let lost = self.show(&loaded);
        self.take(loaded);
        let database = Arc::new(database);
        self.database = Some(Arc::clone(&database));
        {
            let mut file = self.shared.file();
            if matches!(*file, File::Failed(_)) {
                *file = File::Open(database);
            }
        }
        // What was acknowledged is on disk; where it is not, its ids must not be given again.
        if lost { self.begin_epoch() } else { Ok(()) }
    }

    /// Tells readers what the file holds, where that is not what they know. True where it holds less.
    fn show(&self, loaded: &Loaded) -> bool {
        let stored: HashMap<&str, &Bounds> =
            loaded.channels.iter().map(|stored| (stored.name.as_str(), &stored.bounds)).collect();
        let mut lost = false;
        let mut directory = self.shared.directory();
        directory.retire(loaded.retired);
        for channel in directory.all() {
            let known = channel.bounds();
            match stored.get(channel.name()) {
                Some(bounds) => {
                    lost |= bounds.head < known.head;
                    channel.advance((*bounds).clone());
                }
                None => lost |= known.is_used(),
            }
        }
        let known = |name: &str| directory.get(name).is_some();
        let new: Vec<_> = loaded.channels.iter().filter(|stored| !known(&stored.name)).collect();
        for stored in new {
            directory.insert(&stored.name, stored.bounds.clone());
        }
        lost
    }

    fn append(
        &self,
        tables: &mut Tables<'_>,
        batch: &mut Batch,
        name: &str,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, LogError> {
        let known = batch.metas.get(name).or_else(|| self.channels.get(name)).copied();
        let (mut meta, begin) = match known {
            Some(meta) => (meta, None),
            None => self.new_channel(batch, name).map(|(meta, begin)| (meta, Some(begin)))?,
        };
        // Everything that can be wrong with one of them, before any of them is stored.
        for event in &events {
            if let (Some(key), Some((place, content))) = (&event.key, tables.known(meta.number, event)?) {
                key.known(place, content)?;
            }
        }
        if let Some(begin) = begin.filter(|_| !events.is_empty()) {
            tables.begin(meta.number, begin)?;
        }
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            let answer = match (&event.key, tables.known(meta.number, &event)?) {
                (Some(key), Some((place, content))) => key.known(place, content)?,
                _ => self.append_one(tables, batch, name, &mut meta, &event)?,
            };
            batch.metas.insert(name.to_owned(), meta);
            answers.push(answer);
        }
        Ok(answers)
    }

    fn append_one(
        &self,
        tables: &mut Tables<'_>,
        batch: &mut Batch,
        name: &str,
        meta: &mut Meta,
        event: &NewEvent,
    ) -> Result<Appended, LogError> {
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
        meta.touched_ms = at_ms;
        if let Some(key) = &event.key {
            tables.remember(meta, key, self.options.retention.keys_max)?;
        }
        tables.expire(meta, Keep::new(&self.options.retention, at_ms))?;
        batch.frames.entry(name.to_owned()).or_default().push(frame);
        Ok(Appended { place, duplicate: false })
    }

    /// A channel that is not stored yet, and the place behind which it begins: where its readers wait, if it has some.
    fn new_channel(&self, batch: &mut Batch, name: &str) -> Result<(Meta, Place), LogError> {
        let new = batch.metas.keys().filter(|name| !self.channels.contains_key(*name)).count();
        let channels_max = self.options.retention.channels_max;
        if self.channels.len() + new >= channels_max {
            return Err(LogError::TooManyChannels(channels_max));
        }
        let channel = self.shared.channel(name)?;
        let Bounds { begin, head, .. } = channel.bounds();
        batch.begun.push(channel);
        let number = self.numbers.nth(new);
        let (count, bytes, key_first, key_next, touched_ms) = (0, 0, 0, 0, 0);
        let meta = Meta { number, head, oldest: None, count, bytes, key_first, key_next, touched_ms };
        Ok((meta, begin))
    }

    /// Takes from the largest channels until all together are within their limit, and some more, so that not each
    /// transaction looks at all channels.
    fn shrink(&self, tables: &mut Tables<'_>, batch: &mut Batch) -> Result<(), LogError> {
        let max = self.options.retention.total_bytes_max;
        let before = |name: &String| self.channels.get(name).map_or(0, |meta| meta.bytes);
        let old: u64 = batch.metas.keys().map(before).sum();
        let new: u64 = batch.metas.values().map(|meta| meta.bytes).sum();
        let mut total = (self.bytes + new).saturating_sub(old);
        if total <= max {
            return Ok(());
        }
        let target = max - max / 16;
        while total > target {
            let all = self.channels.iter().filter(|(name, _)| !batch.metas.contains_key(*name));
            let largest = all.chain(&batch.metas).max_by_key(|(_, meta)| meta.bytes);
            let Some((name, mut meta)) = largest.map(|(name, meta)| (name.clone(), *meta)) else { break };
            let size = meta.bytes;
            let bytes_max = (size / 2).max(size.saturating_sub(total - target));
            tables.expire(&mut meta, Keep { events_max: u64::MAX, bytes_max, from_ms: 0 })?;
            if meta.bytes == size {
                break;
            }
            total -= size - meta.bytes;
            batch.metas.insert(name, meta);
        }
        Ok(())
    }

    /// Makes a finished transaction visible: to later ones, and to the readers.
    fn publish(&mut self, batch: Batch) {
        let mut frames = batch.frames;
        for (name, meta) in batch.metas {
            self.numbers.take(meta.number);
            let before = self.channels.insert(name.clone(), meta).map_or(0, |meta| meta.bytes);
            self.bytes = (self.bytes + meta.bytes).saturating_sub(before);
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
                ring.trim(limit);
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
        let generation = self.shared.newest_epoch().0;
        let mut directory = self.shared.directory();
        for name in batch.forgotten {
            if let Some(meta) = self.channels.remove(&name) {
                self.numbers.free.insert(meta.number);
                self.bytes = self.bytes.saturating_sub(meta.bytes);
            }
            self.tails_bytes -= self.tails.remove(&name).unwrap_or(0);
            directory.forget(&name, generation);
        }
    }

    fn begin_epoch(&mut self) -> Result<(), LogError> {
        let epoch = clock::epoch();
        let generation = self.shared.newest_epoch().0.checked_add(1).ok_or(LogError::Closed)?;
        let begun = self.database().and_then(|database| {
            let transaction = database.begin_write().map_err(storage)?;
            transaction
                .open_table(EPOCHS)
                .map_err(storage)?
                .insert(generation, epoch.as_str())
                .map_err(storage)?;
            transaction.commit().map_err(storage)
        });
        begun.map_err(|error| self.fail(error))?;
        self.shared.epochs.write().unwrap_or_else(PoisonError::into_inner).push(epoch.into());
        Ok(())
    }

    /// Deletes what has grown too old in channels that nobody appends to, forgets those of which nothing is left, and lets
    /// go of tails without readers.
    fn sweep(&mut self) {
        if self.options.retention.age_ms_max > 0 && self.database.is_some() {
            // An error was logged, and closed the file.
            let _ = self.expire_idle().and_then(|()| self.forget_idle());
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

    fn expire_idle(&mut self) -> Result<(), LogError> {
        let keep = Keep::new(&self.options.retention, clock::unix_ms());
        let is_old = |meta: &Meta| meta.oldest.is_some_and(|oldest| oldest.1 < keep.from_ms);
        let old: Vec<_> = self.channels.iter().filter(|(_, meta)| is_old(meta)).collect();
        let old: Vec<_> = old.into_iter().map(|(name, meta)| (name.clone(), *meta)).collect();
        if old.is_empty() {
            return Ok(());
        }
        self.transact(|_, tables, batch| {
            for (name, mut meta) in old {
                tables.expire(&mut meta, keep)?;
                batch.metas.insert(name, meta);
            }
            Ok(())
        })
    }

    fn forget_idle(&mut self) -> Result<(), LogError> {
        let from_ms = Keep::new(&self.options.retention, clock::unix_ms()).from_ms;
        let idle: Vec<_> = {
            let directory = self.shared.directory();
            let is_idle = |name: &str, meta: &Meta| {
                meta.oldest.is_none() && meta.touched_ms < from_ms && !directory.is_held(name)
            };
            let idle = self.channels.iter().filter(|(name, meta)| is_idle(name, meta));
            idle.map(|(name, _)| name.clone()).take(FORGET_AT_ONCE).collect()
        };
        self.forget(idle)
    }

    /// Forgets channels. Somebody may have begun to read one of them meanwhile: it is then told.
    fn forget(&mut self, names: Vec<String>) -> Result<(), LogError> {
        let known: Vec<_> =
            names.into_iter().filter_map(|name| Some((self.channels.get(&name)?, name))).collect();
        if known.is_empty() {
            return self.database().map(drop);
        }
        let heads = known.iter().map(|(meta, _)| meta.head);
        let retired = heads.fold(self.shared.directory().retired(), Place::max);
        let gone: Vec<_> = known.into_iter().map(|(meta, name)| (meta.number, name)).collect();
        self.transact(|_, tables, batch| {
            for (number, name) in gone {
                tables.delete(&name, number, retired)?;
                batch.forgotten.push(name);
            }
            Ok(())
        })
    }
}

impl Meta {
    pub(super) fn row(&self) -> Row {
        (self.number, self.head.generation, self.head.sequence, self.bytes, self.key_first, self.key_next)
    }
}

impl Numbers {
    /// The number of the channel that comes after `others` new ones.
    fn nth(&self, others: usize) -> u32 {
        let beyond = others.saturating_sub(self.free.len());
        let next = || self.next.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
        self.free.iter().nth(others).copied().unwrap_or_else(next)
    }

    fn take(&mut self, number: u32) {
        if !self.free.remove(&number) {
            self.next = self.next.max(number + 1);
        }
    }
}
