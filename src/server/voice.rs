//! What a stream says beside its events: the handshake, what cannot be resumed, replays, the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::feed::Feed;
use super::hub::Inner;
use super::metrics::Metrics;
use super::reason::CloseReason;
use super::registry::Entry;
use super::resume::{self, Refused};
use super::{HEARTBEAT_LOG, REPLAY_LOG, clock, controls};
use crate::wire::control;

/// What goes out next, and the words for it.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) hub: Arc<Inner>,
    pub(crate) entry: Arc<Entry>,
    out: VecDeque<Bytes>,
}

impl Voice {
    pub(crate) fn new(hub: Arc<Inner>, entry: Arc<Entry>) -> Self {
        Self { hub, entry, out: VecDeque::new() }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.out.is_empty()
    }

    pub(crate) fn say(&mut self, bytes: Bytes) {
        self.out.push_back(bytes);
    }

    /// Events of the app, counted as sent.
    pub(crate) fn events(&mut self, events: impl ExactSizeIterator<Item = Bytes>) {
        let count = events.len() as u64;
        self.hub.metrics.events_sent.inc_by(count);
        self.entry.events_sent.fetch_add(count, Ordering::Relaxed);
        self.out.extend(events);
    }

    /// One chunk for the connection: a single event is shared as it is, several are worth one copy.
    pub(crate) fn take(&mut self) -> Bytes {
        let bytes = if self.out.len() == 1 {
            self.out.pop_front().unwrap_or_default()
        } else {
            let mut joined = BytesMut::with_capacity(self.out.iter().map(Bytes::len).sum());
            self.out.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
            joined.freeze()
        };
        self.entry.bytes_sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        bytes
    }

    /// The handshake. `position` is the id after which the stream begins, where it has one.
    pub(crate) fn open(&mut self, connection_id: &str, feeds: &[Feed], position: Option<&str>) {
        let (hub, entry) = (&self.hub, &self.entry);
        let options = &hub.options;
        let mut payload = json!({
            "stream_id": &*entry.id,
            "connection_id": connection_id,
            "server_time": clock::iso(clock::unix_ms()),
            "server_version": env!("CARGO_PKG_VERSION"),
            "protocol": control::PROTOCOL,
            "heartbeat_interval": options.heartbeat_ms,
            "replayable": position.is_some() && hub.replayable(),
        });
        if let Some(position) = position {
            payload["position"] = position.into();
        }
        match feeds {
            [feed] if entry.single => payload["channel"] = feed.name().into(),
            _ => payload["channels"] = feeds.iter().map(Feed::name).collect(),
        }
        let ticks = feeds.iter().any(|feed| options.default_channel.as_deref() == Some(feed.name()));
        if let Some(ms) = options.tick_ms.filter(|_| ticks) {
            payload["tick_interval"] = ms.into();
        }
        if let Some(trace_id) = &entry.trace_id {
            payload["trace_id"] = (**trace_id).into();
        }
        let retry_ms = options.retry_ms;
        self.say(controls::retry(retry_ms));
        self.say(controls::event(control::OPEN, &payload));
    }

    /// What a client cannot have of a channel, whose `label` gives ids their form here.
    pub(crate) fn cannot_resume(&mut self, feed: &Feed, requested: Option<&str>, refused: &Refused) {
        let id = |place| Value::from(feed.id(&self.hub, place));
        let code = refused.code(self.hub.log.as_ref());
        let (reason, message) = match code {
            resume::EXPIRED => ("events_expired", "events after the requested id are no longer stored"),
            resume::DISABLED => ("resume_disabled", "this server resumes no streams"),
            resume::TOO_LARGE => {
                ("replay_too_large", "this server does not replay so much: only the newest events are sent")
            }
            resume::NO_BUFFER => ("no_buffer", "this server stores no events"),
            resume::FORGOTTEN => {
                ("stream_not_found", "the channel was removed since, and has begun anew with other events")
            }
            resume::NOT_FOUND => ("event_not_found", "the requested id is not of this log, or ahead of it"),
            _ => ("invalid_event_id", "the requested id is not an id of this server"),
        };
        let mut payload = json!({
            "code": code,
            "reason": reason,
            "message": message,
            "channel": feed.name(),
            "requestedId": requested,
            "oldestAvailable": refused.oldest.map(id),
            "newestAvailable": id(refused.newest),
            "action": "start_fresh",
            "position": id(refused.place),
            "stream_id": &*self.entry.id,
        });
        if let Some(missing) = refused.missing {
            payload["missing"] = missing.into();
        }
        if let Some(trace_id) = &self.entry.trace_id {
            payload["trace_id"] = (**trace_id).into();
        }
        tracing::info!(
            event = "resume.cannot_resume",
            stream_id = &*self.entry.id,
            channel = feed.name(),
            code
        );
        Metrics::count(&self.hub.metrics.cannot_resume, code);
        self.say(controls::event(control::CANNOT_RESUME, &payload));
    }

