//! A short way from a channel to its listeners' sockets.
//!
//! A stream that has nothing to read parks its connection here, at its place in the channel. Whoever has the next event
//! writes it to the socket without waking the stream's task, which would cost as much again as the writing. A lane takes
//! only what follows its place, and whenever something is not as usual (the peer's window is closed, a heartbeat is due,
//! an order came), the task takes the socket back and goes on reading the log from where the lane had come.
//!
//! It exists on plain HTTP/1.1 alone, and only while everything that the stream says itself is seen to reach the
//! connection as it was made, and nothing else does: by their addresses. Behind middleware that changes, delays or adds
//! chunks every stream stays off this way, from the first such chunk on. Middleware that lets pass what it has seen does
//! not see what goes past it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::fate::Fate;
use super::log::Place;

/// The lane of one connection.
#[derive(Debug)]
pub(crate) struct Lane {
    tcp: Arc<TcpStream>,
    /// Where a failure of the socket is told: the system tells it once.
    fate: Arc<Fate>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    /// How far the stream has come, as far as the lane knows.
    place: Place,
    /// What the socket did not take of a chunk that it began: goes out before anything else.
    rest: Bytes,
    /// The connection is writing.
    writing: bool,
    /// Of the stream, which parked the lane.
    stream: Option<Waker>,
    /// Of the connection, which writes what is left. Mostly the same task.
    connection: Option<Waker>,
    sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Everything that the stream said has gone out.
    Clear,
    /// The stream said something that lies here, so many bytes: it is on its way to the connection.
    Said(usize, usize),
    /// What follows the place may be written past the task.
    Parked,
    /// What goes out is not what the stream says.
    Shut,
}

/// What went this way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// Several events as they go out.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// They follow this place.
    pub(crate) after: Place,
    /// The last one's.
    pub(crate) last: Place,
    pub(crate) events: u64,
    /// Bytes of the events themselves.
    pub(crate) bytes: u64,
    /// All of them as one chunk of HTTP/1.1.
    pub(crate) chunk: &'a Bytes,
}

impl Lane {
    pub(crate) fn new(tcp: Arc<TcpStream>, fate: Arc<Fate>) -> Self {
        Self { tcp, fate, state: Mutex::new(State::new()) }
    }

    /// Another stream takes the connection.
    fn begin(&self) {
        *self.state() = State::new();
    }

    /// The stream says this.
    pub(crate) fn say(&self, bytes: &Bytes) {
        let mut state = self.state();
        state.way = match state.way {
            Way::Clear | Way::Parked => Way::Said(bytes.as_ptr() as usize, bytes.len()),
            // Something of its own is kept on the way.
            Way::Said(..) | Way::Shut => Way::Shut,
        };
    }

    /// The connection is about to write this.
    pub(crate) fn hear(&self, bytes: &Bytes) {
        let mut state = self.state();
        state.writing = true;
        if state.way == Way::Said(bytes.as_ptr() as usize, bytes.len()) {
            state.way = Way::Clear;
        } else {
            state.call(Way::Shut);
        }
    }

    /// The connection has written what it took.
    pub(crate) fn written(&self) {
        self.state().writing = false;
    }

    /// The connection writes no more of the stream.
    pub(crate) fn end(&self) {
        self.state().call(Way::Shut);
    }

    /// Lets others write what follows `place`. False where this lane cannot be used.
    pub(crate) fn park(&self, place: Place) -> bool {
        let mut state = self.state();
        let usable = state.way == Way::Clear && state.rest.is_empty() && !state.writing;
        if usable {
            state.way = Way::Parked;
            state.place = place;
        }
        usable
    }

    /// Takes the socket back; answers how far the lane has come since it was parked.
    pub(crate) fn unpark(&self) -> Place {
        let mut state = self.state();
        if state.way == Way::Parked {
            state.way = Way::Clear;
        }
        state.place
    }

