//! What `holdfast serve` takes: flags and environment variables, with their bounds.

use std::path::PathBuf;

use clap::Args;

use crate::server::Beginning;
use crate::server::logging::{LogFormat, LogLevel};

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

fn beginning(text: &str) -> Result<Beginning, String> {
    match text {
        "now" => Ok(Beginning::Now),
        "start" => Ok(Beginning::Start),
        count => whole::<0, { u64::MAX }>(count)
            .map(Beginning::Last)
            .map_err(|_| "`now`, `start` or a number of events".to_owned()),
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
    pub(super) host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 3000,
          value_parser = whole::<0, 65_535>)]
    pub(super) port: u64,
    /// Folder of the event log
    #[arg(long, env = "SSE_DATA_DIR", default_value = "holdfast-data")]
    pub(super) data_dir: PathBuf,
    /// Keep events in memory only
    #[arg(long)]
    pub(super) memory: bool,
    /// Keep no events at all: they reach those who listen, and nobody can resume
    #[arg(long, conflicts_with = "memory")]
    pub(super) null: bool,
    /// Keep events in the Redis of this URL (redis://, or rediss:// for TLS), which several servers may share; several
    /// addresses, separated by commas, for a failover. The URL may hold a password: better give
    /// it by the variable, since flags are seen by all who list processes
    #[arg(long, env = "SSE_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub(super) redis_url: Option<Secret>,
    /// What stands before all keys in Redis; servers of one prefix share one log
    #[arg(long, env = "SSE_REDIS_PREFIX", default_value = "holdfast", value_name = "PREFIX")]
    pub(super) redis_prefix: String,
    /// Replicas of Redis that must have an event before it is acknowledged
    #[arg(long, env = "SSE_REDIS_REPLICAS", default_value_t = 0, value_name = "REPLICAS",
          value_parser = whole::<0, 100>)]
    pub(super) redis_replicas: u64,
    /// Begin a new epoch: after the data folder was restored from a backup
    #[arg(long)]
    pub(super) new_epoch: bool,
    /// Serve the files of this folder at /
    #[arg(long)]
    pub(super) site: Option<PathBuf>,
    /// Serve /debug/*, by which anyone can make trouble
    #[arg(long)]
    pub(super) debug_routes: bool,
    /// How log lines on stderr look
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(super) log_format: LogFormat,
    /// What is logged
    #[arg(long, env = "LOG_LEVEL", value_enum, ignore_case = true, default_value_t = LogLevel::Info)]
    pub(super) log_level: LogLevel,
    /// Log each heartbeat, too
    #[arg(long, env = "LOG_HEARTBEATS", default_value_t = false, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(super) log_heartbeats: bool,
    /// Log the beginning and the end of each replay
    #[arg(long, env = "LOG_REPLAY", default_value_t = true, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(super) log_replay: bool,
    /// Milliseconds between two demo events on the channel `ticks`; 0 for none
    #[arg(long, env = "SSE_TICK_INTERVAL", default_value_t = 1000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    pub(super) tick_interval: u64,
    /// Milliseconds between two heartbeats; 0 for none
    #[arg(long, env = "SSE_HEARTBEAT_INTERVAL", default_value_t = 15_000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    pub(super) heartbeat_interval: u64,
    /// Reconnection time in milliseconds that streams announce
    #[arg(long, env = "SSE_RETRY_TIMEOUT", default_value_t = 3000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    pub(super) retry: u64,
    /// Events kept for each channel
    #[arg(long, env = "SSE_MAX_BUFFER_SIZE", default_value_t = 100_000, value_name = "EVENTS",
          value_parser = whole::<1, 1_000_000_000>)]
    pub(super) max_buffer_size: u64,
    /// Bytes of events kept for each channel
    #[arg(long, env = "SSE_MAX_BUFFER_BYTES", default_value_t = 256 << 20, value_name = "BYTES",
          value_parser = whole::<1, { u64::MAX }>)]
    pub(super) max_buffer_bytes: u64,
    /// Bytes of events kept for all channels together; the largest lose their oldest first. Without
    /// effect on Redis, which has its `maxmemory`
    #[arg(long, env = "SSE_MAX_TOTAL_BYTES", default_value_t = 4 << 30, value_name = "BYTES",
          value_parser = whole::<1, { u64::MAX }>)]
    pub(super) max_total_bytes: u64,
    /// Idempotency keys remembered for each channel
    #[arg(long, env = "SSE_MAX_KEYS", default_value_t = 10_000, value_name = "KEYS",
          value_parser = whole::<0, 1_000_000_000>)]
    pub(super) max_keys: u64,
    /// Channels with stored events; publishing to a further one is answered with 507
    #[arg(long, env = "SSE_MAX_CHANNELS", default_value_t = 100_000, value_name = "CHANNELS",
          value_parser = whole::<1, 100_000_000>)]
    pub(super) max_channels: u64,
    /// Bytes of one published event
    #[arg(long, env = "SSE_MAX_EVENT_BYTES", default_value_t = 1 << 20, value_name = "BYTES",
          value_parser = whole::<1, 1_000_000_000>)]
    pub(super) max_event_bytes: u64,
    /// Where a stream without a cursor begins: `now`, `start`, or with the last so many events
    #[arg(long, env = "SSE_FRESH", default_value = "now", value_name = "WHERE", value_parser = beginning)]
    pub(super) fresh: Beginning,
    /// Whether a client with a cursor goes on behind it; without, it begins anew and is told `resume_disabled`
    #[arg(long, env = "SSE_RESUME", default_value_t = true, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(super) resume: bool,
    /// Stored events that a stream begins with, at most: of a longer replay the newest; 0 for no bound
    #[arg(long, env = "SSE_MAX_REPLAY_EVENTS", default_value_t = 0, value_name = "EVENTS",
          value_parser = whole::<0, { u64::MAX }>)]
    pub(super) max_replay_events: u64,
    /// Events of one page of a replay; a longer replay takes several
    #[arg(long, env = "SSE_MAX_REPLAY_BATCH", default_value_t = 256, value_name = "EVENTS",
          value_parser = whole::<1, 100_000>)]
    pub(super) max_replay_batch: u64,
    /// Milliseconds after which an event is no longer kept; 0 for no bound
    #[arg(long, env = "SSE_BUFFER_TTL_MS", default_value_t = 0, value_name = "MS",
          value_parser = whole::<0, { u64::MAX }>)]
    pub(super) buffer_ttl: u64,
    /// Streams at the same time; further ones are answered with 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 1000, value_name = "STREAMS",
          value_parser = whole::<1, 10_000_000>)]
    pub(super) max_connections: u64,
    /// Streams at the same time from one address; further ones are answered with 429; 0 for no bound
    #[arg(long, env = "SSE_CONNECTIONS_PER_ADDRESS", default_value_t = 0, value_name = "STREAMS",
          value_parser = whole::<0, 10_000_000>)]
    pub(super) connections_per_address: u64,
    /// Header in which a proxy of yours tells the client's address, as X-Forwarded-For; its last address counts. Whoever
    /// reaches the server past the proxy can write there what they like
    #[arg(long, env = "SSE_ADDRESS_HEADER", value_name = "HEADER")]
    pub(super) address_header: Option<String>,
    /// Streams of one channel at the same time; further ones are answered with 503; 0 for no bound
    #[arg(long, env = "SSE_LISTENERS_PER_CHANNEL", default_value_t = 0, value_name = "STREAMS",
          value_parser = whole::<0, 10_000_000>)]
    pub(super) listeners_per_channel: u64,
    /// Channels of one stream
    #[arg(long, env = "SSE_CHANNELS_PER_STREAM", default_value_t = 16, value_name = "CHANNELS",
          value_parser = whole::<1, 64>)]
    pub(super) channels_per_stream: u64,
    /// Close a stream that is further behind than this; 0 lets it read the log as fast as it can
    #[arg(long, env = "SSE_SLOW_CONSUMER_EVENTS", default_value_t = 0, value_name = "EVENTS",
          value_parser = whole::<0, { u64::MAX }>)]
    pub(super) slow_consumer_events: u64,
    /// The same in bytes, of those events that are held in memory
    #[arg(long, env = "SSE_SLOW_CONSUMER_BYTES", default_value_t = 0, value_name = "BYTES",
          value_parser = whole::<0, { u64::MAX }>)]
    pub(super) slow_consumer_bytes: u64,
    /// Streams of a channel from which on one task writes to all that have read everything: less work for each
    #[arg(long, env = "SSE_FANOUT_LISTENERS", default_value_t = 32, value_name = "STREAMS",
          value_parser = whole::<1, 10_000_000>)]
    pub(super) fanout_listeners: u64,
    /// Tell each stream how many listen to its channel, at most once in so many milliseconds; 0 does not
    #[arg(long, env = "SSE_PRESENCE_INTERVAL", default_value_t = 0, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    pub(super) presence_interval: u64,
    /// Milliseconds to say goodbye to open streams when stopping
    #[arg(long, env = "SHUTDOWN_GRACE_PERIOD", default_value_t = 5000, value_name = "MS",
          value_parser = whole::<0, MS_MAX>)]
    pub(super) grace_period: u64,
    /// Sockets at the same time from one address; 0 for no bound, as behind a proxy, where all have its address
    #[arg(long, env = "SSE_SOCKETS_PER_ADDRESS", default_value_t = 0, value_name = "SOCKETS",
          value_parser = whole::<0, 10_000_000>)]
    pub(super) sockets_per_address: u64,
    /// Milliseconds that a peer may take nothing of what is sent to it, until it is cut
    #[arg(long, env = "SSE_WRITE_TIMEOUT", default_value_t = 30_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    pub(super) write_timeout: u64,
    /// Milliseconds for the head of a request, and for a TLS handshake; idle connections are kept as long
    #[arg(long, env = "SSE_HEAD_TIMEOUT", default_value_t = 30_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    pub(super) head_timeout: u64,
    /// Milliseconds for the body of a request
    #[arg(long, env = "SSE_BODY_TIMEOUT", default_value_t = 60_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    pub(super) body_timeout: u64,
    /// Streams of one HTTP/2 connection at the same time
    #[arg(long, env = "SSE_HTTP2_STREAMS", default_value_t = 256, value_name = "STREAMS",
          value_parser = whole::<1, 1_000_000>)]
    pub(super) http2_streams: u64,
    /// Milliseconds between two pings on an HTTP/2 connection, and for the answer
    #[arg(long, env = "SSE_HTTP2_PING", default_value_t = 30_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    pub(super) http2_ping: u64,
    /// Milliseconds that an HTTP/2 connection without a stream is kept
    #[arg(long, env = "SSE_HTTP2_IDLE_TIMEOUT", default_value_t = 60_000, value_name = "MS",
          value_parser = whole::<1, MS_MAX>)]
    pub(super) http2_idle_timeout: u64,
    /// Compress streams for clients that take zstd or gzip; costs memory for each
    #[arg(long, env = "SSE_COMPRESS", default_value_t = false, value_name = "BOOL", value_parser = switch,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(super) compress: bool,
    /// Certificate chain in PEM: TLS instead of plain HTTP; read anew at SIGHUP
    #[arg(long, env = "SSE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, env = "SSE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Origins of other hosts that may use the routes: `*`, or some like `https://app.example`, joined by commas
    #[arg(long, env = "SSE_CORS_ORIGINS", value_name = "ORIGINS")]
    pub(super) cors_origins: Option<String>,
    /// Request headers that pages of those may send, beside those that are read anyway; joined by commas
    #[arg(long, env = "SSE_CORS_HEADERS", value_name = "HEADERS")]
    pub(super) cors_headers: Option<String>,
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
