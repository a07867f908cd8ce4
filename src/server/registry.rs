//! The streams that are open: who they are, which channels they listen to, what they are still to be told; and the
//! limits on their number.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::answer::Refusal;
use super::fate::Fate;
use super::handle::SendError;
use super::lane::{Lane, Sent};
use super::options::StreamOptions;
use super::reason::CloseReason;
use crate::wire::id::{CURSOR_BYTES_MAX, Cursor};

/// One open stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// As in `control.open` and the header `X-Stream-Id`.
    pub id: String,
    /// The channels that it listens to.
    pub channels: Vec<String>,
    /// Where the client is, as far as that is known.
    pub peer: Option<IpAddr>,
    /// The name that [`Hooks::authorize`](super::Hooks::authorize) gave.
    pub identity: Option<String>,
    /// What the client sent to be found again in logs.
    pub trace_id: Option<String>,
    /// The client came with a cursor.
    pub resumed: bool,
    /// When it was opened, in milliseconds since 1970.
    pub since_ms: u64,
    /// Events of the app that it was sent.
    pub events_sent: u64,
    /// Bytes that it was sent.
    pub bytes_sent: u64,
}

/// What the registry keeps of a stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Box<str>,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) identity: Option<Box<str>>,
    pub(crate) trace_id: Option<Box<str>>,
    pub(crate) resumed: bool,
    /// It was opened for one channel, whose ids are its own.
    pub(crate) single: bool,
    pub(crate) since_ms: u64,
    pub(crate) events_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    /// By which it may be sent more.
    pub(crate) lane: OnceLock<Weak<Lane>>,
    /// What became of this stream, and of the connection that carries it, as far as that is known.
    pub(crate) fate: Fate,
    pub(crate) connection: OnceLock<Arc<Fate>>,
    desk: Mutex<Desk>,
    /// There is something on the desk: looked at before the lock is taken.
    waiting: AtomicBool,
    wake: Notify,
}

/// What others want of a stream.
#[derive(Debug, Default)]
struct Desk {
    channels: Vec<Arc<str>>,
    orders: VecDeque<Order>,
    gone: bool,
}

#[derive(Debug)]
pub(crate) enum Order {
    /// An event of the app, for this stream alone.
    Event(Bytes),
    /// Something that the server says.
    Say(Bytes),
    Listen(String),
    Unlisten(String),
    Close(CloseReason),
}

