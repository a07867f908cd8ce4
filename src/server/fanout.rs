//! Who of a channel's listeners is parked ([`Lane`]), and the tasks that write the channel's next events to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::hub::Inner;
use super::lane::{Lane, Page, chunk};
use super::log::{Channel, Frame, PageLimit, Place};

/// Lanes of one task: a larger channel has several, so that all processors share in it.
const LANES_MAX: usize = 1024;
/// Lanes that are written to before other tasks have their turn.
const TURN: usize = 64;

/// The parked listeners of one channel.
#[derive(Debug)]
pub(crate) struct Fanout {
    channel: Arc<Channel>,
    shards: Mutex<Vec<Shard>>,
}

#[derive(Debug)]
struct Shard {
    lanes: Arc<Lanes>,
    task: AbortHandle,
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A lane keeps its index, so that one pass over all of them meets each.
#[derive(Debug, Default)]
struct Lanes {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    lanes: Vec<Option<Arc<Lane>>>,
    free: Vec<usize>,
}

/// A listener's place in a fan-out, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) lane: Arc<Lane>,
    lanes: Arc<Lanes>,
    index: usize,
    /// The tasks go with the last listener.
    _fanout: Arc<Fanout>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nobody writes to the connection any more once its stream is gone.
        self.lane.unpark();
        let mut slots = self.lanes.slots();
        slots.lanes[self.index] = None;
        slots.free.push(self.index);
    }
}

/// The fan-outs of a hub, by channel.
#[derive(Debug, Default)]
pub(crate) struct Fanouts {
    channels: Mutex<HashMap<String, Weak<Fanout>>>,
    sweep_at: Mutex<usize>,
}

/// Fewer than this are never swept.
const SWEEP_FROM: usize = 64;

impl Fanouts {
    /// Takes a seat for a listener of `channel`.
    pub(crate) fn join(&self, hub: &Arc<Inner>, channel: &Arc<Channel>, lane: Arc<Lane>) -> Seat {
        self.of(channel).join(hub, lane)
    }

    fn of(&self, channel: &Arc<Channel>) -> Arc<Fanout> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fanout) = channels.get(channel.name()).and_then(Weak::upgrade)
            // A log may forget a channel and begin it again.
            && Arc::ptr_eq(&fanout.channel, channel)
        {
            return fanout;
        }
        let mut sweep_at = self.sweep_at.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= (*sweep_at).max(SWEEP_FROM) {
            channels.retain(|_, fanout| fanout.strong_count() > 0);
            *sweep_at = channels.len() * 2;
        }
        let fanout = Arc::new(Fanout { channel: Arc::clone(channel), shards: Mutex::default() });
        channels.insert(channel.name().to_owned(), Arc::downgrade(&fanout));
        fanout
    }
}

impl Fanout {
    fn join(self: Arc<Self>, hub: &Arc<Inner>, lane: Arc<Lane>) -> Seat {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let room =
            shards.iter().find_map(|shard| Some((shard.lanes.take_slot(&lane)?, Arc::clone(&shard.lanes))));
        let (index, lanes) = room.unwrap_or_else(|| {
            let lanes = Arc::new(Lanes::default());
            // From here on, and not from when the task comes to run: the stream looks at the head before that.
            let head = self.channel.head();
            let place = *head.borrow();
            let reader = Reader { place, head, limit: hub.options.page };
            let work = run(Arc::clone(&lanes), Arc::clone(&self.channel), Arc::downgrade(hub), reader);
            shards.push(Shard { lanes: Arc::clone(&lanes), task: tokio::spawn(work).abort_handle() });
            (lanes.take_slot(&lane).unwrap_or_default(), lanes)
        });
        drop(shards);
        Seat { lane, lanes, index, _fanout: self }
    }
}

impl Lanes {
    fn take_slot(&self, lane: &Arc<Lane>) -> Option<usize> {
        let mut slots = self.slots();
        let lane = Some(Arc::clone(lane));
        if let Some(index) = slots.free.pop() {
            slots.lanes[index] = lane;
            return Some(index);
        }
        let index = slots.lanes.len();
        (index < LANES_MAX).then(|| {
            slots.lanes.push(lane);
            index
        })
    }

