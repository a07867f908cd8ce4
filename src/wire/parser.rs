//! Incremental parser of event streams, to the letter of the HTML standard, section 9.2.6.
//!
//! Every byte is looked at once, whatever the chunks: a line of many megabytes in small pieces costs
//! linear time. Memory is bounded by [`ParserLimits`]. How the bytes were split never shows in the output.

use std::fmt;

/// Upper bounds of what one parser may hold. Reaching one is a [`ParseError`], never growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParserLimits {
    /// Bytes of one line without its end, field name included. Default 4 MiB.
    pub line_bytes_max: usize,
    /// Bytes of one event as it is handed over: its joined data, name and id. Default 4 MiB.
    pub event_bytes_max: usize,
}

impl Default for ParserLimits {
    fn default() -> Self {
        Self { line_bytes_max: 4 << 20, event_bytes_max: 4 << 20 }
    }
}

/// Why a stream cannot be read on. The parser answers with the same error from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// A line is longer than [`ParserLimits::line_bytes_max`], given here.
    LineTooLong(usize),
    /// An event is larger than [`ParserLimits::event_bytes_max`], given here.
    EventTooLarge(usize),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong(max) => write!(f, "a line of the stream is longer than {max} bytes"),
            Self::EventTooLarge(max) => write!(f, "an event of the stream is larger than {max} bytes"),
        }
    }
}

impl std::error::Error for ParseError {}

/// One dispatched event. Text is valid UTF-8: broken sequences have become U+FFFD, as the decoder standard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// The event name; `message` where the stream names none.
    pub name: &'a str,
    /// The data lines, joined by LF.
    pub data: &'a str,
    /// The last event ID as of this event: its own, or the one inherited from before.
    pub last_event_id: &'a str,
    /// Whether this event carried an `id` field of its own.
    pub own_id: bool,
}

/// Receives what the parser finds, in stream order.
pub trait Sink {
    /// An event ended with its blank line.
    fn event(&mut self, event: EventRef<'_>);
    /// A block without data ended and moved the last event ID (it may now be empty).
    fn id_only(&mut self, last_event_id: &str);
    /// A `retry` field of digits, in milliseconds; saturates, never wraps.
    fn retry(&mut self, ms: u64);
    /// A comment line: a sign of life, nothing more.
    fn comment(&mut self) {}
}

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The parser of one response body. A new body needs a new parser.
///
/// Lines that lie whole within a chunk are decoded together, and their fields are handed over from the decoded text
/// where they stand. Only what a later chunk must complete is copied.
#[derive(Debug)]
pub struct Parser {
    limits: ParserLimits,
    /// An unfinished line, carried over from earlier chunks, not yet decoded.
    line: Vec<u8>,
    /// The data lines of an unfinished event, joined by LF.
    data: String,
    has_data: bool,
    name: String,
    /// The last event ID buffer: survives events, as the standard says.
    id: String,
    own_id: bool,
    /// How many bytes of a byte order mark have matched; 3 when that question is settled.
    bom_matched: usize,
    /// The last chunk ended with CR: an LF that comes first belongs to it.
    skip_lf: bool,
    failed: Option<ParseError>,
}

/// Fields whose text still stands in the chunk at hand, before [`Parser::keep`] copies them. Each one that is present
/// replaces the parser's own.
#[derive(Default)]
struct Fields<'t> {
    /// The only data line so far.
    data: Option<&'t str>,
    name: Option<&'t str>,
    id: Option<&'t str>,
}

impl Parser {
    /// A parser for a body that continues from `last_event_id` (empty for a fresh stream), which events
    /// without an id of their own inherit.
    #[must_use]
    pub fn new(limits: ParserLimits, last_event_id: &str) -> Self {
        Self {
            limits,
            line: Vec::new(),
            data: String::new(),
            has_data: false,
            name: String::new(),
            id: last_event_id.to_owned(),
            own_id: false,
            bom_matched: 0,
            skip_lf: false,
            failed: None,
        }
    }