impl Entry {
    pub(crate) fn new(id: &str, since_ms: u64) -> Self {
        Self {
            id: id.into(),
            peer: None,
            identity: None,
            trace_id: None,
            resumed: false,
            single: false,
            since_ms,
            events_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            lane: OnceLock::new(),
            fate: Fate::default(),
            connection: OnceLock::new(),
            desk: Mutex::default(),
            waiting: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Why it ended, where nobody has closed it.
    pub(crate) fn lost(&self) -> CloseReason {
        let connection = || self.connection.get().and_then(|connection| connection.reason());
        self.fate.reason().or_else(connection).unwrap_or(CloseReason::ClientClose)
    }

    /// Leaves an order. Only a closing is taken when `orders_max` wait already, and nothing behind one.
    pub(crate) fn order(&self, order: Order, orders_max: usize) -> Result<(), SendError> {
        let mut desk = self.desk();
        if desk.gone {
            return Err(SendError::Closed);
        }
        if matches!(desk.orders.back(), Some(Order::Close(_))) {
            return if matches!(order, Order::Close(_)) { Ok(()) } else { Err(SendError::Closed) };
        }
        if desk.orders.len() >= orders_max && !matches!(order, Order::Close(_)) {
            return Err(SendError::Full(orders_max));
        }
        desk.orders.push_back(order);
        drop(desk);
        self.waiting.store(true, Ordering::Release);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes the oldest order.
    pub(crate) fn take_order(&self) -> Option<Order> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut desk = self.desk();
        let order = desk.orders.pop_front();
        self.waiting.store(!desk.orders.is_empty(), Ordering::Release);
        order
    }

    /// Waits for an order.
    pub(crate) async fn ordered(&self) {
        while !self.waiting.load(Ordering::Acquire) {
            self.wake.notified().await;
        }
    }

    pub(crate) fn info(&self) -> StreamInfo {
        let lane = self.lane.get().and_then(Weak::upgrade).map_or_else(Sent::default, |lane| lane.sent());
        StreamInfo {
            id: self.id.to_string(),
            channels: self.desk().channels.iter().map(|channel| channel.to_string()).collect(),
            peer: self.peer,
            identity: self.identity.as_deref().map(str::to_owned),
            trace_id: self.trace_id.as_deref().map(str::to_owned),
            resumed: self.resumed,
            since_ms: self.since_ms,
            events_sent: self.events_sent.load(Ordering::Relaxed) + lane.events,
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed) + lane.bytes,
        }
    }

    /// A panic elsewhere leaves the desk usable: it is at worst short of an order.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All open streams.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<Box<str>, Arc<Entry>>,
    addresses: HashMap<IpAddr, usize>,
    /// Channels that somebody listens to, and how many: one that nobody does is not here.
    rooms: HashMap<Arc<str>, watch::Sender<usize>>,
}

impl Registry {
    /// Takes a place for a stream of `channels`, as far as the limits allow.
    pub(crate) fn admit(
        &self,
        entry: &Arc<Entry>,
        channels: &[String],
        options: &StreamOptions,
    ) -> Result<(), Refusal> {
        let retry_ms = options.retry_ms;
        let mut state = self.state();
        let max = options.connections_max;
        if state.streams.len() >= max {
            let message = format!("{max} streams are open, which is the limit");
            return Err(Refusal::unavailable("overload_reject", message, retry_ms));
        }
        if let (Some(max), Some(peer)) = (options.connections_per_address_max, entry.peer)
            && state.addresses.get(&network(peer)).is_some_and(|count| *count >= max)
        {
            let message = format!("{max} streams are open from this address, which is the limit");
            let refusal = Refusal::unavailable("rate_limited", message, retry_ms);
            return Err(Refusal { status: StatusCode::TOO_MANY_REQUESTS, ..refusal });
        }
        channels.iter().try_for_each(|channel| state.has_room(channel, options))?;
        for channel in channels {
            state.enter(entry, channel);
        }
        if let Some(peer) = entry.peer {
            *state.addresses.entry(network(peer)).or_default() += 1;
        }
        state.streams.insert(entry.id.clone(), Arc::clone(entry));
        Ok(())
    }

    /// Counts a stream as a listener of one more channel. False where it is one already.
    pub(crate) fn join(
        &self,
        entry: &Entry,
        channel: &str,
        channels_max: usize,
        options: &StreamOptions,
    ) -> Result<bool, Refusal> {
        let mut state = self.state();
        let mut channels = entry.desk().channels.clone();
        if channels.iter().any(|known| **known == *channel) {
            return Ok(false);
        }
        channels.push(channel.into());
        state.has_room(channel, options)?;
        check_cursor(channels.iter().map(|channel| &**channel), channels_max)?;
        // A stream that ended counts nowhere any more.
        if state.streams.contains_key(&entry.id) {
            state.enter(entry, channel);
        }
        Ok(true)
    }

    /// False where the stream was no listener of the channel.
    pub(crate) fn leave(&self, entry: &Entry, channel: &str) -> bool {
        let mut state = self.state();
        if !state.streams.contains_key(&entry.id) {
            return false;
        }
        let mut desk = entry.desk();
        let Some(index) = desk.channels.iter().position(|known| **known == *channel) else { return false };
        let channel = desk.channels.swap_remove(index);
        drop(desk);
        state.exit(&channel);
        true
    }

