//! What writer, tail and readers of one process share: the epochs, the channels, and what Redis is asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redis::{Pipeline, Value};

use super::link::Link;
use super::options::RedisOptions;
use super::scripts::{self, Answer, Stored, strange, text};
use crate::server::clock;
use crate::server::log::channel::{Directory, Ring};
use crate::server::log::{Bounds, Channel, Frame, LogError, PageLimit, Place, check_channel};

/// An epoch can begin and another follow while we look; more often than this is no coincidence.
const TRIES: usize = 4;
/// Channels whose heads are told in one round trip.
const RAISES_AT_ONCE: usize = 256;

pub(super) struct Shared {
    pub(super) options: RedisOptions,
    /// Everything but appends and pushes.
    pub(super) link: Link,
    directory: Mutex<Directory>,
    epochs: RwLock<BTreeMap<u32, Arc<str>>>,
    /// The channels whose events are pushed to us, by their topics.
    watched: Mutex<HashMap<String, Arc<Channel>>>,
    tails_bytes: AtomicUsize,
    /// The epoch that began last of those before which the log was told what this process knew.
    told: AtomicU32,
    telling: tokio::sync::Mutex<()>,
    /// Redis answers, as far as the tail knows, which asks it all the time.
    pub(super) healthy: AtomicBool,
}

impl Shared {
    pub(super) fn new(options: RedisOptions, link: Link) -> Self {
        Self {
            options,
            link,
            directory: Mutex::default(),
            epochs: RwLock::default(),
            watched: Mutex::default(),
            tails_bytes: AtomicUsize::new(0),
            told: AtomicU32::new(0),
            telling: tokio::sync::Mutex::default(),
            healthy: AtomicBool::new(true),
        }
    }

    /// Refuses a prefix that could be another one's with the beginning of a channel's name.
    pub(super) async fn check_prefix(&self) -> Result<(), LogError> {
        let prefix = &self.options.prefix;
        if !prefix.contains(':') {
            return Ok(());
        }
        let Value::Int(0) = self.link.call(&scripts::exists(&self.options)).await? else {
            tracing::warn!(event = "log.ambiguous_prefix", prefix, "two logs could share what they store");
            return Ok(());
        };
        Err(LogError::Storage(format!(
            "the prefix of a new Redis log takes no colon, which would let it share events with another log: write {}",
            prefix.replace(':', ".")
        )))
    }

    pub(super) fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        // Where a channel stands, Redis alone says: it may be behind of all that this process knows of others.
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        directory.open(name, 0)
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, HashMap<String, Arc<Channel>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_watched(&self, channel: &Channel) -> bool {
        self.watched().contains_key(&scripts::topic(&self.options, channel.name()))
    }

