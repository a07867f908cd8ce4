//! One connection to Redis, made anew where it broke, but not in a storm.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::options::RedisOptions;
use super::scripts::{self, Call};
use crate::server::clock;
use crate::server::log::LogError;

/// The first wait after an attempt that failed.
const RETRY_MS_MIN: u64 = 50;

/// A connection that is made when it is needed.
pub(super) struct Link {
    clients: Vec<Client>,
    /// Where each log keeps its newest epoch, by which several primaries are told apart.
    log_key: String,
    config: AsyncConnectionConfig,
    /// The same without a place for push messages: a connection that is given up would be heard of there.
    probe: AsyncConnectionConfig,
    retry_ms_max: u64,
    state: Mutex<State>,
}

/// A connection in use.
pub(super) struct Connection {
    pub(super) inner: MultiplexedConnection,
    pub(super) number: u64,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Which of the connections, one after the other, that is.
    number: u64,
    /// What the last attempt said, and until when nobody tries again.
    failed: Option<(Instant, LogError)>,
    failures: u32,
}

pub(super) fn storage(error: &RedisError) -> LogError {
    LogError::Storage(format!("Redis: {error}"))
}

/// Whether the connection, or the server at its other end, is of no use any more.
fn is_fatal(error: &RedisError) -> bool {
    // After a failover the old primary refuses to write; scripts are gone when somebody flushed them.
    let stale = |code| matches!(code, "READONLY" | "NOSCRIPT" | "LOADING" | "MASTERDOWN");
    error.code().is_none_or(stale)
}

impl Link {
    pub(super) fn new(clients: Vec<Client>, options: &RedisOptions) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(options.connect_ms_max.max(1))))
            .set_response_timeout(Some(options.command_limit()));
        Self {
            clients,
            log_key: scripts::key(options, "", "log"),
            probe: config.clone(),
            config,
            retry_ms_max: options.retry_ms_max,
            state: Mutex::default(),
        }
    }

    /// The same, with a place where push messages go. It must not block.
    pub(super) fn pushing(self, sender: impl AsyncPushSender) -> Self {
        Self { config: self.config.set_push_sender(sender), ..self }
    }

    /// The connection. While attempts fail, most calls hear what the last one said without a further attempt.
    pub(super) async fn connection(&self) -> Result<Connection, LogError> {
        let mut state = self.state.lock().await;
        if let Some(inner) = &state.connection {
            return Ok(Connection { inner: inner.clone(), number: state.number });
        }
        if let Some((until, error)) = &state.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(inner) => {
                let number = state.number + 1;
                *state = State { connection: Some(inner.clone()), number, ..State::default() };
                Ok(Connection { inner, number })
            }
            Err(error) => {
                let wait_ms = (RETRY_MS_MIN << state.failures.min(16)).min(self.retry_ms_max);
                state.failures = state.failures.saturating_add(1);
                // Half of it by chance, so that nodes do not come back all at once.
                let wait_ms = wait_ms / 2 + clock::random_up_to(wait_ms / 2);
                state.failed = Some((Instant::now() + Duration::from_millis(wait_ms), error.clone()));
                Err(error)
            }
        }
    }

    /// When the next attempt makes sense.
    pub(super) async fn retry_at(&self) -> Instant {
        self.state.lock().await.failed.as_ref().map_or_else(Instant::now, |failed| failed.0)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, LogError> {
        let client = match &self.clients[..] {
            [client] => client,
            clients => self.primary(clients).await?,
        };
        let connect = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&self.config).await?;
            let mut load = Pipeline::new();
            for script in scripts::all() {
                load.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
            }
            load.query_async::<()>(&mut connection).await?;
            Ok(connection)
        };
        connect.await.map_err(|error| storage(&error))
    }

    /// The primary among several servers; of more than one, that with the newest epoch, so that one which comes back with
    /// what it had before a failover is not taken for it.
    async fn primary<'a>(&self, clients: &'a [Client]) -> Result<&'a Client, LogError> {
        let ask = async |client: &'a Client| {
            let mut connection = client.get_multiplexed_async_connection_with_config(&self.probe).await?;
            let mut pipeline = Pipeline::new();
            pipeline.cmd("ROLE").cmd("HGET").arg(&self.log_key).arg("generation");
            let (role, generation): (Vec<Value>, Option<u64>) = pipeline.query_async(&mut connection).await?;
            let is_primary = role.first().and_then(scripts::text) == Some("master");
            Ok::<_, RedisError>(is_primary.then_some((generation, client)))
        };
        let mut best = None;
        let mut failure = LogError::Storage("Redis: none of the addresses is that of a primary".to_owned());
        for answer in join_all(clients.iter().map(ask)).await {
            match answer {
                Ok(Some(found)) if best.is_none_or(|(newest, _)| newest < found.0) => best = Some(found),
                Ok(_) => {}
                Err(error) => failure = storage(&error),
            }
        }
        best.map(|(_, client)| client).ok_or(failure)
    }

    /// Lets go of a connection; the next call makes another. One that somebody else has made since then stays.
    pub(super) async fn broken(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.connection = None;
        }
    }

    /// Runs one script, a second time where the connection failed: all that come this way may be repeated.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, LogError> {
        let mut again = true;
        loop {
            let mut connection = self.connection().await?;
            let answer = call.command().query_async::<Value>(&mut connection.inner).await;
            match answer {
                Ok(value) => return Ok(value),
                Err(error) => {
                    let fatal = is_fatal(&error);
                    if fatal {
                        self.broken(connection.number).await;
                    }
                    // A connection that ended while it was idle is noticed by its next user only.
                    if fatal && !error.is_timeout() && std::mem::take(&mut again) {
                        continue;
                    }
                    return Err(storage(&error));
                }
            }
        }
    }

    /// Runs many commands in one round trip; each answers for itself.
    pub(super) async fn pipeline(
        &self,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, LogError> {
        let mut connection = self.connection().await?;
        let answers = pipeline.ignore_errors().query_async(&mut connection.inner);
        let answers: Result<Vec<Result<Value, RedisError>>, RedisError> = answers.await;
        let fatal = match &answers {
            Ok(answers) => answers.iter().any(|answer| answer.as_ref().is_err_and(is_fatal)),
            Err(_) => true,
        };
        if fatal {
            self.broken(connection.number).await;
        }
        answers.map_err(|error| storage(&error))
    }
}
