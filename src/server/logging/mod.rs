//! The log of a server: one JSON object a line, or the same as text for people. Nothing secret gets into either.
//!
//! A line is `{ts, level, component, event, message, stream_id?, details?}`. `holdfast serve` logs so; an app of its own
//! takes the [`layer`]:
//!
//! ```
//! use std::time::Duration;
//! use holdfast_sse::server::logging::{self, LogOptions, LogQueue};
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! let queue = LogQueue::stderr();
//! let options = LogOptions { targets: vec!["my_app".to_owned()], ..LogOptions::default() };
//! tracing_subscriber::registry().with(logging::layer(&options, queue.clone())).init();
//! tracing::info!(target: "my_app", event = "app.started", api_key = "s3cret"); // "details":{"api_key":"[REDACTED]"}
//! queue.flush(Duration::from_secs(1));
//! ```

mod queue;
mod redact;

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::{HEARTBEAT_LOG, REPLAY_LOG, clock};

pub use self::queue::LogQueue;
pub use self::redact::{is_secret, text as redact};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for a terminal.
    Text,
}

/// What is logged: this and what is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Streams that open and close.
    Info,
    /// What may need attention.
    Warn,
    /// What failed.
    Error,
    /// Nothing.
    Off,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// How lines look. Default JSON.
    pub format: LogFormat,
    /// What is logged: this and what is worse. Default [`LogLevel::Info`].
    pub level: LogLevel,
    /// Each heartbeat, too. Default off. (K29)
    pub heartbeats: bool,
    /// The beginning and the end of each replay, too. Default on. (K29)
    pub replay: bool,
    /// Targets (module paths, say) whose lines are taken beside our own. What libraries log is not ours to vouch for: a
    /// request line holds tokens. Default none.
    pub targets: Vec<String>,
}

impl Default for LogOptions {
    fn default() -> Self {
        let (format, level) = (LogFormat::Json, LogLevel::Info);
        Self { format, level, heartbeats: false, replay: true, targets: Vec::new() }
    }
}

/// A layer for `tracing_subscriber::registry()` that writes one line for each event: to a [`LogQueue`], say.
pub fn layer<S, W>(options: &LogOptions, writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match options.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    };
    let only_if = |wanted| if wanted { level } else { LevelFilter::OFF };
    let taken = Targets::new()
        .with_targets(options.targets.iter().map(|target| (target.as_str(), level)))
        .with_target("holdfast", level)
        .with_target(HEARTBEAT_LOG, only_if(options.heartbeats))
        .with_target(REPLAY_LOG, only_if(options.replay));
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .event_format(Lines(options.format))
        .with_filter(taken)
}

/// The line that tells how many others had no room, in a log of JSON lines.
#[must_use]
pub fn dropped_as_json(count: u64) -> String {
    // A struct of texts and numbers is always JSON.
    serde_json::to_string(&dropped(count)).unwrap_or_default() + "\n"
}

/// The same in a log of text.
#[must_use]
pub fn dropped_as_text(count: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = dropped(count).write_text(&mut Writer::new(&mut text));
    text
}

fn dropped(count: u64) -> Line {
    let message = "the log was not written as fast as lines came: some were left out".to_owned();
    let said = Said {
        event: Some("log.dropped".to_owned()),
        message: Some(message),
        details: Map::from_iter([("lines".to_owned(), count.into())]),
        ..Said::default()
    };
    said.line(Level::WARN)
}

struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let line = said.line(*event.metadata().level());
        match self.0 {
            LogFormat::Json => writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?),
            LogFormat::Text => line.write_text(&mut writer),
        }
    }
}

/// The fields of one entry, already without secrets.
#[derive(Default)]
struct Said {
    event: Option<String>,
    message: Option<String>,
    stream_id: Option<String>,
    details: Map<String, Value>,
}

impl Said {
    fn text(&mut self, name: &str, text: &str) {
        let text = redact(text);
        match name {
            "event" => self.event = Some(text),
            "message" => self.message = Some(text),
            "stream_id" => self.stream_id = Some(text),
            _ => self.detail(name, text.into()),
        }
    }

    fn detail(&mut self, name: &str, value: Value) {
        let value = if is_secret(name) { redact::REDACTED.into() } else { value };
        self.details.insert(name.to_owned(), value);
    }

    fn line(self, level: Level) -> Line {
        let event = self.event.unwrap_or_else(|| "server.message".to_owned());
        Line {
            ts: clock::iso(clock::unix_ms()),
            level: match level {
                Level::ERROR => "error",
                Level::WARN => "warn",
                Level::INFO => "info",
                _ => "debug",
            },
            component: component(&event),
            message: self.message.unwrap_or_else(|| event.replace(['.', '_'], " ")),
            event,
            stream_id: self.stream_id,
            details: self.details,
        }
    }
}

/// Who speaks, by the first word of the event's name.
fn component(event: &str) -> &'static str {
    match event.split('.').next() {
        Some("stream") => "stream",
        Some("resume") => "resume",
        Some("replay") => "replay",
        Some("heartbeat") => "heartbeat",
        Some("connection" | "accept" | "tls") => "connection",
        Some("publish" | "validation") => "publisher",
        _ => "server",
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.detail(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.detail(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.detail(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.detail(field.name(), value.into());
    }
}

#[derive(Serialize)]
struct Line {
    ts: String,
    level: &'static str,
    component: &'static str,
    event: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
}

impl Line {
    fn write_text(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // Escaped, so that nobody's input begins a line of its own.
        let message = self.message.escape_debug();
        write!(writer, "{} {:5} {} {message}", self.ts, self.level, self.event)?;
        if let Some(id) = &self.stream_id {
            write!(writer, " stream_id={}", id.escape_debug())?;
        }
        for (name, value) in &self.details {
            write!(writer, " {name}={value}")?;
        }
        writeln!(writer)
    }
}
