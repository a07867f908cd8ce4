//! Flags and environment variables of `holdfast serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command};

use super::logging::{LogFormat, LogLevel, LogOptions};
use super::{ServeError, TICKS};
use crate::server::log::{PageLimit, Retention};
use crate::server::{CorsOrigins, ListenOptions, StreamOptions, Tls};

/// An hour, as the longest of all intervals.
const MS_MAX: u64 = 3_600_000;

fn whole<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("a whole number from {MIN} to {MAX}"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// What has no flag.
const AFTER_HELP: &str = "\
Environment:
  SSE_PUBLISH_TOKEN  Secret that POST /publish/{channel} takes as `Authorization: Bearer <token>`; without it
                     publishing over HTTP is off. There is no flag: those are seen by all who list processes
  SSE_STREAM_TOKEN   Secret that streams take as `Authorization: Bearer <token>`, or as `?token=`; without it
                     anybody may open one";

/// What `holdfast serve` takes. A flag wins over its variable.
#[derive(Debug, Clone, Args)]
#[command(allow_negative_numbers = true, after_help = AFTER_HELP)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 3000,
          value_parser = whole::<0, 65_535>)]
    port: u64,
    /// Folder of the event log
    #[arg(long, env = "SSE_DATA_DIR", default_value = "holdfast-data")]
    data_dir: PathBuf,
    /// Keep events in memory only
    #[arg(long)]
    memory: bool,
    /// Keep events in the Redis of this URL (redis://, or rediss:// for TLS), which several servers may share; several
    /// addresses, separated by commas, for a failover. The URL may hold a password: better give
    /// it by the variable, since flags are seen by all who list processes
    #[arg(long, env = "SSE_REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<Secret>,
    /// What stands before all keys in Redis; servers of one prefix share one log
    #[arg(long, env = "SSE_REDIS_PREFIX", default_value = "holdfast", value_name = "PREFIX")]
    redis_prefix: String,
    /// Replicas of Redis that must have an event before it is acknowledged
    #[arg(long, env = "SSE_REDIS_REPLICAS", default_value_t = 0, value_name = "REPLICAS",
          value_parser = whole::<0, 100>)]
    redis_replicas: u64,
    /// Begin a new epoch: after the data folder was restored from a backup
    #[arg(long)]
    new_epoch: bool,
    /// Serve the files of this folder at /
    #[arg(long)]
    site: Option<PathBuf>,
    /// Serve /debug/*, by which anyone can make trouble
    #[arg(long)]
    debug_routes: bool,
    /// How log lines on stderr look
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// What is logged
    #[arg(long, env = "LOG_LEVEL", value_enum, ignore_case = true, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// Log each heartbeat, too
    #[arg(long, env = "LOG_HEARTBEATS", default_value_t = false, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    log_heartbeats: bool,
    /// Log the beginning and the end of each replay
    #[arg(long, env = "LOG_REPLAY", default_value_t = true, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    log_replay: bool,
    /// Milliseconds between two demo events on the channel `ticks`; 0 for none
    #[arg(long, env = "SSE_TICK_INTERVAL", default_value_t = 1000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    tick_interval: u64,
    /// Milliseconds between two heartbeats; 0 for none
    #[arg(long, env = "SSE_HEARTBEAT_INTERVAL", default_value_t = 15_000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    heartbeat_interval: u64,
    /// Reconnection time in milliseconds that streams announce
    #[arg(long, env = "SSE_RETRY_TIMEOUT", default_value_t = 3000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    retry: u64,
    /// Events kept for each channel
    #[arg(long, env = "SSE_MAX_BUFFER_SIZE", default_value_t = 100_000, value_name = "EVENTS",
          value_parser = whole::<1, 1_000_000_000>)]
    max_buffer_size: u64,
    /// Events of one page of a replay; a longer replay takes several
    #[arg(long, env = "SSE_MAX_REPLAY_BATCH", default_value_t = 256, value_name = "EVENTS",
          value_parser = whole::<1, 100_000>)]
    max_replay_batch: u64,
    /// Milliseconds after which an event is no longer kept; 0 for no bound
    #[arg(long, env = "SSE_BUFFER_TTL_MS", default_value_t = 0, value_name = "MS",
          value_parser = whole::<0, { u64::MAX }>)]
    buffer_ttl: u64,
    /// Streams at the same time; further ones are answered with 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 1000, value_name = "STREAMS",
          value_parser = whole::<1, 10_000_000>)]
    max_connections: u64,
    /// Milliseconds to say goodbye to open streams when stopping
    #[arg(long, env = "SHUTDOWN_GRACE_PERIOD", default_value_t = 5000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    grace_period: u64,
    /// Sockets at the same time from one address; 0 for no bound, as behind a proxy, where all have its address
    #[arg(long, env = "SSE_SOCKETS_PER_ADDRESS", default_value_t = 0, value_name = "SOCKETS",
          value_parser = whole::<0, 10_000_000>)]
    sockets_per_address: u64,
    /// Milliseconds that a peer may take nothing of what is sent to it, until it is cut
    #[arg(long, env = "SSE_WRITE_TIMEOUT", default_value_t = 30_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    write_timeout: u64,
    /// Milliseconds for the head of a request, and for a TLS handshake; idle connections are kept as long
    #[arg(long, env = "SSE_HEAD_TIMEOUT", default_value_t = 30_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    head_timeout: u64,
    /// Milliseconds for the body of a request
    #[arg(long, env = "SSE_BODY_TIMEOUT", default_value_t = 60_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    body_timeout: u64,
    /// Compress streams for clients that take zstd or gzip; costs memory for each
    #[arg(long)]
    compress: bool,
    /// Certificate chain in PEM: TLS instead of plain HTTP; read anew at SIGHUP
    #[arg(long, env = "SSE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, env = "SSE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Origins of other hosts that may use the routes: `*`, or some like `https://app.example`, joined by commas
    #[arg(long, env = "SSE_CORS_ORIGINS", value_name = "ORIGINS")]
    cors_origins: Option<String>,
}

