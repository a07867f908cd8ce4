//! Options as an app writes them, checked one by one: an error names the option, what it got and what it takes.
//!
//! serde-wasm-bindgen ignores unknown keys, names no field in its errors and refuses `Infinity` for integers
//! (the documented default of `maxAttempts`), so keys are checked here and values decoded field by field.

mod checks;

use js_sys::{Function, Object, Reflect};
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

use crate::client::{CannotResumeFallback, Config, DedupeConfig, Jitter, LivenessConfig, RetryPolicy};

/// Longest time that an option can set: what `setTimeout` can wait for.
const MS_MAX: f64 = i32::MAX as f64;

const CALLBACKS: [&str; 19] = [
    "onEvent",
    "onOpen",
    "onClose",
    "onError",
    "onRetry",
    "onGiveUp",
    "onHeartbeat",
    "onControl",
    "onDuplicate",
    "onOutOfOrder",
    "onGap",
    "onLivenessFailure",
    "onCannotResume",
    "onResumeAttempt",
    "onStateChange",
    "onResponse",
    "onInvalid",
    "resumeRequest",
    "fetch",
];

const VALUES: [&str; 42] = [
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
];

const RETRY_POLICY: [&str; 7] =
    ["baseDelayMs", "maxDelayMs", "maxAttempts", "maxRetryTimeMs", "jitterPct", "jitterKind", "multiplier"];

/// Everything that the web side needs to know about one stream.
pub(crate) struct WebOptions {
    pub(crate) config: Config,
    /// A string, or a function that answers with one (or a promise of one) at each attempt.
    pub(crate) url: JsValue,
    /// An object, or a function that answers with one (or a promise of one) at each attempt.
    pub(crate) headers: JsValue,
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

/// An option that cannot be used.
pub(crate) struct InvalidOption {
    code: &'static str,
    option: String,
    message: String,
}

impl From<InvalidOption> for JsValue {
    fn from(invalid: InvalidOption) -> Self {
        let error = js_sys::Error::new(&invalid.message);
        let _ = Reflect::set(&error, &"code".into(), &invalid.code.into());
        let _ = Reflect::set(&error, &"option".into(), &invalid.option.into());
        error.into()
    }
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

        let (known_url, url) = check_url(url)?;
        let headers = check_headers(&root)?;
        let mut config = read_config(&root)?;
        config.repeatable = checks::repeatable(&root)?;
        config.can_refresh_credentials = config.repeatable && (headers.is_function() || url.is_function());
        config.unfinished_max = checks::unfinished_max(&root)?;
        checks::schemas(&root)?;
        let has_sink = check_methods(&root, "metricsSink", &["incCounter", "setGauge", "observe"])?;
        let has_logger = check_methods(&root, "logger", &["debug", "info", "warn", "error"])?;
        let counts = root.flag("enableMetrics")?.unwrap_or(true) && has_sink;
        root.flag("trackEventLag")?;
        config.report_duplicates = counts || has_logger || root.function("onDuplicate")?.is_some();
        config.rng_seed = (js_sys::Math::random() * 2_f64.powi(53)) as u64;

