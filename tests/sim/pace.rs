//! No request storm: what the retry policy allows between two requests. The client's clock may have run ahead of time, so
//! what counts is the time that may have passed by it.

use holdfast_sse::client::{Config, Jitter};

/// Shortest delay that a server's `retry` can set.
const SERVER_RETRY_MS_MIN: u64 = 50;
/// Shortest wait before a hole is fetched.
const FETCH_MS_MIN: u64 = 500;
/// Sums of uniform delays fall below their mean by so many standard deviations in no run.
const DEVIATIONS_MAX: f64 = 7.0;

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It failed, or the stream ended.
    Failed,
    /// The client gave it up: it took too long, fell silent, or has a hole.
    GivenUp,
    /// The server wants fresh credentials.
    Unauthorised,
}

#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Failures in a row since the last healthy connection; those are not counted that only the client knows of.
    failures: u32,
    opened_ms: Option<u64>,
    ended: Option<(u64, End)>,
    not_before_ms: u64,
    refreshed: bool,
    /// Waits that may be anything down to none: their sum, the sum of what they are by the mean, and the variance of that.
    waited_ms: f64,
    mean_ms: f64,
    variance: f64,
}

impl Pace {
    /// The app asked for a connection: what was before does not count.
    pub(crate) fn begins(&mut self) {
        *self = Self::default();
    }

    fn forgive(&mut self) {
        self.failures = 0;
        (self.waited_ms, self.mean_ms, self.variance) = (0.0, 0.0, 0.0);
    }

    pub(crate) fn opened(&mut self, now_ms: u64) {
        self.opened_ms = Some(now_ms);
        self.refreshed = false;
    }

    pub(crate) fn ended(&mut self, now_ms: u64, end: End, retry_after_ms: Option<u64>, config: &Config) {
        if self.opened_ms.take().is_some_and(|opened| now_ms - opened >= config.stable_after_ms) {
            self.forgive();
        }
        self.failures += u32::from(end == End::Failed);
        self.not_before_ms = self.not_before_ms.max(now_ms + retry_after_ms.unwrap_or(0));
        self.ended = Some((now_ms, end));
    }

    /// Something gives reason for a request, though it may have to wait for what the server asked.
    pub(crate) fn prompted(&mut self, now_ms: u64) {
        if now_ms < self.not_before_ms {
            self.ended = None;
        }
    }

    pub(crate) fn is_unauthorised(&self) -> bool {
        matches!(self.ended, Some((_, End::Unauthorised)))
    }

    /// `prompted`: what just happened is reason enough for a request.
    pub(crate) fn request(
        &mut self,
        now_ms: u64,
        prompted: bool,
        config: &Config,
        server_retry_ms: Option<u64>,
    ) -> Result<(), String> {
        if now_ms < self.not_before_ms {
            return Err(format!("{} ms before Retry-After is over", self.not_before_ms - now_ms));
        }
        if config.retry.max_attempts.is_some_and(|max| self.failures > max) {
            return Err(format!("after {} failures in a row", self.failures));
        }
        let Some((ended_ms, end)) = self.ended.take().filter(|_| !prompted) else { return Ok(()) };
        let waited_ms = now_ms - ended_ms;
        let (lowest_ms, plain_ms) = self.delay(config, server_retry_ms);
        let lowest_ms = match end {
            End::Unauthorised if config.can_refresh_credentials && !self.refreshed => {
                self.refreshed = true;
                return Ok(());
            }
            End::GivenUp => lowest_ms.min(FETCH_MS_MIN),
            End::Failed | End::Unauthorised => lowest_ms,
        };
        if waited_ms < lowest_ms {
            return Err(format!(
                "{waited_ms} ms after failure {}, where the backoff begins at {lowest_ms} ms",
                self.failures
            ));
        }
        if end == End::Failed && config.retry.jitter == Jitter::Full {
            self.waited_ms += waited_ms as f64;
            self.mean_ms += plain_ms / 2.0;
            self.variance += plain_ms * plain_ms / 12.0;
            if self.waited_ms < self.mean_ms - DEVIATIONS_MAX * self.variance.sqrt() {
                return Err(format!(
                    "{} failures waited {} ms in all, where the backoff has {} ms in the mean",
                    self.failures, self.waited_ms, self.mean_ms
                ));
            }
        }
        Ok(())
    }

    /// The shortest delay after so many failures or more, and what it is without jitter. Whether the server's own base has
    /// come is not known here; nor is the shorter delay that of fewer failures, since at the ceiling the whole range moves
    /// below it.
    fn delay(&self, config: &Config, server_retry_ms: Option<u64>) -> (u64, f64) {
        let retry = config.retry;
        let max = retry.max_delay_ms as f64;
        let exponent = self.failures.saturating_sub(1).min(1_000);
        let delay = |base_ms: u64| {
            let plain = (base_ms as f64 * retry.multiplier.powi(exponent as i32)).min(max);
            let lowest = match retry.jitter {
                Jitter::Full => 0.0,
                Jitter::Proportional(share) => {
                    let high = (plain * (1.0 + share)).min(max);
                    (high - 2.0 * share * plain).min(max - 2.0 * share * max)
                }
            };
            ((lowest - 1.0).max(0.0) as u64, plain)
        };
        let server = server_retry_ms.map(|ms| ms.clamp(SERVER_RETRY_MS_MIN, retry.max_delay_ms));
        let (own, servers) = (delay(retry.base_delay_ms), delay(server.unwrap_or(retry.base_delay_ms)));
        (own.0.min(servers.0), own.1.min(servers.1))
    }
}
