//! Options as an app writes them, checked one by one: an error names the option, what it got and what it takes.

mod checks;
mod fields;

use std::rc::Rc;

use js_sys::Reflect;
use wasm_bindgen::prelude::*;

use self::fields::{Fields, InvalidOption, describe};
use crate::client::{CannotResumeFallback, Config, DedupeConfig, Jitter, LivenessConfig, RetryPolicy};

const CALLBACKS: [&str; 21] = [
    "onEvent",
    "onOpen",
    "onClose",
    "onError",
    "onRetry",
    "onGiveUp",
    "onHeartbeat",
    "onControl",
    "onSystemError",
    "onDuplicate",
    "onOutOfOrder",
    "onGap",
    "onLivenessFailure",
    "onCannotResume",
    "onResumeAttempt",
    "onStateChange",
    "shouldProcess",
    "onResponse",
    "onInvalid",
    "resumeRequest",
    "fetch",
];

const VALUES: [&str; 46] = [
    "retryPolicy",
    "autoReconnect",
    "timeout",
    "headers",
    "traceId",
    "debug",
    "logger",
    "enableMetrics",
    "metricsSink",
    "trackEventLag",
    "persistLastEventId",
    "persistKey",
    "eventIdStorage",
    "cannotResumeFallback",
    "enableLivenessCheck",
    "livenessTimeoutMs",
    "livenessGracePeriodMs",
    "enableDedupe",
    "dedupeMaxSize",
    "dedupeTtlMs",
    "enableOrdering",
    "orderingRule",
    "outOfOrderPolicy",
    "reorderMaxEvents",
    "reorderMaxBytes",
    "reorderWindowMs",
    "stableAfterMs",
    "maxLineBytes",
    "maxEventBytes",
    "onHandlerError",
    "handlerConcurrency",
    "credentials",
    "lastEventIdParam",
    "method",
    "body",
    "replayRequest",
    "requestInit",
    "signal",
    "ack",
    "maxUnacked",
    "schemas",
    "onInvalidEvent",
    "transport",
    "eventTypes",
    "whenHidden",
    "hiddenAfterMs",
];

const RETRY_POLICY: [&str; 7] =
    ["baseDelayMs", "maxDelayMs", "maxAttempts", "maxRetryTimeMs", "jitterPct", "jitterKind", "multiplier"];

/// Everything that the web side needs to know about one stream.
pub(crate) struct WebOptions {
    pub(crate) config: Config,
    pub(crate) url: Url,
    pub(crate) transport: TransportKind,
    /// There are headers of the app's, asked for at each attempt.
    pub(crate) has_headers: bool,
    pub(crate) trace_id: Option<String>,
    /// The key of the stored cursor; `None` does not persist.
    pub(crate) persist_key: Option<String>,
    /// The app brought a store along: TypeScript loads from it and saves to it.
    pub(crate) app_keeps_cursor: bool,
    pub(crate) credentials: Option<String>,
    /// The cursor goes into this query parameter instead of the `Last-Event-ID` header.
    pub(crate) last_event_id_param: Option<String>,
    /// The host, where the URL is known beforehand.
    pub(crate) host: Option<String>,
}

/// Where the stream comes from.
pub(crate) enum Url {
    Known(String),
    /// The app gave a function, which is asked at each attempt.
    Asked,
}

/// How it comes.
pub(crate) enum TransportKind {
    Fetch,
    /// The native EventSource, which hears events of these names.
    EventSource(Rc<[String]>),
}

