//! Flags and environment variables of `holdfast serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ServeError;
use super::logging::{LogFormat, LogLevel};
use crate::server::log::{PageLimit, Retention};
use crate::server::{CorsOrigins, StreamOptions};

/// What `holdfast serve` takes. A flag wins over its variable.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 3000)]
    port: u16,
    /// Folder of the event log
    #[arg(long, env = "SSE_DATA_DIR", default_value = "holdfast-data")]
    data_dir: PathBuf,
    /// Keep events in memory only
    #[arg(long)]
    memory: bool,
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
    /// Milliseconds between two demo events on the channel `ticks`; 0 for none
    #[arg(long, env = "SSE_TICK_INTERVAL", default_value_t = 1000, value_name = "MS")]
    tick_interval: u64,
    /// Milliseconds between two heartbeats; 0 for none
    #[arg(long, env = "SSE_HEARTBEAT_INTERVAL", default_value_t = 15_000, value_name = "MS")]
    heartbeat_interval: u64,
    /// Reconnection time in milliseconds that streams announce
    #[arg(long, env = "SSE_RETRY_TIMEOUT", default_value_t = 3000, value_name = "MS")]
    retry: u64,
    /// Events kept for each channel
    #[arg(long, env = "SSE_MAX_BUFFER_SIZE", default_value_t = 100_000, value_name = "EVENTS",
          value_parser = clap::value_parser!(u64).range(1..))]
    max_buffer_size: u64,
    /// Events of one page of a replay; a longer replay takes several
    #[arg(long, env = "SSE_MAX_REPLAY_BATCH", default_value_t = 256, value_name = "EVENTS",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_replay_batch: u32,
    /// Milliseconds after which an event is no longer kept; 0 for no bound
    #[arg(long, env = "SSE_BUFFER_TTL_MS", default_value_t = 0, value_name = "MS")]
    buffer_ttl: u64,
    /// Streams at the same time; further ones are answered with 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 1000, value_name = "STREAMS",
          value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Milliseconds to say goodbye to open streams when stopping
    #[arg(long, env = "SHUTDOWN_GRACE_PERIOD", default_value_t = 5000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    grace_period: u64,
    /// Origins of other hosts that may use the routes: `*`, or some like https://app.example, joined by commas
    #[arg(long, env = "SSE_CORS_ORIGINS", value_name = "ORIGINS")]
    cors_origins: Option<String>,
    /// The bearer token for POST /publish/{channel}; without one that route is off. No flag, since the list of
    /// processes shows those to everyone.
    #[arg(env = "SSE_PUBLISH_TOKEN", hide = true, long = "publish-token-from-env", hide_env_values = true)]
    publish_token: Option<String>,
}

/// The same, checked and sorted.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) data_dir: PathBuf,
    pub(super) memory: bool,
    pub(super) new_epoch: bool,
    pub(super) site: Option<PathBuf>,
    pub(super) log_format: LogFormat,
    pub(super) log_level: LogLevel,
    pub(super) tick_ms: u64,
    pub(super) grace: Duration,
    pub(super) retention: Retention,
    pub(super) streams: StreamOptions,
}

impl ServeArgs {
    pub(super) fn check(self) -> Result<Settings, ServeError> {
        let streams = StreamOptions {
            heartbeat_ms: self.heartbeat_interval,
            retry_ms: self.retry,
            connections_max: self.max_connections as usize,
            page: PageLimit { events_max: self.max_replay_batch as usize, ..PageLimit::default() },
            cors: cors(self.cors_origins.as_deref())?,
            publish_token: self.publish_token,
            tick_ms: Some(self.tick_interval).filter(|ms| *ms > 0),
            debug_routes: self.debug_routes,
            ..StreamOptions::default()
        };
        let retention = Retention {
            events_max: self.max_buffer_size,
            age_ms_max: self.buffer_ttl,
            ..Retention::default()
        };
        Ok(Settings {
            host: self.host,
            port: self.port,
            data_dir: self.data_dir,
            memory: self.memory,
            new_epoch: self.new_epoch,
            site: self.site,
            log_format: self.log_format,
            log_level: self.log_level,
            tick_ms: self.tick_interval,
            grace: Duration::from_millis(self.grace_period),
            retention,
            streams,
        })
    }
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
