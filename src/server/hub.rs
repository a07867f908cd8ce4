//! The hub: a log, the streams that are open on it, and what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::answer::Refusal;
use super::faults::Faults;
use super::log::{EventLog, Place};
use super::metrics::Metrics;
use super::options::StreamOptions;
use super::publisher::Publisher;
use super::state::States;
use super::{request, routes, stream};

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
    pub(crate) states: States,
    active: AtomicUsize,
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
        let faults = options.debug_routes.then(Faults::default);
        let inner = Inner {
            log,
            options,
            metrics: Metrics::new(),
            faults,
            drain: watch::Sender::new(None),
            states: States::default(),
            active: AtomicUsize::new(0),
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

    /// Answers a request with the stream of a channel: for an app's own routes, behind its own authentication.
    /// Everything else that a stream takes (cursor, `from`, `last`) is read from the request.
    pub async fn stream(&self, channel: &str, request: &Parts) -> Response {
        let asked = match request::StreamRequest::read(request) {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(&refusal),
        };
        match stream::open(&self.inner, channel, asked).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        self.inner.metrics.rejected_connections.inc();
        tracing::info!(event = "stream.reject", code = refusal.code, status = refusal.status.as_u16());
        axum::response::IntoResponse::into_response(refusal.clone())
    }

    /// Streams that are open now.
    #[must_use]
    pub fn active_streams(&self) -> usize {
        self.inner.active.load(Ordering::Relaxed)
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

    pub(crate) fn draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Takes one of the places that `connections_max` allows.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Ticket, Refusal> {
        if self.draining() {
            let retry_ms = self.options.retry_ms;
            return Err(Refusal::unavailable("server_shutdown", "the server is stopping", retry_ms));
        }
        let max = self.options.connections_max;
        let take = |active: usize| (active < max).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| {
            let message = format!("{max} streams are open, which is the limit");
            Refusal::unavailable("overload_reject", message, self.options.retry_ms)
        })?;
        self.metrics.active_streams.inc();
        self.metrics.streams_opened.inc();
        Ok(Ticket { hub: Arc::clone(self), reason: "client_close" })
    }
}

/// One open stream's place. Giving it back is counted once, whichever way the stream ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<Inner>,
    /// Why the stream ended; until someone says otherwise, the client went away.
    pub(crate) reason: &'static str,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub.active.fetch_sub(1, Ordering::Relaxed);
        self.hub.metrics.active_streams.dec();
        Metrics::count(&self.hub.metrics.disconnects, self.reason);
    }
}
