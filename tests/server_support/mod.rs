//! What the server's tests share: a reader of event streams, a request, and the real process.
#![allow(dead_code, unreachable_pub)] // Each test file is a crate of its own and uses a part of this.

pub mod hub;
#[cfg(feature = "redis")]
pub mod node;
pub mod own_log;
#[cfg(feature = "redis")]
pub mod page;
#[cfg(feature = "redis")]
pub mod proxy;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sockets;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use holdfast_sse::wire::{EventRef, Parser, ParserLimits, Sink};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tower::ServiceExt;

/// One event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("JSON")
    }

    pub fn payload(&self) -> Value {
        self.json()["payload"].clone()
    }

    pub fn is_control(&self) -> bool {
        self.name.starts_with("control.") || self.name.starts_with("system.")
    }

    pub fn sequence(&self) -> u64 {
        self.id.as_deref().and_then(|id| id.rsplit_once('-')?.1.parse().ok()).expect("an id of ours")
    }
}

#[derive(Default)]
struct Found {
    events: std::collections::VecDeque<Event>,
    retries: Vec<u64>,
}

impl Sink for Found {
    fn event(&mut self, event: EventRef<'_>) {
        self.events.push_back(Event {
            name: event.name.to_owned(),
            id: event.own_id.then(|| event.last_event_id.to_owned()),
            data: event.data.to_owned(),
        });
    }

    fn id_only(&mut self, id: &str) {
        panic!("an id without an event: {id}");
    }

    fn retry(&mut self, ms: u64) {
        self.retries.push(ms);
    }
}

/// Reads the events of one response.
pub struct Reader {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Body,
    parser: Parser,
    found: Found,
    pub bytes: usize,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As HTTP ends a body.
    Clean,
    /// In the middle.
    Cut,
}

impl Reader {
    pub fn new(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
            parser: Parser::new(ParserLimits::default(), ""),
            found: Found::default(),
            bytes: 0,
        }
    }

    pub fn retries(&self) -> &[u64] {
        &self.found.retries
    }

    /// The next event of any kind.
    pub async fn any(&mut self) -> Result<Event, End> {
        loop {
            if let Some(event) = self.found.events.pop_front() {
                return Ok(event);
            }
            // No test waits for longer: one that would hang says where instead.
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await;
            match frame.expect("something within a minute") {
                None => return Err(End::Clean),
                Some(Err(_)) => return Err(End::Cut),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.bytes += bytes.len();
                        self.parser.feed(bytes, &mut self.found).expect("within the limits");
                    }
                }
            }
        }
    }

    /// The next event of the app.
    pub async fn event(&mut self) -> Result<Event, End> {
        loop {
            let event = self.any().await?;
            if !event.is_control() {
                return Ok(event);
            }
        }
    }

    /// The next event named `name`; others are passed over.
    pub async fn named(&mut self, name: &str) -> Event {
        loop {
            let event = self.any().await.unwrap_or_else(|end| panic!("ended ({end:?}) before {name}"));
            if event.name == name {
                return event;
            }
        }
    }

    /// The numbers of the next `count` events of the app.
    pub async fn sequences(&mut self, count: usize) -> Vec<u64> {
        let mut sequences = Vec::new();
        for _ in 0..count {
            sequences.push(self.event().await.expect("one more event").sequence());
        }
        sequences
    }

    /// Whether nothing comes for `ms`.
    pub async fn quiet(&mut self, ms: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(ms), self.any()).await.is_err()
    }
}

/// A small generator of our own, so that a printed seed replays a run.
pub struct Random(u64);

impl Random {
    /// From `HOLDFAST_SEED`, or another one each time; printed.
    pub fn seeded() -> Self {
        let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        });
        println!("seed: HOLDFAST_SEED={seed}");
        Self(seed)
    }

    /// Another one, whose numbers follow from the same seed.
    pub fn fork(&mut self) -> Self {
        Self(self.up_to(u64::MAX - 1))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.up_to(bound as u64 - 1) as usize
    }

    pub fn up_to(&mut self, max: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % (max + 1)
    }
}

/// Publishes over HTTP; the id once it is acknowledged, nothing where the answer got lost or was a refusal.
pub async fn try_publish(address: &str, channel: &str, key: &str, text: &str) -> Option<String> {
    let body = serde_json::json!({ "event": "n", "data": text }).to_string();
    let response = send(address, publish(channel, "secret", Some(key), &body)).await.ok()?;
    let status = response.status();
    let answer = response.into_body().collect().await.ok()?.to_bytes();
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    // What is refused for good would be tried for ever.
    assert!(status.is_success() || status.is_server_error(), "{status}: {answer}");
    Some(answer["id"].as_str()?.to_owned())
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

pub fn resume(path: &str, id: &str) -> Request<Body> {
    Request::get(path).header("last-event-id", id).body(Body::empty()).expect("a request")
}

pub fn publish(channel: &str, token: &str, key: Option<&str>, body: &str) -> Request<Body> {
    let mut request =
        Request::post(format!("/publish/{channel}")).header("authorization", format!("Bearer {token}"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::from(body.to_owned())).expect("a request")
}

/// Asks the router itself, without a socket.
pub async fn ask(router: &Router, request: Request<Body>) -> Reader {
    Reader::new(router.clone().oneshot(request).await.expect("routers do not fail"))
}

/// What `/metrics` says to who accepts this, and as what.
pub async fn metrics(router: &Router, accept: &str) -> (String, String) {
    let request = Request::get("/metrics").header("accept", accept).body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (kind, String::from_utf8(bytes.to_vec()).expect("text"))
}

/// Asks for an answer in JSON.
pub async fn json(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    read_json(router.clone().oneshot(request).await.expect("routers do not fail")).await
}

async fn read_json(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// A `holdfast serve` of its own, ended with the value.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir"])
            .arg(data_dir)
            .env("SSE_PUBLISH_TOKEN", "secret")
            .env("SSE_TICK_INTERVAL", "0")
            .env("SSE_RETRY_TIMEOUT", "50")
            .env("LOG_LEVEL", "warn")
            // Or what few streams are given would not come by the way that many are given it.
            .env("SSE_FANOUT_LISTENERS", "1")
            .stdout(Stdio::piped());
        command
    }

    /// Starts and waits for the line that says it listens.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the holdfast command");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("holdfast: listening on http");
        let address =
            address.and_then(|rest| rest.trim_start_matches('s').strip_prefix("://")).unwrap_or_else(|| {
                let _ = child.kill();
                panic!("unexpected first line {line:?}")
            });
        Self { address: address.to_owned(), child }
    }

    pub async fn try_send(&self, request: Request<Body>) -> Result<Response<Body>, String> {
        send(&self.address, request).await
    }

    pub async fn stream(&self, request: Request<Body>) -> Reader {
        Reader::new(self.try_send(request).await.expect("an answer"))
    }

    pub async fn json(&self, request: Request<Body>) -> (StatusCode, Value) {
        read_json(self.try_send(request).await.expect("an answer")).await
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    /// Memory of the process that is resident.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok()).expect("kB") * 1024
    }

    /// What it logs, where its command pipes that.
    pub fn stderr(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    /// Waits for the end of the process.
    pub async fn ended(mut self) -> std::process::ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().expect("a child")).await.expect("a status")
    }

    /// SIGKILL, and waits until it took effect.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request over a connection of its own.
pub async fn send(address: &str, mut request: Request<Body>) -> Result<Response<Body>, String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    request.headers_mut().entry("host").or_insert(address.parse().expect("a header"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(response.map(Body::new))
}
