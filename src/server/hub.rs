//! The hub: a log, the streams that are open on it, and what they share.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::answer::Refusal;
use super::auth::StreamToken;
use super::channels::ChannelHandle;
use super::fanout::Fanouts;
use super::faults::Faults;
use super::handle::{SendError, StreamHandle};
use super::hooks::Hooks;
use super::log::{EventLog, LogError, Place};
use super::metrics::Metrics;
use super::options::StreamOptions;
use super::publisher::{Message, Publisher};
use super::reason::CloseReason;
use super::registry::{Entry, Order, Registry, StreamInfo};
use super::request::StreamRequest;
use super::state::States;
use super::{compress, open, routes};
use crate::wire::id::CURSOR_CHANNELS_MAX;

/// Event streams of one log, for mounting in an axum app.
///
/// ```
/// use std::sync::Arc;
/// use holdfast_sse::server::{Hub, MemoryLog, Message, StreamOptions};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let log = Arc::new(MemoryLog::new(Default::default()));
/// let hub = Hub::new(log, StreamOptions::default());
/// let app: axum::Router = axum::Router::new().nest("/events", hub.router());
///
/// let created = Message::envelope("domain.order.created", &serde_json::json!({ "order": 7 }));
/// let published = hub.publisher().publish("orders", created.idempotency_key("order-7")).await.unwrap();
/// assert!(published.id.ends_with("-1"));
/// # drop(app);
/// # });
/// ```
///
/// A page then opens `/events/stream/orders`. To stop without losing anybody, see [`Hub::drain`].
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) options: StreamOptions,
    pub(crate) metrics: Metrics,
    /// Present only with debug routes, so that without them no stream spends anything on faults.
    pub(crate) faults: Option<Faults>,
    pub(crate) drain: watch::Sender<Option<Drain>>,
    pub(crate) hooks: Hooks,
    pub(crate) registry: Registry,
    pub(crate) states: States,
    pub(crate) fanouts: Fanouts,
}

/// The server is stopping: every stream picks its own moment before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    pub(crate) from: Instant,
    pub(crate) spread: Duration,
}

impl std::fmt::Debug for dyn EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventLog {{ durable: {} }}", self.durable())
    }
}

