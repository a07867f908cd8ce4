//! A log on disk: one redb file, one writer thread, any number of readers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::channel::Directory;
use super::redb_load::{self, Loaded};
use super::redb_writer::{Append, Command, Writer};
use super::{
    Appended, Bounds, Channel, EventLog, Frame, LogError, NewEvent, PageLimit, Place, Retention,
    check_channel, check_keys, check_name,
};

/// Number of an epoch → its name.
pub(super) const EPOCHS: TableDefinition<'_, u32, &str> = TableDefinition::new("epochs");
/// Channel → see [`Row`].
pub(super) const CHANNELS: TableDefinition<'_, &str, Row> = TableDefinition::new("channels");
/// Channel number → place behind which it began, where that is not the log's beginning.
pub(super) const BEGINS: TableDefinition<'_, u32, (u32, u64)> = TableDefinition::new("begins");
/// (channel number, key of a shared state) → (epoch, sequence) of the event that holds its value.
pub(super) const STATES: TableDefinition<'_, (u32, &str), (u32, u64)> = TableDefinition::new("states");
/// How far the channels came that were forgotten.
pub(super) const RETIRED: TableDefinition<'_, (), (u32, u64)> = TableDefinition::new("retired");
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
    /// Bytes of names and data that wait; further appends wait for room. One that is larger goes alone. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Appends that share one sync. Default 1,024.
    pub commit_events_max: usize,
    /// Bytes of names and data that share one sync; one append may be larger. Default 4 MiB.
    pub commit_bytes_max: usize,
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
            queue_bytes_max: 64 << 20,
            commit_events_max: 1024,
            commit_bytes_max: 4 << 20,
            reads_max: 8,
        }
    }
}

/// See the module's text.
///
/// An append is acknowledged after the transaction that holds it, and its idempotency key, was synced to disk.
/// Appends that arrive while a sync runs share the next one.
///
/// **When the storage fails** (the disk is full, say) appends are answered with [`LogError::Storage`] and
/// [`EventLog::healthy`] says so. The file is opened anew once a second until that works; whether an append that was
/// answered so is in it is not known, and its idempotency key makes trying again harmless.
#[derive(Debug)]
pub struct RedbLog {
    shared: Arc<Shared>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    options: RedbOptions,
    queue: Arc<Semaphore>,
    /// As many permits as bytes may wait.
    queue_bytes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// An append's place in the queue, by number and by bytes; given back with the answer.
pub(super) type Room = [OwnedSemaphorePermit; 2];

/// What the writer and the readers both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: Mutex<Directory>,
    pub(super) epochs: RwLock<Vec<Arc<str>>>,
    pub(super) file: Mutex<File>,
    /// Transactions that were synced.
    pub(super) commits: AtomicU64,
}

/// The database, as readers find it.
#[derive(Debug)]
pub(super) enum File {
    Open(Arc<Database>),
    /// It failed, and is not open again.
    Failed(LogError),
    Closed,
}

impl Shared {
    pub(super) fn new(loaded: &Loaded, database: Arc<Database>) -> Self {
        let mut directory = Directory::default();
        directory.retire(loaded.retired);
        for stored in &loaded.channels {
            stored.show(&mut directory);
        }
        Self {
            directory: Mutex::new(directory),
            epochs: RwLock::new(loaded.epochs.clone()),
            file: Mutex::new(File::Open(database)),
            commits: AtomicU64::new(0),
        }
    }

    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Result<Arc<Database>, LogError> {
        match &*self.file() {
            File::Open(database) => Ok(Arc::clone(database)),
            File::Failed(error) => Err(error.clone()),
            File::Closed => Err(LogError::Closed),
        }
    }

    /// A reader met an error: redb does nothing more with this file, and the writer must open it anew, unless it did already.
    fn fail(&self, database: &Arc<Database>, error: &LogError) {
        let mut file = self.file();
        if matches!(&*file, File::Open(open) if Arc::ptr_eq(open, database)) {
            *file = File::Failed(error.clone());
        }
    }