        let persist = root.flag("persistLastEventId")?;
        let has_store = check_methods(&root, "eventIdStorage", &["get", "set", "clear"])?;
        let app_keeps_cursor = has_store && persist != Some(false);
        let persist = persist.unwrap_or(false) && !app_keeps_cursor;
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
        Ok(Self {
            config,
            url,
            headers,
            trace_id: root.string("traceId")?,
            persist_key,
            app_keeps_cursor,
            credentials: root.choice("credentials", &["omit", "same-origin", "include"])?,
            last_event_id_param: root.string("lastEventIdParam")?,
            host: known_url.map(|url| url.hostname()),
        })
    }
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
fn check_url(url: JsValue) -> Result<(Option<web_sys::Url>, JsValue), InvalidOption> {
    if url.is_function() {
        return Ok((None, url));
    }
    let text = match url.as_string() {
        Some(text) => text,
        None => match url.dyn_ref::<web_sys::Url>() {
            Some(url) => url.href(),
            None => {
                let message = format!(
                    "the URL is a string, a URL or a function that returns one, got {}",
                    describe(&url)
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
    Ok((Some(parsed), JsValue::from(text)))
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

/// An object whose fields are read by name.
struct Fields<'a> {
    prefix: &'a str,
    object: Object,
}

impl<'a> Fields<'a> {
    fn of(prefix: &'a str, value: &JsValue) -> Result<Self, InvalidOption> {
        if value.is_undefined() {
            return Ok(Self { prefix, object: Object::new() });
        }
        match value.dyn_ref::<Object>() {
            Some(object) if !value.is_function() && !js_sys::Array::is_array(value) => {
                Ok(Self { prefix, object: object.clone() })
            }
            _ => {
                let name = if prefix.is_empty() { "options" } else { prefix };
                Err(InvalidOption {
                    code: "invalid_option",
                    option: name.to_owned(),
                    message: format!("{name} takes an object, got {}", describe(value)),
                })
            }
        }
    }

    fn get(&self, name: &str) -> JsValue {
        Reflect::get(&self.object, &name.into()).unwrap_or(JsValue::UNDEFINED)
    }

    /// No keys but these.
    fn only(&self, known: &[&[&str]]) -> Result<(), InvalidOption> {
        let known = || known.iter().flat_map(|names| names.iter().copied());
        for key in Object::keys(&self.object).iter().filter_map(|key| key.as_string()) {
            if known().any(|name| name == key) {
                continue;
            }
            let nearest = known().map(|name| (distance(&key, name), name)).min();
            let hint = match nearest {
                Some((distance, name)) if distance <= 3 => format!("; did you mean {}?", self.path(name)),
                _ => format!("; it takes {}", known().collect::<Vec<_>>().join(", ")),
            };
            let option = self.path(&key);
            return Err(InvalidOption {
                code: "invalid_option",
                message: format!("unknown option {option}{hint}"),
                option,
            });
        }
        Ok(())
    }

    fn function(&self, name: &str) -> Result<Option<Function>, InvalidOption> {
        let value = self.get(name);
        if value.is_undefined() {
            return Ok(None);
        }
        value.dyn_into::<Function>().map(Some).map_err(|value| self.invalid(name, "a function", &value))
    }

    fn number(&self, name: &str, min: f64, max: f64) -> Result<Option<f64>, InvalidOption> {
        let takes = || {
            if max.is_finite() {
                format!("a number from {min} to {max}")
            } else {
                format!("a number from {min}, or Infinity")
            }
        };
        let value = self.field::<f64>(name, &takes)?;
        match value {
            Some(number) if !(min..=max).contains(&number) => {
                Err(self.invalid(name, &takes(), &self.get(name)))
            }
            _ => Ok(value),
        }
    }

    fn ms(&self, name: &str, min: f64) -> Result<Option<u64>, InvalidOption> {
        Ok(self.number(name, min, MS_MAX)?.map(|ms| ms as u64))
    }

    fn count(&self, name: &str, min: f64) -> Result<Option<usize>, InvalidOption> {
        Ok(self.number(name, min, f64::from(1 << 30))?.map(|count| count as usize))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, InvalidOption> {
        self.field(name, &|| "true or false".to_owned())
    }

    fn string(&self, name: &str) -> Result<Option<String>, InvalidOption> {
        let text = self.field::<String>(name, &|| "a string that is not empty".to_owned())?;
        match text {
            Some(text) if text.is_empty() => {
                Err(self.invalid(name, "a string that is not empty", &text.into()))
            }
            text => Ok(text),
        }
    }

    fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, InvalidOption> {
        let takes = || choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
        match self.field::<String>(name, &takes)? {
            Some(text) if !choices.contains(&text.as_str()) => {
                Err(self.invalid(name, &takes(), &text.into()))
            }
            text => Ok(text),
        }
    }

    fn field<T: DeserializeOwned>(
        &self,
        name: &str,
        takes: &dyn Fn() -> String,
    ) -> Result<Option<T>, InvalidOption> {
        let value = self.get(name);
        if value.is_undefined() {
            return Ok(None);
        }
        serde_wasm_bindgen::from_value(value.clone())
            .map(Some)
            .map_err(|_| self.invalid(name, &takes(), &value))
    }

    fn invalid(&self, name: &str, takes: &str, got: &JsValue) -> InvalidOption {
        let option = self.path(name);
        InvalidOption {
            code: "invalid_option",
            message: format!("option {option} takes {takes}, got {}", describe(got)),
            option,
        }
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// A value as a person would name it; long ones are cut.
fn describe(value: &JsValue) -> String {
    let text = match value.as_string() {
        Some(text) => format!("{text:?}"),
        None if value.is_function() => "a function".to_owned(),
        None if js_sys::Array::is_array(value) => "an array".to_owned(),
        None if value.is_null() => "null".to_owned(),
        None if value.is_object() => "an object".to_owned(),
        // Numbers, booleans, symbols.
        None => format!("{value:?}").trim_start_matches("JsValue(").trim_end_matches(')').to_owned(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("…".chars()).collect() } else { text }
}

/// Edits between two names, letter case aside.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replace.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
