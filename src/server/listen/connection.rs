//! One connection, from its first byte to its last: HTTP/1.1 or HTTP/2, with or without TLS.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};

use super::ListenOptions;
use super::body::TimedBody;
use super::socket::Socket;
use super::tls::Tls;

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
pub(super) async fn serve(shared: Arc<Shared>, mut socket: Socket, peer: SocketAddr, stop: Stop) {
    let options = &shared.options;
    match &shared.tls {
        Some(tls) => {
            let handshake = tls.acceptor().accept(socket);
            let Ok(Ok(stream)) = timeout(ms(options.handshake_ms_max), handshake).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(&shared, stream, http2, peer, stop).await;
        }
        None => {
            let first = timeout(ms(options.head_ms_max), socket.speaks_http2()).await;
            let Ok(Ok(http2)) = first else { return };
            speak(&shared, socket, http2, peer, stop).await;
        }
    }
}

async fn speak<I>(shared: &Arc<Shared>, io: I, http2: bool, peer: SocketAddr, stop: Stop)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if http2 {
        // Much larger than the other, whose connections are many and hold one stream each.
        Box::pin(speak_http2(shared, io, peer, stop)).await;
    } else {
        speak_http1(shared, io, peer, stop).await;
    }
}

async fn speak_http1<I>(shared: &Arc<Shared>, io: I, peer: SocketAddr, mut stop: Stop)
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
    let service = {
        let shared = Arc::clone(shared);
        service_fn(move |request| shared.answer(request, peer))
    };
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.told() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
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
