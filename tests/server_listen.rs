//! The listener: protocols, limits, compression, and what a connection costs. Real processes, real sockets.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use server_support::sockets::{ask_http2, certificate, http2, open_stream};
use server_support::{Reader, Server, get, publish};
use tokio::net::TcpStream;

const IDLE: usize = 2_000;

fn memory(dir: &Path) -> Command {
    let mut command = Server::command(dir);
    command.arg("--memory").env("MAX_CONNECTIONS", "10000");
    command
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
    assert!(cost_of_idle(200, "accept-encoding: zstd\r\n", &["--compress"]).await <= 96 * kib);
    assert!(cost_of_idle(200, "accept-encoding: gzip\r\n", &["--compress"]).await <= 400 * kib);
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

#[tokio::test]
async fn tls_agrees_on_http2_and_takes_a_new_certificate_at_sighup() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = certificate(dir.path(), "h2");
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

    let second = certificate(dir.path(), "h2");
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
