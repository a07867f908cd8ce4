//! Subscribers and a publisher on plain sockets. They do as little as they can, since they share the machine with
//! the server: a subscriber counts the events that it gets by a mark that each holds once, and parses nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, timeout};

use crate::subject::Subject;

/// Stands in each event once, and nowhere else.
pub(crate) const MARK: u8 = b'~';
/// Connections that are being opened at the same time.
const OPENING_MAX: usize = 128;
const PATIENCE: Duration = Duration::from_secs(120);
/// A replay that takes longer is measured by what came until then.
const REPLAY_MAX: Duration = Duration::from_secs(30);

/// How many events all subscribers got.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    events: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
}

impl Seen {
    fn add(&self, events: u64) {
        let before = self.events.fetch_add(events, Ordering::Relaxed);
        if before + events >= self.awaited.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    /// Waits until `events` were seen in all.
    pub(crate) async fn reach(&self, events: u64) -> io::Result<()> {
        self.awaited.store(events, Ordering::Relaxed);
        let all = async {
            while self.events.load(Ordering::Relaxed) < events {
                self.reached.notified().await;
            }
        };
        timeout(PATIENCE, all).await.map_err(|_| {
            let seen = self.events.load(Ordering::Relaxed);
            io::Error::new(io::ErrorKind::TimedOut, format!("{seen} of {events} events arrived"))
        })
    }
}

/// Opens `count` subscribers, and returns once all have been answered. They end with the task set.
pub(crate) async fn subscribe(
    subject: &Subject,
    count: usize,
    seen: &Arc<Seen>,
) -> io::Result<tokio::task::JoinSet<io::Result<()>>> {
    let mut tasks = tokio::task::JoinSet::new();
    let (opened, mut openings) = mpsc::unbounded_channel();
    let mut waiting = 0;
    for _ in 0..count {
        let (request, seen, opened) = (subject.subscription(None), Arc::clone(seen), opened.clone());
        let address = subject.address;
        tasks.spawn(async move {
            let outcome = open(address, &request).await;
            let (socket, events) = match outcome {
                Ok(open) => open,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            seen.add(events);
            let _ = opened.send(Ok(()));
            count_events(socket, &seen).await
        });
        waiting += 1;
        while waiting >= OPENING_MAX {
            openings.recv().await.unwrap_or(Ok(()))?;
            waiting -= 1;
        }
    }
    for _ in 0..waiting {
        openings.recv().await.unwrap_or(Ok(()))?;
    }
    Ok(tasks)
}

/// One subscriber that resumes, for as long as [`REPLAY_MAX`]; answers how many of the `events` arrived.
pub(crate) async fn replay(subject: &Subject, cursor: &str, events: u64) -> io::Result<u64> {
    let (mut socket, mut seen) = open(subject.address, &subject.subscription(Some(cursor))).await?;
    let mut buffer = vec![0; 64 << 10];
    let end = tokio::time::Instant::now() + REPLAY_MAX;
    while seen < events {
        match tokio::time::timeout_at(end, read(&mut socket, &mut buffer)).await {
            Ok(count) => seen += count?,
            Err(_) => break,
        }
    }
    Ok(seen)
}

/// The id of the first event that a new subscriber gets.
pub(crate) async fn first_id(subject: &Subject, publisher: &mut Publisher) -> io::Result<String> {
    let (mut socket, _) = open(subject.address, &subject.subscription(None)).await?;
    publisher.publish("first").await?;
    let mut text = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    // Some servers write the id behind the data.
    while !text.contains(&MARK) || !text.ends_with(b"\n\n") && !text.ends_with(b"\n\n\r\n") {
        let count = timeout(PATIENCE, socket.read(&mut buffer)).await??;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&text);
    let id = text.lines().filter_map(|line| line.strip_prefix("id:")).next_back();
    id.map(|id| id.trim().to_owned()).ok_or_else(|| io::Error::other("the first event has no id"))
}

/// Connects and reads the head of the answer; also says how many events came along with it.
async fn open(address: SocketAddr, request: &str) -> io::Result<(TcpStream, u64)> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if timeout(PATIENCE, socket.read_buf(&mut head)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(&head[..end]).into_owned()));
            }
            return Ok((socket, marks(&head[end..])));
        }
    }
}

async fn count_events(socket: TcpStream, seen: &Seen) -> io::Result<()> {
    // An idle connection holds no buffer here: reading begins when there is something to read.
    loop {
        socket.readable().await?;
        let mut buffer = [0; 4 << 10];
        match socket.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let events = marks(&buffer[..count]);
                if events > 0 {
                    seen.add(events);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    match socket.read(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(marks(&buffer[..count])),
    }
}

fn marks(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(MARK, bytes).count() as u64
}

/// Publishes over one connection that stays open.
pub(crate) struct Publisher {
    socket: TcpStream,
    head: String,
    body: fn(&str) -> String,
    answer: Vec<u8>,
}

impl Publisher {
    pub(crate) async fn connect(subject: &Subject) -> io::Result<Self> {
        let socket = TcpStream::connect(subject.address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, head: subject.publishing(), body: subject.body, answer: Vec::new() })
    }

    /// Returns once the server has answered that it took the event.
    pub(crate) async fn publish(&mut self, text: &str) -> io::Result<()> {
        let body = (self.body)(&format!("{text} {} {}", char::from(MARK), "x".repeat(90)));
        let request = format!("{}content-length: {}\r\n\r\n{body}", self.head, body.len());
        self.socket.write_all(request.as_bytes()).await?;
        self.answer.clear();
        timeout(PATIENCE, async {
            while !self.answered()? {
                if self.socket.read_buf(&mut self.answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        })
        .await?
    }

    fn answered(&self) -> io::Result<bool> {
        let Some(end) = memchr::memmem::find(&self.answer, b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8_lossy(&self.answer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 2") {
            return Err(io::Error::other(String::from_utf8_lossy(&self.answer).into_owned()));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        match length.and_then(|length| length.trim().parse::<usize>().ok()) {
            Some(length) => Ok(self.answer.len() >= end + 4 + length),
            None if head.contains("chunked") => Ok(self.answer.ends_with(b"0\r\n\r\n")),
            None => Ok(true),
        }
    }
}