    pub(super) fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned()
    }

    pub(super) fn generation(&self, epoch: &str) -> Option<u32> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.iter().find(|known| **known.1 == *epoch).map(|known| *known.0)
    }

    pub(super) fn newest_generation(&self) -> u32 {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.last_key_value().map_or(0, |newest| *newest.0)
    }

    /// False where another epoch has that number: the log was lost, and somebody who did not know it began it anew.
    pub(super) fn learn(&self, generation: u32, epoch: &str) -> bool {
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        **epochs.entry(generation).or_insert_with(|| epoch.into()) == *epoch
    }

    async fn load_epochs(&self) -> Result<(), LogError> {
        let Value::Map(epochs) = self.link.call(&scripts::epochs(&self.options)).await? else {
            return Err(strange());
        };
        for (generation, epoch) in &epochs {
            let generation = text(generation).and_then(|text| text.parse().ok()).ok_or_else(strange)?;
            self.learn(generation, text(epoch).ok_or_else(strange)?);
        }
        Ok(())
    }

    /// Sees to it that the newest epoch is one of the server that answers now, or begins one anyway. Its number is
    /// greater than all that this process knows.
    pub(super) async fn begin_epoch(&self, force: bool) -> Result<(), LogError> {
        let mut force = force;
        for _ in 0..TRIES {
            let newest = self.newest_generation();
            let least = newest.checked_add(1).ok_or(LogError::Closed)?;
            let call = scripts::begin(&self.options, &clock::epoch(), least, force);
            let Answer::Begun(generation, epoch) = scripts::read(&self.link.call(&call).await?)? else {
                return Err(strange());
            };
            if generation >= newest && self.learn(generation, &epoch) {
                self.load_epochs().await?;
                return self.tell().await;
            }
            force = true;
        }
        Err(strange())
    }

    /// What Redis holds of a channel. What it lost of what we know to have been given out, it is told. `after_loss` says that
    /// pushes may have been missed.
    pub(super) async fn bounds(&self, channel: &Channel, after_loss: bool) -> Result<Bounds, LogError> {
        for _ in 0..TRIES {
            let (known, newest_known) = (channel.bounds(), self.newest_generation());
            let call = scripts::bounds(&self.options, channel.name());
            let (newest, bounds, states) = match scripts::read(&self.link.call(&call).await?)? {
                Answer::Unproven => {
                    self.begin_epoch(false).await?;
                    continue;
                }
                Answer::Bounds { newest, bounds, states } => (newest, bounds, states),
                _ => return Err(strange()),
            };
            if newest.0 < newest_known || !self.learn(newest.0, &newest.1) {
                self.begin_epoch(true).await?;
                continue;
            }
            if newest.0 > self.told() {
                self.load_epochs().await?;
                self.tell().await?;
                continue;
            }
            if bounds.head < known.head && known.is_used() {
                self.raise(&[(channel.name(), known.head)]).await?;
                continue;
            }
            channel.set_states(bounds.head, states);
            self.change(channel, |ring| {
                // Where nothing was ever said, who waits has missed nothing, wherever a channel would begin now.
                let idle = !bounds.is_used() && !ring.bounds.is_used() && !after_loss;
                if bounds.head > ring.bounds.head && !idle {
                    ring.restart(bounds.head);
                    ring.bounds.begin = bounds.begin;
                }
            });
            return Ok(bounds);
        }
        Err(LogError::Storage(
            "Redis: the log changes faster than it can be looked at; does something delete its keys?"
                .to_owned(),
        ))
    }

    pub(super) fn told(&self) -> u32 {
        self.told.load(Ordering::Acquire)
    }

    /// Where an epoch began, tells the log of all that this process knows to have been given out before. That comes before
    /// a channel here takes over anything of the new epoch, and before this process stores anything in it: who reads the
    /// new epoch then hears of what is missing.
    pub(super) async fn tell(&self) -> Result<(), LogError> {
        let newest = self.newest_generation();
        if self.told() == newest {
            return Ok(());
        }
        let _turn = self.telling.lock().await;
        if self.told() >= newest {
            return Ok(());
        }
        let channels: Vec<Arc<Channel>> = {
            let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
            directory.all().cloned().collect()
        };
        let heads: Vec<_> = channels
            .iter()
            .flat_map(|channel| {
                let bounds = channel.bounds();
                let head = bounds.is_used().then_some(bounds.head);
                let ends =
                    bounds.ends.into_iter().map(|(generation, sequence)| Place { generation, sequence });
                ends.chain(head).map(|place| (channel.name(), place)).collect::<Vec<_>>()
            })
            .collect();
        for heads in heads.chunks(RAISES_AT_ONCE) {
            self.raise(heads).await?;
        }
        if self.told.swap(newest, Ordering::AcqRel) != 0 {
            tracing::warn!(event = "log.epoch_begun", "Redis was restarted, replaced or emptied");
        }
        Ok(())
    }

    async fn raise(&self, heads: &[(&str, Place)]) -> Result<(), LogError> {
        let mut pipeline = Pipeline::new();
        for (name, head) in heads {
            let Some(epoch) = self.epoch(head.generation) else { continue };
            pipeline.add_command(scripts::raise(&self.options, name, *head, &epoch).into_command());
        }
        let answers = self.link.pipeline(&mut pipeline).await?;
        answers
            .into_iter()
            .try_for_each(|answer| answer.map(drop))
            .map_err(|error| super::link::storage(&error))
    }

    pub(super) async fn page(
        &self,
        channel: &Channel,
        after: Place,
        limit: PageLimit,
    ) -> Result<Vec<Frame>, LogError> {
        let call = scripts::page(&self.options, channel.name(), after, limit);
        let Value::Array(parts) = self.link.call(&call).await? else { return Err(strange()) };
        let mut frames = Vec::with_capacity(parts.len() / 4);
        for event in parts.chunks_exact(4) {
            let part = |index: usize| text(&event[index]).ok_or_else(strange);
            let place = scripts::stream_id(part(0)?).ok_or_else(strange)?;
            if self.epoch(place.generation).is_none() {
                // Another node began it.
                self.load_epochs().await?;
            }
            let epoch = self.epoch(place.generation).ok_or_else(strange)?;
            let at_ms = part(1)?.parse().map_err(|_| strange())?;
            let frame = Frame::encode(place, &epoch, at_ms, part(2)?, part(3)?);
            frames.push(frame.map_err(|_| strange())?);
        }
        Ok(frames)
    }

    /// Takes an event that was stored into the channel's tail and wakes the readers. Of those that come by the one
    /// way that is `in_order`, one that does not follow tells of others that were missed; of others it means nothing.
    pub(super) fn offer(
        &self,
        channel: &Channel,
        stored: &Stored,
        in_order: bool,
        frame: impl FnOnce() -> Option<Frame>,
    ) {
        if !self.learn(stored.place.generation, &stored.epoch) {
            return;
        }
        let listened = channel.readers() > 0;
        let spare = self.tails_bytes.load(Ordering::Relaxed) <= self.options.tails_bytes_max;
        let limit = if spare { self.options.tail } else { PageLimit { events_max: 0, bytes_max: 0 } };
        self.change(channel, |ring| {
            if stored.place <= ring.bounds.head {
                return;
            }
            if !listened {
                // Nobody needs the tail, but what was given out is remembered.
                ring.restart(stored.place);
                if stored.first {
                    ring.bounds.begin = stored.before;
                }
                return;
            }
            if stored.before != ring.bounds.head {
                // Channels begin behind those that were forgotten, wherever their readers wait.
                if stored.first && !ring.bounds.is_used() {
                    ring.join(stored.before);
                } else if in_order {
                    ring.restart(stored.before);
                } else {
                    return;
                }
            }
            if stored.first {
                ring.bounds.begin = stored.before;
            }
            match frame() {
                Some(frame) => ring.push(frame),
                None => ring.restart(stored.place),
            }
            ring.trim(limit);
        });
    }

    pub(super) async fn remove(&self, channel: &str) -> Result<(), LogError> {
        check_channel(channel)?;
        for _ in 0..TRIES {
            match scripts::read(&self.link.call(&scripts::remove(&self.options, channel)).await?)? {
                Answer::Removed => return Ok(()),
                Answer::Unproven => self.begin_epoch(false).await?,
                _ => break,
            }
        }
        Err(strange())
    }

    /// Takes over that a channel was removed when it had come to `head`: who had read all of it misses nothing.
    pub(super) fn removed(&self, channel: &Channel, head: Place, now: Bounds) {
        self.change(channel, |ring| {
            if ring.bounds.head >= now.head {
                return;
            }
            if ring.bounds.head == head {
                ring.join(now.head);
            } else {
                ring.restart(now.head);
            }
            ring.bounds = now;
        });
    }

    /// Lets go of a channel of which nothing is left in Redis, where nobody here uses it.
    pub(super) fn forgotten(&self, name: &str) {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if !directory.is_held(name) {
            directory.discard(name);
        }
    }

    /// Lets `change` alter a channel's tail, and keeps count of what all tails hold.
    pub(super) fn change(&self, channel: &Channel, change: impl FnOnce(&mut Ring)) {
        let (before, after) = channel.change(|ring| {
            let before = ring.bytes();
            change(ring);
            (before, ring.bytes())
        });
        self.tails_bytes.fetch_add(after, Ordering::Relaxed);
        self.tails_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}
