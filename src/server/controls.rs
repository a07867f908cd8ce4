//! Writes what the server says about a stream: control events and heartbeats, as envelopes without `id:` line.

use bytes::Bytes;
use serde_json::{Value, json};

use super::clock;
use super::options::EventNames;
use crate::wire::{control, encode};

/// One control event.
pub(crate) fn event(name: &str, payload: &Value) -> Bytes {
    let envelope = json!({
        "event_id": clock::event_id(),
        "type": name,
        "ts": clock::iso(clock::unix_ms()),
        "payload": payload,
    });
    let mut out = Vec::new();
    // The names are our own and hold no line end; an event that cannot be written is left out.
    let _ = encode::event(&mut out, Some(name), None, &envelope.to_string());
    out.into()
}

/// The reconnection time.
pub(crate) fn retry(ms: u64) -> Bytes {
    let mut out = Vec::new();
    encode::retry(&mut out, ms);
    out.into()
}

pub(crate) fn heartbeat(names: EventNames, interval_ms: u64, connection_id: &str) -> Bytes {
    if names == EventNames::Evstream {
        return plain("heartbeat", "");
    }
    let server_time = clock::iso(clock::unix_ms());
    event(
        control::HEARTBEAT,
        &json!({ "server_time": server_time, "interval_ms": interval_ms, "connection_id": connection_id }),
    )
}

pub(crate) fn close(names: EventNames, reason: &str) -> Bytes {
    if names == EventNames::Evstream {
        return plain("end", "");
    }
    event(control::CLOSE, &json!({ "reason": reason }))
}

pub(crate) fn error(names: EventNames, message: &str, code: &str) -> Bytes {
    let payload = json!({ "message": message, "code": code });
    if names == EventNames::Evstream {
        return plain("error", &payload.to_string());
    }
    event(control::ERROR, &payload)
}

/// An event without an envelope.
fn plain(name: &str, data: &str) -> Bytes {
    let mut out = Vec::new();
    // The names are our own and hold no line end.
    let _ = encode::event(&mut out, Some(name), None, data);
    out.into()
}
