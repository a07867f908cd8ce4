//! Makes settings of what `holdfast serve` was given, and says what is wrong with it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command};

use super::args::{Secret, ServeArgs};
use super::{ServeError, TICKS};
use crate::server::log::{PageLimit, Retention};
use crate::server::logging::LogOptions;
use crate::server::{CorsOrigins, ListenOptions, SlowConsumer, StreamOptions, Tls};

/// Where the log is when it is in Redis.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(super) struct RedisSettings {
    pub(super) url: Secret,
    pub(super) prefix: String,
    pub(super) replicas_min: u32,
}

/// The same, checked and sorted.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) data_dir: PathBuf,
    pub(super) memory: bool,
    pub(super) null: bool,
    pub(super) redis: Option<RedisSettings>,
    pub(super) new_epoch: bool,
    pub(super) site: Option<PathBuf>,
    pub(super) log: LogOptions,
    pub(super) tick_ms: u64,
    pub(super) grace: Duration,
    pub(super) retention: Retention,
    pub(super) streams: StreamOptions,
    pub(super) listen: ListenOptions,
    pub(super) tls: Option<Tls>,
}

impl ServeArgs {
    pub(super) fn check(self) -> Result<Settings, ServeError> {
        refuse_unknown_variables()?;
        let streams = StreamOptions {
            heartbeat_ms: self.heartbeat_interval,
            retry_ms: self.retry,
            connections_max: size(self.max_connections),
            connections_per_address_max: bound(self.connections_per_address).map(size),
            address_header: header(self.address_header)?,
            listeners_per_channel_max: bound(self.listeners_per_channel).map(size),
            channels_per_stream_max: size(self.channels_per_stream),
            fresh: self.fresh,
            resume: self.resume,
            replay_events_max: bound(self.max_replay_events),
            slow: slow(bound(self.slow_consumer_events), bound(self.slow_consumer_bytes).map(size)),
            fanout_listeners_min: size(self.fanout_listeners),
            presence_ms: self.presence_interval,
            event_bytes_max: size(self.max_event_bytes),
            page: PageLimit { events_max: size(self.max_replay_batch), ..PageLimit::default() },
            cors: cors(self.cors_origins.as_deref())?,
            cors_headers: headers(self.cors_headers.as_deref())?,
            publish_token: secret(PUBLISH_TOKEN)?,
            stream_token: secret(STREAM_TOKEN)?,
            default_channel: Some(TICKS.to_owned()),
            tick_ms: Some(self.tick_interval).filter(|ms| *ms > 0),
            compress: self.compress,
            debug_routes: self.debug_routes,
            ..StreamOptions::default()
        };
        let retention = Retention {
            events_max: self.max_buffer_size,
            bytes_max: self.max_buffer_bytes,
            age_ms_max: self.buffer_ttl,
            keys_max: self.max_keys,
            total_bytes_max: self.max_total_bytes,
            channels_max: size(self.max_channels),
        };
        let redis = self.redis_url.filter(|url| !url.0.is_empty()).map(|url| RedisSettings {
            url,
            prefix: self.redis_prefix,
            replicas_min: u32::try_from(self.redis_replicas).unwrap_or(u32::MAX),
        });
        if redis.is_some() && (self.memory || self.null) {
            let flag = if self.memory { "--memory" } else { "--null" };
            return Err(ServeError::Setting(format!(
                "{flag}: cannot be combined with --redis-url (SSE_REDIS_URL)"
            )));
        }
        let listen = ListenOptions {
            // Publishers, scrapers and those who are to hear 503 need sockets beside the streams.
            sockets_max: streams.connections_max.saturating_add(ListenOptions::default().sockets_max),
            sockets_per_address_max: size(self.sockets_per_address),
            handshake_ms_max: self.head_timeout,
            head_ms_max: self.head_timeout,
            body_ms_max: self.body_timeout,
            write_ms_max: self.write_timeout,
            http2_streams_max: u32::try_from(self.http2_streams).unwrap_or(u32::MAX),
            http2_ping_ms: self.http2_ping,
            http2_idle_ms_max: self.http2_idle_timeout,
            ..ListenOptions::default()
        };
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => Some(
                Tls::from_files(certificate, key)
                    .map_err(|error| ServeError::Setting(format!("--tls-cert, --tls-key: {error}")))?,
            ),
            // Neither: each requires the other.
            _ => None,
        };
        Ok(Settings {
            host: self.host,
            port: u16::try_from(self.port).unwrap_or(u16::MAX),
            data_dir: self.data_dir,
            memory: self.memory,
            null: self.null,
            redis,
            new_epoch: self.new_epoch,
            site: self.site,
            log: LogOptions {
                format: self.log_format,
                level: self.log_level,
                heartbeats: self.log_heartbeats,
                replay: self.log_replay,
                targets: Vec::new(),
            },
            tick_ms: self.tick_interval,
            grace: Duration::from_millis(self.grace_period),
            retention,
            streams,
            listen,
            tls,
        })
    }
}

