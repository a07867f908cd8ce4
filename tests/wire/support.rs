//! What the wire tests share: a recorder of everything that the parser says, and a parser that is naive on purpose.

use holdfast_sse::wire::{EventRef, ParseError, Parser, ParserLimits, Sink};

/// One thing that a parser said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Event { name: String, data: String, id: String, own_id: bool },
    Id(String),
    Retry(u64),
    Comment,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Vec<Said>);

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

/// Parses `chunks` as one body; stops at the first error, as every caller would.
pub(crate) fn parse<'a>(
    limits: ParserLimits,
    last_event_id: &str,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Said>, Result<(), ParseError>) {
    let mut parser = Parser::new(limits, last_event_id);
    let mut said = Recorder::default();
    let result = chunks.into_iter().try_for_each(|chunk| parser.feed(chunk, &mut said));
    (said.0, result)
}

/// Asserts that no way of cutting `body` shows: whole, every cut in two, byte by byte, with empty chunks between.
/// Answers with what was said.
pub(crate) fn parse_every_way(
    limits: ParserLimits,
    last_event_id: &str,
    body: &[u8],
) -> (Vec<Said>, Result<(), ParseError>) {
    let whole = parse(limits, last_event_id, [body]);
    let context = || format!("body {:?}", String::from_utf8_lossy(body));
    for cut in 0..=body.len() {
        let (head, tail) = body.split_at(cut);
        assert_eq!(parse(limits, last_event_id, [head, tail]), whole, "cut at {cut}, {}", context());
    }
    assert_eq!(parse(limits, last_event_id, body.chunks(1)), whole, "byte by byte, {}", context());
    let with_empty = body.chunks(1).flat_map(|byte| [byte, &[]]);
    assert_eq!(parse(limits, last_event_id, with_empty), whole, "with empty chunks, {}", context());
    whole
}

/// The standard's text, sentence by sentence, on the whole body at once: slow, without bounds, and hard to get wrong.
///
/// The decoder is `encoding_rs`, the one in Firefox: it shares no code with the parser.
pub(crate) fn oracle(last_event_id: &str, body: &[u8]) -> Vec<Said> {
    // "Streams must be decoded using the UTF-8 decode algorithm", which strips one byte order mark.
    let (text, _) = encoding_rs::UTF_8.decode_with_bom_removal(body);
    let mut said = Vec::new();
    let (mut data, mut name, mut id, mut own_id) =
        (String::new(), String::new(), last_event_id.to_owned(), false);
    for line in lines(&text) {
        if line.is_empty() {
            if data.is_empty() {
                if own_id {
                    said.push(Said::Id(id.clone()));
                }
            } else {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                said.push(Said::Event { name, data: data.clone(), id: id.clone(), own_id });
            }
            data.clear();
            name.clear();
            own_id = false;
            continue;
        }
        if line.starts_with(':') {
            said.push(Said::Comment);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => {
                id = value.to_owned();
                own_id = true;
            }
            // The standard leaves out whether an empty value "consists of only ASCII digits"; it has no number to set.
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                said.push(Said::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    said
}

/// The lines that have ended: by CRLF, LF or CR. What follows the last end is pending, and dropped.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        lines.push(&rest[..end]);
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
    }
    lines
}

pub(crate) fn message(data: &str) -> Said {
    named("message", data)
}

pub(crate) fn named(name: &str, data: &str) -> Said {
    Said::Event { name: name.to_owned(), data: data.to_owned(), id: String::new(), own_id: false }
}

/// A message with an `id` field of its own.
pub(crate) fn with_id(id: &str, data: &str) -> Said {
    Said::Event { name: "message".to_owned(), data: data.to_owned(), id: id.to_owned(), own_id: true }
}

/// A message that has its id from a block before.
pub(crate) fn inherits(id: &str, data: &str) -> Said {
    Said::Event { name: "message".to_owned(), data: data.to_owned(), id: id.to_owned(), own_id: false }
}

pub(crate) fn id(id: &str) -> Said {
    Said::Id(id.to_owned())
}