    /// `count` of the stored events follow, of those that are `available`. Whoever came with a cursor and missed nothing hears
    /// that, too.
    pub(crate) fn replay_start(
        &mut self,
        channel: &str,
        requested: Option<&str>,
        count: u64,
        available: u64,
    ) {
        let truncated = count < available;
        let reason = match count {
            _ if truncated => "replay_truncated",
            0 => "no_replay_needed",
            _ => "replay_started",
        };
        let mut payload = json!({
            "channel": channel, "requestedId": requested, "eventCount": count, "reason": reason
        });
        if truncated {
            payload["totalAvailable"] = available.into();
            payload["sending"] = count.into();
            payload["maxReplayBatch"] = self.hub.options.replay_events_max.into();
        }
        tracing::info!(
            target: REPLAY_LOG,
            event = if truncated { "replay.truncated" } else { "replay.start" },
            stream_id = &*self.entry.id,
            channel,
            events = count,
            available
        );
        self.say(controls::event(control::REPLAY_START, &payload));
    }

    pub(crate) fn replay_end(&mut self, channel: &str, count: u64, truncated: bool) {
        let payload = json!({
            "channel": channel, "reason": "replay_complete", "eventCount": count, "truncated": truncated
        });
        tracing::info!(
            target: REPLAY_LOG,
            event = "replay.end",
            stream_id = &*self.entry.id,
            channel,
            events = count
        );
        self.say(controls::event(control::REPLAY_END, &payload));
    }

    pub(crate) fn listen(&mut self, channel: &str, position: &str) {
        let replayable = self.hub.replayable();
        let payload = json!({ "channel": channel, "position": position, "replayable": replayable });
        self.say(controls::event(control::LISTEN, &payload));
    }

    pub(crate) fn unlisten(&mut self, channel: &str) {
        self.say(controls::event(control::UNLISTEN, &json!({ "channel": channel })));
    }

    pub(crate) fn presence(&mut self, channel: &str, count: usize) {
        self.say(controls::event(control::PRESENCE, &json!({ "channel": channel, "count": count })));
    }

    pub(crate) fn heartbeat(&mut self, connection_id: &str) {
        self.hub.metrics.heartbeats_sent.inc();
        tracing::info!(target: HEARTBEAT_LOG, event = "heartbeat.sent", stream_id = &*self.entry.id);
        let options = &self.hub.options;
        self.say(controls::heartbeat(options.names, options.heartbeat_ms, connection_id));
    }

    /// Those that were left out while the client did not read.
    pub(crate) fn heartbeats_failed(&mut self, count: u64) {
        if count > 0 {
            self.hub.metrics.heartbeats_failed.inc_by(count);
            tracing::info!(event = "heartbeat.failed", stream_id = &*self.entry.id, count);
        }
    }

    pub(crate) fn error(&mut self, message: &str, code: &str) {
        self.say(controls::error(self.hub.options.names, message, code));
    }

    pub(crate) fn close(&mut self, reason: CloseReason) {
        let options = &self.hub.options;
        let together = !matches!(reason, CloseReason::AuthExpired | CloseReason::StreamEnded);
        let (names, retry_ms) = (options.names, options.retry_ms);
        if together {
            // Clients that were closed together must not come back together.
            self.say(controls::retry(retry_ms + clock::random_up_to(retry_ms.saturating_mul(2))));
        }
        self.say(controls::close(names, reason.as_str()));
    }
}
