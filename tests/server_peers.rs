//! What peers may keep waiting, and how their going is told: a listener in this process, real sockets.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::time::Duration;

use holdfast_sse::server::{
    CloseReason, Hub, ListenOptions, Listener, MemoryLog, Message, StreamOptions, Tls,
};
use http_body_util::BodyExt;
use server_support::sockets::{ask_http2, certificate, http2, http2_with_window, open_stream};
use server_support::{Reader, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A listener in this process.
struct Own {
    hub: Hub,
    address: String,
    stop: tokio::sync::oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Own {
    async fn start(options: ListenOptions, tls: Option<Tls>) -> Self {
        // What is sent waits with the peer, and not in the system.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(16 << 10).expect("smaller");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let mut listener = Listener::new(socket.listen(64).expect("a listener"), options);
        if let Some(tls) = tls {
            listener = listener.tls(tls);
        }
        let options = StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() };
        let hub = Hub::new(std::sync::Arc::new(MemoryLog::new(Default::default())), options);
        let address = listener.local_addr().expect("an address").to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(listener.serve(hub.router(), async {
            let _ = stopped.await;
        }));
        Self { hub, address, stop, serving }
    }

    async fn connect(&self) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("smaller");
        socket.connect(self.address.parse().expect("an address")).await.expect("a connection")
    }

    async fn publish(&self, bytes: usize, count: usize) {
        for _ in 0..count {
            let message = Message::text("n", "x".repeat(bytes));
            self.hub.channel("a").publish(message).await.expect("published");
        }
    }

    /// Waits until as many streams are open.
    async fn open_are(&self, count: usize) {
        let all = async {
            while self.hub.active_streams() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), all).await;
        assert!(waited.is_ok(), "{} are open", self.hub.active_streams());
    }

    /// How many streams ended for this reason.
    async fn ended(&self, reason: CloseReason) -> usize {
        use tower::ServiceExt;
        let answer = self.hub.router().oneshot(get("/metrics")).await.expect("an answer");
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        let name = format!("sse_server_disconnects_total{{reason=\"{reason}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().expect("a number"))
    }
}

// A peer that begins HTTP/2 and asks for nothing keeps no socket, and holds up no end.
#[tokio::test]
async fn a_peer_that_only_begins_is_let_go() {
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let peers = [b"PRI".as_slice(), b"PRI * HTTP/2.0\r\n", &opening, b"PR", b""];
    let begin = async |own: &Own| {
        let mut sockets = Vec::new();
        for bytes in peers {
            let mut socket = own.connect().await;
            socket.write_all(bytes).await.expect("sent");
            sockets.push(socket);
        }
        sockets
    };
    let end = async |sockets: Vec<TcpStream>| {
        for (mut socket, bytes) in sockets.into_iter().zip(peers) {
            let mut rest = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest));
            assert!(read.await.is_ok(), "held: {:?}", String::from_utf8_lossy(bytes));
        }
    };
    let own = Own::start(ListenOptions { head_ms_max: 300, ..ListenOptions::default() }, None).await;
    end(begin(&own).await).await;
    let own = Own::start(ListenOptions { head_ms_max: 600_000, ..ListenOptions::default() }, None).await;
    let sockets = begin(&own).await;
    // They are known once one that came later is answered.
    open_stream(&own.address, "connection: close\r\n").await;
    let _ = own.stop.send(());
    tokio::time::timeout(Duration::from_secs(20), own.serving).await.expect("soon").expect("no panic");
    end(sockets).await;
}

// RFC 9112 section 9.6
#[tokio::test]
async fn a_connection_ends_behind_a_stream_where_the_client_asked_for_that() {
    let own = Own::start(ListenOptions::default(), None).await;
    for headers in ["connection: close\r\n", "connection: x, Close\r\n"] {
        let mut socket = open_stream(&own.address, headers).await;
        own.hub.kick(&own.hub.streams()[0].id, CloseReason::StreamEnded);
        let mut text = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut text)).await;
        end.expect("the end").expect("in order");
        assert!(text.ends_with(b"\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&text));
        own.open_are(0).await;
    }
}