    /// Whether the task is wanted, which parked it.
    pub(crate) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.way != Way::Parked {
            return Poll::Ready(());
        }
        watch(&mut state.stream, cx);
        Poll::Pending
    }

    /// Waits for the rest of a chunk, to be written before anything else.
    pub(crate) fn poll_rest(&self, cx: &Context<'_>) -> Poll<Bytes> {
        let mut state = self.state();
        if state.rest.is_empty() {
            watch(&mut state.connection, cx);
            return Poll::Pending;
        }
        state.writing = true;
        Poll::Ready(std::mem::take(&mut state.rest))
    }

    /// The same, if there is one.
    pub(crate) fn take_rest(&self) -> Bytes {
        std::mem::take(&mut self.state().rest)
    }

    /// What went this way since the last time it was asked for.
    pub(crate) fn take_sent(&self) -> Sent {
        std::mem::take(&mut self.state().sent)
    }

    pub(crate) fn sent(&self) -> Sent {
        self.state().sent
    }

    /// Writes a page, if it is what comes next here. True if it was.
    pub(crate) fn push(&self, page: &Page<'_>) -> bool {
        let mut state = self.state();
        if state.way != Way::Parked || state.place >= page.last {
            return false;
        }
        if state.place != page.after {
            state.call(Way::Clear);
            return false;
        }
        match self.tcp.try_write(page.chunk) {
            Ok(count) if count > 0 => {
                state.sent.events += page.events;
                state.sent.bytes += page.bytes;
                state.place = page.last;
                if count < page.chunk.len() {
                    state.rest = page.chunk.slice(count..);
                    state.call(Way::Clear);
                }
                true
            }
            // Nothing was written: the task finds out what it can do about it.
            outcome => {
                if let Err(error) = outcome
                    && error.kind() != io::ErrorKind::WouldBlock
                {
                    self.fate.failed(&error);
                }
                state.call(Way::Clear);
                false
            }
        }
    }

    /// Calls the task, which has to read the log itself to come as far as `place`.
    pub(crate) fn fetch(&self, place: Place) {
        let mut state = self.state();
        if state.way == Way::Parked && state.place < place {
            state.call(Way::Clear);
        }
    }

    /// A panic elsewhere leaves the lane usable: no step of it can panic in the middle.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        let place = Place { generation: 0, sequence: 0 };
        let sent = Sent::default();
        let (stream, connection) = (None, None);
        Self { way: Way::Clear, place, rest: Bytes::new(), writing: false, stream, connection, sent }
    }

    /// Goes another way, and calls those who have to know.
    fn call(&mut self, way: Way) {
        self.way = way;
        for waker in [self.stream.take(), self.connection.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

fn watch(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

/// How a request carries the lane of its connection, to one stream. It holds nothing: an app may keep a request for as
/// long as it likes.
#[derive(Debug, Clone)]
pub(crate) struct LaneOffer {
    lane: Weak<Lane>,
    taken: Arc<AtomicBool>,
}

impl LaneOffer {
    pub(crate) fn new(lane: Weak<Lane>) -> Self {
        Self { lane, taken: Arc::default() }
    }

    pub(crate) fn take(&self) -> Option<Arc<Lane>> {
        let lane = self.lane.upgrade().filter(|_| !self.taken.swap(true, Ordering::Relaxed))?;
        lane.begin();
        Some(lane)
    }
}

/// Writes data as a chunk (RFC 9112 section 7.1).
pub(crate) fn chunk(pieces: &[Bytes]) -> io::Result<Bytes> {
    use io::Write;
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut chunk = Vec::with_capacity(length + 20);
    write!(chunk, "{length:x}\r\n")?;
    pieces.iter().for_each(|piece| chunk.extend_from_slice(piece));
    chunk.extend_from_slice(b"\r\n");
    Ok(chunk.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    fn place(sequence: u64) -> Place {
        Place { generation: 0, sequence }
    }

    /// A lane on which a stream has begun, and the peer's end of it.
    async fn begun() -> (Arc<Lane>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (tcp, _) = listener.accept().await.expect("a peer");
        tcp.writable().await.expect("an open socket");
        let lane = Arc::new(Lane::new(Arc::new(tcp), Arc::default()));
        let first = Bytes::from_static(b"hello");
        lane.say(&first);
        assert!(!lane.park(place(0)), "before it has gone out");
        lane.hear(&first);
        assert!(!lane.park(place(0)), "while it goes out");
        lane.written();
        (lane, peer)
    }

    fn push(lane: &Lane, after: u64, last: u64, chunk: &Bytes) -> bool {
        let (after, last) = (place(after), place(last));
        lane.push(&Page { after, last, events: 1, bytes: chunk.len() as u64, chunk })
    }

    #[tokio::test]
    async fn only_what_follows_its_place_is_written() {
        let (lane, mut peer) = begun().await;
        let chunk = Bytes::from_static(b"x");
        assert!(!push(&lane, 0, 1, &chunk), "nobody parked it");
        for (at, after, last, pushed, came_to) in [
            (3, 3, 5, true, 5),
            (4, 3, 5, false, 4),
            (5, 3, 5, false, 5),
            (6, 3, 5, false, 6),
            (1, 3, 5, false, 1),
        ] {
            assert!(lane.park(place(at)));
            assert_eq!(push(&lane, after, last, &chunk), pushed, "{at}");
            // Who is behind the page is called; who has it already is left alone.
            let called = !pushed && at < last;
            assert_eq!(lane.state().way == Way::Clear, called, "{at}");
            assert_eq!(lane.unpark(), place(came_to));
        }
        assert_eq!(lane.take_sent(), Sent { events: 1, bytes: 1 });
        drop(lane);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.expect("the end");
        assert_eq!(all, b"x");
    }

    #[tokio::test]
    async fn nobody_writes_behind_a_chunk_that_was_begun() {
        let (lane, _peer) = begun().await;
        let chunk = Bytes::from(vec![b'x'; 64 << 20]);
        assert!(lane.park(place(0)));
        assert!(push(&lane, 0, 1, &chunk), "a part of it");
        assert_eq!(lane.unpark(), place(1));
        assert!(!lane.park(place(1)), "the rest is still to be written");
        assert!(!push(&lane, 1, 2, &chunk));
        let rest = lane.take_rest();
        assert!(!rest.is_empty() && rest.len() < chunk.len());
        assert!(lane.park(place(1)));
        // Now nothing fits at all: the task finds out why.
        assert!(!push(&lane, 1, 2, &chunk));
        assert_eq!(lane.unpark(), place(1));
    }

    // What is on its way would come behind the events of the lane, or in the middle of them.
    #[tokio::test]
    async fn a_stream_whose_bytes_are_changed_kept_or_joined_stays_off_the_lane() {
        let first = Bytes::from_static(b"hello");
        let last = Bytes::from_static(b"bye");
        let check = |name: &str, lane: &Lane, usable: bool| {
            assert_eq!(lane.park(place(0)), usable, "{name}");
            lane.unpark();
        };
        for (name, said, heard, usable) in [
            ("as it was", vec![&first], vec![first.clone()], true),
            ("another one as it was", vec![&first, &last], vec![first.clone(), last.clone()], true),
            ("copied", vec![&first], vec![Bytes::copy_from_slice(&first)], false),
            ("cut", vec![&first], vec![first.slice(..4)], false),
            ("of somebody else", vec![&first], vec![first.clone(), last.clone()], false),
        ] {
            let (lane, _peer) = begun().await;
            for (index, heard) in heard.iter().enumerate() {
                if let Some(said) = said.get(index) {
                    lane.say(said);
                }
                lane.hear(heard);
                lane.written();
            }
            check(name, &lane, usable);
        }
        let (lane, _peer) = begun().await;
        lane.say(&first);
        check("on its way", &lane, false);
        lane.say(&last);
        lane.hear(&first);
        lane.hear(&last);
        lane.written();
        check("two on their way", &lane, false);
        // Whoever writes of its own accord gets the lane out of the way first.
        let (lane, _peer) = begun().await;
        assert!(lane.park(place(0)));
        lane.hear(&last);
        assert!(!push(&lane, 0, 1, &first));
        lane.written();
        check("joined while parked", &lane, false);
        // The next stream of the connection begins anew, and only one has it.
        let offer = LaneOffer::new(Arc::downgrade(&lane));
        assert!(offer.take().is_some_and(|lane| lane.park(place(0))));
        assert!(offer.clone().take().is_none());
    }
}
