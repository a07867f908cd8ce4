#![no_main]
//! No way of cutting a body shows in what the parser says, and its memory stays within the limits.
//!
//! Input: two bytes choose the limits, the next 16 the lengths of the chunks (used round and round), the rest is the body.

use holdfast_sse::wire::{EventRef, ParseError, Parser, ParserLimits, Sink};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Said {
    Event { name: String, data: String, id: String, own_id: bool },
    Id(String),
    Retry(u64),
    Comment,
}

struct Recorder(Vec<Said>);

impl Sink for Recorder {
    fn event(&mut self, event: EventRef<'_>) {
        self.0.push(Said::Event {
            name: event.name.to_owned(),
            data: event.data.to_owned(),
            id: event.last_event_id.to_owned(),
            own_id: event.own_id,
        });
    }
    fn id_only(&mut self, last_event_id: &str) {
        self.0.push(Said::Id(last_event_id.to_owned()));
    }
    fn retry(&mut self, ms: u64) {
        self.0.push(Said::Retry(ms));
    }
    fn comment(&mut self) {
        self.0.push(Said::Comment);
    }
}

fn parse<'a>(
    limits: ParserLimits,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Said>, Result<(), ParseError>) {
    let mut parser = Parser::new(limits, "");
    let mut said = Recorder(Vec::new());
    let mut result = Ok(());
    for chunk in chunks {
        result = parser.feed(chunk, &mut said);
        assert!(parser.buffered_bytes() <= limits.line_bytes_max + limits.event_bytes_max);
        if result.is_err() {
            break;
        }
    }
    (said.0, result)
}

fuzz_target!(|input: &[u8]| {
    let Some((limits, rest)) = input.split_first_chunk::<2>() else { return };
    let Some((lengths, body)) = rest.split_first_chunk::<16>() else { return };
    let [line_bytes_max, event_bytes_max] = limits.map(usize::from);
    let limits = ParserLimits { line_bytes_max, event_bytes_max };
    let whole = parse(limits, std::iter::once(body));

    let mut rest = body;
    let pieces = lengths.iter().cycle().map_while(|length| {
        if rest.is_empty() {
            return None;
        }
        // At least every other piece is longer than nothing, or this would not end.
        let (piece, after) = rest.split_at(usize::from(*length % 32).min(rest.len()));
        rest = after;
        Some(piece)
    });
    let pieces: Vec<&[u8]> = if lengths.iter().all(|length| length % 32 == 0) {
        body.chunks(1).collect()
    } else {
        pieces.collect()
    };
    assert_eq!(parse(limits, pieces.into_iter()), whole);
    assert_eq!(parse(limits, body.chunks(1)), whole);
});
