//! The envelope: the JSON object that many servers wrap their events in, with an id, a type, a time and a payload.

use super::json;

/// What ordering and dedupe need of an envelope, read without allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EnvelopeRef<'a> {
    /// `event_id`, where it is a string without escapes.
    pub event_id: Option<&'a str>,
    /// `sequence`, where it is a whole number that is not negative.
    pub sequence: Option<u64>,
    /// `stream_id`: what the sequence counts within.
    pub stream_id: Option<&'a str>,
    /// `ts`, as written.
    pub ts: Option<&'a str>,
    /// `payload`, raw.
    pub payload: Option<&'a str>,
}

/// Reads the top level of `data`; `None` where it is not a JSON object.
#[must_use]
pub fn scan(data: &str) -> Option<EnvelopeRef<'_>> {
    let mut envelope = EnvelopeRef::default();
    let complete = json::object_fields(data, |key, raw| match key {
        "event_id" => envelope.event_id = json::plain_string(raw),
        "sequence" => envelope.sequence = json::unsigned(raw),
        "stream_id" => envelope.stream_id = json::plain_string(raw),
        "ts" => envelope.ts = json::plain_string(raw),
        "payload" => envelope.payload = Some(raw),
        _ => {}
    });
    complete.then_some(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_what_is_there_and_ignores_what_is_nested() {
        let data = r#"{"event_id":"e1","type":"a.b","payload":{"sequence":99},"sequence":7,"stream_id":"s"}"#;
        let envelope = scan(data).expect("an object");
        assert_eq!(
            (envelope.event_id, envelope.sequence, envelope.stream_id),
            (Some("e1"), Some(7), Some("s"))
        );
        assert_eq!(envelope.payload, Some(r#"{"sequence":99}"#));
        assert_eq!(scan("[1]"), None);
        for (raw, expected) in [("-1", None), ("1.5", None), ("1e3", None), ("\"1\"", None), ("0", Some(0))] {
            assert_eq!(scan(&format!("{{\"sequence\":{raw}}}")).and_then(|e| e.sequence), expected, "{raw}");
        }
    }
}