#[tokio::test]
async fn a_socket_too_many_hears_503() {
    let own = Own::start(ListenOptions { sockets_max: 1, ..ListenOptions::default() }, None).await;
    let held = open_stream(&own.address, "").await;
    for request in ["", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"].repeat(20) {
        let mut socket = TcpStream::connect(&own.address).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
    drop(held);
    own.open_are(0).await;
    open_stream(&own.address, "").await;
}

// K22: whoever reads nothing has its stream's place for the write timeout, whatever carries it; others go on.
#[tokio::test]
async fn stuck_streams_give_their_places_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = ListenOptions { write_ms_max: 500, ..ListenOptions::default() };
    for alpn in [None, Some("http/1.1"), Some("h2")] {
        let trust = alpn.map(|alpn| certificate(dir.path(), alpn));
        let files = || Tls::from_files(dir.path().join("cert.pem"), dir.path().join("key.pem")).expect("TLS");
        let own = Own::start(options.clone(), alpn.map(|_| files())).await;
        let tls = async |tcp| match &trust {
            Some(trust) => trust.connect("localhost".try_into().expect("a name"), tcp).await.expect("TLS"),
            None => unreachable!("plain"),
        };
        // Over HTTP/2 the window is closed from the beginning, over HTTP/1.1 it is full after some events.
        let mut sockets: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
        let mut sender = match alpn {
            Some("h2") => Some(http2_with_window(tls(own.connect().await).await, 0).await),
            None => Some(http2_with_window(own.connect().await, 0).await),
            Some(_) => None,
        };
        let mut open = async |own: &Own, count: usize| {
            for _ in 0..count {
                match &mut sender {
                    Some(sender) => sockets.push(Box::new(ask_http2(sender, "localhost", "/stream/a").await)),
                    None => {
                        let mut socket = tls(own.connect().await).await;
                        let head = b"GET /stream/a HTTP/1.1\r\nhost: x\r\n\r\n";
                        socket.write_all(head).await.expect("sent");
                        socket.flush().await.expect("sent");
                        sockets.push(Box::new(socket));
                    }
                }
            }
            own.open_are(count).await;
            own.publish(100_000, 3).await;
        };
        open(&own, 20).await;
        own.open_are(0).await;
        assert_eq!(own.ended(CloseReason::ClientTimeout).await, 20, "{alpn:?}");
        // An order waits for no longer than that.
        open(&own, 2).await;
        for stream in own.hub.streams() {
            assert!(own.hub.kick(&stream.id, CloseReason::RateLimited));
        }
        own.open_are(0).await;
        open(&own, 2).await;
        let begun = std::time::Instant::now();
        own.hub.drain(Duration::from_secs(60)).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "{alpn:?}: {:?}", begun.elapsed());
        assert_eq!(own.hub.active_streams(), 0);
        let _ = own.stop.send(());
        tokio::time::timeout(Duration::from_secs(20), own.serving).await.expect("soon").expect("no panic");
    }
}

