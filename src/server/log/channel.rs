//! What this process holds of one channel: its head, to wait on, and its newest frames, to read without the disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Bounds, Frame, LogError, PageLimit, Place, StateMark, check_channel};

/// One channel, as shared by those who append to it and those who read it.
#[derive(Debug)]
pub struct Channel {
    name: String,
    ring: Mutex<Ring>,
    head: watch::Sender<Place>,
    states: Mutex<States>,
}

/// The newest event of each shared state, by the state's key.
#[derive(Debug, Default)]
struct States {
    /// The head of the channel when that was so.
    head: Option<Place>,
    places: BTreeMap<String, Place>,
}

impl Channel {
    /// A channel of which this process holds no frame yet. `bounds` is what the log has: [`Bounds::new`] for a channel
    /// without events.
    #[must_use]
    pub fn new(name: &str, bounds: Bounds) -> Self {
        let head = bounds.head;
        Self {
            name: name.to_owned(),
            ring: Mutex::new(Ring { frames: VecDeque::new(), bytes: 0, floor: head, joint: None, bounds }),
            head: watch::Sender::new(head),
            states: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The place of the newest event, and a wake-up whenever it moves.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Place> {
        self.head.subscribe()
    }

    /// How many wait on the head.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.head.receiver_count()
    }

    /// The frames after `after`, where this process holds all of them; `None` where the log must be asked.
    #[must_use]
    pub fn tail(&self, after: Place, limit: PageLimit) -> Option<Vec<Frame>> {
        let ring = self.ring();
        (after >= ring.floor).then(|| ring.stored_after(after, limit))
    }

    /// The place that comes right after one, where that is known and the numbers do not tell.
    pub(crate) fn passes(&self, place: Place) -> Option<Place> {
        self.ring().joint.filter(|(from, to)| *from <= place && place < *to).map(|joint| joint.1)
    }

    /// How many bytes of frames after `after` this process holds.
    pub(crate) fn bytes_after(&self, after: Place) -> usize {
        let ring = self.ring();
        let from = ring.frames.partition_point(|frame| frame.place <= after);
        ring.frames.range(from..).map(|frame| frame.bytes.len()).sum()
    }

    /// What the log holds, as this process last heard.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.ring().bounds.clone()
    }

    /// Takes over the event that was stored behind the head, and wakes the readers. Of the newest frames as many are held as
    /// `keep` allows; a log that pages from elsewhere may hold none. One that is not behind the head is known already, and
    /// left out.
    pub fn publish(&self, frame: Frame, keep: PageLimit) {
        self.change(|ring| {
            if frame.place <= ring.bounds.head {
                return;
            }
            ring.bounds.oldest.get_or_insert(frame.place);
            ring.push(frame);
            ring.trim(keep);
        });
    }

    /// Takes over what the log holds now, and wakes the readers if its head moved. Where it did, the frames that were held
    /// are let go: readers ask the log for what came in between.
    pub fn advance(&self, bounds: Bounds) {
        self.change(|ring| {
            if ring.bounds.head != bounds.head {
                ring.restart(bounds.head);
            }
            ring.bounds = bounds;
        });
    }

    /// The events that hold the values of the channel's shared states, by the states' keys, as the log said last when it was
    /// asked for the bounds. They may be gone by now.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, Place> {
        self.lock_states().places.clone()
    }

    /// Takes over what the log knew of the states when the channel had come to `head`.
    pub(crate) fn set_states(&self, head: Place, places: BTreeMap<String, Place>) {
        let mut states = self.lock_states();
        if states.head <= Some(head) {
            *states = States { head: Some(head), places };
        }
    }

    /// Takes over what the event at `place` means to a state.
    pub(crate) fn mark_state(&self, place: Place, mark: StateMark) {
        let mut states = self.lock_states();
        states.head = Some(place);
        if mark.removed {
            states.places.remove(&mark.key);
        } else {
            states.places.insert(mark.key, place);
        }
    }

    fn lock_states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `change` alter the ring and wakes the readers if that moved the head. Two callers may come here in the other
    /// order than they came to the ring: the head only ever moves on, or a reader would sleep on an event.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring();
        let answer = change(&mut ring);
        let head = ring.bounds.head;
        drop(ring);
        self.head.send_if_modified(|seen| {
            let moved = *seen < head;
            *seen = head.max(*seen);
            moved
        });
        answer
    }

    /// A panic elsewhere leaves the ring usable: it is at worst a run of frames that ends early.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run of frames without a gap: all events after `floor`, up to the head.
#[derive(Debug)]
pub(crate) struct Ring {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The newest place that is no longer held.
    floor: Place,
    /// From the one to the other place there is nothing, though they look apart.
    joint: Option<(Place, Place)>,
    pub(crate) bounds: Bounds,
}