    /// Gives a stream's places back.
    pub(crate) fn remove(&self, entry: &Entry) {
        let mut state = self.state();
        if state.streams.remove(&entry.id).is_none() {
            return;
        }
        let mut desk = entry.desk();
        desk.gone = true;
        desk.orders = VecDeque::new();
        for channel in &desk.channels {
            state.exit(channel);
        }
        drop(desk);
        if let Some(peer) = entry.peer.map(network)
            && let Some(count) = state.addresses.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&peer);
            }
        }
        state.shrink();
    }

    pub(crate) fn len(&self) -> usize {
        self.state().streams.len()
    }

    /// Channels that somebody listens to.
    pub(crate) fn rooms(&self) -> usize {
        self.state().rooms.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.state().streams.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.state().streams.values().cloned().collect()
    }

    /// How many listen to a channel.
    pub(crate) fn count(&self, channel: &str) -> usize {
        self.state().rooms.get(channel).map_or(0, |room| *room.borrow())
    }

    /// The same, to follow: for a stream that listens to it.
    pub(crate) fn presence(&self, channel: &str) -> Option<watch::Receiver<usize>> {
        self.state().rooms.get(channel).map(|room| {
            let mut presence = room.subscribe();
            presence.mark_changed();
            presence
        })
    }

    /// A panic elsewhere leaves the tables usable: no step of theirs can panic in the middle.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, channel: &str, options: &StreamOptions) -> Result<(), Refusal> {
        match options.listeners_per_channel_max {
            Some(max) if self.rooms.get(channel).is_some_and(|room| *room.borrow() >= max) => {
                let message = format!("{max} streams listen to this channel, which is the limit");
                Err(Refusal::unavailable("too_many_listeners", message, options.retry_ms))
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, entry: &Entry, channel: &str) {
        let name = match self.rooms.get_key_value(channel) {
            Some((name, _)) => Arc::clone(name),
            None => channel.into(),
        };
        entry.desk().channels.push(Arc::clone(&name));
        self.rooms.entry(name).or_default().send_modify(|count| *count += 1);
    }

    fn exit(&mut self, channel: &str) {
        let Some(room) = self.rooms.get(channel) else { return };
        room.send_modify(|count| *count -= 1);
        let is_empty = *room.borrow() == 0;
        if is_empty {
            self.rooms.remove(channel);
        }
    }

    /// What was needed for a great many is not kept for a few.
    fn shrink(&mut self) {
        fn table<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
            if table.capacity() > 256 && table.len() < table.capacity() / 8 {
                table.shrink_to(table.len() * 2);
            }
        }
        table(&mut self.streams);
        table(&mut self.addresses);
        table(&mut self.rooms);
    }
}

/// Whether a stream of these channels has a cursor that it can be resumed from.
pub(crate) fn check_cursor<'a>(
    channels: impl Iterator<Item = &'a str> + Clone,
    channels_max: usize,
) -> Result<(), Refusal> {
    if channels.clone().count() > channels_max {
        return Err(Refusal::too_many_channels(channels_max));
    }
    if Cursor::bytes_max(channels) > CURSOR_BYTES_MAX {
        return Err(Refusal::cursor_too_long());
    }
    Ok(())
}

/// What counts as one address: in IPv6 the /64, which is what one customer is given (RFC 6177) and can take any number of
/// addresses from.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_counts_as_one_address() {
        for (a, b, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            let address = |text: &str| network(text.parse().expect("an address"));
            assert_eq!(address(a) == address(b), same, "{a} {b}");
        }
    }

    // S5, E9: a hundred thousand channels opened and closed leave nothing behind.
    #[test]
    fn channels_that_were_left_are_forgotten() {
        let registry = Registry::default();
        let options = StreamOptions { connections_max: usize::MAX, ..StreamOptions::default() };
        let entries: Vec<_> = (0..100_000_u32)
            .map(|n| {
                let peer = Some(std::net::Ipv4Addr::from(n).into());
                let entry = Arc::new(Entry { peer, ..Entry::new(&format!("s-{n}"), 0) });
                assert!(registry.admit(&entry, &[format!("c-{n}"), "all".to_owned()], &options).is_ok());
                entry
            })
            .collect();
        assert_eq!((registry.count("all"), registry.rooms()), (100_000, 100_001));
        for entry in entries {
            registry.remove(&entry);
            registry.remove(&entry);
        }
        let state = registry.state();
        assert_eq!((state.streams.len(), state.addresses.len(), state.rooms.len()), (0, 0, 0));
        let capacity = [state.streams.capacity(), state.addresses.capacity(), state.rooms.capacity()];
        assert!(capacity.iter().all(|capacity| *capacity <= 512), "{capacity:?}");
    }
}
