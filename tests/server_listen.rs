//! The listener: protocols, limits, compression, and what a connection costs. Real processes, real sockets.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use server_support::{Reader, Server, get, publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const IDLE: usize = 2_000;

fn memory(dir: &Path) -> Command {
    let mut command = Server::command(dir);
    command.arg("--memory").env("MAX_CONNECTIONS", "10000");
    command
}

/// Opens a stream with the least of a client, and waits for its first bytes.
async fn open_stream(address: &str, headers: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let head = format!("GET /stream/a HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // The head, and something of the body.
    while answer.windows(4).position(|part| part == b"\r\n\r\n").is_none_or(|at| at + 40 > answer.len()) {
        let read = socket.read_buf(&mut answer).await.expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    socket
}

/// Memory that each of `count` idle streams keeps.
async fn cost_of_idle(count: usize, headers: &str, args: &[&str]) -> usize {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = memory(dir.path());
    command.args(args);
    let server = Server::start(command);
    // What the first ones make the server allocate for good is not theirs.
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open_stream(&server.address, headers).await);
    }
    let before = server.resident_bytes();
    for _ in 0..count {
        streams.push(open_stream(&server.address, headers).await);
    }
    let each = (server.resident_bytes() - before) / count;
    println!("an idle stream keeps {each} bytes resident ({headers:?})");
    each
}

#[tokio::test]
async fn an_idle_stream_keeps_little_memory() {
    let kib = 1 << 10;
    assert!(cost_of_idle(IDLE, "", &[]).await <= 12 * kib);
    // The figures of `StreamOptions::compress`.
    assert!(cost_of_idle(200, "accept-encoding: zstd\r\n", &["--compress"]).await <= 72 * kib);
    assert!(cost_of_idle(200, "accept-encoding: gzip\r\n", &["--compress"]).await <= 300 * kib);
}

/// A client of HTTP/2 over `io`.
async fn http2<I>(io: I) -> hyper::client::conn::http2::SendRequest<Body>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn ask_http2(
    sender: &mut hyper::client::conn::http2::SendRequest<Body>,
    authority: &str,
    path: &str,
) -> Response<Body> {
    let request = Request::get(format!("http://{authority}{path}")).body(Body::empty()).expect("a request");
    sender.send_request(request).await.expect("an answer").map(Body::new)
}

