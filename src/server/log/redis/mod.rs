//! A log in Redis, for several machines: one ordering authority, a live tail on every node.
//!
//! Each append is one script inside Redis: number, event, idempotency key, retention and the announcement to all nodes
//! happen together or not at all. A channel's events are a stream whose ids are epoch and number.
//!
//! **What an acknowledgement means** is Redis's own setting: with `appendfsync always` the event is on disk, with
//! `everysec` the last second can be lost, without persistence everything. `replicas_min` asks for replicas, too.
//!
//! **A channel of which all has expired by age** and that nobody listens to on any node is forgotten when a new one begins:
//! new channels pay for old ones. How far the forgotten ones came stands in one place of the log (`retired`), behind which
//! channels begin.
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`), must allow `INFO` and `PUBSUB` in scripts, and is one primary
//! with its replicas, not a cluster of shards. Redis 6.2 or later.
//!
//! **When data was lost**, ids must not be given out a second time. The first script that runs after a start of the
//! server, after a promotion of a replica or in an empty database finds a replication id that is not the one of the
//! newest epoch, does nothing, and a new epoch begins. (The id also changes with a server's first replica: an epoch too
//! many costs nothing.) The nodes that are still there tell the log how far the epoch
//! before had come, as far as they know: readers then hear how many events are missing.
//! What only a node knew that is gone, too, or that tells after others have gone on, is not counted to those.

mod link;
mod options;
mod scripts;
mod shared;
mod tail;
mod writer;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::link::Link;
use self::shared::Shared;
use self::tail::{Tail, WATCHES_MAX, Watch};
use self::writer::Append;
use super::{
    Appended, Bounds, Channel, EventLog, Frame, LogError, NewEvent, PageLimit, Place, check_channel,
    check_name,
};

pub use self::options::RedisOptions;

/// See the module's text.
pub struct RedisLog {
    shared: Arc<Shared>,
    appends: Mutex<Option<mpsc::UnboundedSender<Append>>>,
    watches: mpsc::Sender<Watch>,
    queue: Arc<Semaphore>,
    reads: Semaphore,
    writer: Mutex<Option<JoinHandle<()>>>,
    tail: JoinHandle<()>,
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLog").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl RedisLog {
    /// Connects, and begins an epoch where that is needed. Runs in a tokio runtime.
    ///
    /// # Errors
    /// The options cannot be used, or Redis does not answer.
    pub async fn open(options: RedisOptions) -> Result<Self, LogError> {
        let clients = options.clients()?;
        let link = || Link::new(clients.clone(), &options);
        let (to_write, to_follow) = (link(), link());
        let shared = Arc::new(Shared::new(options.clone(), link()));
        shared.check_prefix().await?;
        shared.begin_epoch(false).await?;
        let (appends, inbox) = mpsc::unbounded_channel();
        let (watches, to_watch) = mpsc::channel(WATCHES_MAX);
        let writer = tokio::spawn(writer::run(Arc::clone(&shared), to_write, inbox));
        let tail = tokio::spawn(Tail::new(Arc::clone(&shared), to_follow, to_watch).run());
        Ok(Self {
            shared,
            appends: Mutex::new(Some(appends)),
            watches,
            // What bounds the queue of appends.
            queue: Arc::new(Semaphore::new(options.queue_max.clamp(1, Semaphore::MAX_PERMITS))),
            reads: Semaphore::new(options.reads_max.clamp(1, Semaphore::MAX_PERMITS)),
            writer: Mutex::new(Some(writer)),
            tail,
        })
    }

    fn send(&self, append: Append) -> Result<(), LogError> {
        let appends = self.appends.lock().unwrap_or_else(PoisonError::into_inner);
        appends.as_ref().ok_or(LogError::Closed)?.send(append).map_err(|_| LogError::Closed)
    }

    /// Returns when Redis pushes the channel's events to us.
    async fn watch(&self, channel: &Channel) -> Result<(), LogError> {
        if channel.readers() == 0 || self.shared.is_watched(channel) {
            return Ok(());
        }
        let (done, watched) = oneshot::channel();
        let channel = self.shared.channel(channel.name())?;
        let watch = async {
            self.watches.send(Watch { channel, done }).await.ok()?;
            watched.await.ok()
        };
        let limit = self.shared.options.command_limit();
        match tokio::time::timeout(limit, watch).await {
            Ok(Some(())) => Ok(()),
            _ => Err(LogError::Storage("Redis: cannot subscribe to the channel's events".to_owned())),
        }
    }
}

impl Drop for RedisLog {
    fn drop(&mut self) {
        self.tail.abort();
    }
}

impl EventLog for RedisLog {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        let channel = channel.to_owned();
        async move {
            check_channel(&channel)?;
            check_name(&event.name)?;
            let place = Arc::clone(&self.queue).acquire_owned().await.map_err(|_| LogError::Closed)?;
            let (answer, answered) = oneshot::channel();
            self.send(Append { channel, event, answer, place })?;
            answered.await.map_err(|_| LogError::Closed)?
        }
        .boxed()
    }

    fn remove(&self, channel: &str) -> BoxFuture<'_, Result<(), LogError>> {
        let channel = channel.to_owned();
        async move { self.shared.remove(&channel).await }.boxed()
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.shared.channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        async move {
            self.watch(channel).await?;
            self.shared.bounds(channel, false).await
        }
        .boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        async move {
            let _turn = self.reads.acquire().await.map_err(|_| LogError::Closed)?;
            self.shared.page(channel, after, limit).await
        }
        .boxed()
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.shared.epoch(generation)
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        self.shared.generation(epoch)
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.shared.begin_epoch(true).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        drop(self.appends.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            if let Some(writer) = writer {
                let _ = writer.await;
            }
            self.tail.abort();
        }
        .boxed()
    }

    fn durable(&self) -> bool {
        true
    }

    fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }
}
