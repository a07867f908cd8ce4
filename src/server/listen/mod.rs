//! The listener: HTTP/1.1 and HTTP/2 on one port, with limits on what a peer may keep waiting or make us keep.
//!
//! `axum::serve` has neither time limits nor TLS and keeps large buffers for each connection; streams are many, long
//! and mostly idle. Any [`Router`] can be served, not only a hub's:
//!
//! ```no_run
//! use holdfast_sse::server::{ListenOptions, Listener, Tls};
//!
//! # async fn run(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
//! let listener = Listener::bind("0.0.0.0:443", ListenOptions::default())
//!     .await?
//!     .tls(Tls::from_files("cert.pem", "key.pem")?);
//! listener.serve(app, async { let _ = tokio::signal::ctrl_c().await; }).await;
//! # Ok(())
//! # }
//! ```
//!
//! Without TLS, HTTP/2 is spoken with clients that begin with it (h2c with prior knowledge, RFC 9113 section 3.3): proxies
//! and other servers. Browsers speak HTTP/2 over TLS only, which they agree on by ALPN.

mod body;
mod connection;
mod handover;
mod http2;
mod places;
mod socket;
mod tls;

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::connection::{Shared, Stop};
use self::places::Places;
use self::socket::Socket;

pub use self::tls::{Tls, TlsError};

/// Limits of a [`Listener`]. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// Sockets that are open at the same time; further ones hear 503 (without TLS) and are closed. Default 16,384.
    pub sockets_max: usize,
    /// The same for each address (IPv6: for each /64); 0, the default, for no limit. Behind a proxy all have its address.
    pub sockets_per_address_max: usize,
    /// Time for a TLS handshake. Default 10,000.
    pub handshake_ms_max: u64,
    /// Time for the head of a request. It runs from the opening of a connection and, in HTTP/1.1, from the end of the
    /// answer before: so long an idle connection is kept. In HTTP/2 it runs until the first request. Default 30,000.
    pub head_ms_max: u64,
    /// Bytes of a request's head: line and headers. More is answered with 431. Default 16,384.
    pub head_bytes_max: usize,
    /// Header lines of a request in HTTP/1.1. More is answered with 431. Default 100.
    pub head_lines_max: usize,
    /// Time for the whole body of a request, from the moment that its handler reads it. Default 60,000.
    pub body_ms_max: u64,
    /// How long a peer may take nothing of what is sent to it; then it is cut. In HTTP/2 this goes for each stream, and means
    /// 8 KiB of it, or what it has less: one that is not read is reset, whatever the rest of its connection does. Default 30,000.
    pub write_ms_max: u64,
    /// Streams of one HTTP/2 connection at the same time. Default 256.
    pub http2_streams_max: u32,
    /// How much of a request's body may be on its way in each HTTP/2 stream, in bytes; four times as much in a whole
    /// connection. Default 65,535.
    pub http2_window_bytes: u32,
    /// Bytes that one HTTP/2 stream holds ready beyond what its client has asked for. Default 16,384.
    pub http2_send_bytes_max: usize,
    /// Between two pings on an HTTP/2 connection, and time for the answer. Default 30,000.
    pub http2_ping_ms: u64,
    /// How long an HTTP/2 connection without a stream is kept, up to twice as much. Default 60,000.
    pub http2_idle_ms_max: u64,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            sockets_max: 16_384,
            sockets_per_address_max: 0,
            handshake_ms_max: 10_000,
            head_ms_max: 30_000,
            head_bytes_max: 16_384,
            head_lines_max: 100,
            body_ms_max: 60_000,
            write_ms_max: 30_000,
            http2_streams_max: 256,
            http2_window_bytes: 65_535,
            http2_send_bytes_max: 16_384,
            http2_ping_ms: 30_000,
            http2_idle_ms_max: 60_000,
        }
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// When a silent peer is first asked by TCP whether it is there, and how often it may fail to answer.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_RETRIES: u32 = 4;
/// How long accepting rests when the system has no more sockets: one that closes makes room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a peer over the limit hears, where it is not TLS.
const OVERLOAD: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How many hear it at the same time, and how long they have to hang up; the others are cut.
const TURNED_AWAY_MAX: usize = 64;
const TURN_AWAY: Duration = Duration::from_secs(1);

/// A port, and how it is served. See the [module](self).
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    options: ListenOptions,
    tls: Option<Tls>,
}

impl Listener {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the operating system refuses each of the addresses that the name stands for.
    pub async fn bind(address: impl ToSocketAddrs, options: ListenOptions) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::InvalidInput, "the name stands for no address");
        for address in tokio::net::lookup_host(address).await? {
            match bind(address) {
                Ok(tcp) => return Ok(Self::new(tcp, options)),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Takes a socket that listens already.
    #[must_use]
    pub fn new(tcp: TcpListener, options: ListenOptions) -> Self {
        Self { tcp, options, tls: None }
    }

    /// Speaks TLS on this port, and nothing else.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves `router` until `stop` resolves; then accepts no more, lets each connection finish what it is answering
    /// and returns when all are closed. Dropping the future cuts them.
    ///
    /// Requests carry the peer as [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo). Streams do not finish on their own:
    /// call [`Hub::drain`](crate::server::Hub::drain) before, while newcomers still hear why they are refused.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let places = Places::new(self.options.sockets_max, self.options.sockets_per_address_max);
        let write_timeout = Duration::from_millis(self.options.write_ms_max);
        let plain = self.tls.is_none();
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let router = router.with_state(());
        let shared = Arc::new(Shared { router, options: self.options, tls: self.tls });
        let (stopping, told) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let (tcp, peer) = tokio::select! {
                () = stop.as_mut() => break,
                // Otherwise what each connection came to would be kept.
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.tcp) => accepted,
            };
            let Some(place) = places.take(peer.ip()) else {
                tracing::warn!(event = "connection.reject", peer = %peer, "too many sockets");
                if plain && let Ok(waiting) = Arc::clone(&turned_away).try_acquire_owned() {
                    connections.spawn(async move {
                        turn_away(tcp).await;
                        drop(waiting);
                    });
                }
                continue;
            };
            prepare(&tcp, write_timeout);
            let served = connection::serve(
                Arc::clone(&shared),
                Socket::new(Arc::new(tcp), write_timeout),
                peer,
                Stop(told.clone()),
            );
            connections.spawn(async move {
                served.await;
                drop(place);
            });
        }
        drop(self.tcp);
        stopping.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = socket2::Type::STREAM;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
    // A restart must not wait for connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection, whatever it takes: a listener that gave up would be a server that is gone.
async fn accept(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok(accepted) => return accepted,
            // The peer went away again while it was waiting.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                tracing::error!(event = "accept.failed", %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says that there is no room. What the peer sends is read and forgotten: closing a socket with something unread resets it,
/// and the reset can overtake the answer.
async fn turn_away(mut tcp: TcpStream) {
    let socket = SockRef::from(&tcp);
    // A fresh socket has room for a line.
    let _ = socket.send(OVERLOAD);
    let _ = socket.shutdown(Shutdown::Write);
    let mut bytes = [0; 512];
    let read_all = async { while tcp.read(&mut bytes).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(TURN_AWAY, read_all).await;
}

fn prepare(tcp: &TcpStream, write_timeout: Duration) {
    // Events are small and written as they come: waiting to fill a packet would only delay them.
    let _ = tcp.set_nodelay(true);
    let socket = SockRef::from(tcp);
    // A peer that vanished answers nothing: by the first, one is found to whom nothing is sent; by the second, one that
    // does not confirm what was sent (RFC 5482).
    let _ = socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES),
    );
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}
