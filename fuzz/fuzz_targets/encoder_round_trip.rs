#![no_main]
//! Whatever strings the encoder takes, a parser reads exactly one event from what it wrote.
//!
//! Input: name, id and data, separated by 0xFF, which UTF-8 never holds.

use holdfast_sse::wire::{EventRef, Parser, ParserLimits, Sink, encode};
use libfuzzer_sys::fuzz_target;

struct Only<'a> {
    expected: EventRef<'a>,
    events: usize,
}

impl Sink for Only<'_> {
    fn event(&mut self, event: EventRef<'_>) {
        assert_eq!(event, self.expected);
        self.events += 1;
    }
    fn id_only(&mut self, last_event_id: &str) {
        panic!("moved the id to {last_event_id:?}");
    }
    fn retry(&mut self, ms: u64) {
        panic!("set the reconnection time to {ms}");
    }
    fn comment(&mut self) {
        panic!("wrote a comment");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0xFF).map(std::str::from_utf8);
    let (Some(Ok(name)), Some(Ok(id)), Some(Ok(data))) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let mut out = Vec::new();
    if encode::event(&mut out, Some(name), Some(id), data).is_err() {
        assert!(out.is_empty());
        return;
    }
    let data = data.replace("\r\n", "\n").replace('\r', "\n");
    let name = if name.is_empty() { "message" } else { name };
    let mut sink =
        Only { expected: EventRef { name, data: &data, last_event_id: id, own_id: true }, events: 0 };
    Parser::new(ParserLimits::default(), "").feed(&out, &mut sink).expect("within the limits");
    assert_eq!(sink.events, 1);
});
