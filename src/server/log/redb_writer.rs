//! The one thread that writes to a redb log: it gathers appends, stores them in one transaction, and only after
//! its sync answers the publishers and wakes the readers.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use redb::Database;
use tokio::sync::oneshot;

use super::redb::{EPOCHS, File, RedbOptions, Room, Row, Shared, storage};
use super::redb_load::Loaded;
use super::redb_tables::{Keep, Tables};
use super::{Appended, Bounds, Channel, Frame, LogError, NewEvent, PageLimit, Place, StateMark};
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
    pub(super) path: PathBuf,
    /// `None` after an error, until the file is open again.
    pub(super) database: Option<Arc<Database>>,
    /// When to open it anew.
    pub(super) mend_at: Option<Instant>,
    /// The file lost what was acknowledged, and no epoch has begun since.
    pub(super) lost: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) options: RedbOptions,
    pub(super) channels: HashMap<String, Meta>,
    pub(super) numbers: Numbers,
    /// Bytes of names and data that are stored.
    pub(super) bytes: u64,
    /// Bytes that each channel's tail holds, and all of them together.
    pub(super) tails: HashMap<String, usize>,
    pub(super) tails_bytes: usize,
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
pub(super) struct Numbers {
    free: BTreeSet<u32>,
    next: u32,
}

/// One transaction's work on the side of memory.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) metas: HashMap<String, Meta>,
    frames: HashMap<String, Vec<Frame>>,
    /// What events mean to the states of their channels.
    marks: HashMap<String, Vec<(Place, StateMark)>>,
    pub(super) forgotten: Vec<String>,
    /// Channels that begin, held so that nobody finds another one of their name meanwhile.
    begun: Vec<Arc<Channel>>,
}

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
            lost: false,
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

    pub(super) fn take(&mut self, loaded: Loaded) {
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
    pub(super) fn transact(
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

    pub(super) fn database(&self) -> Result<&Arc<Database>, LogError> {
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
        if let Some(mark) = &event.state {
            tables.mark(meta, mark)?;
            batch.marks.entry(name.to_owned()).or_default().push((place, mark.clone()));
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

    /// Makes a finished transaction visible: to later ones, and to the readers.
    fn publish(&mut self, batch: Batch) {
        let (mut frames, mut marks) = (batch.frames, batch.marks);
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
            for (place, mark) in marks.remove(&name).unwrap_or_default() {
                channel.mark_state(place, mark);
            }
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

    pub(super) fn begin_epoch(&mut self) -> Result<(), LogError> {
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
