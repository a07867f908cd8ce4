//! What the writer of a redb log does unasked: it opens a file anew that failed, lets old events go, and forgets channels of
//! which nothing is left.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::channel::Ring;
use super::redb::{File, storage};
use super::redb_load::{self, Loaded};
use super::redb_tables::{Keep, Tables};
use super::redb_writer::{Batch, Meta, Writer};
use super::{Bounds, LogError, Place};
use crate::server::clock;

/// How often a file that failed is opened anew.
const MEND: Duration = Duration::from_secs(1);
/// Channels that are forgotten in one transaction, so that publishers need not wait for long.
const FORGET_AT_ONCE: usize = 1024;

impl Writer {
    /// Opens the file anew after an error, by a reader or by us.
    pub(super) fn mend(&mut self) {
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
        // Sticky, since what readers know is put right here, whatever becomes of the rest.
        self.lost |= self.show(&loaded);
        self.take(loaded);
        self.tails.clear();
        self.tails_bytes = 0;
        let database = Arc::new(database);
        self.database = Some(Arc::clone(&database));
        {
            let mut file = self.shared.file();
            if matches!(*file, File::Failed(_)) {
                *file = File::Open(database);
            }
        }
        // What was acknowledged is on disk; where it is not, its ids must not be given again.
        if self.lost {
            self.begin_epoch()?;
            self.lost = false;
        }
        Ok(())
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
            stored.show(&mut directory);
        }
        lost
    }

    /// Deletes what has grown too old in channels that nobody appends to, forgets those of which nothing is left, and lets
    /// go of tails without readers.
    pub(super) fn sweep(&mut self) {
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
    pub(super) fn forget(&mut self, names: Vec<String>) -> Result<(), LogError> {
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

    /// Takes from the largest channels until all together are within their limit, and some more, so that not each
    /// transaction looks at all channels.
    pub(super) fn shrink(&self, tables: &mut Tables<'_>, batch: &mut Batch) -> Result<(), LogError> {
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
}
