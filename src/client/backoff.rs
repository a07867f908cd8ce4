//! When to try again: exponential delays with jitter, the server's wishes as far as they are sane, and an end.

/// How delays are spread, so that the clients that one outage cut off do not return in one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Uniform within this share of the delay to either side: 0.2 means ±20 %.
    Proportional(f64),
    /// Uniform between nothing and the whole delay.
    Full,
}

/// The retry policy, all times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Delay before the first retry; a `retry` field of the server replaces it. Default 1,000.
    pub base_delay_ms: u64,
    /// No delay is longer, unless the server asked for it with `Retry-After`. Default 30,000.
    pub max_delay_ms: u64,
    /// Retries in a row before giving up; `None` never does. Default `None`.
    pub max_attempts: Option<u32>,
    /// Time since the stream was lost after which no attempt is made; `None` is forever. Default `None`.
    pub max_retry_time_ms: Option<u64>,
    /// Growth from one delay to the next. Default 2.
    pub multiplier: f64,
    /// Default ±20 %.
    pub jitter: Jitter,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base_delay_ms: 1_000,
            max_delay_ms: 30_000,
            max_attempts: None,
            max_retry_time_ms: None,
            multiplier: 2.0,
            jitter: Jitter::Proportional(0.2),
        }
    }
}

/// Shortest base delay that a server can set: `retry: 0` must not make a hot loop.
pub(crate) const SERVER_RETRY_MS_MIN: u64 = 50;
/// Longest wait that a `Retry-After` can ask for.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Shortest wait before a hole is fetched.
const FETCH_DELAY_MS_MIN: u64 = 500;
/// How often that wait grows.
const FETCH_DOUBLINGS_MAX: u32 = 2;

/// Why there is no next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    Attempts,
    Time,
}

/// Counts failed attempts and tells the delay to the next.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    server_base_ms: Option<u64>,
    attempts: u32,
    /// Holes fetched since the last healthy connection.
    fetches: u32,
    failing_since_ms: Option<u64>,
    random: u64,
}

impl Backoff {
    /// A backoff whose jitter comes from `seed` alone.
    #[must_use]
    pub fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, server_base_ms: None, attempts: 0, fetches: 0, failing_since_ms: None, random: seed }
    }

    /// Attempts that failed since the last healthy connection.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Time since the first of these failures.
    pub(crate) fn failing_for_ms(&self, now_ms: u64) -> u64 {
        self.failing_since_ms.map_or(0, |since| now_ms - since)
    }

    /// A connection has been healthy for long enough: earlier failures are forgiven.
    pub(crate) fn forgive(&mut self) {
        self.attempts = 0;
        self.fetches = 0;
        self.failing_since_ms = None;
    }

    /// The server's reconnection time (HTML standard, section 9.2.6), clamped at both ends.
    pub(crate) fn set_server_retry(&mut self, ms: u64) {
        let ceiling = self.policy.max_delay_ms.max(SERVER_RETRY_MS_MIN);
        self.server_base_ms = Some(ms.clamp(SERVER_RETRY_MS_MIN, ceiling));
    }

    /// Counts one more failure; answers how long to wait, `floor_ms` (of `Retry-After`) at the least.
    pub(crate) fn next_delay_ms(&mut self, now_ms: u64, floor_ms: Option<u64>) -> Result<u64, Exhausted> {
        let since = *self.failing_since_ms.get_or_insert(now_ms);
        if self.policy.max_attempts.is_some_and(|max| self.attempts >= max) {
            return Err(Exhausted::Attempts);
        }
        let random = self.next_random();
        let mut delay = self.jittered(self.attempts, random);
        if let Some(floor) = floor_ms {
            // Everybody was told the same time; spread above it.
            let floor = floor.min(RETRY_AFTER_MS_MAX) as f64;
            delay = delay.max(floor * (1.0 + 0.2 * random));
        }
        let delay = delay.round() as u64;
        if self.policy.max_retry_time_ms.is_some_and(|max| (now_ms - since).saturating_add(delay) > max) {
            return Err(Exhausted::Time);
        }
        self.attempts += 1;
        Ok(delay)
    }

    /// How long to wait before a hole is fetched. Each is fetched once, and the stream moves on with each: this is no
    /// failure, and a stream with many holes must get through. Yet its server must see no storm.
    pub(crate) fn fetch_delay_ms(&mut self) -> u64 {
        let random = self.next_random();
        let delay = self.jittered(self.fetches.min(FETCH_DOUBLINGS_MAX), random);
        self.fetches = self.fetches.saturating_add(1);
        (delay.round() as u64).max(FETCH_DELAY_MS_MIN)
    }

    fn jittered(&self, exponent: u32, random: f64) -> f64 {
        let base = self.server_base_ms.unwrap_or(self.policy.base_delay_ms) as f64;
        let max = self.policy.max_delay_ms as f64;
        let plain = (base * self.policy.multiplier.powf(f64::from(exponent))).min(max);
        match self.policy.jitter {
            Jitter::Full => plain * random,
            Jitter::Proportional(share) => {
                // At the ceiling the whole range moves below it: cutting it off would let half of all
                // clients return at exactly the same moment.
                let high = (plain * (1.0 + share)).min(max);
                (high - 2.0 * share * plain * random).max(0.0)
            }
        }
    }

    /// `SplitMix64`: enough to spread delays, and the same on every platform.
    fn next_random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