    /// Reads the next bytes of the body and hands what they complete to `sink`.
    ///
    /// # Errors
    /// A limit was reached. What came before has been handed over; nothing after it will be.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.read(chunk, sink);
        if let Err(error) = result {
            self.failed = Some(error);
            self.line = Vec::new();
            self.data = String::new();
            self.name = String::new();
        }
        result
    }

    /// Bytes now held for an unfinished line or event.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len()
    }

    fn read(&mut self, chunk: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
        let mut rest = chunk;
        if self.bom_matched < BOM.len() {
            rest = self.strip_bom(rest)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        // A CR ends its line at once; should an LF follow in the next chunk, it is part of this end.
        if std::mem::replace(&mut self.skip_lf, rest.ends_with(b"\r")) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        if !self.line.is_empty() {
            rest = self.finish_line(rest, sink)?;
        }
        let lines_end = memchr::memrchr2(b'\n', b'\r', rest).map_or(0, |last| last + 1);
        count::looked_at(rest.len() - lines_end);
        let (lines, tail) = rest.split_at(lines_end);
        self.read_lines(lines, sink)?;
        self.extend_line(tail)
    }

    /// Swallows one byte order mark at the very start, also when it comes in pieces.
    fn strip_bom<'a>(&mut self, chunk: &'a [u8]) -> Result<&'a [u8], ParseError> {
        for (index, byte) in chunk.iter().enumerate() {
            if *byte != BOM[self.bom_matched] {
                let matched = std::mem::replace(&mut self.bom_matched, BOM.len());
                self.extend_line(&BOM[..matched])?;
                // What had matched came from earlier chunks, or stands right before `index` in this one.
                return Ok(&chunk[index..]);
            }
            self.bom_matched += 1;
            if self.bom_matched == BOM.len() {
                return Ok(&chunk[index + 1..]);
            }
        }
        Ok(&[])
    }

    /// Completes the line that earlier chunks began, if it ends in this one, and answers with what follows it.
    fn finish_line<'a>(&mut self, chunk: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], ParseError> {
        let mut after = 0;
        let Some(end) = line_end(chunk, &mut after) else {
            self.extend_line(chunk)?;
            return Ok(&[]);
        };
        self.extend_line(&chunk[..end])?;
        // Taken out and put back, so that the buffer's memory is used again.
        let mut line = std::mem::take(&mut self.line);
        self.read_line_alone(&line, sink)?;
        line.clear();
        self.line = line;
        Ok(&chunk[after..])
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        self.check_line(self.line.len() + bytes.len())?;
        count::looked_at(bytes.len());
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check_line(&self, line_bytes: usize) -> Result<(), ParseError> {
        if line_bytes > self.limits.line_bytes_max {
            return Err(ParseError::LineTooLong(self.limits.line_bytes_max));
        }
        Ok(())
    }

    /// Reads lines that are all complete. An end of line is never part of a longer sequence, so that decoding them
    /// apart from the rest of the body changes nothing.
    fn read_lines(&mut self, lines: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
        let (mut start, mut after) = (0, 0);
        count::looked_at(lines.len());
        if let Ok(text) = std::str::from_utf8(lines) {
            let mut fields = Fields::default();
            while let Some(end) = line_end(lines, &mut after) {
                self.check_line(end - start)?;
                self.read_line(&text[start..end], &mut fields, sink)?;
                start = after;
            }
            self.keep(fields);
        } else {
            while let Some(end) = line_end(lines, &mut after) {
                self.check_line(end - start)?;
                self.read_line_alone(&lines[start..end], sink)?;
                start = after;
            }
        }
        Ok(())
    }

    /// Reads a line whose text does not outlive this call.
    fn read_line_alone(&mut self, line: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
        count::looked_at(line.len());
        let line = String::from_utf8_lossy(line);
        let mut fields = Fields::default();
        self.read_line(&line, &mut fields, sink)?;
        self.keep(fields);
        Ok(())
    }

    fn keep(&mut self, fields: Fields<'_>) {
        if let Some(data) = fields.data {
            count::looked_at(data.len());
            self.data.push_str(data);
        }
        if let Some(name) = fields.name {
            name.clone_into(&mut self.name);
        }
        if let Some(id) = fields.id {
            id.clone_into(&mut self.id);
        }
    }

    fn read_line<'t>(
        &mut self,
        line: &'t str,
        fields: &mut Fields<'t>,
        sink: &mut impl Sink,
    ) -> Result<(), ParseError> {
        if line.is_empty() {
            self.dispatch(fields, sink);
        } else if let Some(value) = value_of("data", line) {
            if self.has_data {
                self.data.push_str(fields.data.take().unwrap_or_default());
                self.data.push('\n');
                self.data.push_str(value);
            } else {
                self.has_data = true;
                fields.data = Some(value);
            }
            self.check_event(fields)?;
        } else if let Some(value) = value_of("id", line) {
            if !value.contains('\0') {
                fields.id = Some(value);
                self.own_id = true;
            }
            self.check_event(fields)?;
        } else if let Some(value) = value_of("event", line) {
            fields.name = Some(value);
            self.check_event(fields)?;
        } else if let Some(value) = value_of("retry", line) {
            if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
                sink.retry(saturating_decimal(value));
            }
        } else if line.starts_with(':') {
            sink.comment();
        }
        Ok(())
    }

    fn check_event(&self, fields: &Fields<'_>) -> Result<(), ParseError> {
        let data_bytes = self.data.len() + fields.data.map_or(0, str::len);
        let name_bytes = fields.name.unwrap_or(&self.name).len();
        let id_bytes = fields.id.unwrap_or(&self.id).len();
        if data_bytes + name_bytes + id_bytes > self.limits.event_bytes_max {
            return Err(ParseError::EventTooLarge(self.limits.event_bytes_max));
        }
        Ok(())
    }

    fn dispatch(&mut self, fields: &mut Fields<'_>, sink: &mut impl Sink) {
        let last_event_id = fields.id.unwrap_or(&self.id);
        if self.has_data {
            let name = fields.name.unwrap_or(&self.name);
            sink.event(EventRef {
                name: if name.is_empty() { "message" } else { name },
                data: fields.data.unwrap_or(&self.data),
                last_event_id,
                own_id: self.own_id,
            });
        } else if self.own_id {
            sink.id_only(last_event_id);
        }
        self.has_data = false;
        self.own_id = false;
        self.data.clear();
        self.name.clear();
        fields.data = None;
        fields.name = None;
    }
}

