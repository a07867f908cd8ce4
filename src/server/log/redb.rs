//! A log on disk: one redb file, one writer thread, any number of readers.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{Semaphore, oneshot};

use super::channel::Directory;
use super::redb_writer::{Command, Writer};
use super::{
    Appended, Bounds, Channel, EventLog, Frame, LogError, NewEvent, PageLimit, Place, Retention,
    check_channel, check_name,
};
use crate::server::clock;

/// Number of an epoch → its name.
pub(super) const EPOCHS: TableDefinition<'_, u32, &str> = TableDefinition::new("epochs");
/// Channel → see [`Row`].
pub(super) const CHANNELS: TableDefinition<'_, &str, Row> = TableDefinition::new("channels");
/// (channel number, epoch) → last sequence, once a later epoch has begun in that channel.
pub(super) const ENDS: TableDefinition<'_, (u32, u32), u64> = TableDefinition::new("ends");
/// (channel number, epoch, sequence) → (milliseconds since 1970, name, data).
pub(super) const EVENTS: TableDefinition<'_, (u32, u32, u64), (u64, &str, &str)> =
    TableDefinition::new("events");
/// (channel number, idempotency key) → (epoch, sequence, fingerprint of the content).
pub(super) const KEYS: TableDefinition<'_, (u32, &str), (u32, u64, u64)> =
    TableDefinition::new("idempotency_keys");
/// (channel number, running number) → idempotency key, so that the oldest can be found.
pub(super) const KEY_ORDER: TableDefinition<'_, (u32, u64), &str> = TableDefinition::new("key_order");

/// Channel number, epoch and sequence of its head, bytes stored, number of its first and of its next key.
pub(super) type Row = (u32, u32, u64, u64, u64, u64);

/// How a [`RedbLog`] uses disk and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedbOptions {
    /// What is kept on disk.
    pub retention: Retention,
    /// What is also kept in memory for each channel with subscribers. Default 1,024 events, 1 MiB.
    pub tail: PageLimit,
    /// Bytes of all tails together; beyond it, readers go to the disk. Default 64 MiB.
    pub tails_bytes_max: usize,
    /// Bytes of redb's page cache. Default 64 MiB.
    pub cache_bytes_max: usize,
    /// Appends that wait for the writer; further ones wait for room. Default 4,096.
    pub queue_max: usize,
    /// Appends that share one sync. Default 1,024.
    pub commit_events_max: usize,
    /// Pages that are read from the disk at the same time. Default 8.
    pub reads_max: usize,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            tail: PageLimit { events_max: 1024, bytes_max: 1 << 20 },
            tails_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            queue_max: 4096,
            commit_events_max: 1024,
            reads_max: 8,
        }
    }
}

/// See the module's text.
///
/// An append is acknowledged after the transaction that holds it, and its idempotency key, was synced to disk.
/// Appends that arrive while a sync runs share the next one.
#[derive(Debug)]
pub struct RedbLog {
    shared: Arc<Shared>,
    database: Mutex<Option<Arc<Database>>>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    queue: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// What the writer and the readers both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: Mutex<Directory>,
    pub(super) epochs: RwLock<Vec<Arc<str>>>,
}

impl Shared {
    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch in which appends are stored now.
    pub(super) fn newest_epoch(&self) -> (u32, Arc<str>) {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let newest = epochs.len().saturating_sub(1);
        (u32::try_from(newest).unwrap_or(u32::MAX), epochs.get(newest).cloned().unwrap_or_else(|| "0".into()))
    }

    pub(super) fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        let mut directory = self.directory();
        if let Some(channel) = directory.get(name) {
            return Ok(Arc::clone(channel));
        }
        check_channel(name)?;
        let head = Place { generation: self.newest_epoch().0, sequence: 0 };
        Ok(directory.insert(name, Bounds { oldest: None, head, ends: Vec::new() }))
    }
}

pub(super) fn storage(error: impl Into<redb::Error>) -> LogError {
    LogError::Storage(error.into().to_string())
}

impl RedbLog {
    /// Opens the log in the folder `dir`, or creates both.
    ///
    /// # Errors
    /// The folder or the file cannot be used, or another process has the log open.
    pub fn open(dir: &Path, options: RedbOptions) -> Result<Self, LogError> {
        let in_dir = |error: &dyn std::fmt::Display| LogError::Storage(format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(|error| in_dir(&error))?;
        let database = Database::builder()
            .set_cache_size(options.cache_bytes_max)
            .create(dir.join("events.redb"))
            .map_err(|error| in_dir(&error))?;
        // The file's name must survive a power cut as well as its content does.
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| in_dir(&error))?;
        let shared = Arc::new(load(&database)?);
        let database = Arc::new(database);
        let (commands, inbox) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&database), Arc::clone(&shared), options)?;
        let thread = std::thread::Builder::new()
            .name("holdfast-log".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| in_dir(&error))?;
        Ok(Self {
            shared,
            database: Mutex::new(Some(database)),
            commands: Mutex::new(Some(commands)),
            writer: Mutex::new(Some(thread)),
            queue: Arc::new(Semaphore::new(options.queue_max.clamp(1, Semaphore::MAX_PERMITS))),
            reads: Arc::new(Semaphore::new(options.reads_max.clamp(1, Semaphore::MAX_PERMITS))),
        })
    }

    fn send(&self, command: Command) -> Result<(), LogError> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.as_ref().ok_or(LogError::Closed)?.send(command).map_err(|_| LogError::Closed)
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        // The writer ends when the last sender is gone and everything queued is stored.
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.database.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for RedbLog {
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            let _ = thread.join();
        }
    }
}