    /// Up to [`TURN`] lanes from an index on; `None` behind the last.
    fn turn(&self, from: usize) -> Option<Vec<Arc<Lane>>> {
        let slots = self.slots();
        let lanes = slots.lanes.get(from..)?;
        (!lanes.is_empty()).then(|| lanes.iter().take(TURN).flatten().cloned().collect())
    }

    async fn each(&self, mut visit: impl FnMut(&Lane)) {
        let mut from = 0;
        while let Some(lanes) = self.turn(from) {
            lanes.iter().for_each(|lane| visit(lane));
            from += TURN;
            tokio::task::yield_now().await;
        }
    }

    /// A panic elsewhere leaves the slots usable: no step of theirs can panic in the middle.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a fan-out has read its channel.
struct Reader {
    place: Place,
    head: watch::Receiver<Place>,
    limit: PageLimit,
}

/// Writes what is published to all who wait for just that; calls the tasks of the others.
async fn run(lanes: Arc<Lanes>, channel: Arc<Channel>, hub: Weak<Inner>, reader: Reader) {
    let Reader { mut place, mut head, limit } = reader;
    loop {
        let newest = *head.borrow_and_update();
        if place >= newest {
            if head.changed().await.is_err() {
                return;
            }
            continue;
        }
        let mut frames = channel.tail(place, limit).unwrap_or_default();
        // Events are there before the head shows them. Who parks behind one of those finds the head no further, and
        // hears of the next when it is shown: so must this task.
        frames.retain(|frame| frame.place <= newest);
        match page(place, &frames) {
            Some((last, bytes)) => {
                let sent = bytes.iter().map(|bytes| bytes.len() as u64).sum();
                let Ok(chunk) = chunk(&bytes) else { return };
                let page =
                    Page { after: place, last, events: bytes.len() as u64, bytes: sent, chunk: &chunk };
                let mut pushed = 0;
                lanes.each(|lane| pushed += u64::from(lane.push(&page))).await;
                if let Some(hub) = hub.upgrade() {
                    hub.metrics.events_sent.inc_by(pushed * page.events);
                }
                place = last;
            }
            // A new epoch, a hole, or more than this process holds: each stream finds its own way.
            None => {
                lanes.each(|lane| lane.fetch(newest)).await;
                place = newest;
            }
        }
    }
}

/// The place of the last frame and the frames' bytes, where they follow `place` without a gap.
fn page(place: Place, frames: &[Frame]) -> Option<(Place, Vec<bytes::Bytes>)> {
    let mut last = place;
    for frame in frames {
        if !frame.place.follows(last) {
            return None;
        }
        last = frame.place;
    }
    (!frames.is_empty()).then(|| (last, frames.iter().map(|frame| frame.bytes.clone()).collect()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::server::{Hub, MemoryLog, Message, StreamOptions};

    // On one thread the task of a new fan-out comes to run after everything that happens here.
    #[tokio::test]
    async fn what_is_published_before_the_task_runs_is_not_missed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a peer");
        let (tcp, _) = listener.accept().await.expect("a peer");
        tcp.writable().await.expect("an open socket");
        let hub = Hub::new(Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
        let publisher = hub.publisher();
        publisher.publish("a", Message::text("n", "1")).await.expect("published");
        let channel = hub.inner.log.channel("a").expect("a channel");
        let place = *channel.head().borrow();

        let lane = Arc::new(Lane::new(Arc::new(tcp), Arc::default()));
        let seat = hub.inner.fanouts.join(&hub.inner, &channel, lane);
        assert!(seat.lane.park(place));
        publisher.publish("a", Message::text("n", "2")).await.expect("published");
        let mut chunk = [0; 256];
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), peer.read(&mut chunk));
        let count = read.await.expect("the event").expect("an open socket");
        let text = String::from_utf8_lossy(&chunk[..count]).into_owned();
        assert!(text.contains("data: 2\n\n\r\n") && !text.contains("data: 1"), "{text}");
    }
}