/// Finds where the line that starts at `after` ends, and moves `after` behind its end: LF, CR or CRLF.
fn line_end(bytes: &[u8], after: &mut usize) -> Option<usize> {
    let found = memchr::memchr2(b'\n', b'\r', &bytes[*after..]);
    count::looked_at(found.unwrap_or(bytes.len() - *after));
    let end = *after + found?;
    *after = end + 1;
    if bytes[end] == b'\r' && bytes.get(*after) == Some(&b'\n') {
        *after += 1;
    }
    Some(end)
}

/// The value of `line` if its field is `field`: behind the colon and one space, or empty where there is no colon.
fn value_of<'t>(field: &str, line: &'t str) -> Option<&'t str> {
    let rest = line.strip_prefix(field)?;
    match rest.strip_prefix(':') {
        Some(value) => Some(value.strip_prefix(' ').unwrap_or(value)),
        None => rest.is_empty().then_some(rest),
    }
}

fn saturating_decimal(digits: &str) -> u64 {
    digits
        .bytes()
        .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// How many bytes are looked at or copied: each a few times, however they came. Counted in tests only.
mod count {
    #[cfg(not(test))]
    pub(super) fn looked_at(_bytes: usize) {}

    #[cfg(test)]
    pub(super) use counting::looked_at;

    #[cfg(test)]
    pub(super) mod counting {
        use std::cell::Cell;

        thread_local! {
            static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
        }

        pub(crate) fn looked_at(bytes: usize) {
            LOOKED_AT.set(LOOKED_AT.get() + bytes);
        }

        pub(crate) fn take() -> usize {
            LOOKED_AT.take()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lengths(Vec<usize>);

    impl Sink for Lengths {
        fn event(&mut self, event: EventRef<'_>) {
            self.0.push(event.data.len());
        }
        fn id_only(&mut self, _last_event_id: &str) {}
        fn retry(&mut self, _ms: u64) {}
    }

    /// Feeds `body` in chunks of so many bytes; answers how often each byte was looked at.
    fn looks(body: &[u8], chunk_bytes: usize, data: &[usize]) -> usize {
        let limits = ParserLimits { line_bytes_max: 8 << 20, event_bytes_max: 8 << 20 };
        let (mut parser, mut sink) = (Parser::new(limits, ""), Lengths::default());
        count::counting::take();
        for chunk in body.chunks(chunk_bytes) {
            parser.feed(chunk, &mut sink).expect("within the limits");
        }
        assert_eq!(sink.0, data);
        count::counting::take().div_ceil(body.len())
    }

    // Trap: a line that is looked through from its beginning with each chunk.
    #[test]
    fn a_line_of_megabytes_in_small_chunks_costs_linear_time() {
        // Small enough to end soon, with a failure, also where it is not linear.
        for (bytes, chunk_bytes) in
            [(64 << 10, 1), (512 << 10, 7), (4 << 20, 1_400), (4 << 20, 64 << 10), (4 << 20, 8 << 20)]
        {
            let line = [b"data: ", "x".repeat(bytes).as_bytes(), b"\n\n"].concat();
            let of_one = looks(&line, chunk_bytes, &[bytes]);
            let lines = "data: 0123456789\n".repeat(bytes / 16) + "\n";
            let of_many = looks(lines.as_bytes(), chunk_bytes, &[bytes / 16 * 11 - 1]);
            assert!(of_one <= 6 && of_many <= 6, "chunks of {chunk_bytes}: {of_one}, {of_many} times");
        }
    }
}
