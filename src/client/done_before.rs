//! Ids that were processed before their events come: by an earlier page beyond its cursor, or before they were given back.
//! Each is skipped once.
//!
//! How many events with an id come before each of them is known, since a replay begins behind the cursor: so a record
//! tells the next page only of those that it waits for, and where there are too many the nearest are kept.

#[derive(Debug)]
struct Done {
    id: String,
    /// Its replay is this event at the latest, counted as `came` is.
    due: usize,
    /// A server that renumbers may mean another event by it from here on.
    until: usize,
}

#[derive(Debug, Default)]
pub(super) struct DoneBefore {
    list: Vec<Done>,
    /// Events with an id that came.
    came: usize,
    max: usize,
}

impl DoneBefore {
    /// Knows these, of which a replay brings the last within `max + 1` events.
    pub(super) fn new(mut ids: Vec<String>, max: usize) -> Self {
        ids.truncate(max);
        let due = max + 1;
        Self { list: ids.into_iter().map(|id| Done { id, due, until: due }).collect(), came: 0, max }
    }

    /// So many events with an id are given back, and come before all that was waited for.
    pub(super) fn put_off(&mut self, events: usize) {
        for done in &mut self.list {
            done.due += events;
            done.until += events;
        }
    }

    /// One more, which the replay brings as its `distance`th event, or soon after if it begins too early. Where there are too many, those that did not come when
    /// they should have make room, then the farthest.
    pub(super) fn push(&mut self, id: &str, distance: usize) {
        let due = self.came + distance;
        let done = Done { id: id.to_owned(), due, until: due + self.max + 1 };
        if self.list.len() < self.max {
            self.list.push(done);
            return;
        }
        let came = self.came;
        let worst = self.list.iter_mut().max_by_key(|done| (done.due <= came, done.due));
        if let Some(worst) = worst.filter(|worst| worst.due <= came || worst.due > due) {
            *worst = done;
        }
    }

    /// Whether `id` is one of them; asked once for each event. A server that `renumbers` may come to give an id to another
    /// event: once a replay must have brought them, they are forgotten.
    pub(super) fn take(&mut self, id: &str, renumbers: bool) -> bool {
        if self.list.is_empty() {
            return false;
        }
        self.came += 1;
        let found = self.list.iter().position(|done| done.id == id);
        let is_done = found.map(|at| self.list.swap_remove(at)).is_some();
        if renumbers {
            self.list.retain(|done| done.until > self.came);
        }
        is_done
    }

    pub(super) fn retain(&mut self, mut is_waited_for: impl FnMut(&str) -> bool) {
        self.list.retain(|done| is_waited_for(&done.id));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.list.iter().map(|done| &done.id)
    }

    /// Those that come within so many events from here on, and then those that should have come.
    pub(super) fn within(&self, events: usize) -> impl Iterator<Item = &String> {
        let due = |is_near: fn(usize, usize) -> bool| {
            self.list.iter().filter(move |done| is_near(done.due.saturating_sub(self.came), events))
        };
        let near = due(|distance, events| (1..=events).contains(&distance));
        near.chain(due(|distance, _| distance == 0)).map(|done| &done.id)
    }
}