impl WebOptions {
    /// Checks everything; the first flaw found is the error.
    pub(crate) fn read(url: JsValue, options: &JsValue) -> Result<Self, InvalidOption> {
        let root = Fields::of("", options)?;
        root.only(&[&CALLBACKS[..], &VALUES[..]])?;
        for name in CALLBACKS {
            root.function(name)?;
        }
        root.choice("onHandlerError", &["skip", "retry", "stop"])?;
        let _: Option<bool> = root.flag("debug")?;

        let known_url = check_url(&url)?;
        let headers = check_headers(&root)?;
        let transport = checks::transport(&root)?;
        let mut config = read_config(&root)?;
        config.repeatable = checks::repeatable(&root)?;
        config.can_refresh_credentials = config.repeatable && (headers.is_function() || url.is_function());
        config.unfinished_max = checks::unfinished_max(&root)?;
        // Each event behind one without an ack may be acked, and is not to come again.
        config.done_ids_max = config.done_ids_max.max(config.unfinished_max);
        config.when_hidden = checks::when_hidden(&root, &transport, config.repeatable)?;
        set(&mut config.hidden_after_ms, root.ms("hiddenAfterMs", 0.0)?);
        checks::schemas(&root)?;
        let has_sink = check_methods(&root, "metricsSink", &["incCounter", "setGauge", "observe"])?;
        let has_logger = check_methods(&root, "logger", &["debug", "info", "warn", "error"])?;
        let counts = root.flag("enableMetrics")?.unwrap_or(true) && has_sink;
        root.flag("trackEventLag")?;
        config.report_duplicates = counts || has_logger || root.function("onDuplicate")?.is_some();
        config.rng_seed = random_seed();

        let persist = root.flag("persistLastEventId")?;
        let has_store = check_methods(&root, "eventIdStorage", &["get", "set", "clear"])?;
        let app_keeps_cursor = has_store && persist != Some(false);
        // Workers and Node have no storage of a page's: there the cursor is kept in memory.
        let persist = persist.unwrap_or(false) && !app_keeps_cursor && web_sys::window().is_some();
        let persist_key = root.string("persistKey")?;
        let persist_key = match (persist, persist_key, &known_url) {
            (false, _, _) => None,
            (true, Some(key), _) => Some(key),
            // Never the query: it may hold tokens, and they change.
            (true, None, Some(url)) => Some(format!("{}{}", url.origin(), url.pathname())),
            (true, None, None) => {
                return Err(root.invalid(
                    "persistKey",
                    "a string, since the URL is a function",
                    &JsValue::UNDEFINED,
                ));
            }
        };
        let last_event_id_param = root.string("lastEventIdParam")?;
        let last_event_id_param = match &transport {
            TransportKind::Fetch => last_event_id_param,
            // Our server's name for it.
            TransportKind::EventSource(_) => last_event_id_param.or_else(|| Some("lastEventId".to_owned())),
        };
        Ok(Self {
            config,
            url: known_url.as_ref().map_or(Url::Asked, |url| Url::Known(url.href())),
            transport,
            has_headers: !headers.is_undefined(),
            trace_id: root.string("traceId")?,
            persist_key,
            app_keeps_cursor,
            credentials: root.choice("credentials", &["omit", "same-origin", "include"])?,
            last_event_id_param,
            host: known_url.map(|url| url.hostname()),
        })
    }
}

/// The policies by themselves: these options, and no others.
pub(crate) fn read_policies(options: &JsValue) -> Result<Config, InvalidOption> {
    let root = Fields::of("", options)?;
    root.only(&[&[
        "retryPolicy",
        "livenessTimeoutMs",
        "livenessGracePeriodMs",
        "dedupeMaxSize",
        "dedupeTtlMs",
        "orderingRule",
        "outOfOrderPolicy",
    ]])?;
    if root.get("outOfOrderPolicy") == "REORDER" {
        let takes = "'DROP', 'DROP_WITH_CALLBACK', 'ACCEPT': holding events back needs a connector";
        return Err(root.invalid("outOfOrderPolicy", takes, &"REORDER".into()));
    }
    Ok(Config { rng_seed: random_seed(), ..read_config(&root)? })
}

fn random_seed() -> u64 {
    (js_sys::Math::random() * 2_f64.powi(53)) as u64
}

fn read_config(root: &Fields<'_>) -> Result<Config, InvalidOption> {
    let default = Config::default();
    let mut config = Config { retry: read_retry_policy(root)?, ..default };
    set(&mut config.auto_reconnect, root.flag("autoReconnect")?);
    set(&mut config.connect_timeout_ms, root.ms("timeout", 1.0)?);
    set(&mut config.stable_after_ms, root.ms("stableAfterMs", 0.0)?);
    set(&mut config.limits.line_bytes_max, root.count("maxLineBytes", 64.0)?);
    set(&mut config.limits.event_bytes_max, root.count("maxEventBytes", 64.0)?);

    let mut liveness = LivenessConfig::default();
    set(&mut liveness.timeout_ms, root.ms("livenessTimeoutMs", 1.0)?);
    set(&mut liveness.grace_ms, root.ms("livenessGracePeriodMs", 0.0)?);
    config.liveness = root.flag("enableLivenessCheck")?.unwrap_or(true).then_some(liveness);

    let mut dedupe = DedupeConfig::default();
    set(&mut dedupe.size_max, root.count("dedupeMaxSize", 1.0)?);
    set(&mut dedupe.ttl_ms, root.ms("dedupeTtlMs", 0.0)?);
    config.dedupe = root.flag("enableDedupe")?.unwrap_or(true).then_some(dedupe);

    checks::ordering(root, &mut config)?;
    match root.choice("cannotResumeFallback", &["start_fresh", "close", "callback"])?.as_deref() {
        Some("close") => config.cannot_resume = CannotResumeFallback::Close,
        Some("callback") => config.cannot_resume = CannotResumeFallback::Callback,
        _ => {}
    }
    Ok(config)
}