impl Ring {
    /// Adds the event that follows the head, which may be the first of a later epoch.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.move_head(frame.place);
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
    }

    pub(crate) fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.bytes.len();
            self.floor = frame.place;
        }
    }

    /// Begins anew behind `head`, as after a gap that this process cannot fill.
    pub(crate) fn restart(&mut self, head: Place) {
        self.frames.clear();
        self.bytes = 0;
        self.floor = head;
        self.move_head(head);
    }

    /// Goes on behind `place`, which is known to be the next after the head.
    pub(crate) fn join(&mut self, place: Place) {
        self.clear();
        let head = std::mem::replace(&mut self.bounds.head, place);
        self.floor = head;
        // Of two in a row, one.
        let from = self.joint.filter(|joint| joint.1 == head).map_or(head, |joint| joint.0);
        self.joint = Some((from, place));
    }

    /// Where a later epoch begins, remembers where the one before it ended.
    fn move_head(&mut self, place: Place) {
        let head = std::mem::replace(&mut self.bounds.head, place);
        if head.generation < place.generation && head.sequence > 0 && head > self.bounds.begin {
            self.bounds.ends.retain(|end| end.0 < head.generation);
            self.bounds.ends.push((head.generation, head.sequence));
        }
    }

    /// Lets go of the oldest frames beyond a limit.
    pub(crate) fn trim(&mut self, keep: PageLimit) {
        while self.len() > keep.events_max || (self.bytes > keep.bytes_max && self.len() > 0) {
            self.pop();
        }
    }

    pub(crate) fn clear(&mut self) {
        while !self.frames.is_empty() {
            self.pop();
        }
    }

    pub(crate) fn oldest(&self) -> Option<&Frame> {
        self.frames.front()
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn stored_after(&self, after: Place, limit: PageLimit) -> Vec<Frame> {
        let from = self.frames.partition_point(|frame| frame.place <= after);
        let mut bytes = 0;
        self.frames
            .range(from..)
            .take(limit.events_max.max(1))
            .take_while(|frame| {
                let first = bytes == 0;
                bytes += frame.bytes.len();
                first || bytes <= limit.bytes_max
            })
            .cloned()
            .collect()
    }
}

/// The channels of a log by name. Those without events go when nobody uses them, so that asking for a
/// million names costs nothing that stays.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    channels: HashMap<String, Arc<Channel>>,
    sweep_at: usize,
    /// How far the channels came that were forgotten. New ones begin behind it.
    retired: Place,
}

/// Fewer channels than this are never swept.
const SWEEP_FROM: usize = 64;

impl Directory {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Channel>> {
        self.channels.get(name)
    }

    /// All channels.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels.values()
    }

    /// The channel of a name; one that is not there is without events, in the epoch `generation`.
    pub(crate) fn open(&mut self, name: &str, generation: u32) -> Result<Arc<Channel>, LogError> {
        if let Some(channel) = self.channels.get(name) {
            return Ok(Arc::clone(channel));
        }
        check_channel(name)?;
        Ok(self.insert(name, Bounds::new(generation, self.retired)))
    }

    pub(crate) fn insert(&mut self, name: &str, bounds: Bounds) -> Arc<Channel> {
        // Sweeping at twice of what the last sweep left costs each insertion a constant share.
        if self.channels.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.channels.retain(|_, channel| channel.bounds().is_used() || Arc::strong_count(channel) > 1);
            self.sweep_at = self.channels.len() * 2;
        }
        let channel = Arc::new(Channel::new(name, bounds));
        self.channels.insert(name.to_owned(), Arc::clone(&channel));
        channel
    }

    /// Whether anybody but us holds the channel. Who comes later waits for our lock.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|channel| Arc::strong_count(channel) > 1)
    }

    pub(crate) fn retired(&self) -> Place {
        self.retired
    }

    /// New channels begin behind `place`.
    pub(crate) fn retire(&mut self, place: Place) {
        self.retired = self.retired.max(place);
    }

    /// Forgets a channel. Who holds it has one without events, which begins behind all that were forgotten.
    pub(crate) fn forget(&mut self, name: &str, generation: u32) {
        let Some(channel) = self.channels.get(name) else { return };
        let bounds = channel.bounds();
        if bounds.is_used() {
            self.retired = self.retired.max(bounds.head);
        }
        if Arc::strong_count(channel) > 1 {
            let bounds = Bounds::new(generation, self.retired);
            channel.change(|ring| {
                // Who had read all of it misses nothing.
                if ring.bounds.head < bounds.head {
                    ring.join(bounds.head);
                } else {
                    ring.restart(bounds.head);
                }
                ring.bounds = bounds;
            });
        } else {
            self.channels.remove(name);
        }
    }

    /// Lets go of a channel, where somebody else knows how far it came.
    #[cfg(feature = "redis")]
    pub(crate) fn discard(&mut self, name: &str) {
        self.channels.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_never_moves_back() {
        let place = |sequence| Place { generation: 0, sequence };
        let channel = Channel::new("a", Bounds::new(0, Place::default()));
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Who merely looks at the ring tells of the head that it saw, perhaps later than the next event.
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    channel.change(|_| ());
                }
            });
            let head = channel.head();
            let behind = (1..=100_000).find(|&sequence| {
                channel.change(|ring| ring.bounds.head = place(sequence));
                *head.borrow() < place(sequence)
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(behind, None, "an event that the head does not show");
        });
    }
}
