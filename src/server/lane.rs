//! A short way from a channel to its listeners' sockets.
//!
//! A stream that has nothing to read parks its connection here, at its place in the channel. Whoever has the next event
//! writes it to the socket without waking the stream's task, which would cost as much again as the writing. A lane takes
//! only what follows its place, and whenever something is not as usual (the peer's window is closed, a heartbeat is due,
//! an order came), the task takes the socket back and goes on reading the log from where the lane had come.
//!
//! It exists on plain HTTP/1.1 alone, and only once a stream's first bytes have been seen to reach the connection as
//! they were made: middleware that changes bodies keeps every stream behind it off this way.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::log::Place;

/// The lane of one connection.
#[derive(Debug)]
pub(crate) struct Lane {
    tcp: Arc<TcpStream>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    /// What the socket did not take of a chunk that it began: goes out before anything else.
    rest: Bytes,
    waker: Option<Waker>,
    sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nobody said a word yet.
    New,
    /// The stream's first bytes lie here, so many; whether they come out at the connection is still to be seen.
    Unproven(usize, usize),
    /// The connection's task writes.
    Task(Place),
    /// What follows this place may be written past the task.
    Parked(Place),
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
    pub(crate) fn new(tcp: Arc<TcpStream>) -> Self {
        let state = State { way: Way::New, rest: Bytes::new(), waker: None, sent: Sent::default() };
        Self { tcp, state: Mutex::new(state) }
    }

    /// A stream begins, with these bytes.
    pub(crate) fn begin(&self, first: &Bytes) {
        let mut state = self.state();
        state.way = Way::Unproven(first.as_ptr() as usize, first.len());
        state.sent = Sent::default();
    }

    /// The connection is about to write these bytes.
    pub(crate) fn prove(&self, bytes: &Bytes) {
        let mut state = self.state();
        if let Way::Unproven(address, length) = state.way {
            let same = address == bytes.as_ptr() as usize && length == bytes.len();
            state.way = if same { Way::Task(Place { generation: 0, sequence: 0 }) } else { Way::New };
        }
    }

    /// Lets others write what follows `place`. False where this lane cannot be used.
    pub(crate) fn park(&self, place: Place) -> bool {
        let mut state = self.state();
        let usable = matches!(state.way, Way::Task(_)) && state.rest.is_empty();
        if usable {
            state.way = Way::Parked(place);
        }
        usable
    }

    /// Takes the socket back; answers how far the lane has come.
    pub(crate) fn unpark(&self) -> Option<Place> {
        let mut state = self.state();
        match state.way {
            Way::Parked(place) | Way::Task(place) => {
                state.way = Way::Task(place);
                Some(place)
            }
            Way::New | Way::Unproven(..) => None,
        }
    }

    /// Whether the task is wanted, which parked it.
    pub(crate) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !matches!(state.way, Way::Parked(_)) {
            return Poll::Ready(());
        }
        state.watch(cx);
        Poll::Pending
    }

    /// Waits for the rest of a chunk, to be written before anything else. For the task that parked it.
    pub(crate) fn poll_rest(&self, cx: &Context<'_>) -> Poll<Bytes> {
        let mut state = self.state();
        if state.rest.is_empty() {
            state.watch(cx);
            return Poll::Pending;
        }
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
        let Way::Parked(place) = state.way else { return false };
        if place >= page.last {
            return false;
        }
        let mut pushed = false;
        if place == page.after {
            match self.tcp.try_write(page.chunk) {
                // Nothing was written. Whatever the reason, the task meets it, too.
                Err(_) | Ok(0) => state.call(place),
                Ok(count) => {
                    pushed = true;
                    state.sent.events += page.events;
                    state.sent.bytes += page.bytes;
                    state.way = Way::Parked(page.last);
                    if count < page.chunk.len() {
                        state.rest = page.chunk.slice(count..);
                        state.call(page.last);
                    }
                }
            }
        } else {
            state.call(place);
        }
        pushed
    }

    /// Calls the task, which has to read the log itself to come as far as `place`.
    pub(crate) fn fetch(&self, place: Place) {
        let mut state = self.state();
        if let Way::Parked(at) = state.way
            && at < place
        {
            state.call(at);
        }
    }

    /// A panic elsewhere leaves the lane usable: no step of it can panic in the middle.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn watch(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn call(&mut self, place: Place) {
        self.way = Way::Task(place);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How a request carries the lane of its connection. It holds nothing: an app may keep a request for as long as it likes.
#[derive(Debug, Clone)]
pub(crate) struct LaneOffer(pub(crate) std::sync::Weak<Lane>);

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

    /// A lane that a stream has begun on, and the peer's end of it.
    async fn begun() -> (Arc<Lane>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (tcp, _) = listener.accept().await.expect("a peer");
        tcp.writable().await.expect("an open socket");
        let lane = Arc::new(Lane::new(Arc::new(tcp)));
        let first = Bytes::from_static(b"hello");
        assert!(!lane.park(place(0)), "before it was proven");
        lane.begin(&first);
        assert!(!lane.park(place(0)), "before it was proven");
        lane.prove(&first);
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
            assert_eq!(matches!(lane.state().way, Way::Task(_)), called, "{at}");
            assert_eq!(lane.unpark(), Some(place(came_to)));
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
        assert_eq!(lane.unpark(), Some(place(1)));
        assert!(!lane.park(place(1)), "the rest is still to be written");
        assert!(!push(&lane, 1, 2, &chunk));
        let rest = lane.take_rest();
        assert!(!rest.is_empty() && rest.len() < chunk.len());
        assert!(lane.park(place(1)));
        // Now nothing fits at all: the task finds out why.
        assert!(!push(&lane, 1, 2, &chunk));
        assert_eq!(lane.unpark(), Some(place(1)));
    }

    #[tokio::test]
    async fn a_stream_whose_bytes_are_changed_stays_off_the_lane() {
        let (lane, _peer) = begun().await;
        let first = Bytes::from_static(b"hello");
        lane.begin(&first);
        lane.prove(&Bytes::copy_from_slice(&first));
        assert!(!lane.park(place(0)));
        lane.begin(&first);
        lane.prove(&first.slice(..4));
        assert!(!lane.park(place(0)));
    }
}
