//! One subscriber's stream: what it begins with, and then page after page of the log.
//!
//! A subscription is pulled, never pushed: the connection asks for the next bytes when it has room for them. A
//! slow client therefore reads the log later, in pages, and holds nothing but its place.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior};

use super::answer::Refusal;
use super::faults::Trouble;
use super::hub::{Drain, Inner, Ticket};
use super::log::{Channel, Frame, LogError, Place};
use super::metrics::Metrics;
use super::request::{StreamRequest, cut};
use super::resume::{self, Refused, Wanted};
use super::{clock, controls};
use crate::wire::control;

/// The bytes of a cursor that are repeated to its sender.
const ECHO_BYTES_MAX: usize = 128;

/// Opens a stream on `channel`.
pub(crate) async fn open(hub: &Arc<Inner>, channel: &str, asked: StreamRequest) -> Result<Response, Refusal> {
    let trouble = hub.faults.as_ref().map(|faults| faults.watch(asked.client.as_deref()));
    if let Some(until) = trouble.as_ref().and_then(Trouble::refused_until) {
        let left_ms = u64::try_from((until - Instant::now()).as_millis()).unwrap_or(u64::MAX);
        return Err(Refusal::unavailable("overload_reject", "refused by order of /debug/refuse", left_ms));
    }
    let channel = hub.log.channel(channel).map_err(refusal)?;
    // A drain that begins between the two reaches this stream, too.
    let drain = hub.drain.subscribe();
    let ticket = hub.admit()?;
    // The head is watched before the bounds are read, so that nothing falls between the two.
    let head = channel.head();
    let bounds = hub.log.bounds(&channel).await.map_err(refusal)?;
    let mut start = resume::resolve(&asked.wanted, channel.name(), &bounds, hub.log.as_ref());
    if asked.wanted == Wanted::Now
        && let Some(place) = hub.states.beginning(hub, channel.name()).await
    {
        start.place = place;
    }
    let count = bounds.distance(start.place, bounds.head);
    let mut subscription = Subscription {
        hub: Arc::clone(hub),
        channel,
        head,
        place: start.place,
        out: VecDeque::new(),
        replay: None,
        connection_id: clock::named_id("conn"),
        stream_id: clock::named_id("stream"),
        trace_id: asked.trace_id,
        heartbeat: heartbeat(hub.options.heartbeat_ms),
        drain,
        close_at: None,
        trouble,
        over: false,
        ticket,
    };
    subscription.greet(&asked.wanted, start.refused.as_ref(), count, bounds.head);
    tracing::info!(
        event = "stream.open",
        stream_id = subscription.stream_id,
        channel = subscription.channel.name(),
        trace_id = subscription.trace_id,
        replay = count,
    );
    let headers = headers(&subscription);
    let body = stream::unfold(subscription, async |mut subscription| {
        let bytes = subscription.next().await?;
        Some((bytes, subscription))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

fn headers(subscription: &Subscription) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    // nginx and its relatives buffer responses unless told otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Ok(id) = HeaderValue::from_str(&subscription.stream_id) {
        headers.insert("x-stream-id", id);
    }
    if let Some(Ok(id)) = subscription.trace_id.as_deref().map(HeaderValue::from_str) {
        headers.insert("x-trace-id", id);
    }
    headers
}

fn heartbeat(ms: u64) -> Option<Interval> {
    (ms > 0).then(|| {
        let period = Duration::from_millis(ms);
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    })
}

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

/// The stored events that were there when the client came.
#[derive(Debug)]
struct Replay {
    until: Place,
    sent: u64,
}

#[derive(Debug)]
struct Subscription {
    hub: Arc<Inner>,
    channel: Arc<Channel>,
    head: watch::Receiver<Place>,
    /// The last event that was handed to the connection.
    place: Place,
    /// What goes out before the next page.
    out: VecDeque<Bytes>,
    replay: Option<Replay>,
    connection_id: String,
    stream_id: String,
    trace_id: Option<String>,
    heartbeat: Option<Interval>,
    drain: watch::Receiver<Option<Drain>>,
    close_at: Option<Instant>,
    trouble: Option<Trouble>,
    over: bool,
    ticket: Ticket,
}

impl Subscription {
    /// What a stream says before its first event.
    fn greet(&mut self, wanted: &Wanted, refused: Option<&Refused>, count: u64, head: Place) {
        let (hub, options) = (Arc::clone(&self.hub), &self.hub.options);
        let resumed_from = match wanted {
            Wanted::After(id) => Some(cut(id, ECHO_BYTES_MAX).to_owned()),
            _ => None,
        };
        let mut payload = json!({
            "stream_id": self.stream_id,
            "connection_id": self.connection_id,
            "server_time": clock::iso(clock::unix_ms()),
            "server_version": env!("CARGO_PKG_VERSION"),
            "protocol": control::PROTOCOL,
            "heartbeat_interval": options.heartbeat_ms,
            "channel": self.channel.name(),
            "position": hub.id(self.place),
            "replayable": hub.log.replays(),
        });
        let ticks = options.default_channel.as_deref() == Some(self.channel.name());
        if let Some(ms) = options.tick_ms.filter(|_| ticks) {
            payload["tick_interval"] = ms.into();
        }
        if let Some(trace_id) = &self.trace_id {
            payload["trace_id"] = trace_id.as_str().into();
        }
        self.out.push_back(controls::retry(options.retry_ms));
        self.out.push_back(controls::event(control::OPEN, &payload));
        if resumed_from.is_some() {
            hub.metrics.replays_attempted.inc();
            let outcome =
                if refused.is_some() { &hub.metrics.replays_failed } else { &hub.metrics.replays_succeeded };
            outcome.inc();
        }
        if let Some(refused) = refused {
            self.cannot_resume(resumed_from.as_deref(), refused);
        }
        if count > 0 {
            let payload =
                json!({ "requestedId": resumed_from, "eventCount": count, "reason": "replay_started" });
            self.out.push_back(controls::event(control::REPLAY_START, &payload));
            self.replay = Some(Replay { until: head, sent: 0 });
        }
    }

    fn cannot_resume(&mut self, requested: Option<&str>, refused: &Refused) {
        let id = |place| Value::from(self.hub.id(place));
        let code = match refused.code {
            code if code == resume::INVALID || self.hub.log.replays() => code,
            _ => resume::NO_BUFFER,
        };
        let (reason, message) = match code {
            resume::EXPIRED => ("events_expired", "events after the requested id are no longer stored"),
            resume::NO_BUFFER => ("no_buffer", "this server stores no events"),
            resume::NOT_FOUND => ("event_not_found", "the requested id is not of this log, or ahead of it"),
            _ => ("invalid_event_id", "the requested id is not an id of this server"),
        };
        let mut payload = json!({
            "code": code,
            "reason": reason,
            "message": message,
            "requestedId": requested,
            "oldestAvailable": refused.oldest.map(id),
            "newestAvailable": id(refused.newest),
            "action": "start_fresh",
            "position": id(refused.place),
            "stream_id": self.stream_id,
        });
        if let Some(missing) = refused.missing {
            payload["missing"] = missing.into();
        }
        tracing::info!(event = "resume.cannot_resume", stream_id = self.stream_id, code);
        Metrics::count(&self.hub.metrics.cannot_resume, code);
        self.out.push_back(controls::event(control::CANNOT_RESUME, &payload));
    }

    /// The next bytes, `None` at the end of the stream; an error cuts the connection in the middle.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(trouble) = &mut self.trouble {
                match trouble.take_orders() {
                    Some(again) => self.out.extend(again.into_iter().map(|frame| frame.bytes)),
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
            if !self.out.is_empty() {
                return Some(Ok(join(self.out.drain(..))));
            }
            if self.over {
                return None;
            }
            self.heed_drain();
            if self.close_at.is_some_and(|at| at <= Instant::now()) {
                self.close("server_shutdown");
                continue;
            }
            if !self.trouble.as_ref().is_some_and(Trouble::events_paused) {
                match self.read().await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(event = "log.failed", stream_id = self.stream_id, %error);
                        self.out.push_back(controls::error("the event log cannot be read", "server_error"));
                        self.close("server_error");
                        continue;
                    }
                }
            }
            self.wait().await;
        }
    }

    /// Picks this stream's own moment to close, once the server is stopping.
    fn heed_drain(&mut self) {
        // A watch whose sender is gone has no news; the hub outlives its streams anyway.
        if self.close_at.is_none() && self.drain.has_changed().unwrap_or(false) {
            self.close_at = self.drain.borrow_and_update().map(|drain| {
                let spread_ms = u64::try_from(drain.spread.as_millis()).unwrap_or(u64::MAX);
                drain.from + Duration::from_millis(clock::random_up_to(spread_ms))
            });
        }
    }

    /// Waits until there may be something to say.
    async fn wait(&mut self) {
        let paused = self.trouble.as_ref().is_some_and(Trouble::events_paused);
        let beats = !self.trouble.as_ref().is_some_and(Trouble::heartbeats_stopped);
        tokio::select! {
            // The log outlives its readers, so this cannot fail while the stream is open.
            changed = self.head.changed(), if !paused => {
                if changed.is_err() {
                    self.close("server_error");
                }
            }
            () = tick(self.heartbeat.as_mut()) => {
                if beats {
                    self.hub.metrics.heartbeats_sent.inc();
                    self.out.push_back(controls::heartbeat(self.hub.options.heartbeat_ms, &self.connection_id));
                }
            }
            Ok(()) = self.drain.changed(), if self.close_at.is_none() => self.drain.mark_changed(),
            () = until(self.close_at) => {}
            () = changed(self.trouble.as_mut()) => {}
        }
    }

    /// Moves the next page to `out`. False at the head.
    async fn read(&mut self) -> Result<bool, LogError> {
        let head = *self.head.borrow_and_update();
        if self.replay.as_ref().is_some_and(|replay| self.place >= replay.until) {
            self.end_replay();
        }
        if self.place >= head {
            return Ok(!self.out.is_empty());
        }
        let limit = self.hub.options.page;
        let mut frames = match self.channel.tail(self.place, limit) {
            Some(frames) => frames,
            None => self.hub.log.page(&self.channel, self.place, limit).await?,
        };
        let follows = frames.first().is_some_and(|first| first.place.follows(self.place));
        if !follows && self.skip_gap(frames.first()).await? {
            return Ok(true);
        }
        // What lies behind a hole within the page waits until the hole was told of.
        let hole = frames.windows(2).position(|pair| !pair[1].place.follows(pair[0].place));
        frames.truncate(hole.map_or(frames.len(), |at| at + 1));
        if let Some(replay) = &mut self.replay {
            frames.retain(|frame| frame.place <= replay.until);
            replay.sent += frames.len() as u64;
            self.hub.metrics.replay_events_sent.inc_by(frames.len() as u64);
        }
        self.place = frames.last().map_or(self.place, |last| last.place);
        self.hub.metrics.events_sent.inc_by(frames.len() as u64);
        let frames = match &mut self.trouble {
            Some(trouble) => trouble.bend(frames),
            None => frames,
        };
        self.out.extend(frames.into_iter().map(|frame| frame.bytes));
        if self.replay.as_ref().is_some_and(|replay| self.place >= replay.until) {
            self.end_replay();
        }
        Ok(true)
    }

    /// The next stored event is not the one after our place: either a new epoch began, or what was to come has
    /// expired while this client was reading. It is told so, and goes on behind the gap.
    async fn skip_gap(&mut self, first: Option<&Frame>) -> Result<bool, LogError> {
        let bounds = self.hub.log.bounds(&self.channel).await?;
        let missing = match first {
            Some(first) => bounds.distance(self.place, bounds.before(first.place)),
            None => bounds.distance(self.place, bounds.head),
        };
        // What the log has is less than what we read: it lost its end, and what came behind it.
        let beyond = self.place.sequence > bounds.end_of(self.place.generation);
        if missing == 0 && !beyond {
            // Nothing is left where we stand, though the head has moved on: an epoch that began without an event.
            if first.is_none() {
                self.place = bounds.head;
            }
            return Ok(false);
        }
        let mut refused = resume::gap(self.place, &bounds).unwrap_or(Refused {
            code: resume::EXPIRED,
            place: bounds.head,
            oldest: bounds.oldest,
            newest: bounds.head,
            missing: None,
        });
        if let Some(first) = first {
            refused.place = bounds.before(first.place);
        }
        refused.missing = (missing > 0).then_some(missing);
        if beyond {
            refused.code = resume::NOT_FOUND;
        }
        let requested = self.hub.id(self.place);
        self.cannot_resume(Some(&requested), &refused);
        self.place = refused.place;
        Ok(true)
    }

    fn end_replay(&mut self) {
        if let Some(replay) = self.replay.take() {
            let payload =
                json!({ "reason": "replay_complete", "eventCount": replay.sent, "truncated": false });
            self.out.push_back(controls::event(control::REPLAY_END, &payload));
        }
    }

    fn close(&mut self, reason: &'static str) {
        let retry_ms = self.hub.options.retry_ms;
        // Clients that were closed together must not come back together.
        self.out.push_back(controls::retry(retry_ms + clock::random_up_to(retry_ms.saturating_mul(2))));
        self.out.push_back(controls::close(reason));
        self.ticket.reason = reason;
        self.over = true;
    }

    fn cut(&mut self) -> io::Error {
        self.ticket.reason = "network_error";
        self.over = true;
        io::Error::new(io::ErrorKind::ConnectionAborted, "cut by order of a debug route")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        tracing::info!(event = "stream.close", stream_id = self.stream_id, reason = self.ticket.reason);
    }
}

/// One chunk for the connection: a single event is shared as it is, several are worth one copy.
fn join(mut pieces: impl ExactSizeIterator<Item = Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.next().unwrap_or_default();
    }
    let mut joined = BytesMut::new();
    for piece in pieces {
        joined.extend_from_slice(&piece);
    }
    joined.freeze()
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
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