    /// The epoch in which appends are stored now.
    pub(super) fn newest_epoch(&self) -> (u32, Arc<str>) {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let newest = epochs.len().saturating_sub(1);
        (u32::try_from(newest).unwrap_or(u32::MAX), epochs.get(newest).cloned().unwrap_or_else(|| "0".into()))
    }

    pub(super) fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        let mut directory = self.directory();
        directory.open(name, self.newest_epoch().0)
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
        let path = dir.join("events.redb");
        let database = {
            // One process at a time may see a file that another is still making.
            let making = std::fs::File::create(dir.join("events.lock")).map_err(|error| in_dir(&error))?;
            making.lock().map_err(|error| in_dir(&error))?;
            redb_load::discard_unfinished(&path).map_err(|error| in_dir(&error))?;
            redb_load::builder(options).create(&path).map_err(|error| in_dir(&error))?
        };
        // The file's name must survive a power cut as well as its content does.
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| in_dir(&error))?;
        let loaded = redb_load::load(&database)?;
        let database = Arc::new(database);
        let shared = Arc::new(Shared::new(&loaded, Arc::clone(&database)));
        let (commands, inbox) = mpsc::channel();
        let writer = Writer::new(path, database, Arc::clone(&shared), options, loaded);
        let thread = std::thread::Builder::new()
            .name("holdfast-log".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| in_dir(&error))?;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self {
            shared,
            commands: Mutex::new(Some(commands)),
            writer: Mutex::new(Some(thread)),
            queue: semaphore(options.queue_max),
            queue_bytes: semaphore(options.queue_bytes_max),
            reads: semaphore(options.reads_max),
            options,
        })
    }

    /// Transactions that were synced to disk since the log was opened: what appends cost. Many that wait share one.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Waits for room in the queue.
    async fn room(&self, events: &[NewEvent]) -> Result<Room, LogError> {
        let bytes: usize = events.iter().map(NewEvent::bytes).sum();
        let bytes = bytes.min(self.options.queue_bytes_max).clamp(1, Semaphore::MAX_PERMITS);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let closed = |_| LogError::Closed;
        let bytes = Arc::clone(&self.queue_bytes).acquire_many_owned(bytes).await.map_err(closed)?;
        Ok([Arc::clone(&self.queue).acquire_owned().await.map_err(closed)?, bytes])
    }

    fn store(&self, channel: &str, events: Vec<NewEvent>) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        let channel = channel.to_owned();
        async move {
            check_channel(&channel)?;
            events.iter().try_for_each(|event| check_name(&event.name))?;
            check_keys(&events)?;
            let room = self.room(&events).await?;
            self.ask(|answer| Command::Append(Append { channel, events, answer, room })).await
        }
        .boxed()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Command,
    ) -> Result<T, LogError> {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer))?;
        answered.await.map_err(|_| LogError::Closed)?
    }

    fn send(&self, command: Command) -> Result<(), LogError> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.as_ref().ok_or(LogError::Closed)?.send(command).map_err(|_| LogError::Closed)
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        // The writer ends when the last sender is gone and everything queued is stored.
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        *self.shared.file() = File::Closed;
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
        let stored = self.store(channel, vec![event]);
        async move { stored.await?.pop().ok_or(LogError::Closed) }.boxed()
    }

    fn append_all(
        &self,
        channel: &str,
        events: Vec<NewEvent>,
    ) -> BoxFuture<'_, Result<Vec<Appended>, LogError>> {
        self.store(channel, events)
    }

    fn remove(&self, channel: &str) -> BoxFuture<'_, Result<(), LogError>> {
        let channel = channel.to_owned();
        async move {
            check_channel(&channel)?;
            self.ask(|answer| Command::Remove { channel, answer }).await
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
            let database = self.shared.database()?;
            let shared = Arc::clone(&self.shared);
            let name = channel.name().to_owned();
            let read = move || {
                let page = read_page(&database, &shared, &name, after, limit);
                if let Err(error) = &page {
                    shared.fail(&database, error);
                }
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
        self.ask(|answer| Command::BeginEpoch { answer }).boxed()
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

    fn healthy(&self) -> bool {
        !matches!(&*self.shared.file(), File::Failed(_))
    }
}
