//! Ids that were processed before their events come: by an earlier page beyond its cursor, or before they were given back.
//! Each is skipped once.

#[derive(Debug, Default)]
pub(super) struct DoneBefore {
    ids: Vec<String>,
    /// A replay brings the last of them within so many events that have an id.
    within: usize,
}

impl DoneBefore {
    /// Knows these, of which a replay brings the last within `within` events.
    pub(super) fn new(ids: Vec<String>, within: usize) -> Self {
        Self { ids, within }
    }

    pub(super) fn push(&mut self, id: &str) {
        self.ids.push(id.to_owned());
    }

    /// From here on a replay brings the last of them within so many events.
    pub(super) fn come_within(&mut self, events: usize) {
        self.within = self.within.max(events);
    }

    /// Whether `id` is one of them; asked once for each event. A server that `renumbers` may come to give an id to another
    /// event: once a replay must have brought them all, they are forgotten.
    pub(super) fn take(&mut self, id: &str, renumbers: bool) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        let found = self.ids.iter().position(|done| done == id);
        let is_done = found.map(|at| self.ids.swap_remove(at)).is_some();
        if renumbers {
            self.within = self.within.saturating_sub(1);
            if self.within == 0 {
                self.ids.clear();
            }
        }
        is_done
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.ids.iter()
    }
}