fn read_retry_policy(root: &Fields<'_>) -> Result<RetryPolicy, InvalidOption> {
    let mut policy = RetryPolicy::default();
    let value = root.get("retryPolicy");
    if value.is_undefined() {
        return Ok(policy);
    }
    let fields = Fields::of("retryPolicy", &value)?;
    fields.only(&[&RETRY_POLICY])?;
    set(&mut policy.base_delay_ms, fields.ms("baseDelayMs", 0.0)?);
    set(&mut policy.max_delay_ms, fields.ms("maxDelayMs", 0.0)?);
    set(&mut policy.multiplier, fields.number("multiplier", 1.0, 100.0)?);
    if let Some(share) = fields.number("jitterPct", 0.0, 1.0)? {
        policy.jitter = Jitter::Proportional(share);
    }
    if fields.choice("jitterKind", &["proportional", "full"])?.as_deref() == Some("full") {
        policy.jitter = Jitter::Full;
    }
    policy.max_attempts = fields
        .number("maxAttempts", 0.0, f64::INFINITY)?
        .and_then(|max| max.is_finite().then_some(max.min(f64::from(u32::MAX)) as u32));
    policy.max_retry_time_ms = fields
        .number("maxRetryTimeMs", 0.0, f64::INFINITY)?
        .and_then(|max| max.is_finite().then_some(max as u64));
    Ok(policy)
}

/// The URL, parsed against the page's where it is known beforehand.
fn check_url(url: &JsValue) -> Result<Option<web_sys::Url>, InvalidOption> {
    if url.is_function() {
        return Ok(None);
    }
    let text = match url.as_string() {
        Some(text) => text,
        None => match url.dyn_ref::<web_sys::Url>() {
            Some(url) => url.href(),
            None => {
                let message = format!(
                    "the URL is a string, a URL or a function that returns one, got {}",
                    describe(url)
                );
                return Err(InvalidOption { code: "invalid_url", option: "url".to_owned(), message });
            }
        },
    };
    let parsed = parse_url(&text).map_err(|message| InvalidOption {
        code: "invalid_url",
        option: "url".to_owned(),
        message,
    })?;
    Ok(Some(parsed))
}

/// Parses an address the way the page would, and sees that a stream can come from it.
pub(crate) fn parse_url(text: &str) -> Result<web_sys::Url, String> {
    let base = super::host::global("location")
        .and_then(|location| Reflect::get(&location, &"href".into()).ok())
        .and_then(|href| href.as_string());
    let parsed = match &base {
        Some(base) => web_sys::Url::new_with_base(text, base).or_else(|_| web_sys::Url::new(text)),
        None => web_sys::Url::new(text),
    };
    let url = parsed.map_err(|_| {
        let hint =
            if base.is_none() { " (there is no page here that a relative one could start from)" } else { "" };
        format!("cannot parse the URL {text:?}{hint}")
    })?;
    if matches!(url.protocol().as_str(), "http:" | "https:") {
        Ok(url)
    } else {
        Err(format!("the URL {text:?} is not one of http or https"))
    }
}

/// Whether there is such an object of the app's, with all its methods.
fn check_methods(root: &Fields<'_>, name: &str, methods: &[&str]) -> Result<bool, InvalidOption> {
    let object = root.get(name);
    let is_method =
        |method: &&str| Reflect::get(&object, &(*method).into()).is_ok_and(|method| method.is_function());
    if object.is_undefined() || methods.iter().all(is_method) {
        return Ok(!object.is_undefined());
    }
    Err(root.invalid(name, &format!("an object with the methods {}", methods.join(", ")), &object))
}

fn check_headers(root: &Fields<'_>) -> Result<JsValue, InvalidOption> {
    let headers = root.get("headers");
    if headers.is_undefined() || headers.is_function() || headers.is_object() {
        Ok(headers)
    } else {
        Err(root.invalid(
            "headers",
            "an object of header names and values, or a function that returns one",
            &headers,
        ))
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