fn load(database: &Database) -> Result<Shared, LogError> {
    let transaction = database.begin_write().map_err(storage)?;
    let mut directory = Directory::default();
    let mut names = Vec::new();
    {
        let mut epochs = transaction.open_table(EPOCHS).map_err(storage)?;
        let events = transaction.open_table(EVENTS).map_err(storage)?;
        let ends = transaction.open_table(ENDS).map_err(storage)?;
        transaction.open_table(KEYS).map_err(storage)?;
        transaction.open_table(KEY_ORDER).map_err(storage)?;
        for entry in epochs.iter().map_err(storage)? {
            names.push(Arc::<str>::from(entry.map_err(storage)?.1.value()));
        }
        if names.is_empty() {
            let epoch = clock::epoch();
            epochs.insert(0, epoch.as_str()).map_err(storage)?;
            names.push(epoch.into());
        }
        for entry in transaction.open_table(CHANNELS).map_err(storage)?.iter().map_err(storage)? {
            let (name, row) = entry.map_err(storage)?;
            let (number, generation, sequence, ..) = row.value();
            let mut stored = events.range((number, 0, 0)..=(number, u32::MAX, u64::MAX)).map_err(storage)?;
            let oldest = match stored.next() {
                Some(first) => {
                    let (_, generation, sequence) = first.map_err(storage)?.0.value();
                    Some(Place { generation, sequence })
                }
                None => None,
            };
            let mut ended = Vec::new();
            for end in ends.range((number, 0)..=(number, u32::MAX)).map_err(storage)? {
                let (key, sequence) = end.map_err(storage)?;
                ended.push((key.value().1, sequence.value()));
            }
            directory
                .insert(name.value(), Bounds { oldest, head: Place { generation, sequence }, ends: ended });
        }
    }
    transaction.commit().map_err(storage)?;
    Ok(Shared { directory: Mutex::new(directory), epochs: RwLock::new(names) })
}

fn read_page(
    database: &Database,
    shared: &Shared,
    channel: &str,
    after: Place,
    limit: PageLimit,
) -> Result<Vec<Frame>, LogError> {
    let transaction = database.begin_read().map_err(storage)?;
    let channels = transaction.open_table(CHANNELS).map_err(storage)?;
    let Some(row) = channels.get(channel).map_err(storage)? else { return Ok(Vec::new()) };
    let number = row.value().0;
    let events = transaction.open_table(EVENTS).map_err(storage)?;
    let epochs = shared.epochs.read().unwrap_or_else(PoisonError::into_inner);
    let from = (number, after.generation, after.sequence.saturating_add(1));
    let mut frames = Vec::new();
    let mut bytes = 0;
    for entry in events.range(from..=(number, u32::MAX, u64::MAX)).map_err(storage)? {
        let (key, value) = entry.map_err(storage)?;
        let (_, generation, sequence) = key.value();
        let (at_ms, name, data) = value.value();
        let epoch = epochs.get(generation as usize).map_or("0", |epoch| epoch);
        let frame = Frame::encode(Place { generation, sequence }, epoch, at_ms, name, data)
            .map_err(|error| LogError::Storage(error.to_string()))?;
        bytes += frame.bytes.len();
        if !frames.is_empty() && bytes > limit.bytes_max {
            break;
        }
        frames.push(frame);
        if frames.len() >= limit.events_max {
            break;
        }
    }
    Ok(frames)
}

impl EventLog for RedbLog {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        let channel = channel.to_owned();
        async move {
            check_channel(&channel)?;
            check_name(&event.name)?;
            let place = Arc::clone(&self.queue).acquire_owned().await.map_err(|_| LogError::Closed)?;
            let (answer, answered) = oneshot::channel();
            self.send(Command::Append { channel, event, answer, place })?;
            answered.await.map_err(|_| LogError::Closed)?
        }
        .boxed()
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.shared.channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        std::future::ready(Ok(channel.bounds())).boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        async move {
            let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| LogError::Closed)?;
            let database = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let database = database.ok_or(LogError::Closed)?;
            let shared = Arc::clone(&self.shared);
            let name = channel.name().to_owned();
            let read = move || {
                let page = read_page(&database, &shared, &name, after, limit);
                drop(turn);
                page
            };
            tokio::task::spawn_blocking(read).await.map_err(|error| LogError::Storage(error.to_string()))?
        }
        .boxed()
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.shared.epochs.read().unwrap_or_else(PoisonError::into_inner).get(generation as usize).cloned()
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        let epochs = self.shared.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let index = epochs.iter().position(|known| **known == *epoch)?;
        u32::try_from(index).ok()
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let (answer, answered) = oneshot::channel();
            self.send(Command::BeginEpoch { answer })?;
            answered.await.map_err(|_| LogError::Closed)?
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let thread = self.stop();
        async move {
            if let Some(thread) = thread {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        }
        .boxed()
    }

    fn durable(&self) -> bool {
        true
    }
}
