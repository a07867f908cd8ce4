//! One subscriber's stream: what it begins with, and then page after page of the log.
//!
//! A subscription is pulled, never pushed: the connection asks for the next bytes when it has room for them. A
//! slow client therefore reads the log later, in pages, and holds nothing but its place.

use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior};

use super::answer::Refusal;
use super::clock;
use super::fanout::Seat;
use super::faults::Trouble;
use super::feed::{Feed, News, Progress};
use super::hub::{Drain, Ticket};
use super::lane::Lane;
use super::log::LogError;
use super::publisher::Message;
use super::reason::CloseReason;
use super::registry::Order;
use super::resume::Wanted;
use super::voice::Voice;

pub(crate) fn refusal(error: LogError) -> Refusal {
    match error {
        LogError::InvalidChannel => Refusal::bad_request("invalid_channel", error.to_string()),
        LogError::Closed => Refusal::unavailable("server_shutdown", "the server is stopping", 1000),
        _ => {
            tracing::error!(event = "log.failed", %error);
            Refusal::unavailable("server_error", "the event log cannot be read", 5000)
        }
    }
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) voice: Voice,
    pub(crate) feeds: Vec<Feed>,
    /// The feed whose turn it is.
    pub(crate) turn: usize,
    /// What the client asked for, for channels that come later.
    pub(crate) wanted: Wanted,
    pub(crate) connection_id: String,
    pub(crate) heartbeat: Option<Interval>,
    pub(crate) drain: watch::Receiver<Option<Drain>>,
    /// When it must end, and why.
    pub(crate) close_at: Option<(Instant, CloseReason)>,
    /// When it may say again how many listen.
    pub(crate) presence_at: Instant,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) over: bool,
    /// The connection's, where it has one.
    pub(crate) lane: Option<Arc<Lane>>,
    /// Where the lane is parked, once it was.
    pub(crate) seat: Option<Seat>,
    pub(crate) ticket: Ticket,
}

impl Subscription {
    /// What a stream says before its first event.
    pub(crate) fn greet(&mut self, initial: &[Message]) {
        let hub = Arc::clone(&self.voice.hub);
        let position = self.feeds.iter().map(|feed| feed.position(&hub)).collect::<Vec<_>>().join(",");
        let position = Some(position.as_str()).filter(|position| !position.is_empty());
        self.voice.open(&self.connection_id, &self.feeds, position);
        for message in initial {
            match message.encode(None, hub.options.event_bytes_max) {
                Ok(bytes) => self.voice.events([bytes].into_iter()),
                Err(error) => {
                    tracing::error!(event = "initial.invalid", stream_id = &*self.voice.entry.id, %error);
                }
            }
        }
        for feed in &mut self.feeds {
            feed.begin(&mut self.voice);
        }
    }

