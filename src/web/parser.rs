//! The parser of event streams by itself, for JavaScript that has bytes but no connection.

use js_sys::Array;
use wasm_bindgen::prelude::*;

use crate::wire::{EventRef, Parser, ParserLimits, Sink};

/// See `SSEParser` in the npm package.
#[wasm_bindgen]
pub struct StreamParser {
    parser: Parser,
    /// A reconnection time that no event came after yet.
    retry_ms: Option<u64>,
}

#[wasm_bindgen]
impl StreamParser {
    /// A parser of one body.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(line_bytes_max: usize, event_bytes_max: usize) -> Self {
        let limits = ParserLimits { line_bytes_max, event_bytes_max };
        Self { parser: Parser::new(limits, ""), retry_ms: None }
    }

    /// Reads on. Answers five values for each event: name, data, id of its own, last event ID, and the reconnection
    /// time that came since the event before.
    ///
    /// # Errors
    /// A sentence: a limit was reached.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Array, JsValue> {
        let mut found = Found { values: Array::new(), retry_ms: self.retry_ms };
        let result = self.parser.feed(chunk, &mut found);
        self.retry_ms = found.retry_ms;
        match result {
            Ok(()) => Ok(found.values),
            Err(error) => Err(error.to_string().into()),
        }
    }
}

struct Found {
    values: Array,
    retry_ms: Option<u64>,
}

impl Sink for Found {
    fn event(&mut self, event: EventRef<'_>) {
        let id = JsValue::from_str(event.last_event_id);
        let own_id = if event.own_id { id.clone() } else { JsValue::UNDEFINED };
        let retry = self.retry_ms.take().map_or(JsValue::UNDEFINED, |ms| JsValue::from_f64(ms as f64));
        for value in [event.name.into(), event.data.into(), own_id, id, retry] {
            self.values.push(&value);
        }
    }

    fn id_only(&mut self, _last_event_id: &str) {}

    fn retry(&mut self, ms: u64) {
        self.retry_ms = Some(ms);
    }
}
