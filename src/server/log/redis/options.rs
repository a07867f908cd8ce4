//! How a Redis log uses Redis, the network and memory.

use std::fmt;
use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion};
use tokio_rustls::rustls::crypto::ring;

use super::super::{LogError, PageLimit, Retention};

/// Options of a [`RedisLog`](super::RedisLog).
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS, with the system's certificates or those of the file
    /// that the variable `SSL_CERT_FILE` names. Several, separated by commas, for a failover to another address: of those
    /// that answer as primaries, the one with the newest epoch is used. Whatever promotes a replica must see to it that the
    /// old primary does not come back as one. Never shown: it may hold a password.
    pub url: String,
    /// Stands before every key and topic, as `<prefix>:<channel>:events`. Logs of different prefixes share nothing. 1 to
    /// 64 visible ASCII characters; default `holdfast`. A colon would make `a:b` with channel `c` and `a` with channel `b:c`
    /// one: with it only a log is opened that is there already, from before this rule.
    pub prefix: String,
    /// What is kept. All nodes should say the same.
    pub retention: Retention,
    /// How long a channel's idempotency keys are kept after its last one, in milliseconds. Default 24 hours.
    pub keys_age_ms_max: u64,
    /// Replicas that must have an event before it is acknowledged (`WAIT`). Default 0: the primary alone, as safe as its
    /// `appendfsync` makes it.
    pub replicas_min: u32,
    /// How long Redis may take for one answer, in milliseconds. Default 5,000.
    pub command_ms_max: u64,
    /// How long connecting may take, in milliseconds. Default 2,000.
    pub connect_ms_max: u64,
    /// Longest wait between two attempts to connect, in milliseconds; the first is 50, each doubles it. Default 2,000.
    pub retry_ms_max: u64,
    /// What is held in memory for each channel with subscribers. Default 1,024 events, 1 MiB.
    pub tail: PageLimit,
    /// Bytes of all tails together; beyond it, readers go to Redis. Default 64 MiB.
    pub tails_bytes_max: usize,
    /// Appends that wait for the writer; further ones wait for room. Default 4,096.
    pub queue_max: usize,
    /// Appends that share one round trip. Default 256.
    pub commit_events_max: usize,
    /// Pages that are read at the same time. Default 8.
    pub reads_max: usize,
}

impl RedisOptions {
    /// The defaults, for the Redis at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "holdfast".to_owned(),
            retention: Retention::default(),
            keys_age_ms_max: 24 * 3_600_000,
            replicas_min: 0,
            command_ms_max: 5_000,
            connect_ms_max: 2_000,
            retry_ms_max: 2_000,
            tail: PageLimit { events_max: 1024, bytes_max: 1 << 20 },
            tails_bytes_max: 64 << 20,
            queue_max: 4096,
            commit_events_max: 256,
            reads_max: 8,
        }
    }

    pub(super) fn command_limit(&self) -> Duration {
        Duration::from_millis(self.command_ms_max.max(1))
    }

    /// Checks what can be checked without a connection. One client an address.
    pub(super) fn clients(&self) -> Result<Vec<Client>, LogError> {
        let length = 1..=64;
        if !length.contains(&self.prefix.len()) || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the prefix of the Redis log takes 1 to 64 visible ASCII characters"));
        }
        self.urls().iter().map(|url| client(url)).collect()
    }

    /// A comma begins another address only where a scheme follows it: a password may hold one.
    fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for part in self.url.split(',') {
            match urls.last_mut() {
                Some(url) if !part.contains("://") => url.extend([",", part]),
                _ => urls.push(part.trim().to_owned()),
            }
        }
        urls
    }
}

fn wrong(text: &str) -> LogError {
    LogError::Storage(text.to_owned())
}

fn client(url: &str) -> Result<Client, LogError> {
    // The library's own words may repeat the URL, which may hold a password.
    let unusable = |_| {
        wrong(
            "the URL of the Redis log cannot be used: it should look like \
             redis://[user:password@]host:port[/db], rediss:// for TLS, several separated by commas",
        )
    };
    let info = url.into_connection_info().map_err(unusable)?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        // Where an app's other crates bring several, none is taken by itself, and the library would panic.
        let _ = ring::default_provider().install_default();
    }
    // Push messages beside answers on one connection are what RESP3 brings.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).map_err(unusable)
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .field("replicas_min", &self.replicas_min)
            .finish_non_exhaustive()
    }
}
