//! Logs on stderr: one JSON object a line, or the same as text for people. Nothing secret gets into either.
//!
//! A line is `{ts, level, component, event, message, stream_id?, details?}`. (K27)

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::redact;
use crate::server::{HEARTBEAT_LOG, REPLAY_LOG, clock};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for a terminal.
    Text,
}

/// What is logged: this and what is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
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
#[derive(Debug, Clone, Copy)]
pub(super) struct LogOptions {
    pub(super) format: LogFormat,
    pub(super) level: LogLevel,
    /// Each heartbeat, too. (K29)
    pub(super) heartbeats: bool,
    /// The beginning and the end of each replay, too. (K29)
    pub(super) replay: bool,
}

/// Starts logging for this process. A second call changes nothing.
pub(super) fn start(options: LogOptions) {
    let level = match options.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    };
    let only_if = |wanted| if wanted { level } else { LevelFilter::OFF };
    // What libraries would log is not ours to vouch for: a request line holds tokens.
    let ours = Targets::new()
        .with_target("holdfast", level)
        .with_target(HEARTBEAT_LOG, only_if(options.heartbeats))
        .with_target(REPLAY_LOG, only_if(options.replay));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .event_format(Lines(options.format));
    let _ = tracing_subscriber::registry().with(lines).with(ours).try_init();
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
        let text = redact::text(text);
        match name {
            "event" => self.event = Some(text),
            "message" => self.message = Some(text),
            "stream_id" => self.stream_id = Some(text),
            _ => self.detail(name, text.into()),
        }
    }

    fn detail(&mut self, name: &str, value: Value) {
        let value = if redact::is_secret(name) { redact::REDACTED.into() } else { value };
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