/// A setting that is never shown.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

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
            connections_max: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            page: PageLimit {
                events_max: usize::try_from(self.max_replay_batch).unwrap_or(usize::MAX),
                ..PageLimit::default()
            },
            cors: cors(self.cors_origins.as_deref())?,
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
            age_ms_max: self.buffer_ttl,
            ..Retention::default()
        };
        let redis = self.redis_url.filter(|url| !url.0.is_empty()).map(|url| RedisSettings {
            url,
            prefix: self.redis_prefix,
            replicas_min: u32::try_from(self.redis_replicas).unwrap_or(u32::MAX),
        });
        if redis.is_some() && self.memory {
            return Err(ServeError::Setting(
                "--memory: cannot be combined with --redis-url (SSE_REDIS_URL)".to_owned(),
            ));
        }
        let listen = ListenOptions {
            // Publishers, scrapers and those who are to hear 503 need sockets beside the streams.
            sockets_max: streams.connections_max.saturating_add(ListenOptions::default().sockets_max),
            sockets_per_address_max: usize::try_from(self.sockets_per_address).unwrap_or(usize::MAX),
            handshake_ms_max: self.head_timeout,
            head_ms_max: self.head_timeout,
            body_ms_max: self.body_timeout,
            write_ms_max: self.write_timeout,
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
            redis,
            new_epoch: self.new_epoch,
            site: self.site,
            log: LogOptions {
                format: self.log_format,
                level: self.log_level,
                heartbeats: self.log_heartbeats,
                replay: self.log_replay,
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

/// Variables with our prefix. One that is not here is a slip of the pen, and would be ignored in silence.
const VARIABLES: [&str; 19] = [
    "SSE_DATA_DIR",
    "SSE_REDIS_URL",
    "SSE_REDIS_PREFIX",
    "SSE_REDIS_REPLICAS",
    "SSE_TICK_INTERVAL",
    "SSE_HEARTBEAT_INTERVAL",
    "SSE_RETRY_TIMEOUT",
    "SSE_MAX_BUFFER_SIZE",
    "SSE_MAX_REPLAY_BATCH",
    "SSE_BUFFER_TTL_MS",
    "SSE_SOCKETS_PER_ADDRESS",
    "SSE_WRITE_TIMEOUT",
    "SSE_HEAD_TIMEOUT",
    "SSE_BODY_TIMEOUT",
    "SSE_TLS_CERT",
    "SSE_TLS_KEY",
    "SSE_CORS_ORIGINS",
    PUBLISH_TOKEN,
    STREAM_TOKEN,
];

const PUBLISH_TOKEN: &str = "SSE_PUBLISH_TOKEN";
const STREAM_TOKEN: &str = "SSE_STREAM_TOKEN";

fn refuse_unknown_variables() -> Result<(), ServeError> {
    let unknown = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .find(|name| name.starts_with("SSE_") && !VARIABLES.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let known = VARIABLES.join(", ");
            Err(ServeError::Setting(format!(
                "{name}: there is no such setting; those with this prefix are {known}"
            )))
        }
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
