//! One connection, from its first byte to its last: HTTP/1.1 or HTTP/2, with or without TLS.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper::{Method, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};

use super::ListenOptions;
use super::body::TimedBody;
use super::handover::{self, Handover, Noted};
use super::socket::Socket;
use super::tls::Tls;
use crate::server::lane::{Lane, LaneOffer};

/// The least that hyper takes.
const HYPER_BUFFER_BYTES_MIN: usize = 8192;

/// What the connections of one listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) options: ListenOptions,
    pub(super) tls: Option<Tls>,
}

/// Serves a connection until it ends. Whatever goes wrong concerns this peer only.
///
/// Tasks are as many as streams: what is large, rare or soon over stands in boxes of its own.
pub(super) async fn serve(shared: Arc<Shared>, mut socket: Socket, peer: SocketAddr, stop: Stop) {
    if shared.tls.is_some() {
        return Box::pin(serve_tls(shared, socket, peer, stop)).await;
    }
    let first = Box::pin(timeout(ms(shared.options.head_ms_max), socket.speaks_http2())).await;
    match first {
        Ok(Ok(true)) => Box::pin(speak_http2(&shared, socket, peer, stop)).await,
        Ok(Ok(false)) => {
            let lane = Arc::new(Lane::new(socket.tcp()));
            speak_http1(&shared, socket, peer, stop, Some(lane)).await;
        }
        _ => {}
    }
}

async fn serve_tls(shared: Arc<Shared>, socket: Socket, peer: SocketAddr, stop: Stop) {
    let Some(tls) = &shared.tls else { return };
    let handshake = Box::pin(tls.acceptor().accept(socket));
    let Ok(Ok(stream)) = timeout(ms(shared.options.handshake_ms_max), handshake).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(speak_http2(&shared, stream, peer, stop)).await;
    } else {
        // What goes out is not what a stream says.
        speak_http1(&shared, stream, peer, stop, None).await;
    }
}

async fn speak_http1<I>(
    shared: &Arc<Shared>,
    mut io: I,
    peer: SocketAddr,
    stop: Stop,
    lane: Option<Arc<Lane>>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let requests = Box::pin(speak_http1_until_stream(shared, io, peer, stop.clone(), lane.as_ref()));
        let Some((back, body, quiet)) = requests.await else { return };
        io = back;
        if !matches!(handover::run(&mut io, body, quiet, lane.as_deref()).await, Ok(true)) || stop.is_told() {
            let _ = io.shutdown().await;
            return;
        }
    }
}

/// Answers requests; ends with the connection, or gives it back with a stream whose head has been sent, and whether the
/// peer has sent nothing behind its request.
async fn speak_http1_until_stream<I>(
    shared: &Arc<Shared>,
    io: I,
    peer: SocketAddr,
    mut stop: Stop,
    lane: Option<&Arc<Lane>>,
) -> Option<(I, Body, bool)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = &shared.options;
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(ms(options.head_ms_max))
        .max_headers(options.head_lines_max)
        .max_header_size(options.head_bytes_max)
        .max_buf_size(options.head_bytes_max.max(HYPER_BUFFER_BYTES_MIN));
    let handover = Arc::new(Handover::default());
    let service = {
        let (shared, handover) = (Arc::clone(shared), Arc::clone(&handover));
        let offer = lane.map(|lane| LaneOffer(Arc::downgrade(lane)));
        service_fn(move |mut request: Request<Incoming>| {
            // Of anything else hyper still has something to read or to leave out.
            let plain = request.version() == Version::HTTP_11
                && request.method() == Method::GET
                && request.body().is_end_stream();
            if let Some(offer) = offer.clone().filter(|_| plain) {
                request.extensions_mut().insert(offer);
            }
            let (answer, handover) = (shared.answer(request, peer), Arc::clone(&handover));
            async move { answer.await.map(|response| handover.offer(plain, response)) }
        })
    };
    let io = TokioIo::new(Noted { io, handover: Arc::clone(&handover) });
    let mut connection = http.serve_connection(io, service).with_upgrades();
    let mut told = pin!(stop.told());
    let mut stopping = false;
    let body = poll_fn(|cx| {
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if let Some(body) = handover.take() {
            return Poll::Ready(Some(body));
        }
        if !stopping && told.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
            // It may have nothing to finish.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    let body = body.await?;
    let parts = connection.into_parts()?;
    Some((parts.io.into_inner().io, body, parts.read_buf.is_empty()))
}

async fn speak_http2<I>(shared: &Arc<Shared>, io: I, peer: SocketAddr, mut stop: Stop)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = &shared.options;
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(options.http2_streams_max)
        .max_header_list_size(u32::try_from(options.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(options.http2_window_bytes)
        .initial_connection_window_size(options.http2_window_bytes.saturating_mul(4))
        .max_send_buf_size(options.http2_send_bytes_max)
        .keep_alive_interval(ms(options.http2_ping_ms))
        .keep_alive_timeout(ms(options.http2_ping_ms));
    let open = Arc::new(Open::default());
    let service = {
        let (shared, open) = (Arc::clone(shared), Arc::clone(&open));
        service_fn(move |request| {
            let one = open.begin();
            let answer = shared.answer(request, peer);
            async move { answer.await.map(|response| response.map(|body| Counted { body, _one: one })) }
        })
    };
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.told() => {}
        () = open.idle(ms(options.http2_idle_ms_max)) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

impl Shared {
    /// What the router answers, told who asks.
    fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let mut request = request.map(|body| Body::new(TimedBody::new(body, ms(self.options.body_ms_max))));
        request.extensions_mut().insert(ConnectInfo(peer));
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

type Answer = <TowerToHyperService<Router> as Service<Request>>::Future;

/// Resolves once the listener stops.
#[derive(Debug, Clone)]
pub(super) struct Stop(pub(super) watch::Receiver<bool>);

impl Stop {
    async fn told(&mut self) {
        // A listener that is gone has stopped, too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    fn is_told(&self) -> bool {
        *self.0.borrow()
    }
}

/// The requests of one connection whose answers are not at their ends.
#[derive(Debug, Default)]
struct Open {
    now: AtomicUsize,
    begun: AtomicUsize,
}

impl Open {
    fn begin(self: &Arc<Self>) -> One {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
        One(Arc::clone(self))
    }

    /// Resolves when nothing was asked or answered for one to two times `within`.
    async fn idle(&self, within: Duration) {
        let mut before = None;
        loop {
            let begun = (self.now.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed));
            if begun.is_some() && begun == before {
                return;
            }
            before = begun;
            sleep(within).await;
        }
    }
}

#[derive(Debug)]
struct One(Arc<Open>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that counts as open until it is dropped.
#[derive(Debug)]
struct Counted {
    body: Body,
    _one: One,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