// More streams than a browser opens over HTTP/1.1, in one connection; heartbeats, too.
#[tokio::test]
async fn http2_carries_many_streams_on_the_same_port() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = memory(dir.path());
    command.env("SSE_HEARTBEAT_INTERVAL", "50");
    let server = Server::start(command);
    let mut sender = http2(TcpStream::connect(&server.address).await.expect("a connection")).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = Reader::new(ask_http2(&mut sender, &server.address, "/stream/a").await);
        reader.named("control.open").await;
        readers.push(reader);
    }
    server.json(publish("a", "secret", None, r#"{"data":"x"}"#)).await;
    for reader in &mut readers {
        assert_eq!(reader.event().await.expect("the event").data, "x");
        reader.named("system.heartbeat").await;
    }
}

// A connection that carried a stream to its end takes the next request.
#[tokio::test]
async fn a_connection_goes_on_after_a_stream() {
    use holdfast_sse::server::{CloseReason, Hub, ListenOptions, Listener, MemoryLog, StreamOptions};
    let hub = Hub::new(std::sync::Arc::new(MemoryLog::new(Default::default())), StreamOptions::default());
    let listener = Listener::bind("127.0.0.1:0", ListenOptions::default()).await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(hub.router(), async {
        let _ = stopped.await;
    }));
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

/// A certificate for localhost in two files, and what a client needs to trust it.
fn certificate(dir: &Path) -> tokio_rustls::TlsConnector {
    use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    std::sync::Arc::new(config).into()
}

#[tokio::test]
async fn tls_agrees_on_http2_and_takes_a_new_certificate_at_sighup() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = certificate(dir.path());
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut command = memory(dir.path());
    command.env("LOG_LEVEL", "info").stderr(log.reopen().expect("the file"));
    for (flag, file) in [("--tls-cert", "cert.pem"), ("--tls-key", "key.pem")] {
        command.arg(flag).arg(dir.path().join(file));
    }
    let server = Server::start(command);
    let connect = async |trust: &tokio_rustls::TlsConnector| {
        let tcp = TcpStream::connect(&server.address).await.expect("a connection");
        trust.connect("localhost".try_into().expect("a name"), tcp).await
    };
    let mut sender = http2(connect(&first).await.expect("TLS")).await;
    let mut reader = Reader::new(ask_http2(&mut sender, "localhost", "/stream/a").await);
    reader.named("control.open").await;

    let second = certificate(dir.path());
    assert!(connect(&second).await.is_err(), "the new certificate is not known yet");
    server.signal("-HUP");
    tokio::time::timeout(Duration::from_secs(30), async {
        while !std::fs::read_to_string(log.path()).expect("text").contains("tls.reloaded") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("reloaded");
    let mut sender = http2(connect(&second).await.expect("the new one")).await;
    assert_eq!(ask_http2(&mut sender, "localhost", "/health").await.status(), 200);

    // One that cannot be read changes nothing, and what was open goes on.
    std::fs::write(dir.path().join("cert.pem"), "no certificate").expect("written");
    server.signal("-HUP");
    tokio::time::timeout(Duration::from_secs(30), async {
        while !std::fs::read_to_string(log.path()).expect("text").contains("tls.failed") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("refused");
    assert!(connect(&second).await.is_ok());
    let body = Body::from(r#"{"data":"x"}"#);
    let publish = Request::post("http://localhost/publish/a").header("authorization", "Bearer secret");
    sender.send_request(publish.body(body).expect("a request")).await.expect("published");
    assert_eq!(reader.event().await.expect("the event").data, "x");
}

/// Undoes one coding, as far as the bytes go.
enum Decoder {
    Gzip(flate2::write::GzDecoder<Vec<u8>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    fn feed(&mut self, bytes: &[u8]) -> &[u8] {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(bytes).and_then(|()| decoder.flush()).expect("gzip");
                decoder.get_ref()
            }
            Self::Zstd(decoder) => {
                decoder.write_all(bytes).and_then(|()| decoder.flush()).expect("zstd");
                decoder.get_ref()
            }
        }
    }
}

// Each event is there at once; what is decompressed is what a plain stream says, byte for byte.
#[tokio::test]
async fn compressed_streams_are_flushed_at_every_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = memory(dir.path());
    command.arg("--compress").env("SSE_HEARTBEAT_INTERVAL", "0");
    let server = Server::start(command);
    for (channel, coding, mut decoder) in [
        ("g", "gzip", Decoder::Gzip(flate2::write::GzDecoder::new(Vec::new()))),
        ("z", "zstd", Decoder::Zstd(zstd::stream::write::Decoder::new(Vec::new()).expect("a decoder"))),
    ] {
        let path = format!("/stream/{channel}");
        let request = Request::get(&path).header("accept-encoding", coding);
        let answer =
            server.try_send(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.headers()["content-encoding"], coding);
        assert_eq!(answer.headers()["vary"], "accept-encoding");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let (mut body, mut bytes) = (answer.into_body(), 0);
        let mut text = String::new();
        for n in 0..100 {
            let data = format!("{n}:{}", "lorem ipsum ".repeat(n * 20));
            let event = serde_json::json!({ "data": data }).to_string();
            server.json(publish(channel, "secret", None, &event)).await;
            // Nothing but this event makes the server write.
            while !text.ends_with(&format!("data: {data}\n\n")) {
                let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
                let frame = frame.expect("at once").expect("not the end").expect("not cut");
                let data = frame.into_data().expect("data");
                bytes += data.len();
                text = String::from_utf8(decoder.feed(&data).to_vec()).expect("UTF-8");
            }
        }
        assert!(bytes * 10 < text.len(), "{coding}: {bytes} of {}", text.len());
        let plain = server.try_send(get(&format!("{path}?from=start"))).await.expect("an answer");
        assert!(!plain.headers().contains_key("content-encoding"));
        let mut plain = plain.into_body();
        let mut expected = String::new();
        while !expected.contains("control.replay_end") {
            let frame = plain.frame().await.expect("more").expect("not cut");
            expected.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
        }
        let events = |text: &str| -> Vec<String> {
            text.split("\n\n").filter(|event| event.contains("id: ")).map(str::to_owned).collect()
        };
        assert_eq!(events(&text), events(&expected));
        assert_eq!(events(&text).len(), 100);
    }
}