const PUBLISH_TOKEN: &str = "SSE_PUBLISH_TOKEN";
const STREAM_TOKEN: &str = "SSE_STREAM_TOKEN";

/// Variables with our prefix. One that is not known is a slip of the pen, and would be ignored in silence.
fn refuse_unknown_variables() -> Result<(), ServeError> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let mut known: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .filter(|name| name.starts_with("SSE_"))
        .collect();
    known.extend([PUBLISH_TOKEN, STREAM_TOKEN]);
    let unknown = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .find(|name| name.starts_with("SSE_") && !known.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let known = known.join(", ");
            Err(ServeError::Setting(format!(
                "{name}: there is no such setting; those with this prefix are {known}"
            )))
        }
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// 0 stands for no bound.
fn bound(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn slow(events_max: Option<u64>, bytes_max: Option<usize>) -> SlowConsumer {
    match (events_max, bytes_max) {
        (None, None) => SlowConsumer::Reread,
        (events_max, bytes_max) => SlowConsumer::Close {
            events_max: events_max.unwrap_or(u64::MAX),
            bytes_max: bytes_max.unwrap_or(usize::MAX),
        },
    }
}

fn header(name: Option<String>) -> Result<Option<String>, ServeError> {
    match name.filter(|name| !name.is_empty()) {
        Some(name) if name.parse::<HeaderName>().is_err() => Err(ServeError::Setting(format!(
            "SSE_ADDRESS_HEADER: got {name:?}, takes the name of a header, like X-Forwarded-For"
        ))),
        name => Ok(name),
    }
}

fn headers(list: Option<&str>) -> Result<Vec<String>, ServeError> {
    let names = list.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    match names.iter().find(|name| name.parse::<HeaderName>().is_err()) {
        None => Ok(names),
        Some(wrong) => Err(ServeError::Setting(format!(
            "SSE_CORS_HEADERS: got {wrong:?}, takes names of headers, joined by commas"
        ))),
    }
}

/// Read from the environment only: flags are seen by everyone who lists the processes.
fn secret(variable: &str) -> Result<Option<String>, ServeError> {
    match std::env::var(variable) {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        // What was given is a secret, or a part of one: it is not repeated.
        _ => Err(ServeError::Setting(format!("{variable}: takes visible ASCII characters without spaces"))),
    }
}

/// What is wrong with the command line, in a sentence that names the variable where a value came from one.
/// `None` where clap's own words (help, version, unknown flags) serve better.
#[must_use]
pub fn explain(error: &clap::Error, command: &Command) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let flag = argument.split_whitespace().next()?.trim_start_matches('-');
    let known = command
        .get_subcommands()
        .flat_map(Command::get_arguments)
        .find(|known| known.get_long() == Some(flag))?;
    let variable = known.get_env().filter(|name| std::env::var_os(name).is_some_and(|set| set == *value));
    let name = variable.map_or_else(|| format!("--{flag}"), |name| name.to_string_lossy().into_owned());
    let reason = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("one of {}", values.join(", ")),
        _ => std::error::Error::source(error)?.to_string(),
    };
    Some(format!("{name}: got {value:?}, takes {reason}"))
}

fn cors(origins: Option<&str>) -> Result<CorsOrigins, ServeError> {
    match origins.map(str::trim) {
        None | Some("") => Ok(CorsOrigins::SameOrigin),
        Some("*") => Ok(CorsOrigins::Any),
        Some(list) => {
            let list: Vec<String> = list.split(',').map(|origin| origin.trim().to_owned()).collect();
            match list.iter().find(|origin| !is_origin(origin)) {
                None => Ok(CorsOrigins::List(list)),
                Some(wrong) => Err(ServeError::Setting(format!(
                    "SSE_CORS_ORIGINS: got {wrong:?}, takes `*` or origins like https://app.example:8443, joined by commas"
                ))),
            }
        }
    }
}

/// Scheme, host and port as a browser writes them: nothing behind the host.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b))
    })
}
