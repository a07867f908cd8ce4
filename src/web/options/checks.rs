//! Options that depend on each other: requests, and the ways to consume.

use js_sys::{Object, Reflect};
use wasm_bindgen::JsValue;

use super::{Fields, InvalidOption, TransportKind, set};
use crate::client::{Config, OrderingRule, OutOfOrderPolicy, WhenHidden};

/// Events that may wait for their `ack()`, unless `maxUnacked` says otherwise.
const UNACKED_MAX: usize = 1_000;

/// How much the app may have in hand before the reading pauses.
pub(super) fn unfinished_max(root: &Fields<'_>) -> Result<usize, InvalidOption> {
    let handlers = root.count_to("handlerConcurrency", 1.0, 1_000.0)?.unwrap_or(1);
    let unacked = root.count("maxUnacked", 1.0)?;
    match root.choice("ack", &["auto", "manual"])?.as_deref() {
        Some("manual") => Ok(handlers.max(unacked.unwrap_or(UNACKED_MAX))),
        _ if unacked.is_some() => {
            Err(root.invalid("maxUnacked", "a number only beside ack: 'manual'", &root.get("maxUnacked")))
        }
        _ => Ok(handlers),
    }
}

/// By what events are ordered, and what happens to those that are out of order.
pub(super) fn ordering(root: &Fields<'_>, config: &mut Config) -> Result<(), InvalidOption> {
    let ordering = &mut config.ordering;
    let rule = root.choice("orderingRule", &["SEQUENCE", "EVENT_ID", "TIMESTAMP", "NONE"])?;
    ordering.rule = match rule.as_deref() {
        _ if root.flag("enableOrdering")? == Some(false) => OrderingRule::None,
        Some("EVENT_ID") => OrderingRule::EventId,
        Some("TIMESTAMP") => OrderingRule::Timestamp,
        Some("NONE") => OrderingRule::None,
        _ => OrderingRule::Sequence,
    };
    let policies = ["DROP", "DROP_WITH_CALLBACK", "ACCEPT", "REORDER"];
    ordering.policy = match root.choice("outOfOrderPolicy", &policies)?.as_deref() {
        Some("DROP") => OutOfOrderPolicy::Drop,
        Some("ACCEPT") => OutOfOrderPolicy::Accept,
        Some("REORDER") => OutOfOrderPolicy::Reorder,
        _ => OutOfOrderPolicy::DropWithCallback,
    };
    let held_events_max = root.count("reorderMaxEvents", 1.0)?;
    set(&mut ordering.held_events_max, held_events_max);
    set(&mut ordering.held_bytes_max, root.count("reorderMaxBytes", 1.0)?);
    set(&mut ordering.gap_timeout_ms, root.ms("reorderWindowMs", 1.0)?);
    if ordering.policy != OutOfOrderPolicy::Reorder {
        return Ok(());
    }
    let refuse = |option: &str, why: &str| {
        Err(root.invalid(option, &format!("another value than 'REORDER' {why}"), &"REORDER".into()))
    };
    if ordering.rule != OrderingRule::Sequence {
        return refuse(
            "outOfOrderPolicy",
            "unless orderingRule is 'SEQUENCE': the other rules do not know whether an event is missing",
        );
    }
    match config.dedupe {
        None => refuse(
            "outOfOrderPolicy",
            "unless enableDedupe is true: what a fetched gap brings again could not be told from what is new",
        ),
        Some(dedupe) if held_events_max.is_some_and(|held| dedupe.size_max < held) => Err(root.invalid(
            "reorderMaxEvents",
            &format!("at most dedupeMaxSize ({}) with outOfOrderPolicy 'REORDER'", dedupe.size_max),
            &(ordering.held_events_max as f64).into(),
        )),
        Some(dedupe) => {
            ordering.held_events_max = ordering.held_events_max.min(dedupe.size_max);
            Ok(())
        }
    }
}

/// Each schema has the method that Standard Schema (version 1) asks for.
pub(super) fn schemas(root: &Fields<'_>) -> Result<(), InvalidOption> {
    root.choice("onInvalidEvent", &["skip", "stop", "deliver"])?;
    let schemas = Fields::of("schemas", &root.get("schemas"))?;
    for name in Object::keys(&schemas.object).iter().filter_map(|name| name.as_string()) {
        let schema = schemas.get(&name);
        let standard = Reflect::get(&schema, &"~standard".into()).unwrap_or(JsValue::UNDEFINED);
        if !Reflect::get(&standard, &"validate".into()).is_ok_and(|validate| validate.is_function()) {
            return Err(schemas.invalid(
                &name,
                "a Standard Schema (an object with ~standard.validate)",
                &schema,
            ));
        }
    }
    Ok(())
}

