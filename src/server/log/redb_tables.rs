//! The tables of a redb log inside one transaction: keys are remembered, events expire, channels are deleted.

use redb::{ReadableTable, Table, WriteTransaction};

use super::redb::{BEGINS, CHANNELS, ENDS, EVENTS, KEY_ORDER, KEYS, RETIRED, Row, STATES, storage};
use super::redb_writer::Meta;
use super::{Key, LogError, NewEvent, Place, Retention, StateMark};

pub(super) struct Tables<'t> {
    pub(super) events: Table<'t, (u32, u32, u64), (u64, &'static str, &'static str)>,
    pub(super) keys: Table<'t, (u32, &'static str), (u32, u64, u64)>,
    key_order: Table<'t, (u32, u64), &'static str>,
    pub(super) ends: Table<'t, (u32, u32), u64>,
    begins: Table<'t, u32, (u32, u64)>,
    states: Table<'t, (u32, &'static str), (u32, u64)>,
    channels: Table<'t, &'static str, Row>,
    retired: Table<'t, (), (u32, u64)>,
}

/// How much of a channel stays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) events_max: u64,
    pub(super) bytes_max: u64,
    /// What was stored before this goes, in milliseconds since 1970.
    pub(super) from_ms: u64,
}

impl Keep {
    pub(super) fn new(retention: &Retention, now_ms: u64) -> Self {
        let from_ms = if retention.age_ms_max > 0 { now_ms.saturating_sub(retention.age_ms_max) } else { 0 };
        Self { events_max: retention.events_max, bytes_max: retention.bytes_max, from_ms }
    }
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            events: transaction.open_table(EVENTS).map_err(storage)?,
            keys: transaction.open_table(KEYS).map_err(storage)?,
            key_order: transaction.open_table(KEY_ORDER).map_err(storage)?,
            ends: transaction.open_table(ENDS).map_err(storage)?,
            begins: transaction.open_table(BEGINS).map_err(storage)?,
            states: transaction.open_table(STATES).map_err(storage)?,
            channels: transaction.open_table(CHANNELS).map_err(storage)?,
            retired: transaction.open_table(RETIRED).map_err(storage)?,
        })
    }

    pub(super) fn put(&mut self, name: &str, meta: &Meta) -> Result<(), LogError> {
        self.channels.insert(name, meta.row()).map_err(storage).map(drop)
    }

    /// Begins a channel behind those that were forgotten.
    pub(super) fn begin(&mut self, number: u32, begin: Place) -> Result<(), LogError> {
        if begin > Place::default() {
            self.begins.insert(number, (begin.generation, begin.sequence)).map_err(storage)?;
        }
        Ok(())
    }

    /// The place that is known for an event's key.
    pub(super) fn known(&self, number: u32, event: &NewEvent) -> Result<Option<(Place, u64)>, LogError> {
        let Some(key) = &event.key else { return Ok(None) };
        let known = self.keys.get((number, key.text.as_str())).map_err(storage)?;
        Ok(known.map(|known| {
            let (generation, sequence, content) = known.value();
            (Place { generation, sequence }, content)
        }))
    }

    /// Stores the key of the channel's newest event, and forgets the oldest beyond the limit.
    pub(super) fn remember(&mut self, meta: &mut Meta, key: &Key, keys_max: u64) -> Result<(), LogError> {
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

    /// Stores what the channel's newest event means to a state.
    pub(super) fn mark(&mut self, meta: &Meta, mark: &StateMark) -> Result<(), LogError> {
        let key = (meta.number, mark.key.as_str());
        if mark.removed {
            self.states.remove(key).map_err(storage)?;
        } else {
            self.states.insert(key, (meta.head.generation, meta.head.sequence)).map_err(storage)?;
        }
        Ok(())
    }

    /// Deletes events from the oldest on until the channel is within its limits.
    pub(super) fn expire(&mut self, meta: &mut Meta, keep: Keep) -> Result<(), LogError> {
        while let Some((place, at_ms)) = meta.oldest {
            if meta.count <= keep.events_max && meta.bytes <= keep.bytes_max && at_ms >= keep.from_ms {
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

    /// Deletes all of a channel, and remembers how far the forgotten ones came.
    pub(super) fn delete(&mut self, name: &str, number: u32, retired: Place) -> Result<(), LogError> {
        let next = number.saturating_add(1);
        self.events
            .retain_in((number, 0, 0)..=(number, u32::MAX, u64::MAX), |_, _| false)
            .map_err(storage)?;
        self.keys.retain_in((number, "")..(next, ""), |_, _| false).map_err(storage)?;
        self.key_order.retain_in((number, 0)..=(number, u64::MAX), |_, _| false).map_err(storage)?;
        self.ends.retain_in((number, 0)..=(number, u32::MAX), |_, _| false).map_err(storage)?;
        self.begins.remove(number).map_err(storage)?;
        self.states.retain_in((number, "")..(next, ""), |_, _| false).map_err(storage)?;
        self.channels.remove(name).map_err(storage)?;
        self.retired.insert((), (retired.generation, retired.sequence)).map_err(storage)?;
        Ok(())
    }
}
