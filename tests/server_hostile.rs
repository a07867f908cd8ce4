//! Peers who mean harm: each hears a clear answer or is cut, memory stays bounded, and others notice nothing.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use server_support::{End, Reader, Server, get, publish, resume};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where events are kept: the defaults of `holdfast serve` and of the fastest tests.
const LOGS: [&str; 2] = ["--memory", "--data-dir"];

fn start(dir: &Path, log: &str) -> Server {
    let mut command = Server::command(dir);
    if log == "--memory" {
        command.arg(log);
    }
    command.envs([("SSE_HEAD_TIMEOUT", "700"), ("SSE_BODY_TIMEOUT", "700"), ("SSE_WRITE_TIMEOUT", "700")]);
    Server::start(command)
}

/// Somebody who means no harm, from before to after.
struct Witness(Reader);

impl Witness {
    async fn new(server: &Server) -> Self {
        let mut reader = server.stream(get("/stream/witness")).await;
        reader.named("control.open").await;
        Self(reader)
    }

    async fn is_served(&mut self, server: &Server) {
        let before = Instant::now();
        let (status, _) = server.json(publish("witness", "secret", None, r#"{"data":"x"}"#)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(self.0.event().await.expect("the event").data, "x");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

/// Sends bytes and reads to the end of the connection.
async fn say(server: &Server, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
    // The server may hang up before it has read all of it.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "not cut: {:?}", String::from_utf8_lossy(bytes).get(..80));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn line_ends_and_nul_do_not_get_into_the_stream() {
    for log in LOGS {
        line_ends_and_nul_do_not_get_into_the_stream_in(log).await;
    }
}

async fn line_ends_and_nul_do_not_get_into_the_stream_in(log: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), log);
    let mut witness = Witness::new(&server).await;
    let body = |event: &str| json!({ "event": event, "data": "x" }).to_string();
    let bad = ["a\nid: 7", "a\rdata: y", "a\r\n\r\n", "a\0b", "", "control.open"];
    for name in bad {
        let (status, _) = server.json(publish("witness", "secret", None, &body(name))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name:?}");
        let typed = json!({ "type": name, "payload": {} }).to_string();
        let (status, _) = server.json(publish("witness", "secret", None, &typed)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name:?}");
    }
    for channel in ["a%0Aid:%207", "a%0d", "a%00b", "%ff%fe", "%E2%80%A8%0a", &"c".repeat(5000)] {
        let (status, answer) = server.json(publish(channel, "secret", None, r#"{"data":"x"}"#)).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_channel")),
            "{channel}"
        );
        let (status, answer) = server.json(get(&format!("/stream/{channel}"))).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_channel")),
            "{channel}"
        );
    }
    // In the data they are content: lines of the one event.
    let text = "x\nid: 7\r\nevent: y\rdata: z";
    let (status, _) =
        server.json(publish("witness", "secret", None, &json!({ "data": text }).to_string())).await;
    assert_eq!(status, StatusCode::OK);
    let event = witness.0.event().await.expect("the event");
    assert_eq!((event.name.as_str(), event.data.as_str()), ("message", "x\nid: 7\nevent: y\ndata: z"));
    witness.is_served(&server).await;
}

#[tokio::test]
async fn forged_cursors_are_told_so() {
    for log in LOGS {
        forged_cursors_are_told_so_in(log).await;
    }
}

async fn forged_cursors_are_told_so_in(log: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), log);
    let (_, first) = server.json(publish("a", "secret", None, r#"{"data":"x"}"#)).await;
    let epoch = first["id"].as_str().expect("an id").split('-').next().expect("an epoch").to_owned();
    for (cursor, code) in [
        ("-1".to_owned(), "invalid_event_id"),
        (format!("{epoch}--1"), "invalid_event_id"),
        (format!("{epoch}-1e3"), "invalid_event_id"),
        (format!("{epoch}-99999999999999999999999"), "invalid_event_id"),
        ("9".repeat(8000), "invalid_event_id"),
        (format!("{epoch}-18446744073709551615"), "event_not_found"),
        ("another-1".to_owned(), "event_not_found"),
    ] {
        for request in [resume("/stream/a", &cursor), get(&format!("/stream/a?lastEventId={cursor}"))] {
            let mut reader = server.stream(request).await;
            assert_eq!(reader.status, StatusCode::OK);
            let refused = reader.named("control.cannot_resume").await.payload();
            assert_eq!(refused["code"], code, "{:?}", cursor.get(..40));
            assert!(refused["requestedId"].as_str().expect("text").len() <= 128);
            // And the stream goes on: with what there is, or from the end of the epoch where the cursor is beyond it.
            if code == "invalid_event_id" {
                assert_eq!(reader.event().await.expect("an event").data, "x");
            }
        }
    }
    // Of several channels, too: each hears what of it cannot be resumed.
    server.json(publish("b", "secret", None, r#"{"data":"y"}"#)).await;
    let many = (0..65).map(|n| format!("c{n}:{epoch}-1")).collect::<Vec<_>>().join(",");
    let long = (0..60).map(|n| format!("{n}{}:{epoch}-1", "%C3%A9".repeat(40))).collect::<Vec<_>>().join(",");
    for (cursor, code) in [
        (format!("a:{epoch}-18446744073709551615,b:{epoch}-1"), "event_not_found"),
        (format!("a:another-1,b:{epoch}-1"), "event_not_found"),
        (format!("a:{epoch}-1,a:{epoch}-1"), "invalid_event_id"),
        (format!("a:{epoch}--1,b:{epoch}-1"), "invalid_event_id"),
        (format!("a:{epoch}-1,"), "invalid_event_id"),
        (format!("a%0g:{epoch}-1"), "invalid_event_id"),
        (format!("a%ff:{epoch}-1"), "invalid_event_id"),
        (many, "invalid_event_id"),
        (long, "invalid_event_id"),
        (":,".repeat(4000), "invalid_event_id"),
    ] {
        let mut reader = server.stream(resume("/stream?channel=a&channel=b", &cursor)).await;
        assert_eq!(reader.status, StatusCode::OK);
        let refused = reader.named("control.cannot_resume").await.payload();
        assert_eq!(
            (&refused["code"], &refused["channel"]),
            (&json!(code), &json!("a")),
            "{:?}",
            cursor.get(..60)
        );
        assert!(refused["requestedId"].as_str().expect("text").len() <= 128);
    }
    // Not UTF-8, in the header: no crash, no resume.
    let answer = TcpStream::connect(&server.address).await;
    let mut socket = answer.expect("a connection");
    socket
        .write_all(b"GET /stream/a HTTP/1.1\r\nhost: x\r\nlast-event-id: \xff\xfe\r\n\r\n")
        .await
        .expect("sent");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("invalid_event_id") {
        assert!(socket.read_buf(&mut text).await.expect("more") > 0);
    }
    // 1 MB of it is refused before anybody looks at it.
    let long = format!("GET /stream/a HTTP/1.1\r\nhost: x\r\nlast-event-id: {}\r\n\r\n", "9".repeat(1 << 20));
    let answer = say(&server, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

// Slow, broken and half-open peers are cut in time; nobody else waits for them.
#[tokio::test]
async fn peers_that_dawdle_or_talk_rubbish_are_cut() {
    for log in LOGS {
        peers_that_dawdle_or_talk_rubbish_are_cut_in(log).await;
    }
}

async fn peers_that_dawdle_or_talk_rubbish_are_cut_in(log: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), log);
    let mut witness = Witness::new(&server).await;
    let post = "POST /publish/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n";
    for (what, bytes, answers) in [
        ("nothing", String::new(), ""),
        ("half a method", "PR".to_owned(), ""),
        ("half a head", "GET /stream/a HTTP/1.1\r\nhost: x\r\nx-y: ".to_owned(), ""),
        ("a line of 1 MB", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), "HTTP/1.1 4"),
        ("10,000 headers", format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(10_000)), "HTTP/1.1 431"),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("half a body", format!("{post}content-length: 100\r\n\r\n{{"), "HTTP/1.1 4"),
        ("rubbish for chunks", format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n"), "HTTP/1.1 4"),
        (
            "a huge chunk",
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            "HTTP/1.1 4",
        ),
        ("two lengths", format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\nx"), "HTTP/1.1 400"),
        ("HTTP/2 cut short", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish, and more of it".to_owned(), ""),
    ] {
        let answer = say(&server, bytes.as_bytes()).await;
        // What is refused before it is read to its end may be lost with the reset of the connection.
        assert!(
            answer.starts_with(answers) || (bytes.len() > 60_000 && answer.is_empty()),
            "{what}: {answer}"
        );
        witness.is_served(&server).await;
    }
}

// A stream that is not read costs the server a page and the socket's buffers, for the time that it is given.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut_and_delays_nobody() {
    for log in LOGS {
        a_peer_that_reads_nothing_is_cut_and_delays_nobody_in(log).await;
    }
}

async fn a_peer_that_reads_nothing_is_cut_and_delays_nobody_in(log: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), log);
    let mut witness = Witness::new(&server).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
        socket.write_all(b"GET /stream/a HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        stuck.push(socket);
    }
    let open = async || server.json(get("/health")).await.1["active_streams"].as_u64().expect("a number");
    while open().await < 21 {
        tokio::task::yield_now().await;
    }
    let before = server.resident_bytes();
    let data = json!({ "data": "x".repeat(100_000) }).to_string();
    // 30 MB to each of the twenty: the tail of the log is shared, and what is behind it is read when it is wanted.
    for _ in 0..300 {
        server.json(publish("a", "secret", None, &data)).await;
    }
    witness.is_served(&server).await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("30 MB published to 20 that read nothing: {} KiB more", grown >> 10);
    assert!(grown < 100 << 20, "{grown} bytes");
    let deadline = Instant::now() + Duration::from_secs(30);
    while open().await > 1 {
        assert!(Instant::now() < deadline, "{} still open", open().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // K22: they show.
    let metrics = server.try_send(get("/metrics")).await.expect("an answer").into_body();
    let metrics = http_body_util::BodyExt::collect(metrics).await.expect("a body").to_bytes();
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains("sse_server_disconnects_total{reason=\"client_timeout\"} 20\n"), "{metrics}");
    witness.is_served(&server).await;
    drop(stuck);
}

// Channels that are only asked for, and never published to, leave nothing behind. A million requests would take a test too
// long; twenty thousand show as well whether anything is kept of a name.
#[tokio::test]
async fn distinct_channel_names_do_not_pile_up() {
    const NAMES: usize = 20_000;
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), "--memory");
    let visit = async |from: usize, to: usize| {
        // A pipe of requests: each is answered with a stream that is left at once.
        for n in from..to {
            let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
            let head = format!("GET /stream/channel-{n} HTTP/1.1\r\nhost: x\r\n\r\n");
            socket.write_all(head.as_bytes()).await.expect("sent");
            assert!(socket.read(&mut [0; 64]).await.expect("an answer") > 0);
        }
    };
    visit(0, 2000).await;
    let before = server.resident_bytes();
    visit(2000, NAMES).await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("{} more channel names: {} KiB more", NAMES - 2000, grown >> 10);
    assert!(grown < NAMES * 64, "{grown} bytes: names are kept");
}

/// One frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

// Rapid reset, headers without end, settings, pings and streams beyond the limit: the connection ends with GOAWAY, or
// costs what one connection costs.
#[tokio::test]
async fn floods_of_http2_frames_are_bounded() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const CONTINUATION: u8 = 9;
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), "--memory");
    let mut witness = Witness::new(&server).await;
    // :method GET, :scheme http, :path /stream/a (literal), :authority x (literal).
    let request: &[u8] = b"\x82\x86\x04\x09/stream/a\x01\x01x";
    let odd = |n: u32| 2 * n + 1;
    let reset: Vec<u8> = (0..50_000)
        .flat_map(|n| {
            [frame(HEADERS, 5, odd(n), request), frame(RST_STREAM, 0, odd(n), &[0, 0, 0, 8])].concat()
        })
        .collect();
    let endless: Vec<u8> =
        std::iter::once(frame(HEADERS, 1, 1, request))
            .chain((0..10_000).map(|_| {
                frame(CONTINUATION, 0, 1, &[b"\x00\x01a\x7f\x79".as_slice(), &[b'v'; 248]].concat())
            }))
            .flatten()
            .collect();
    let settings: Vec<u8> = (0..200_000).flat_map(|_| frame(SETTINGS, 0, 0, &[])).collect();
    let pings: Vec<u8> = (0..200_000).flat_map(|_| frame(PING, 0, 0, &[7; 8])).collect();
    let streams: Vec<u8> = (0..5_000).flat_map(|n| frame(HEADERS, 5, odd(n), request)).collect();
    for (what, flood) in [
        ("reset", reset),
        ("continuation", endless),
        ("settings", settings),
        ("pings", pings),
        ("streams", streams),
    ] {
        let before = server.resident_bytes();
        let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
        let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
        socket.write_all(&opening).await.expect("sent");
        // Answers are not read: the server must not pile them up either.
        let sent = tokio::time::timeout(Duration::from_secs(5), socket.write_all(&flood)).await;
        witness.is_served(&server).await;
        let open = server.json(get("/health")).await.1["active_streams"].as_u64().expect("a number");
        // The witness, and as many as one connection may have.
        assert!(open <= 1 + 256, "{what}: {open} streams");
        let grown = server.resident_bytes().saturating_sub(before);
        let outcome = match sent {
            Ok(Ok(())) => "taken",
            Ok(Err(_)) => "cut",
            Err(_) => "not read on",
        };
        println!("{what}: {outcome}, {open} streams open, {} KiB more", grown >> 10);
        assert!(grown < 32 << 20, "{what}: {grown} bytes");
    }
}

#[tokio::test]
async fn sockets_of_one_address_are_limited() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Server::command(dir.path());
    command.arg("--memory").env("SSE_SOCKETS_PER_ADDRESS", "2");
    let server = Server::start(command);
    let mut first = server.stream(get("/stream/a")).await;
    let second = server.stream(get("/stream/a")).await;
    let refused = say(&server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop(second);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.try_send(get("/health")).await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
        assert!(Instant::now() < deadline, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.named("control.open").await;
    server.kill();
    assert_eq!(first.any().await, Err(End::Cut));
}