impl Hub {
    /// A hub over `log`.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, options: StreamOptions) -> Self {
        Self::with_hooks(log, options, Hooks::default())
    }

    /// A hub over `log`, in which the app has its say.
    #[must_use]
    pub fn with_hooks(log: Arc<dyn EventLog>, options: StreamOptions, mut hooks: Hooks) -> Self {
        let token = options.stream_token.clone().filter(|token| !token.is_empty());
        if let (None, Some(token)) = (&hooks.authorize, token) {
            hooks = hooks.authorize(StreamToken(token));
        }
        let inner = Inner {
            log,
            faults: options.debug_routes.then(Faults::default),
            options,
            metrics: Metrics::new(),
            drain: watch::Sender::new(None),
            hooks,
            registry: Registry::default(),
            states: States::default(),
            fanouts: Fanouts::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// All routes: `/stream` (see [`StreamOptions::default_channel`]), `/stream/{channel}`, `/publish/{channel}`, `/health`, `/metrics`, `/info`, and
    /// `/debug/*` where the options say so.
    pub fn router(&self) -> Router {
        routes::router(self)
    }

    /// A handle to publish with.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher { hub: Arc::clone(&self.inner) }
    }

    /// Forgets a channel that is finished: its events, numbers and idempotency keys, on disk too. Streams of it stay open;
    /// those that had not read all are told so (`control.cannot_resume`), and so is who comes back with an id of it. Its
    /// shared states go with it, on all nodes. (S5)
    ///
    /// # Errors
    /// [`LogError::Unsupported`] where the log has no such thing; else as publishing.
    pub async fn remove(&self, channel: &str) -> Result<(), LogError> {
        self.inner.log.remove(channel).await?;
        self.inner.states.channel_removed(channel).await;
        Ok(())
    }

    /// A channel, to publish to and to stream.
    #[must_use]
    pub fn channel(&self, name: &str) -> ChannelHandle {
        ChannelHandle::new(self, name)
    }

    /// Answers a request with the stream of a channel: for an app's own routes.
    /// Everything else that a stream takes (cursor, `from`, `last`) is read from the request, and the hooks are asked.
    pub async fn stream(&self, channel: &str, request: &Parts) -> Response {
        match self.open(&[channel], request).await {
            Ok((_, response)) => response,
            Err(refusal) => refusal,
        }
    }

    /// Opens a stream of any number of channels, for a handler that has something to say to this client itself: give
    /// the response to axum, and keep the handle. Without channels it is a plain writer of events.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use axum::extract::{Request, State};
    /// # use axum::response::Response;
    /// # use holdfast_sse::server::{CloseReason, Hub, Message};
    /// async fn progress(State(hub): State<Hub>, request: Request) -> Result<Response, Response> {
    ///     let (stream, response) = hub.open(&[], &request.into_parts().0).await?;
    ///     tokio::spawn(async move {
    ///         let done = Message::text("done", "100 %");
    ///         let _ = stream.send(done).and_then(|()| stream.close(CloseReason::StreamEnded));
    ///     });
    ///     Ok(response)
    /// }
    /// ```
    ///
    /// # Errors
    /// The answer that refuses: by the hooks, by a limit, or since the request asks for what there is not.
    pub async fn open(
        &self,
        channels: &[&str],
        request: &Parts,
    ) -> Result<(StreamHandle, Response), Response> {
        self.open_or_refuse(Some(channels), request).await.map_err(|refusal| self.refuse(&refusal))
    }

    /// The streams that the query names, all in one; without any the default channel's.
    pub(crate) async fn stream_by_query(&self, request: &Parts) -> Response {
        match self.open_or_refuse(None, request).await {
            Ok((_, response)) => response,
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// The one way in, for the channels given or for those that the query names.
    async fn open_or_refuse(
        &self,
        channels: Option<&[&str]>,
        request: &Parts,
    ) -> Result<(StreamHandle, Response), Refusal> {
        let options = &self.inner.options;
        let mut asked = StreamRequest::read(request, options)?;
        let channels = match channels {
            Some(channels) => channels.iter().map(|&channel| channel.to_owned()).collect(),
            None if asked.channels.is_empty() => vec![self.inner.default_channel()?.to_owned()],
            None => std::mem::take(&mut asked.channels),
        };
        let (handle, response) = open::open(&self.inner, channels, asked, request).await?;
        let response = if options.compress { compress::apply(&request.headers, response) } else { response };
        Ok((handle, response))
    }

    pub(crate) fn refuse_publish(&self, refusal: &Refusal) {
        Metrics::count(&self.inner.metrics.rejected_publishes, refusal.code);
        let status = refusal.status.as_u16();
        // What was published is wrong, or it may not or cannot be published.
        match refusal.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                tracing::info!(
                    event = "validation.error",
                    code = refusal.code,
                    status,
                    "{}",
                    refusal.message
                );
            }
            _ => tracing::info!(event = "publish.reject", code = refusal.code, status),
        }
    }

    pub(crate) fn refuse(&self, refusal: &Refusal) -> Response {
        self.inner.metrics.rejected_connections.inc();
        tracing::info!(event = "stream.reject", code = refusal.code, status = refusal.status.as_u16());
        axum::response::IntoResponse::into_response(refusal.clone())
    }

    /// Streams that are open now.
    #[must_use]
    pub fn active_streams(&self) -> usize {
        self.inner.registry.len()
    }

    /// The streams that are open now, in no order.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.inner.registry.all().iter().map(|entry| entry.info()).collect()
    }

    /// How many streams of this process listen to a channel. Other servers on the same log count theirs: how many there
    /// are in all is the sum, which nobody here knows.
    #[must_use]
    pub fn session_count(&self, channel: &str) -> usize {
        self.inner.registry.count(channel)
    }

    /// Channels that a stream of this process listens to. One that was left by all is not counted, nor kept.
    #[must_use]
    pub fn active_channels(&self) -> usize {
        self.inner.registry.rooms()
    }

    /// An open stream, to speak to.
    #[must_use]
    pub fn find(&self, stream_id: &str) -> Option<StreamHandle> {
        let entry = self.inner.registry.get(stream_id)?;
        Some(StreamHandle { hub: Arc::clone(&self.inner), entry })
    }

    /// Sends an event to one stream alone: see [`StreamHandle::send`].
    ///
    /// # Errors
    /// [`SendError::Closed`] where there is no such stream, and as [`StreamHandle::send`].
    pub fn send_to(&self, stream_id: &str, message: Message) -> Result<(), SendError> {
        self.find(stream_id).ok_or(SendError::Closed)?.send(message)
    }

    /// Closes a stream. False where there is none of this id. A client that does not read hears of it when it
    /// does; a [`Listener`](super::Listener) cuts it after [`ListenOptions::write_ms_max`](super::ListenOptions::write_ms_max).
    pub fn kick(&self, stream_id: &str, reason: CloseReason) -> bool {
        self.find(stream_id).is_some_and(|stream| stream.close(reason).is_ok())
    }

    /// Closes all streams of an identity; answers how many.
    pub fn kick_identity(&self, name: &str, reason: CloseReason) -> usize {
        let all = self.inner.registry.all().into_iter();
        let own = all.filter(|entry| entry.identity.as_deref() == Some(name));
        own.filter(|entry| entry.order(Order::Close(reason), 0).is_ok()).count()
    }

    /// Says goodbye to all streams and waits until they are closed, at most for `within`.
    ///
    /// From now on new streams are refused with 503. Each open one is closed at a random moment of the first
    /// four fifths of `within`, after a `retry:` of its own and `control.close`, so that the clients do not come back all
    /// at once.
    pub async fn drain(&self, within: Duration) {
        let drain = Drain { from: Instant::now(), spread: within.mul_f64(0.8) };
        self.inner.drain.send_replace(Some(drain));
        let all_closed = async {
            let poll = Duration::from_millis(10);
            while self.active_streams() > 0 {
                tokio::time::sleep(poll).await;
            }
        };
        let _ = tokio::time::timeout(within, all_closed).await;
    }
}

