//! A driver small enough to see through: it performs the run loop of `src/client/mod.rs` in virtual time, and keeps
//! what came out.
#![allow(dead_code, reason = "each test file uses its own part")]

use holdfast_sse::client::{
    Client, Code, Config, Head, Input, Jitter, Kind, Notice, Output, Request, RequestId, RetryPolicy, State,
    StoredRecord, TransportError,
};

/// A client and everything that it said since it was last asked.
pub(crate) struct Scenario {
    pub(crate) client: Client,
    pub(crate) now: u64,
    pub(crate) wait: Option<u64>,
    /// Requests, oldest first; the last one is the present one.
    pub(crate) requests: Vec<Request>,
    pub(crate) aborted: Vec<RequestId>,
    pub(crate) commits: Vec<StoredRecord>,
    pub(crate) notices: Vec<Notice>,
    /// What the app was given: data and token.
    pub(crate) events: Vec<(String, u64)>,
    pub(crate) last_token: u64,
    /// Whether deliveries are finished at once, as by a synchronous handler.
    pub(crate) sync: bool,
    pub(crate) restores: Option<StoredRecord>,
}

/// No jitter, so that delays can be named.
pub(crate) fn exact() -> Config {
    Config {
        retry: RetryPolicy { jitter: Jitter::Proportional(0.0), ..RetryPolicy::default() },
        ..Config::default()
    }
}

pub(crate) fn record(cursor: &str, done: &[&str]) -> StoredRecord {
    StoredRecord { cursor: cursor.to_owned(), done: done.iter().map(|id| (*id).to_owned()).collect() }
}

pub(crate) fn status(status: u16, retry_after_ms: Option<u64>) -> Head {
    Head { status, content_type: None, retry_after_ms }
}

/// One event of a server's.
pub(crate) fn event(id: &str, data: &str) -> String {
    format!("id: {id}\ndata: {data}\n\n")
}

/// `control.open` of our protocol, at `position`.
pub(crate) fn open(position: &str) -> String {
    open_with(position, true, 15_000)
}

pub(crate) fn open_with(position: &str, replayable: bool, heartbeat_ms: u64) -> String {
    format!(
        "event: control.open\ndata: {{\"payload\":{{\"protocol\":\"holdfast/1\",\"heartbeat_interval\":{heartbeat_ms},\
         \"position\":\"{position}\",\"replayable\":{replayable}}}}}\n\n"
    )
}

pub(crate) fn heartbeat(interval_ms: u64) -> String {
    format!("event: system.heartbeat\nid: hb-1\ndata: {{\"payload\":{{\"interval_ms\":{interval_ms}}}}}\n\n")
}

pub(crate) fn cannot_resume(fields: &str) -> String {
    format!(
        "event: control.cannot_resume\ndata: {{\"payload\":{{\"code\":\"buffer_expired\",{fields}}}}}\n\n"
    )
}

