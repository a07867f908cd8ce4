//! The live end: one connection by which Redis pushes the events of the channels that have readers here.
//!
//! A push can get lost, with its connection or because we were slow. Nothing depends on each one: after a new
//! connection, and after pushes that found no room, the heads of all watched channels are read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::link::{Connection, Link, storage};
use super::scripts;
use super::shared::Shared;
use crate::server::log::channel::Ring;
use crate::server::log::{Channel, Frame, LogError};

/// Pushes that wait for us. Beyond it they are dropped, and the heads are read instead.
const PUSHES_MAX: usize = 4096;
/// Requests to watch that wait for us.
pub(super) const WATCHES_MAX: usize = 1024;
/// Topics of one command.
const TOPICS_AT_ONCE: usize = 256;
/// Heads that are read at the same time.
const HEADS_AT_ONCE: usize = 32;
/// How often the connection is tried, and channels without readers are let go.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two connections.
const RETRY: Duration = Duration::from_millis(50);

/// A channel to watch, and whom to tell when it is.
pub(super) struct Watch {
    pub(super) channel: Arc<Channel>,
    pub(super) done: oneshot::Sender<()>,
}

pub(super) struct Tail {
    shared: Arc<Shared>,
    link: Link,
    pushes: mpsc::Receiver<PushInfo>,
    overflowed: Arc<AtomicBool>,
    watches: mpsc::Receiver<Watch>,
    /// Where it is announced which channels were forgotten.
    forgotten: String,
}

impl Tail {
    pub(super) fn new(shared: Arc<Shared>, link: Link, watches: mpsc::Receiver<Watch>) -> Self {
        let (sender, pushes) = mpsc::channel(PUSHES_MAX);
        let overflowed = Arc::new(AtomicBool::new(false));
        let overflow = Arc::clone(&overflowed);
        let link = link.pushing(move |push: PushInfo| -> Result<(), ()> {
            if sender.try_send(push).is_err() {
                overflow.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        let forgotten = scripts::forgotten_topic(&shared.options);
        Self { shared, link, pushes, overflowed, watches, forgotten }
    }

    /// Works until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.connect_and_follow().await {
                tracing::warn!(event = "log.tail_lost", %error);
            }
            tokio::time::sleep_until(self.link.retry_at().await.max(Instant::now() + RETRY)).await;
        }
    }

    async fn connect_and_follow(&mut self) -> Result<(), LogError> {
        let Connection { inner, number } =
            self.link.connection().await.inspect_err(|_| self.healthy(false))?;
        let outcome = self.follow(inner).await;
        self.link.broken(number).await;
        outcome
    }

    /// Follows over one connection, until it fails.
    async fn follow(&mut self, mut connection: MultiplexedConnection) -> Result<(), LogError> {
        // What the connection before has left.
        while self.pushes.try_recv().is_ok() {}
        self.shared.begin_epoch(false).await.inspect_err(|_| self.healthy(false))?;
        self.healthy(true);
        let mut topics: Vec<String> = self.shared.watched().keys().cloned().collect();
        topics.push(self.forgotten.clone());
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            connection.subscribe(topics).await.map_err(|error| storage(&error))?;
        }
        self.read_heads().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(push) = self.pushes.recv() => self.take(push).await?,
                Some(watch) = self.watches.recv() => self.watch(&mut connection, watch).await?,
                _ = tick.tick() => {
                    redis::cmd("PING").exec_async(&mut connection).await.map_err(|error| storage(&error))?;
                    self.unwatch(&mut connection).await?;
                }
            }
            if self.overflowed.swap(false, Ordering::Relaxed) {
                self.read_heads().await?;
            }
        }
    }

    fn healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    async fn read_heads(&self) -> Result<(), LogError> {
        let channels: Vec<Arc<Channel>> = self.shared.watched().values().cloned().collect();
        stream::iter(channels)
            .map(|channel| async move { self.shared.bounds(&channel, true).await.map(drop) })
            .buffer_unordered(HEADS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn watch(&mut self, connection: &mut MultiplexedConnection, first: Watch) -> Result<(), LogError> {
        let mut watches = vec![first];
        while watches.len() < TOPICS_AT_ONCE {
            let Ok(next) = self.watches.try_recv() else { break };
            watches.push(next);
        }
        let topic = |watch: &Watch| scripts::topic(&self.shared.options, watch.channel.name());
        let topics: Vec<String> = watches.iter().map(topic).collect();
        connection.subscribe(&topics).await.map_err(|error| storage(&error))?;
        for (watch, topic) in watches.into_iter().zip(topics) {
            self.shared.watched().insert(topic, watch.channel);
            let _ = watch.done.send(());
        }
        Ok(())
    }

    /// Lets go of channels without readers. Whoever comes later asks to watch again, behind this.
    async fn unwatch(&mut self, connection: &mut MultiplexedConnection) -> Result<(), LogError> {
        let gone: Vec<(String, Arc<Channel>)> =
            self.shared.watched().extract_if(|_, channel| channel.readers() == 0).collect();
        for gone in gone.chunks(TOPICS_AT_ONCE) {
            let topics: Vec<&str> = gone.iter().map(|(topic, _)| topic.as_str()).collect();
            connection.unsubscribe(&topics).await.map_err(|error| storage(&error))?;
            for (_, channel) in gone {
                self.shared.change(channel, Ring::clear);
            }
        }
        Ok(())
    }

    async fn take(&self, push: PushInfo) -> Result<(), LogError> {
        match push.kind {
            PushKind::Disconnection => Err(LogError::Storage("Redis: the connection ended".to_owned())),
            PushKind::Message => {
                if let [Value::BulkString(topic), Value::BulkString(message)] = &push.data[..] {
                    self.show(topic, message).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn show(&self, topic: &[u8], message: &[u8]) -> Result<(), LogError> {
        if topic == self.forgotten.as_bytes() {
            if let Ok(name) = std::str::from_utf8(message) {
                self.shared.forgotten(name);
            }
            return Ok(());
        }
        let channel =
            std::str::from_utf8(topic).ok().and_then(|topic| self.shared.watched().get(topic).cloned());
        // Unwatched while it was on its way.
        let Some(channel) = channel else { return Ok(()) };
        if let Some((head, now)) = scripts::removed(message) {
            self.shared.removed(&channel, head, now);
            return Ok(());
        }
        let Some((stored, name, data)) = scripts::announced(message) else {
            tracing::warn!(event = "log.strange_push", channel = channel.name());
            return Ok(());
        };
        if stored.place.generation > self.shared.told()
            && self.shared.learn(stored.place.generation, &stored.epoch)
        {
            self.shared.tell().await?;
        }
        self.shared.offer(&channel, &stored, true, || {
            Frame::encode(stored.place, &stored.epoch, stored.at_ms, name, data).ok()
        });
        Ok(())
    }
}