impl Inner {
    /// How a place looks on the wire.
    pub(crate) fn id(&self, place: Place) -> String {
        let epoch = self.log.epoch(place.generation).unwrap_or_else(|| "0".into());
        format!("{epoch}-{}", place.sequence)
    }

    /// The channel of a request that names none.
    pub(crate) fn default_channel(&self) -> Result<&str, Refusal> {
        self.options.default_channel.as_deref().ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "no_default_channel",
                "name a channel: /stream/{channel} (StreamOptions::default_channel sets one for requests without)",
            )
        })
    }

    /// Whether what a client missed can be had by coming back with a cursor.
    pub(crate) fn replayable(&self) -> bool {
        self.options.resume && self.log.replays()
    }

    pub(crate) fn draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    pub(crate) fn stopping(&self) -> Refusal {
        Refusal::unavailable("server_shutdown", "the server is stopping", self.options.retry_ms)
    }

    /// Channels that one stream may have: a cursor has no room for more of them.
    pub(crate) fn channels_max(&self) -> usize {
        self.options.channels_per_stream_max.min(CURSOR_CHANNELS_MAX)
    }
}

/// One open stream's place. Giving it back is counted once, whichever way the stream ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<Inner>,
    entry: Arc<Entry>,
    /// Why the stream ended; until someone says otherwise, the client went away, or whatever its connection tells.
    pub(crate) reason: CloseReason,
}

impl Ticket {
    pub(crate) fn new(hub: Arc<Inner>, entry: Arc<Entry>) -> Self {
        Self { hub, entry, reason: CloseReason::ClientClose }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let reason = match self.reason {
            CloseReason::ClientClose => self.entry.lost(),
            told => told,
        };
        self.hub.registry.remove(&self.entry);
        self.hub.metrics.active_streams.dec();
        Metrics::count(&self.hub.metrics.disconnects, reason.as_str());
        tracing::info!(event = "stream.close", stream_id = &*self.entry.id, reason = reason.as_str());
        if let Some(on_disconnect) = &self.hub.hooks.on_disconnect {
            on_disconnect(&self.entry.info(), reason);
        }
    }
}
