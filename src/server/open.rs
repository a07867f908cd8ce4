//! Opens a stream: what is checked before the first byte, in which order, and the head of the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::answer::Refusal;
use super::auth::{AuthRequest, Authorize, Identity};
use super::clock;
use super::fate::Carried;
use super::faults::Trouble;
use super::feed::Feed;
use super::handle::StreamHandle;
use super::hub::{Inner, Ticket};
use super::lane::LaneOffer;
use super::log::check_channel;
use super::reason::CloseReason;
use super::registry::{Entry, check_cursor};
use super::request::StreamRequest;
use super::stream::{self, Subscription, refusal};
use super::voice::Voice;

/// Opens a stream of `channels`, none or several. Exactly one gives it that channel's own ids.
pub(crate) async fn open(
    hub: &Arc<Inner>,
    channels: Vec<String>,
    mut asked: StreamRequest,
    request: &Parts,
) -> Result<(StreamHandle, Response), Refusal> {
    let trouble = hub.faults.as_ref().map(|faults| faults.watch(asked.client.as_deref()));
    if let Some(until) = trouble.as_ref().and_then(Trouble::refused_until) {
        let left_ms = u64::try_from((until - Instant::now()).as_millis()).unwrap_or(u64::MAX);
        return Err(Refusal::unavailable("overload_reject", "refused by order of /debug/refuse", left_ms));
    }
    let channels = check_channels(hub, channels)?;
    if let Some(validate) = &hub.hooks.validate {
        validate(request, &channels).map_err(|message| Refusal::bad_request("invalid_params", message))?;
    }
    let identity = authorize(hub, request, &channels, &asked).await?;
    let expires_at = identity.as_ref().and_then(Identity::left).map(|left| Instant::now() + left);

    let stream_id = clock::named_id("stream");
    let mut entry = Entry::new(&stream_id, clock::unix_ms());
    entry.peer = asked.peer;
    entry.identity = identity.map(|identity| identity.name.into());
    entry.trace_id = asked.trace_id.as_deref().map(Into::into);
    entry.resumed = asked.wanted.cursor.is_some();
    entry.single = channels.len() == 1;
    if channels.is_empty() {
        asked.wanted.forget_foreign();
    }
    let entry = Arc::new(entry);
    let peer = entry.peer.map(tracing::field::display);
    tracing::debug!(event = "stream.connect", stream_id, peer);
    // A drain that begins between the two reaches this stream, too.
    let drain = hub.drain.subscribe();
    let ticket = admit(hub, &entry, &channels)?;
    let mut feeds = Vec::with_capacity(channels.len());
    for channel in &channels {
        let feed = Feed::open(hub, channel, &asked.wanted, !entry.single).await;
        feeds.push(feed.inspect_err(|refusal| {
            if entry.resumed {
                tracing::info!(event = "resume.failure", stream_id, channel, code = refusal.code);
            }
        })?);
    }
    let initial = match &hub.hooks.initial {
        Some(initial) => initial(entry.info()).await,
        None => Vec::new(),
    };
    let replay: u64 = feeds.iter().map(Feed::replay_count).sum();
    let mut subscription = Subscription {
        voice: Voice::new(Arc::clone(hub), Arc::clone(&entry)),
        feeds,
        turn: 0,
        wanted: asked.wanted,
        connection_id: clock::named_id("conn"),
        heartbeat: stream::heartbeat(hub.options.heartbeat_ms),
        drain,
        close_at: expires_at.map(|at| (at, CloseReason::AuthExpired)),
        presence_at: Instant::now(),
        trouble,
        over: false,
        lane: request.extensions.get::<LaneOffer>().and_then(LaneOffer::take),
        seat: None,
        ticket,
    };
    subscription.greet(&initial);
    tracing::info!(
        event = "stream.open",
        stream_id,
        channels = channels.join(","),
        trace_id = asked.trace_id,
        identity = entry.identity.as_deref(),
        replay,
    );
    let headers = headers(&entry);
    let body = futures_util::stream::unfold(subscription, async |mut subscription| {
        let bytes = subscription.next().await?;
        Some((bytes, subscription))
    });
    let mut response = (headers, Body::from_stream(body)).into_response();
    response.extensions_mut().insert(Carried(Arc::clone(&entry)));
    Ok((StreamHandle { hub: Arc::clone(hub), entry }, response))
}

/// Each channel once, and not too many.
fn check_channels(hub: &Inner, channels: Vec<String>) -> Result<Vec<String>, Refusal> {
    let mut once: Vec<String> = Vec::new();
    for channel in channels {
        check_channel(&channel).map_err(refusal)?;
        if once.contains(&channel) {
            continue;
        }
        if once.len() >= hub.channels_max() {
            return Err(Refusal::too_many_channels(hub.channels_max()));
        }
        once.push(channel);
    }
    if once.len() > 1 {
        check_cursor(once.iter().map(String::as_str), hub.channels_max())?;
    }
    Ok(once)
}

async fn authorize(
    hub: &Inner,
    request: &Parts,
    channels: &[String],
    asked: &StreamRequest,
) -> Result<Option<Identity>, Refusal> {
    let Some(hook) = &hub.hooks.authorize else { return Ok(None) };
    if hub.draining() {
        return Err(hub.stopping());
    }
    let request = AuthRequest { parts: request.clone(), channels: channels.to_vec(), peer: asked.peer };
    Ok(Some(Authorize::authorize(&**hook, request).await?))
}

fn admit(hub: &Arc<Inner>, entry: &Arc<Entry>, channels: &[String]) -> Result<Ticket, Refusal> {
    if hub.draining() {
        return Err(hub.stopping());
    }
    hub.registry.admit(entry, channels, &hub.options)?;
    hub.metrics.active_streams.inc();
    hub.metrics.streams_opened.inc();
    Ok(Ticket::new(Arc::clone(hub), Arc::clone(entry)))
}

fn headers(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    // nginx and its relatives buffer responses unless told otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Ok(id) = HeaderValue::from_str(&entry.id) {
        headers.insert("x-stream-id", id);
    }
    if let Some(Ok(id)) = entry.trace_id.as_deref().map(HeaderValue::from_str) {
        headers.insert("x-trace-id", id);
    }
    headers
}
