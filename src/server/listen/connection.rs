//! One connection, from its first byte to its last: HTTP/1.1 or HTTP/2, with or without TLS.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderMap};
use hyper::service::{Service, service_fn};
use hyper::{Method, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};

use super::ListenOptions;
use super::body::TimedBody;
use super::handover::{self, Handover, Noted};
use super::http2;
use super::socket::Socket;
use super::tls::Tls;
use crate::server::fate::{Carried, Fate};
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
    let fate = Arc::clone(socket.fate());
    match Box::pin(first_bytes(&shared, &mut socket, stop.clone())).await {
        Some(true) => Box::pin(http2::speak(&shared, socket, peer, stop, fate)).await,
        Some(false) => {
            let lane = Arc::new(Lane::new(socket.tcp(), Arc::clone(&fate)));
            speak_http1(&shared, socket, peer, stop, fate, Some(lane)).await;
        }
        None => {}
    }
}

/// Whether they are HTTP/2's; nothing where they do not come in time.
async fn first_bytes(shared: &Shared, socket: &mut Socket, mut stop: Stop) -> Option<bool> {
    tokio::select! {
        first = timeout(ms(shared.options.head_ms_max), socket.speaks_http2()) => first.ok()?.ok(),
        () = stop.told() => None,
    }
}

async fn serve_tls(shared: Arc<Shared>, socket: Socket, peer: SocketAddr, stop: Stop) {
    let Some(tls) = &shared.tls else { return };
    let fate = Arc::clone(socket.fate());
    let handshake = Box::pin(tls.acceptor().accept(socket));
    let Ok(Ok(stream)) = timeout(ms(shared.options.handshake_ms_max), handshake).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(http2::speak(&shared, stream, peer, stop, fate)).await;
    } else {
        // What goes out is not what a stream says.
        speak_http1(&shared, stream, peer, stop, fate, None).await;
    }
}

async fn speak_http1<I>(
    shared: &Arc<Shared>,
    mut io: I,
    peer: SocketAddr,
    stop: Stop,
    fate: Arc<Fate>,
    lane: Option<Arc<Lane>>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let requests =
            Box::pin(speak_http1_until_stream(shared, io, peer, stop.clone(), &fate, lane.as_ref()));
        let Some(taken) = requests.await else { return };
        io = taken.io;
        let whole = handover::run(&mut io, taken.body, taken.quiet, lane.as_deref()).await;
        if let Some(lane) = &lane {
            lane.end();
        }
        if !matches!(whole, Ok(true)) || taken.last || stop.is_told() {
            let _ = io.shutdown().await;
            return;
        }
    }
}

/// A connection with a stream whose head has been sent.
struct Taken<I> {
    io: I,
    body: Body,
    /// The peer has sent nothing behind its request.
    quiet: bool,
    /// The peer asked for the connection's end behind it (RFC 9112 section 9.6).
    last: bool,
}

/// Answers requests; ends with the connection, or gives it back with a stream.
async fn speak_http1_until_stream<I>(
    shared: &Arc<Shared>,
    io: I,
    peer: SocketAddr,
    mut stop: Stop,
    fate: &Arc<Fate>,
    lane: Option<&Arc<Lane>>,
) -> Option<Taken<I>>
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
    let last = Arc::new(AtomicBool::new(false));
    let service = {
        let (shared, handover) = (Arc::clone(shared), Arc::clone(&handover));
        let lane = lane.map(Arc::downgrade);
        let (last, fate) = (Arc::clone(&last), Arc::clone(fate));
        service_fn(move |mut request: Request<Incoming>| {
            // Of anything else hyper still has something to read or to leave out.
            let plain = request.version() == Version::HTTP_11
                && request.method() == Method::GET
                && request.body().is_end_stream();
            if let Some(lane) = lane.clone().filter(|_| plain) {
                request.extensions_mut().insert(LaneOffer::new(lane));
            }
            last.store(asks_for_close(request.headers()), Ordering::Relaxed);
            let (answer, handover) = (shared.answer(request, peer), Arc::clone(&handover));
            let fate = Arc::clone(&fate);
            async move {
                answer.await.map(|mut response| {
                    if let Some(carried) = response.extensions_mut().remove::<Carried>() {
                        carried.by(&fate);
                    }
                    handover.offer(plain, response)
                })
            }
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
    let (quiet, last) = (parts.read_buf.is_empty(), last.load(Ordering::Relaxed));
    Some(Taken { io: parts.io.into_inner().io, body, quiet, last })
}

fn asks_for_close(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

impl Shared {
    /// What the router answers, told who asks.
    pub(super) fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let mut request = request.map(|body| Body::new(TimedBody::new(body, ms(self.options.body_ms_max))));
        request.extensions_mut().insert(ConnectInfo(peer));
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

pub(super) type Answer = <TowerToHyperService<Router> as Service<Request>>::Future;

/// Resolves once the listener stops.
#[derive(Debug, Clone)]
pub(super) struct Stop(pub(super) watch::Receiver<bool>);

impl Stop {
    pub(super) async fn told(&mut self) {
        // A listener that is gone has stopped, too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    fn is_told(&self) -> bool {
        *self.0.borrow()
    }
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
