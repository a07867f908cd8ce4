//! What a redb log reads when it opens its file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, ReadableTable};

use super::channel::Directory;
use super::redb::{
    BEGINS, CHANNELS, ENDS, EPOCHS, EVENTS, KEY_ORDER, KEYS, RETIRED, RedbOptions, STATES, storage,
};
use super::redb_writer::Meta;
use super::{Bounds, LogError, Place};
use crate::server::clock;

/// How long redb's magic number is.
const MAGIC_BYTES: u64 = 9;

/// All that is kept in memory of what the file holds.
pub(super) struct Loaded {
    pub(super) epochs: Vec<Arc<str>>,
    pub(super) channels: Vec<Stored>,
    /// How far the channels came that were forgotten.
    pub(super) retired: Place,
}

pub(super) struct Stored {
    pub(super) name: String,
    pub(super) bounds: Bounds,
    pub(super) meta: Meta,
    states: BTreeMap<String, Place>,
}

impl Stored {
    /// Makes a channel of it.
    pub(super) fn show(&self, directory: &mut Directory) {
        directory.insert(&self.name, self.bounds.clone()).set_states(self.bounds.head, self.states.clone());
    }
}

pub(super) fn builder(options: RedbOptions) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes_max);
    builder
}

/// Deletes a file whose maker was killed before it was done: redb writes its magic number last, and opens nothing without.
pub(super) fn discard_unfinished(path: &Path) -> io::Result<()> {
    let mut begin = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAGIC_BYTES).read_to_end(&mut begin)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !begin.is_empty() && begin.iter().all(|&byte| byte == 0) { std::fs::remove_file(path) } else { Ok(()) }
}

/// Reads the file, and makes of an empty one a log of a new epoch.
pub(super) fn load(database: &Database) -> Result<Loaded, LogError> {
    let now = clock::unix_ms();
    let transaction = database.begin_write().map_err(storage)?;
    let mut loaded = Loaded { epochs: Vec::new(), channels: Vec::new(), retired: Place::default() };
    {
        let mut epochs = transaction.open_table(EPOCHS).map_err(storage)?;
        let events = transaction.open_table(EVENTS).map_err(storage)?;
        let ends = transaction.open_table(ENDS).map_err(storage)?;
        let begins = transaction.open_table(BEGINS).map_err(storage)?;
        let states = transaction.open_table(STATES).map_err(storage)?;
        transaction.open_table(KEYS).map_err(storage)?;
        transaction.open_table(KEY_ORDER).map_err(storage)?;
        if let Some(retired) = transaction.open_table(RETIRED).map_err(storage)?.get(()).map_err(storage)? {
            let (generation, sequence) = retired.value();
            loaded.retired = Place { generation, sequence };
        }
        for entry in epochs.iter().map_err(storage)? {
            loaded.epochs.push(entry.map_err(storage)?.1.value().into());
        }
        if loaded.epochs.is_empty() {
            let epoch = clock::epoch();
            epochs.insert(0, epoch.as_str()).map_err(storage)?;
            loaded.epochs.push(epoch.into());
        }
        for entry in transaction.open_table(CHANNELS).map_err(storage)?.iter().map_err(storage)? {
            let (name, row) = entry.map_err(storage)?;
            let (number, generation, sequence, bytes, key_first, key_next) = row.value();
            let head = Place { generation, sequence };
            let mut stored = events.range((number, 0, 0)..=(number, u32::MAX, u64::MAX)).map_err(storage)?;
            let oldest = match stored.next() {
                Some(first) => {
                    let (key, event) = first.map_err(storage)?;
                    let (_, generation, sequence) = key.value();
                    Some((Place { generation, sequence }, event.value().0))
                }
                None => None,
            };
            let mut ended = Vec::new();
            for end in ends.range((number, 0)..=(number, u32::MAX)).map_err(storage)? {
                let (key, sequence) = end.map_err(storage)?;
                ended.push((key.value().1, sequence.value()));
            }
            let begin = begins.get(number).map_err(storage)?.map_or_else(Place::default, |begin| {
                let (generation, sequence) = begin.value();
                Place { generation, sequence }
            });
            let mut marks = BTreeMap::new();
            for state in states.range((number, "")..(number.saturating_add(1), "")).map_err(storage)? {
                let (key, place) = state.map_err(storage)?;
                let (generation, sequence) = place.value();
                marks.insert(key.value().1.to_owned(), Place { generation, sequence });
            }
            let bounds = Bounds { oldest: oldest.map(|oldest| oldest.0), begin, head, ends: ended };
            let count = oldest.map_or(0, |oldest| bounds.distance(bounds.before(oldest.0), head));
            let meta = Meta { number, head, oldest, count, bytes, key_first, key_next, touched_ms: now };
            loaded.channels.push(Stored { name: name.value().to_owned(), bounds, meta, states: marks });
        }
    }
    transaction.commit().map_err(storage)?;
    Ok(loaded)
}
