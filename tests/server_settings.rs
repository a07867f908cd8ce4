//! What `holdfast serve` is told takes effect: each setting, by the real process.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::io::BufRead;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server_support::{Server, get, publish, resume};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server in memory with these variables, or flags where they begin so.
fn start(settings: &[(&str, &str)]) -> Server {
    let mut command = Server::command(std::path::Path::new("unused"));
    if !settings.iter().any(|setting| setting.0 == "--null") {
        command.arg("--memory");
    }
    // What does not come is missed after a minute: no heartbeat comes instead.
    command.env("SSE_HEARTBEAT_INTERVAL", "0");
    for (name, value) in settings {
        if name.starts_with("--") {
            command.arg(name);
        } else {
            command.env(name, value);
        }
    }
    Server::start(command)
}

async fn store(server: &Server, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    let mut ids = Vec::new();
    for n in numbers {
        let body = json!({ "data": n.to_string() }).to_string();
        let (_, answer) = server.json(publish("a", "secret", None, &body)).await;
        ids.push(answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
    }
    ids
}

/// The status and code of a refusal.
async fn refused(server: &Server, request: Request<Body>) -> (u16, String) {
    let (status, body) = server.json(request).await;
    (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().expect("a header"));
    request
}

/// How many stored events there are, from which number on.
async fn stored(server: &Server) -> (u64, u64) {
    let mut reader = server.stream(get("/stream/a?from=start")).await;
    let count = reader.named("control.replay_start").await.payload()["eventCount"].as_u64();
    (count.expect("a number"), reader.event().await.expect("an event").sequence())
}

// K23, K29
#[tokio::test]
async fn what_is_kept_and_replayed() {
    let server = start(&[("SSE_MAX_BUFFER_SIZE", "3")]);
    store(&server, 1..=5).await;
    assert_eq!(stored(&server).await, (3, 3));

    for name in ["SSE_MAX_BUFFER_BYTES", "SSE_MAX_TOTAL_BYTES"] {
        let server = start(&[(name, "300")]);
        store(&server, 1..=9).await;
        let (count, first) = stored(&server).await;
        assert!(count < 9 && first == 10 - count, "{name}: {count} from {first}");
    }

    let server = start(&[("SSE_BUFFER_TTL_MS", "50"), ("--debug-routes", "")]);
    store(&server, 1..=2).await;
    let gone = async {
        while server.json(get("/debug/buffer?channel=a")).await.1["eventCount"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("expired");

    let server = start(&[("SSE_MAX_REPLAY_BATCH", "2")]);
    store(&server, 1..=5).await;
    let mut body = server.try_send(get("/stream/a?from=start")).await.expect("an answer").into_body();
    let (mut pages, mut events) = (Vec::new(), 0);
    while events < 5 {
        let bytes = body.frame().await.expect("more").expect("whole").into_data().expect("data");
        let count = String::from_utf8_lossy(&bytes).matches("id: ").count();
        events += count;
        pages.extend((count > 0).then_some(count));
    }
    assert_eq!(pages, [2, 2, 1]);

    let server = start(&[("SSE_MAX_REPLAY_EVENTS", "2")]);
    let ids = store(&server, 1..=5).await;
    let mut reader = server.stream(resume("/stream/a", &ids[0])).await;
    let told = reader.named("control.cannot_resume").await.payload();
    assert_eq!((&told["code"], &told["missing"]), (&json!("replay_too_large"), &json!(2)));
    assert_eq!(reader.sequences(2).await, [4, 5]);

    let server = start(&[("SSE_RESUME", "false")]);
    let ids = store(&server, 1..=2).await;
    let mut reader = server.stream(resume("/stream/a", &ids[0])).await;
    assert_eq!(reader.named("control.cannot_resume").await.payload()["code"], "resume_disabled");

    for (fresh, first) in [("start", 1), ("2", 4), ("now", 6)] {
        let server = start(&[("SSE_FRESH", fresh)]);
        store(&server, 1..=5).await;
        let mut reader = server.stream(get("/stream/a")).await;
        reader.named("control.open").await;
        store(&server, 6..=6).await;
        assert_eq!(reader.event().await.expect("an event").sequence(), first, "{fresh}");
    }

    let server = start(&[("--null", "")]);
    let ids = store(&server, 1..=2).await;
    let mut reader = server.stream(resume("/stream/a", &ids[0])).await;
    assert_eq!(reader.named("control.cannot_resume").await.payload()["code"], "no_buffer");
}

// E11, E12, K25, K29
#[tokio::test]
async fn who_gets_in() {
    let server = start(&[("SSE_STREAM_TOKEN", "s3cret")]);
    for (path, status) in
        [("/stream/a", 401), ("/stream/a?token=s3cre", 401), ("/stream/a?token=s3cret", 200)]
    {
        assert_eq!(server.stream(get(path)).await.status.as_u16(), status, "{path}");
    }
    assert_eq!(server.stream(with(get("/stream/a"), "authorization", "Bearer s3cret")).await.status, 200);

    let server = start(&[("SSE_CONNECTIONS_PER_ADDRESS", "1")]);
    let held = server.stream(get("/stream/a")).await;
    let answer = server.try_send(get("/stream/b")).await.expect("an answer");
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(refused(&server, get("/stream/b")).await, (429, "rate_limited".to_owned()));
    drop(held);

    let server = start(&[("SSE_CONNECTIONS_PER_ADDRESS", "1"), ("SSE_ADDRESS_HEADER", "X-Forwarded-For")]);
    let via = |addresses| with(get("/stream/a"), "x-forwarded-for", addresses);
    let _held = [server.stream(via("192.0.2.1")).await, server.stream(via("192.0.2.2")).await];
    assert_eq!(_held.each_ref().map(|reader| reader.status.as_u16()), [200, 200]);
    assert_eq!(refused(&server, via("198.51.100.1, 192.0.2.2")).await, (429, "rate_limited".to_owned()));

    let server = start(&[("SSE_LISTENERS_PER_CHANNEL", "1")]);
    let _held = server.stream(get("/stream/a")).await;
    assert_eq!(refused(&server, get("/stream/a")).await, (503, "too_many_listeners".to_owned()));
    assert_eq!(server.stream(get("/stream/b")).await.status, 200);

    let server = start(&[("SSE_CHANNELS_PER_STREAM", "1")]);
    let several = refused(&server, get("/stream?channel=a&channel=b")).await;
    assert_eq!(several, (400, "channels_per_stream".to_owned()));

    let server = start(&[("SSE_PRESENCE_INTERVAL", "5")]);
    let mut reader = server.stream(get("/stream/a")).await;
    assert_eq!(reader.named("control.presence").await.payload()["count"], 1);

    let origin = "https://app.example";
    let server = start(&[("SSE_CORS_ORIGINS", origin), ("SSE_CORS_HEADERS", "X-Tenant, x-other")]);
    let preflight = Request::options("/stream/a")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "x-tenant")
        .body(Body::empty());
    let answer = server.try_send(preflight.expect("a request")).await.expect("an answer");
    let allowed = answer.headers()["access-control-allow-headers"].to_str().expect("text").to_lowercase();
    assert!(["x-tenant", "x-other", "last-event-id"].iter().all(|name| allowed.contains(name)), "{allowed}");

    for (settings, coding) in [
        (&[("SSE_COMPRESS", "true")][..], true),
        (&[("SSE_COMPRESS", "false")], false),
        (&[("--compress", "")], true),
    ] {
        let server = start(settings);
        for path in ["/stream", "/stream?channel=a", "/stream/a"] {
            let answer =
                server.try_send(with(get(path), "accept-encoding", "gzip")).await.expect("an answer");
            assert_eq!(answer.headers().contains_key("content-encoding"), coding, "{settings:?} {path}");
        }
    }
}

#[tokio::test]
async fn what_may_be_published() {
    let server = start(&[("SSE_MAX_EVENT_BYTES", "10")]);
    let large = publish("a", "secret", None, r#"{"data":"12345678901"}"#);
    assert_eq!(refused(&server, large).await, (413, "event_too_large".to_owned()));
    store(&server, 1..=1).await;

    let server = start(&[("SSE_MAX_CHANNELS", "1")]);
    store(&server, 1..=1).await;
    let second = publish("b", "secret", None, r#"{"data":"x"}"#);
    assert_eq!(refused(&server, second).await, (507, "too_many_channels".to_owned()));

    let server = start(&[("SSE_MAX_KEYS", "1")]);
    let mut duplicates = Vec::new();
    for key in ["k-1", "k-1", "k-2", "k-1"] {
        let (_, answer) = server.json(publish("a", "secret", Some(key), r#"{"data":"x"}"#)).await;
        duplicates.push(answer["duplicate"] == true);
    }
    assert_eq!(duplicates, [false, true, false, false], "the second key took the first one's place");
}

#[tokio::test]
async fn what_becomes_of_slow_consumers() {
    for (settings, closed) in [
        (&[("SSE_SLOW_CONSUMER_EVENTS", "10")][..], true),
        (&[("SSE_SLOW_CONSUMER_BYTES", "1000000")], true),
        (&[("SSE_SLOW_CONSUMER_EVENTS", "0")], false),
    ] {
        const EVENTS: usize = 120;
        let server = start(settings);
        let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
        let head = b"GET /stream/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(head).await.expect("sent");
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("control.open") {
            assert!(socket.read_buf(&mut text).await.expect("more") > 0);
        }
        let data = "x".repeat(200_000);
        for n in 1..=EVENTS {
            let body = json!({ "data": format!("{n}-{data}") }).to_string();
            server.json(publish("a", "secret", None, &body)).await;
        }
        let last = format!("data: {EVENTS}-");
        let done = |text: &[u8]| {
            let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(400_000)..]).into_owned();
            (tail.contains("overload_reject"), tail.contains(&last))
        };
        let mut outcome = (false, false);
        while outcome == (false, false) {
            let before = text.len();
            while text.len() < before + 100_000 {
                if socket.read_buf(&mut text).await.expect("more") == 0 {
                    break;
                }
                outcome = if text.len() > before + 90_000 || text.ends_with(b"\r\n") {
                    done(&text)
                } else {
                    outcome
                };
                if outcome != (false, false) {
                    break;
                }
            }
        }
        assert_eq!(outcome, (closed, !closed), "{settings:?}");
    }
}

/// Reads frames of HTTP/2 (RFC 9113 section 4.1) until one is what is looked for, or the end.
async fn frame(server: &Server, kind: u8, found: impl Fn(&[u8]) -> bool) -> bool {
    let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    socket.write_all(&opening).await.expect("sent");
    let look = async {
        loop {
            let mut head = [0; 9];
            if socket.read_exact(&mut head).await.is_err() {
                return false;
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            socket.read_exact(&mut payload).await.expect("a whole frame");
            if head[3] == kind && found(&payload) {
                return true;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("in time")
}

#[tokio::test]
async fn what_http2_may() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let server = start(&[("SSE_HTTP2_STREAMS", "7")]);
    let max_concurrent = [0, 3, 0, 0, 0, 7];
    assert!(
        frame(&server, SETTINGS, |payload| payload.chunks(6).any(|setting| setting == max_concurrent)).await
    );
    let server = start(&[("SSE_HTTP2_PING", "50")]);
    assert!(frame(&server, PING, |_| true).await);
    let server = start(&[("SSE_HTTP2_IDLE_TIMEOUT", "50")]);
    assert!(frame(&server, GOAWAY, |_| true).await);
}

// The log is written by a thread of its own: nobody who reads it, or does not, holds up the server.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    const REQUESTS: usize = 12_000;
    let mut command = Server::command(std::path::Path::new("unused"));
    command.arg("--memory").env("LOG_LEVEL", "info").stderr(std::process::Stdio::piped());
    let mut server = Server::start(command);
    let mut socket = TcpStream::connect(&server.address).await.expect("a connection");
    let (mut read, mut write) = socket.split();
    let request = b"GET /stream/%00 HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let asking = async {
        for _ in 0..REQUESTS / 100 {
            write.write_all(&request).await.expect("sent");
        }
    };
    let answering = async {
        let (mut answers, mut bytes) = (0, vec![0; 1 << 16]);
        let mut tail = Vec::new();
        while answers < REQUESTS {
            let count = read.read(&mut bytes).await.expect("answers");
            assert!(count > 0);
            tail.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&tail).into_owned();
            answers += text.matches("\"code\":\"invalid_channel\"").count();
            // A word may be cut in two.
            let kept = text
                .rfind("\"code\":\"invalid_channel\"")
                .map_or(text.len().min(30), |at| text.len() - at - 24);
            tail.drain(..tail.len() - kept.min(tail.len()));
        }
    };
    let both = async { tokio::join!(asking, answering) };
    tokio::time::timeout(Duration::from_secs(120), both).await.expect("the server does not wait for its log");
    let stderr = server.stderr();
    let (caught_up, told) = tokio::sync::oneshot::channel();
    let lines = tokio::task::spawn_blocking(move || {
        let (mut lines, mut caught_up) = (Vec::<Value>::new(), Some(caught_up));
        for line in std::io::BufReader::new(stderr).lines() {
            lines.push(serde_json::from_str(&line.expect("text")).expect("JSON"));
            if lines.last().is_some_and(|line| line["event"] == "log.dropped") {
                caught_up.take().map(|caught_up| caught_up.send(()));
            }
        }
        lines
    });
    // From here on there is room again.
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("in time").expect("a line that tells");
    server.signal("-TERM");
    assert!(server.ended().await.success());
    let lines = lines.await.expect("read");
    let rejects = lines.iter().filter(|line| line["event"] == "stream.reject").count();
    let dropped: u64 = lines
        .iter()
        .filter(|line| line["event"] == "log.dropped")
        .map(|line| line["details"]["lines"].as_u64().expect("a number"))
        .sum();
    assert!(dropped > 0, "the queue has a bound");
    assert_eq!(rejects + usize::try_from(dropped).expect("small"), REQUESTS, "what was left out is counted");
    assert!(lines.iter().any(|line| line["event"] == "server.stopped"), "the end is written, too");
}
