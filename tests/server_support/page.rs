//! The client's own core over real sockets, as a page drives it: requests, timers, and a handler that is finished at once.

use std::sync::Arc;
use std::time::Duration;

use holdfast_sse::client::{
    Client, Code, Config, Head, Input, Kind, Notice, Output, Request, RequestId, RetryPolicy, StoredRecord,
    TransportError,
};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::{get, resume, send};

/// What a request's task tells.
enum Heard {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed,
}

/// Where the request of a number goes.
pub type Address = Arc<dyn Fn(usize) -> String + Send + Sync>;

pub struct Page {
    client: Client,
    address: Address,
    began: Instant,
    wait: Option<u64>,
    sender: mpsc::UnboundedSender<(RequestId, Heard)>,
    heard: mpsc::UnboundedReceiver<(RequestId, Heard)>,
    request: Option<AbortHandle>,
    stored: Option<StoredRecord>,
    last_token: u64,
    /// What its handler was given: text and id.
    pub events: Vec<(String, String)>,
    /// What it was told beside that.
    pub notices: Vec<Notice>,
    pub requests: usize,
}

impl Page {
    /// A page that comes back quickly, and connects.
    pub fn open(address: Address) -> Self {
        let mut page = Self::new(address);
        page.input(Input::Connect);
        page
    }

    fn new(address: Address) -> Self {
        let retry = RetryPolicy { base_delay_ms: 50, max_delay_ms: 500, ..RetryPolicy::default() };
        let (sender, heard) = mpsc::unbounded_channel();
        Self {
            client: Client::new(Config { retry, ..Config::default() }),
            address,
            began: Instant::now(),
            wait: None,
            sender,
            heard,
            request: None,
            stored: None,
            last_token: 0,
            events: Vec::new(),
            notices: Vec::new(),
            requests: 0,
        }
    }

    /// A new connection, though nothing is wrong with the old one.
    pub fn reconnect(&mut self) {
        self.input(Input::Reconnect { started: self.last_token });
    }

    /// A page that was reloaded: all that it keeps is what it stored.
    pub fn reload(&mut self) {
        let mut next = Self::new(Arc::clone(&self.address));
        next.events = std::mem::take(&mut self.events);
        next.notices = std::mem::take(&mut self.notices);
        (next.stored, next.requests) = (self.stored.take(), self.requests);
        *self = next;
        self.input(Input::Connect);
    }

    /// Waits for what comes next: bytes, the end of a request, a timer.
    pub async fn step(&mut self) {
        let timer = self.wait.map(|ms| self.began + Duration::from_millis(ms));
        tokio::select! {
            Some((id, heard)) = self.heard.recv() => match heard {
                Heard::Head(head) => self.input(Input::Head(id, head)),
                Heard::Bytes(bytes) => self.input(Input::Bytes(id, &bytes)),
                Heard::End => self.input(Input::End(id)),
                Heard::Failed => {
                    let message = "the connection ended".to_owned();
                    let error = TransportError { code: Code::NetworkError, message, retry: true };
                    self.input(Input::Failed(id, error));
                }
            },
            () = async { sleep_until(timer.expect("a timer")).await }, if timer.is_some() => {
                self.input(Input::Timer);
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a short run")
    }

    fn input(&mut self, input: Input<'_>) {
        self.client.handle_input(self.now(), input);
        loop {
            match self.client.poll_output() {
                Output::Wait(at) => {
                    self.wait = at;
                    return;
                }
                Output::Restore => {
                    let stored = self.stored.clone();
                    self.client.handle_input(self.now(), Input::Restored(stored));
                }
                Output::Request(request) => {
                    self.requests += 1;
                    let task = ask((self.address)(self.requests), request, self.sender.clone());
                    self.request = Some(tokio::spawn(task).abort_handle());
                }
                Output::Abort(_) => {
                    if let Some(request) = self.request.take() {
                        request.abort();
                    }
                }
                Output::Commit(record) => self.stored = Some(record),
                Output::Notify(notice) => self.notices.push(notice),
                Output::Deliver => self.deliver(),
            }
        }
    }

    fn deliver(&mut self) {
        let batch = self.client.batch();
        let events = batch.events().filter(|event| event.kind == Kind::Event);
        self.events.extend(
            events
                .filter(|event| !event.name.starts_with("control.") && !event.name.starts_with("system."))
                .map(|event| (event.data.to_owned(), event.id.unwrap_or_default().to_owned())),
        );
        self.notices.extend(batch.notices().iter().cloned());
        self.last_token = batch.last_token().expect("no empty batch is delivered");
        self.client.handle_input(self.now(), Input::Processed(self.last_token));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            request.abort();
        }
    }
}

async fn ask(address: String, request: Request, heard: mpsc::UnboundedSender<(RequestId, Heard)>) {
    let id = request.id;
    let say = |what| drop(heard.send((id, what)));
    let asked = match &*request.last_event_id {
        "" => get("/stream/a?from=start"),
        cursor => resume("/stream/a", cursor),
    };
    let Ok(response) = send(&address, asked).await else { return say(Heard::Failed) };
    let (parts, mut body) = response.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    say(Heard::Head(Head {
        status: parts.status.as_u16(),
        content_type: text("content-type").map(str::to_owned),
        retry_after_ms: text("retry-after").and_then(holdfast_sse::client::retry_after_ms),
    }));
    loop {
        match body.frame().await {
            None => return say(Heard::End),
            Some(Err(_)) => return say(Heard::Failed),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    say(Heard::Bytes(data.to_vec()));
                }
            }
        }
    }
}