    /// The next bytes, `None` at the end of the stream; an error cuts the connection in the middle.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(trouble) = &mut self.trouble {
                match trouble.take_orders() {
                    Some(again) => self.voice.events(again.into_iter().map(|frame| frame.bytes)),
                    None => return Some(Err(self.cut())),
                }
                if let Some(until) = trouble.silent_until() {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = trouble.changed() => {}
                    }
                    continue;
                }
            }
            if !self.voice.is_silent() {
                return Some(Ok(self.say()));
            }
            if self.over {
                return None;
            }
            self.heed_drain();
            if let Some((_, reason)) = self.close_at.filter(|close| close.0 <= Instant::now()) {
                self.close(reason);
                continue;
            }
            if let Some(order) = self.voice.entry.take_order() {
                self.obey(order).await;
                continue;
            }
            if !self.trouble.as_ref().is_some_and(Trouble::events_paused) {
                match self.read().await {
                    Ok(Progress::Moved) => continue,
                    Ok(Progress::AtHead) => {}
                    Ok(Progress::TooSlow) => {
                        self.close(CloseReason::OverloadReject);
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(event = "log.failed", stream_id = &*self.voice.entry.id, %error);
                        self.voice.error("the event log cannot be read", "server_error");
                        self.close(CloseReason::ServerError);
                        continue;
                    }
                }
            }
            self.wait().await;
        }
    }

    fn say(&mut self) -> Bytes {
        let bytes = self.voice.take();
        if let Some(lane) = &self.lane {
            lane.say(&bytes);
            self.voice.entry.lane.get_or_init(|| Arc::downgrade(lane));
        }
        bytes
    }

    /// Lets the channel's fan-out write the next events, if they are all there is to say.
    fn park(&mut self) -> bool {
        let (Some(lane), [feed]) = (&self.lane, &self.feeds[..]) else { return false };
        let hub = &self.voice.hub;
        let many = feed.channel.readers() >= hub.options.fanout_listeners_min;
        if !many || self.trouble.is_some() || !feed.is_plain() {
            return false;
        }
        let seat = self.seat.get_or_insert_with(|| hub.fanouts.join(hub, &feed.channel, Arc::clone(lane)));
        let parked = seat.lane.park(feed.place());
        // The fan-out may have been here before us.
        if parked && feed.is_behind() {
            self.unpark();
            return false;
        }
        parked
    }

    fn unpark(&mut self) {
        let (Some(seat), [feed]) = (&self.seat, &mut self.feeds[..]) else { return };
        feed.skip_to(seat.lane.unpark());
        let sent = seat.lane.take_sent();
        self.voice.entry.events_sent.fetch_add(sent.events, Ordering::Relaxed);
        self.voice.entry.bytes_sent.fetch_add(sent.bytes, Ordering::Relaxed);
    }

    /// Picks this stream's own moment to close, once the server is stopping.
    fn heed_drain(&mut self) {
        // A watch whose sender is gone has no news; the hub outlives its streams anyway.
        if !self.drain.has_changed().unwrap_or(false) {
            return;
        }
        if let Some(drain) = *self.drain.borrow_and_update() {
            let spread_ms = u64::try_from(drain.spread.as_millis()).unwrap_or(u64::MAX);
            let at = drain.from + Duration::from_millis(clock::random_up_to(spread_ms));
            if self.close_at.is_none_or(|close| at < close.0) {
                self.close_at = Some((at, CloseReason::ServerShutdown));
            }
        }
    }

    /// Does what others want of this stream.
    async fn obey(&mut self, order: Order) {
        match order {
            Order::Event(bytes) => self.voice.events([bytes].into_iter()),
            Order::Say(bytes) => self.voice.say(bytes),
            Order::Close(reason) => self.close(reason),
            Order::Listen(channel) => self.listen(&channel).await,
            Order::Unlisten(channel) => {
                self.feeds.retain(|feed| feed.name() != channel);
                // What comes again comes from now on: the old cursor would repeat what was sent.
                self.wanted.forget(&channel);
                self.voice.unlisten(&channel);
            }
        }
    }

    async fn listen(&mut self, channel: &str) {
        let hub = Arc::clone(&self.voice.hub);
        match Feed::open(&hub, channel, &self.wanted, true).await {
            Ok(mut feed) => {
                self.voice.listen(channel, &feed.position(&hub));
                feed.begin(&mut self.voice);
                self.feeds.push(feed);
            }
            Err(refusal) => {
                hub.registry.leave(&self.voice.entry, channel);
                self.voice.error(&refusal.message, refusal.code);
            }
        }
    }

    /// Says the next page of one channel; each has its turn.
    async fn read(&mut self) -> Result<Progress, LogError> {
        for _ in 0..self.feeds.len() {
            let turn = self.turn % self.feeds.len();
            self.turn = turn + 1;
            let others = self.others(turn);
            let feed = &mut self.feeds[turn];
            match feed.read(&mut self.voice, self.trouble.as_mut(), &others).await? {
                Progress::AtHead => {}
                progress => return Ok(progress),
            }
        }
        Ok(Progress::AtHead)
    }

    /// The places of all channels but one, as they end the ids of that one's events.
    fn others(&self, turn: usize) -> String {
        let mut others = String::new();
        if self.feeds.len() > 1 && self.feeds[turn].is_behind() {
            for (_, feed) in self.feeds.iter().enumerate().filter(|feed| feed.0 != turn) {
                // Writing to a string does not fail.
                let _ = write!(others, ",{}", feed.position(&self.voice.hub));
            }
        }
        others
    }

    /// Waits until there may be something to say.
    async fn wait(&mut self) {
        let paused = self.trouble.as_ref().is_some_and(Trouble::events_paused);
        let beats = !self.trouble.as_ref().is_some_and(Trouble::heartbeats_stopped);
        let close_at = self.close_at.map(|close| close.0);
        let presence_ms = self.voice.hub.options.presence_ms;
        let parked = !paused && self.park();
        let seat = self.seat.as_ref();
        tokio::select! {
            () = wanted(seat), if parked => {}
            // The log outlives its readers, so this cannot fail while the stream is open.
            moved = news(&mut self.feeds, self.presence_at, presence_ms > 0), if !paused && !parked => match moved {
                News::Events => {}
                News::Crowd => {
                    self.presence_at = Instant::now() + Duration::from_millis(presence_ms);
                    for feed in &mut self.feeds {
                        feed.tell_presence(&mut self.voice);
                    }
                }
                News::LogGone => self.close(CloseReason::ServerError),
            },
            late = tick(self.heartbeat.as_mut()) => {
                if beats {
                    let period_ms = self.voice.hub.options.heartbeat_ms.max(1);
                    let missed = u64::try_from(late.as_millis()).unwrap_or(u64::MAX) / period_ms;
                    self.voice.heartbeats_failed(missed);
                    self.voice.heartbeat(&self.connection_id);
                }
            }
            Ok(()) = self.drain.changed() => self.drain.mark_changed(),
            () = until(close_at) => {}
            () = self.voice.entry.ordered() => {}
            () = changed(self.trouble.as_mut()) => {}
        }
        if parked {
            self.unpark();
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.voice.close(reason);
        self.ticket.reason = reason;
        self.over = true;
    }

    fn cut(&mut self) -> io::Error {
        self.ticket.reason = CloseReason::NetworkError;
        self.over = true;
        io::Error::new(io::ErrorKind::ConnectionAborted, "cut by order of a debug route")
    }
}

