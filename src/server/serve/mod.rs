//! The ready-made server: `holdfast serve`.

mod args;
mod settings;
mod site;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::settings::{RedisSettings, Settings};
use super::logging::{self, LogFormat, LogOptions, LogQueue};
use super::publisher::Message;
use super::{
    EventLog, Hub, Listener, LogError, MemoryLog, NullLog, Publisher, RedbLog, RedbOptions, Retention, Tls,
    routes,
};

pub use self::args::ServeArgs;
pub use self::settings::explain;

/// Log lines that may wait for stderr, and how long the last of them have when the process ends.
const LOG_LINES_MAX: usize = 8192;
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// The channel of the demo events, and of `GET /stream`.
const TICKS: &str = "ticks";

/// Why the server did not start, or ended badly.
#[derive(Debug)]
pub enum ServeError {
    /// A setting is missing sense; the text names it.
    Setting(String),
    /// The event log cannot be opened.
    Log(LogError),
    /// The address cannot be listened on, or another matter of the operating system.
    Io(String, std::io::Error),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting(text) => f.write_str(text),
            Self::Log(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<LogError> for ServeError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Runs the server until it is told to stop (SIGTERM or SIGINT), says goodbye to its streams and closes the log.
/// A second signal ends the process at once, which loses nothing that was acknowledged.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(args: ServeArgs) -> Result<(), ServeError> {
    let settings = args.check()?;
    let lines = start_log(&settings.log);
    let ended = run_until_told(&settings, &lines).await;
    lines.flush(LOG_FLUSH);
    ended
}

async fn run_until_told(settings: &Settings, lines: &LogQueue) -> Result<(), ServeError> {
    let signals = Signals::listen()?;
    let log = open_log(settings).await?;
    if settings.new_epoch {
        log.begin_epoch().await?;
    }
    let hub = Hub::new(Arc::clone(&log), settings.streams.clone());
    serve(settings, &hub, signals, lines).await?;
    log.close().await;
    tracing::info!(event = "server.stopped");
    Ok(())
}

/// Starts logging for this process. A second call changes nothing.
fn start_log(options: &LogOptions) -> LogQueue {
    let dropped = match options.format {
        LogFormat::Json => logging::dropped_as_json,
        LogFormat::Text => logging::dropped_as_text,
    };
    let lines = LogQueue::to(std::io::stderr(), LOG_LINES_MAX, dropped);
    let _ = tracing_subscriber::registry().with(logging::layer(options, lines.clone())).try_init();
    lines
}

async fn open_log(settings: &Settings) -> Result<Arc<dyn EventLog>, ServeError> {
    if let Some(redis) = &settings.redis {
        return in_redis(redis, settings.retention).await;
    }
    if settings.null {
        return Ok(Arc::new(NullLog::default()));
    }
    if settings.memory {
        return Ok(Arc::new(MemoryLog::new(settings.retention)));
    }
    let options = RedbOptions { retention: settings.retention, ..RedbOptions::default() };
    // Opening may have to repair a file that was left in the middle of a write.
    let dir = settings.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || RedbLog::open(&dir, options)).await;
    Ok(Arc::new(opened.map_err(|error| LogError::Storage(error.to_string()))??))
}

#[cfg(feature = "redis")]
async fn in_redis(redis: &RedisSettings, retention: Retention) -> Result<Arc<dyn EventLog>, ServeError> {
    let options = super::RedisOptions {
        prefix: redis.prefix.clone(),
        retention,
        replicas_min: redis.replicas_min,
        ..super::RedisOptions::new(redis.url.0.clone())
    };
    Ok(Arc::new(super::RedisLog::open(options).await?))
}

#[cfg(not(feature = "redis"))]
async fn in_redis(_: &RedisSettings, _: Retention) -> Result<Arc<dyn EventLog>, ServeError> {
    Err(ServeError::Setting(
        "--redis-url (SSE_REDIS_URL): this `holdfast` was built without the feature `redis`".to_owned(),
    ))
}

async fn serve(
    settings: &Settings,
    hub: &Hub,
    mut signals: Signals,
    lines: &LogQueue,
) -> Result<(), ServeError> {
    let router = match &settings.site {
        Some(dir) => site::mount(hub.router(), dir)?,
        None => hub.router().fallback(routes::not_found),
    };
    let address = (settings.host.as_str(), settings.port);
    let what = || format!("cannot listen on {}:{}", settings.host, settings.port);
    let mut listener = Listener::bind(address, settings.listen.clone())
        .await
        .map_err(|error| ServeError::Io(what(), error))?;
    let local = listener.local_addr().map_err(|error| ServeError::Io(what(), error))?;
    let mut scheme = "http";
    if let Some(tls) = &settings.tls {
        listener = listener.tls(tls.clone());
        scheme = "https";
        tokio::spawn(reload(tls.clone(), Signals::on(SignalKind::hangup())?));
    }
    let ticker = (settings.tick_ms > 0)
        .then(|| tokio::spawn(tick(hub.publisher(), Duration::from_millis(settings.tick_ms))));
    // Whoever started us waits for this line: it comes when connections are accepted, and is the only one.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "holdfast: listening on {scheme}://{local}").and_then(|()| stdout.flush());
    tracing::info!(event = "server.listening", address = %local);

    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(router, async {
        let _ = stopped.await;
    }));
    signals.next().await;
    tracing::info!(event = "server.draining", streams = hub.active_streams());
    let grace = settings.grace;
    let goodbye = async {
        let deadline = tokio::time::Instant::now() + grace;
        // The listener stays open while streams are sent off, so that newcomers hear 503 and not a refused connection.
        hub.drain(grace.mul_f64(0.9)).await;
        if let Some(ticker) = ticker {
            ticker.abort();
        }
        let _ = stop.send(());
        let _ = tokio::time::timeout_at(deadline, server).await;
    };
    tokio::select! {
        () = goodbye => Ok(()),
        () = signals.next() => {
            tracing::warn!(event = "server.aborted", "second signal: stopping at once");
            lines.flush(LOG_FLUSH);
            std::process::exit(130)
        }
    }
}

/// Reads the certificate anew whenever SIGHUP comes.
async fn reload(tls: Tls, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => tracing::info!(event = "tls.reloaded"),
            Err(error) => {
                tracing::error!(event = "tls.failed", %error, "the certificate before stays in use")
            }
        }
    }
}

/// The demo stream: an envelope of type `domain.tick` at every interval.
async fn tick(publisher: Publisher, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut n = 0_u64;
    loop {
        interval.tick().await;
        n += 1;
        let at = super::clock::unix_ms();
        let message = Message::envelope("domain.tick", &serde_json::json!({ "n": n, "at": at }));
        if let Err(error) = publisher.publish(TICKS, message).await {
            tracing::error!(event = "ticker.failed", %error);
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServeError> {
        Ok(Self {
            terminate: Self::on(SignalKind::terminate())?,
            interrupt: Self::on(SignalKind::interrupt())?,
        })
    }

    fn on(kind: SignalKind) -> Result<Signal, ServeError> {
        signal(kind).map_err(|error| ServeError::Io("cannot listen for signals".to_owned(), error))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
