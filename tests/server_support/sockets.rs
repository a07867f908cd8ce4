//! Clients by hand: sockets, HTTP/2, TLS.

use std::path::Path;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens a stream with the least of a client, and waits for its first bytes.
pub async fn open_stream(address: &str, headers: &str) -> TcpStream {
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

/// A client of HTTP/2 over `io`.
pub async fn http2<I>(io: I) -> hyper::client::conn::http2::SendRequest<Body>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

pub async fn ask_http2(
    sender: &mut hyper::client::conn::http2::SendRequest<Body>,
    authority: &str,
    path: &str,
) -> Response<Body> {
    let request = Request::get(format!("http://{authority}{path}")).body(Body::empty()).expect("a request");
    sender.send_request(request).await.expect("an answer").map(Body::new)
}

/// A client of HTTP/2 that lets so many bytes come at once on each stream.
pub async fn http2_with_window<I>(io: I, bytes: u32) -> hyper::client::conn::http2::SendRequest<Body>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(bytes);
    let (sender, connection) = client.handshake(TokioIo::new(io)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A certificate for localhost in two files, and what a client of a protocol needs to trust it.
pub fn certificate(dir: &Path, alpn: &str) -> tokio_rustls::TlsConnector {
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
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    std::sync::Arc::new(config).into()
}