// The timeout is one of taking nothing: a slow reader is not stuck, nor is one to whom nothing is sent.
#[tokio::test]
async fn slow_readers_are_not_cut() {
    const BYTES: usize = 300_000;
    let write_ms_max = 2_000;
    let own = Own::start(ListenOptions { write_ms_max, ..ListenOptions::default() }, None).await;
    let begun = std::time::Instant::now();
    let request = server_support::send(&own.address, get("/stream/other"));
    let mut idle = Reader::new(request.await.expect("an answer"));
    idle.named("control.open").await;
    let idle_http2 = {
        let mut sender = http2(own.connect().await).await;
        let mut reader = Reader::new(ask_http2(&mut sender, "x", "/stream/other").await);
        reader.named("control.open").await;
        (sender, reader)
    };
    let mut slow = own.connect().await;
    slow.write_all(b"GET /stream/a HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut sender = http2_with_window(own.connect().await, 1024).await;
    let mut slow_http2 = ask_http2(&mut sender, "x", "/stream/a").await.into_body();
    own.open_are(4).await;
    // The second one waits behind the first, longer than the timeout.
    own.publish(BYTES, 2).await;
    let over_http1 = async {
        let (mut read, mut bytes) = (0, [0; 4096]);
        while read < 2 * BYTES {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let count = slow.read(&mut bytes).await.expect("not cut");
            assert!(count > 0, "ended after {read}");
            read += count;
        }
    };
    let over_http2 = async {
        let mut read = 0;
        while read < 2 * BYTES {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let frame = slow_http2.frame().await.expect("not the end").expect("not cut");
            read += frame.into_data().expect("data").len();
        }
    };
    tokio::join!(over_http1, over_http2);
    assert!(begun.elapsed() > Duration::from_millis(write_ms_max), "faster than the timeout shows nothing");
    own.open_are(4).await;
    assert_eq!(own.ended(CloseReason::ClientTimeout).await, 0);
    drop((idle, idle_http2));
}

// K22: who hangs up and who is cut are not the same.
#[tokio::test]
async fn the_way_a_client_goes_is_its_reason() {
    let own = Own::start(ListenOptions::default(), None).await;
    let mut socket = open_stream(&own.address, "").await;
    socket.shutdown().await.expect("hung up");
    own.open_are(0).await;
    assert_eq!(own.ended(CloseReason::ClientClose).await, 1);
    let socket = open_stream(&own.address, "").await;
    // No time to linger: the connection is reset.
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("set");
    drop(socket);
    own.open_are(0).await;
    assert_eq!(own.ended(CloseReason::ClientAbort).await, 1);
    let mut sender = http2(own.connect().await).await;
    let answer = ask_http2(&mut sender, "x", "/stream/a").await;
    own.open_are(1).await;
    drop(answer);
    own.open_are(0).await;
    assert_eq!(own.ended(CloseReason::ClientClose).await, 2, "RST_STREAM is how HTTP/2 hangs up");
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let trust = certificate(dir.path(), "h2");
    let tls = Tls::from_files(dir.path().join("cert.pem"), dir.path().join("key.pem")).expect("TLS");
    let own =
        Own::start(ListenOptions { handshake_ms_max: 400, ..ListenOptions::default() }, Some(tls)).await;
    // A record of 512 bytes is announced; it never comes, or byte by byte.
    for drip in [false, true] {
        let mut socket = own.connect().await;
        socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("sent");
        let cut = async {
            let mut byte = [0];
            loop {
                tokio::select! {
                    read = socket.read(&mut byte) => break read.unwrap_or(0),
                    () = tokio::time::sleep(Duration::from_millis(50)), if drip => {
                        let _ = socket.write_all(&[0]).await;
                    }
                }
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), cut).await, Ok(0), "drip: {drip}");
    }
    let tcp = own.connect().await;
    assert!(trust.connect("localhost".try_into().expect("a name"), tcp).await.is_ok());
}

// A connection that carried a stream to its end takes the next request.
#[tokio::test]
async fn a_connection_goes_on_after_a_stream() {
    let Own { hub, address, stop, serving } = Own::start(ListenOptions::default(), None).await;
    let mut socket = open_stream(&address, "").await;
    for stream in hub.streams() {
        assert_eq!(
            stream.peer.map(|peer| peer.to_string()),
            socket.local_addr().map(|a| a.ip().to_string()).ok()
        );
        assert!(hub.kick(&stream.id, CloseReason::StreamEnded));
    }
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n0\r\n\r\n") {
        assert!(socket.read_buf(&mut text).await.expect("more") > 0, "{}", String::from_utf8_lossy(&text));
    }
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    text.clear();
    while !text.ends_with(b"}") {
        assert!(socket.read_buf(&mut text).await.expect("more") > 0);
    }
    assert!(text.starts_with(b"HTTP/1.1 200"));
    // Stopped, it lets go of connections that do nothing, and returns.
    let _ = stop.send(());
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("soon").expect("no panic");
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
