//! Recognises repeated events of servers whose ids mean nothing to us.
//!
//! A duplicate is the same explicit id *and* the same type and data: a server that restarts its numbering must
//! not have its new events swallowed. Both are kept as hashes, 128 bits together, so that memory is bounded
//! whatever the server sends.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use super::config::DedupeConfig;

#[derive(Debug)]
pub(crate) struct DedupeWindow {
    config: DedupeConfig,
    hasher: foldhash::quality::FixedState,
    seen_by_id: HashMap<u64, Seen, BuildHasherDefault<AlreadyHashed>>,
    oldest_first: VecDeque<(u64, u64)>,
    next_stamp: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    content: u64,
    seen_at_ms: u64,
    stamp: u64,
}

impl DedupeWindow {
    pub(crate) fn new(config: DedupeConfig) -> Self {
        Self {
            config,
            hasher: foldhash::quality::FixedState::default(),
            seen_by_id: HashMap::default(),
            oldest_first: VecDeque::new(),
            next_stamp: 0,
        }
    }

    /// Whether this event was seen; remembers it if not.
    pub(crate) fn is_repeat(&mut self, now_ms: u64, id: &str, name: &str, data: &str) -> bool {
        let key = self.key(id);
        let content = self.content(name, data);
        let stamp = self.next_stamp;
        let seen = Seen { content, seen_at_ms: now_ms, stamp };
        match self.seen_by_id.entry(key) {
            Entry::Vacant(place) => {
                place.insert(seen);
            }
            Entry::Occupied(mut place) => {
                let before = place.get();
                let fresh = self.config.ttl_ms == 0 || now_ms - before.seen_at_ms < self.config.ttl_ms;
                if fresh && before.content == content {
                    return true;
                }
                place.insert(seen);
            }
        }
        self.next_stamp += 1;
        self.oldest_first.push_back((key, stamp));
        while self.oldest_first.len() > self.config.size_max {
            self.evict_oldest();
        }
        false
    }

    /// Forgets an event that the app was never given, so that its replay gets through.
    pub(crate) fn forget(&mut self, id: &str) {
        self.seen_by_id.remove(&self.key(id));
        // What is given back came last: its places must not push others out of the window.
        while let Some((key, stamp)) = self.oldest_first.back()
            && self.seen_by_id.get(key).is_none_or(|seen| seen.stamp != *stamp)
        {
            self.oldest_first.pop_back();
        }
    }

    /// Events remembered, those included that were seen again since with other data.
    pub(crate) fn len(&self) -> usize {
        self.oldest_first.len().max(self.seen_by_id.len())
    }

    fn key(&self, id: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    fn content(&self, name: &str, data: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(data.as_bytes());
        // Its length keeps name and data apart.
        hasher.write_usize(name.len());
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    fn evict_oldest(&mut self) {
        if let Some((key, stamp)) = self.oldest_first.pop_front()
            // The same id may have been seen again since, with other data: that entry is younger and stays.
            && let Entry::Occupied(place) = self.seen_by_id.entry(key)
            && place.get().stamp == stamp
        {
            place.remove();
        }
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only u64 keys");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_id_and_same_content_only() {
        let mut window = DedupeWindow::new(DedupeConfig { size_max: 3, ttl_ms: 100 });
        let mut check = |now_ms, id, data, repeat, why| {
            assert_eq!(window.is_repeat(now_ms, id, "message", data), repeat, "{why}");
        };
        check(0, "1", "a", false, "new");
        check(1, "1", "a", true, "again");
        check(2, "1", "b", false, "other data under the same id: the numbering began anew");
        check(3, "1", "b", true, "again");
        check(4, "2", "b", false, "other id");
        check(5, "3", "b", false, "fills the window");
        check(6, "4", "b", false, "evicts the oldest");
        check(7, "1", "b", false, "was evicted");
        check(200, "4", "b", false, "its time to live is over");
        window.forget("4");
        assert!(!window.is_repeat(201, "4", "message", "b"), "forgotten");
        assert!(window.seen_by_id.len() <= 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = DedupeWindow::new(DedupeConfig { size_max: 1_000, ttl_ms: 0 });
        for index in 0..100_000_u32 {
            window.is_repeat(0, &index.to_string(), "message", "x");
            window.forget(&index.wrapping_sub(1).to_string());
        }
        assert!(window.seen_by_id.len() <= 1_000 && window.oldest_first.len() <= 1_000);
    }
}