impl Scenario {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            client: Client::new(config),
            now: 0,
            wait: None,
            requests: Vec::new(),
            aborted: Vec::new(),
            commits: Vec::new(),
            notices: Vec::new(),
            events: Vec::new(),
            last_token: 0,
            sync: true,
            restores: None,
        }
    }

    /// Connected, and the response accepted.
    pub(crate) fn opened(config: Config) -> Self {
        let mut scenario = Self::new(config);
        scenario.connect();
        scenario.accept();
        scenario
    }

    pub(crate) fn asynchronous(mut self) -> Self {
        self.sync = false;
        self
    }

    pub(crate) fn restoring(mut self, cursor: &str, done: &[&str]) -> Self {
        self.restores = Some(record(cursor, done));
        self
    }

    pub(crate) fn input(&mut self, input: Input<'_>) -> &mut Self {
        self.client.handle_input(self.now, input);
        loop {
            match self.client.poll_output() {
                Output::Wait(at) => {
                    self.wait = at;
                    return self;
                }
                Output::Restore => self.client.handle_input(self.now, Input::Restored(self.restores.clone())),
                Output::Request(request) => self.requests.push(request),
                Output::Abort(id) => self.aborted.push(id),
                Output::Commit(record) => self.commits.push(record),
                Output::Notify(notice) => self.notices.push(notice),
                Output::Deliver => self.deliver(),
            }
        }
    }

    fn deliver(&mut self) {
        let batch = self.client.batch();
        self.events.extend(
            batch
                .events()
                .filter(|e| e.kind == Kind::Event)
                .map(|event| (event.data.to_owned(), event.token)),
        );
        self.notices.extend(batch.notices().iter().cloned());
        self.last_token = batch.last_token().expect("no empty batch is delivered");
        if self.sync {
            self.client.handle_input(self.now, Input::Processed(self.last_token));
        }
    }

    pub(crate) fn connect(&mut self) -> &mut Self {
        self.input(Input::Connect)
    }

    pub(crate) fn id(&self) -> RequestId {
        self.requests.last().expect("a request").id
    }

    pub(crate) fn head(&mut self, head: Head) -> &mut Self {
        let id = self.id();
        self.input(Input::Head(id, head))
    }

    pub(crate) fn accept(&mut self) -> &mut Self {
        self.head(Head::event_stream())
    }

    pub(crate) fn bytes(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let id = self.id();
        self.input(Input::Bytes(id, text.as_ref()))
    }

    pub(crate) fn end(&mut self) -> &mut Self {
        let id = self.id();
        self.input(Input::End(id))
    }

    pub(crate) fn fail(&mut self) -> &mut Self {
        let error = TransportError { code: Code::NetworkError, message: "refused".to_owned(), retry: true };
        let id = self.id();
        self.input(Input::Failed(id, error))
    }

    /// Time passes; the timer is served whenever it is due.
    pub(crate) fn pass(&mut self, ms: u64) -> &mut Self {
        let end = self.now + ms;
        let mut turns = 0;
        while let Some(at) = self.wait.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timer);
            turns += 1;
            assert!(turns < 10_000, "the timer is asked for again and again");
        }
        self.now = end;
        self
    }

    /// Goes on until the next request is made; answers how long that took.
    pub(crate) fn until_request(&mut self) -> u64 {
        let (began, count) = (self.now, self.requests.len());
        while self.requests.len() == count {
            self.now = self.wait.expect("a request is due some day").max(self.now);
            self.input(Input::Timer);
        }
        self.now - began
    }

    pub(crate) fn state(&self) -> State {
        self.client.state()
    }

    /// The cursor of the present request.
    pub(crate) fn asked_from(&self) -> &str {
        &self.requests.last().expect("a request").last_event_id
    }

    /// The data of what was delivered since the last call.
    pub(crate) fn delivered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events).into_iter().map(|(data, _)| data).collect()
    }

    /// The token of the delivered event with this data.
    pub(crate) fn token(&self, data: &str) -> u64 {
        self.events.iter().find(|(found, _)| found == data).expect("it was delivered").1
    }

    pub(crate) fn done(&mut self, data: &str) -> &mut Self {
        let token = self.token(data);
        self.input(Input::Done(token))
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    pub(crate) fn take_commits(&mut self) -> Vec<StoredRecord> {
        std::mem::take(&mut self.commits)
    }

    /// The codes of the errors that the app heard since the last call, and whether each is retried.
    pub(crate) fn errors(&mut self) -> Vec<(Code, bool)> {
        let errors = self.take_notices().into_iter().filter_map(|notice| match notice {
            Notice::Error { code, will_retry, .. } => Some((code, will_retry)),
            _ => None,
        });
        errors.collect()
    }

    /// Gaps told since the last call: first, last, count.
    pub(crate) fn gaps(&mut self) -> Vec<(String, String, u64)> {
        let gaps = self.take_notices().into_iter().filter_map(|notice| match notice {
            Notice::Gap { first_missing, last_missing, count, .. } => {
                Some((first_missing, last_missing, count))
            }
            _ => None,
        });
        gaps.collect()
    }
}
