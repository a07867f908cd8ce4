//! Everything that can be set, with its default. Each bound of the client stands here.

use super::backoff::RetryPolicy;
use super::ordering::{OrderingRule, OutOfOrderPolicy};
use super::visibility::WhenHidden;
use crate::wire::ParserLimits;

/// The configuration of one client.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// When to try again.
    pub retry: RetryPolicy,
    /// Whether to try again at all. Default true.
    pub auto_reconnect: bool,
    /// How long one connection must be up before earlier failures are forgiven, counted once from its opening.
    /// Default 5,000 ms.
    pub stable_after_ms: u64,
    /// How long a response head may take. Default 60,000 ms.
    pub connect_timeout_ms: u64,
    /// When a stream counts as dead; `None` never. Default 30,000 ms and 5,000 ms of grace.
    pub liveness: Option<LivenessConfig>,
    /// How events that come again are recognised on servers with ids of their own; `None` lets them pass.
    pub dedupe: Option<DedupeConfig>,
    /// Which order is enforced.
    pub ordering: OrderingConfig,
    /// What follows when the server cannot replay. Default [`CannotResumeFallback::StartFresh`].
    pub cannot_resume: CannotResumeFallback,
    /// Bounds of one line and one event.
    pub limits: ParserLimits,
    /// Event names that are kept by number; later ones travel as text. Default 256.
    pub names_max: usize,
    /// Ids processed beyond the cursor that are stored with it: of so many events behind the oldest unfinished one. Of
    /// finished events that are given back as many are remembered, the nearest ones. Default 1,000.
    pub done_ids_max: usize,
    /// Unfinished events at which the reading pauses. Default 1: one thing after another.
    pub unfinished_max: usize,
    /// Records from the oldest unfinished one on, finished ones, heartbeats and notices among them, at which the reading
    /// pauses, too; never fewer than `unfinished_max`. Default 10,000.
    pub records_max: usize,
    /// How long results of asynchronous handlers may wait to be stored. Default 250 ms.
    pub commit_interval_ms: u64,
    /// What follows when the page is hidden. Default [`WhenHidden::Stay`].
    pub when_hidden: WhenHidden,
    /// How long the page must have been hidden for that. Default 5,000 ms.
    pub hidden_after_ms: u64,
    /// Whether the request may be sent again, after a failure or its clean end (always for GET). Default true.
    pub repeatable: bool,
    /// Whether fresh credentials can be had: headers or URL are functions. Default false.
    pub can_refresh_credentials: bool,
    /// Whether the app wants to hear of each duplicate. Default false: they are counted.
    pub report_duplicates: bool,
    /// Where jitter comes from.
    pub rng_seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            auto_reconnect: true,
            stable_after_ms: 5_000,
            connect_timeout_ms: 60_000,
            liveness: Some(LivenessConfig::default()),
            dedupe: Some(DedupeConfig::default()),
            ordering: OrderingConfig::default(),
            cannot_resume: CannotResumeFallback::StartFresh,
            limits: ParserLimits::default(),
            names_max: 256,
            done_ids_max: 1_000,
            unfinished_max: 1,
            records_max: 10_000,
            commit_interval_ms: 250,
            when_hidden: WhenHidden::Stay,
            hidden_after_ms: 5_000,
            repeatable: true,
            can_refresh_credentials: false,
            report_duplicates: false,
            rng_seed: 0,
        }
    }
}

/// When a stream counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Milliseconds without a byte; at least 2.5 announced heartbeat intervals. Default 30,000.
    pub timeout_ms: u64,
    /// Milliseconds after opening during which nothing is checked. Default 5,000.
    pub grace_ms: u64,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { timeout_ms: 30_000, grace_ms: 5_000 }
    }
}

/// The window in which a repeated event is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupeConfig {
    /// Events remembered. Default 1,000.
    pub size_max: usize,
    /// Milliseconds for which one is remembered; 0 is without end. Default 0.
    pub ttl_ms: u64,
}

impl Default for DedupeConfig {
    fn default() -> Self {
        Self { size_max: 1_000, ttl_ms: 0 }
    }
}

/// Which order is enforced, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderingConfig {
    /// By what an envelope is ordered. Default [`OrderingRule::Sequence`].
    pub rule: OrderingRule,
    /// What happens to a late event. Default [`OutOfOrderPolicy::DropWithCallback`].
    pub policy: OutOfOrderPolicy,
    /// Streams whose sequences are followed at once. Default 64.
    pub scopes_max: usize,
    /// Early events that wait for a missing one (our protocol, and [`OutOfOrderPolicy::Reorder`], where events of other
    /// streams that pass meanwhile count, too). Default 256.
    pub held_events_max: usize,
    /// Bytes of such events. Default 4 MiB.
    pub held_bytes_max: usize,
    /// How long a missing event is waited for before it is fetched anew. Default 500 ms.
    pub gap_timeout_ms: u64,
}

impl Default for OrderingConfig {
    fn default() -> Self {
        Self {
            rule: OrderingRule::Sequence,
            policy: OutOfOrderPolicy::DropWithCallback,
            scopes_max: 64,
            held_events_max: 256,
            held_bytes_max: 4 << 20,
            gap_timeout_ms: 500,
        }
    }
}

/// What follows when the server cannot replay from the cursor. The app is told in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotResumeFallback {
    /// Go on with what the server still has.
    StartFresh,
    /// Close the stream; the cursor stays.
    Close,
    /// The app decides. The machine goes on; the driver leaves the notice unfinished until the app has decided, so that the
    /// stored cursor stays, and stops before it where the app wants that.
    Callback,
}