/// Whether the request may be sent again.
pub(super) fn repeatable(root: &Fields<'_>) -> Result<bool, InvalidOption> {
    let method = root.string("method")?.unwrap_or_else(|| "GET".to_owned());
    let is_get = method.eq_ignore_ascii_case("GET");
    let body = root.get("body");
    if is_get && !body.is_undefined() {
        return Err(root.invalid(
            "body",
            "nothing, unless the option method is one that takes a body",
            &body,
        ));
    }
    let init = Fields::of("requestInit", &root.get("requestInit"))?;
    for name in ["method", "body", "headers", "signal", "credentials"] {
        if Reflect::has(&init.object, &name.into()) == Ok(true) {
            return Err(init.invalid(name, "nothing: there is an option of that name", &init.get(name)));
        }
    }
    let signal = root.get("signal");
    if !signal.is_undefined()
        && !Reflect::get(&signal, &"aborted".into()).is_ok_and(|aborted| aborted.as_bool().is_some())
    {
        return Err(root.invalid("signal", "an AbortSignal", &signal));
    }
    let replay = root.flag("replayRequest")?.unwrap_or(false);
    // A stream can be read once.
    let replayable = replay && !Reflect::has(&body, &"getReader".into()).unwrap_or(false);
    Ok(is_get || replayable || root.function("resumeRequest")?.is_some())
}

/// What the native EventSource cannot send, see or do.
const NOT_WITH_EVENT_SOURCE: [&str; 9] = [
    "method",
    "body",
    "headers",
    "traceId",
    "fetch",
    "requestInit",
    "onResponse",
    "replayRequest",
    "resumeRequest",
];

/// The way in which the stream comes, with options that it can keep.
pub(super) fn transport(root: &Fields<'_>) -> Result<TransportKind, InvalidOption> {
    let event_types = root.get("eventTypes");
    if root.choice("transport", &["fetch", "eventsource"])?.as_deref() != Some("eventsource") {
        return if event_types.is_undefined() {
            Ok(TransportKind::Fetch)
        } else {
            let takes = "names only beside transport: 'eventsource'; fetch brings events of all names";
            Err(root.invalid("eventTypes", takes, &event_types))
        };
    }
    if crate::web::host::global("EventSource").is_none() {
        let takes = "'fetch' where there is no EventSource, as here";
        return Err(root.invalid("transport", takes, &"eventsource".into()));
    }
    for name in NOT_WITH_EVENT_SOURCE {
        let value = root.get(name);
        if !value.is_undefined() {
            return Err(root.invalid(
                name,
                "nothing beside transport: 'eventsource', which cannot keep it",
                &value,
            ));
        }
    }
    if root.get("credentials") == "omit" {
        let takes = "'same-origin' or 'include' beside transport: 'eventsource'";
        return Err(root.invalid("credentials", takes, &"omit".into()));
    }
    let takes = "the names of the events to listen to, as an array of strings without line ends";
    let names: Option<Vec<String>> = root.field("eventTypes", &|| takes.to_owned())?;
    let names = names.unwrap_or_default();
    if names.iter().any(|name| name.is_empty() || name.contains(['\r', '\n', '\0'])) {
        return Err(root.invalid("eventTypes", takes, &event_types));
    }
    Ok(TransportKind::EventSource(names.into()))
}

/// What follows when the page is hidden, where request and transport can keep it.
pub(super) fn when_hidden(
    root: &Fields<'_>,
    transport: &TransportKind,
    repeatable: bool,
) -> Result<WhenHidden, InvalidOption> {
    let takes = match root.choice("whenHidden", &["stay", "pause", "close"])?.as_deref() {
        Some("pause") if matches!(transport, TransportKind::Fetch) => return Ok(WhenHidden::Pause),
        Some("pause") => "'stay' or 'close' beside transport: 'eventsource', which cannot be paused",
        Some("close") if repeatable => return Ok(WhenHidden::Close),
        Some("close") => "'stay' or 'pause' for a request that may not be sent again",
        _ => return Ok(WhenHidden::Stay),
    };
    Err(root.invalid("whenHidden", takes, &root.get("whenHidden")))
}
