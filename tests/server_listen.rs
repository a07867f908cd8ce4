//! The listener: protocols, limits, and what a connection costs. Real sockets on the loopback.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use server_support::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const IDLE: usize = 2_000;

/// Opens a stream with the least of a client, and waits for its handshake.
async fn open_stream(address: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.windows(b"control.open".len()).any(|part| part == b"control.open") {
        let read = socket.read_buf(&mut answer).await.expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    socket
}

// An idle stream over HTTP/1.1 keeps at most 12 KiB of the server's memory.
#[tokio::test]
async fn an_idle_stream_is_cheap() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Server::command(dir.path());
    command.arg("--memory").env("MAX_CONNECTIONS", "10000");
    let server = Server::start(command);
    // What the first ones make the server allocate for good is not theirs.
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open_stream(&server.address, "/stream/a").await);
    }
    let before = server.resident_bytes();
    for _ in 0..IDLE {
        streams.push(open_stream(&server.address, "/stream/a").await);
    }
    let each = (server.resident_bytes() - before) / IDLE;
    println!("an idle stream keeps {each} bytes resident");
    assert!(each <= 12 << 10, "{each} bytes");
}