pub(crate) fn heartbeat(ms: u64) -> Option<Interval> {
    (ms > 0).then(|| {
        let period = Duration::from_millis(ms);
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    })
}

/// Waits for an event on one of the channels, or for a change among its listeners.
async fn news(feeds: &mut [Feed], presence_at: Instant, presence: bool) -> News {
    match feeds {
        [] => std::future::pending().await,
        // Nearly all streams: nothing is allocated for one that waits.
        [feed] if !presence => feed.moved().await,
        feeds => {
            let waits = feeds.iter_mut().map(|feed| Box::pin(feed.news(presence_at)));
            futures_util::future::select_all(waits).await.0
        }
    }
}

/// Waits for the next heartbeat; answers how late it is.
async fn tick(interval: Option<&mut Interval>) -> Duration {
    match interval {
        Some(interval) => {
            let due = interval.tick().await;
            Instant::now() - due
        }
        None => std::future::pending().await,
    }
}

/// Waits until a lane needs its stream.
async fn wanted(seat: Option<&Seat>) {
    match seat {
        Some(seat) => poll_fn(|cx| seat.lane.poll_wanted(cx)).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn changed(trouble: Option<&mut Trouble>) {
    match trouble {
        Some(trouble) => trouble.changed().await,
        None => std::future::pending().await,
    }
}
