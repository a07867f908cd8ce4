//! Incremental parser of event streams, to the letter of the HTML standard, section 9.2.6.
//!
//! Every byte is looked at once, whatever the chunks: a line of many megabytes in small pieces costs
//! linear time. Memory is bounded by [`ParserLimits`]. How the bytes were split never shows in the output.

use std::borrow::Cow;
use std::fmt;

/// Upper bounds of what one parser may hold. Reaching one is a [`ParseError`], never growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParserLimits {
    /// Bytes of one line without its end, field name included. Default 4 MiB.
    pub line_bytes_max: usize,
    /// Bytes of one event: its joined data, name and id. Default 4 MiB.
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
#[derive(Debug)]
pub struct Parser {
    limits: ParserLimits,
    /// An unfinished line, carried over from earlier chunks.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    name: Vec<u8>,
    /// The last event ID buffer: survives events, as the standard says.
    id: String,
    own_id: bool,
    /// How many bytes of a byte order mark have matched; 3 when that question is settled.
    bom_matched: usize,
    /// The last line ended with CR at the end of a chunk: an LF that comes first belongs to it.
    skip_lf: bool,
    failed: Option<ParseError>,
}

impl Parser {
    /// A parser for a body that continues from `last_event_id` (empty for a fresh stream), which events
    /// without an id of their own inherit.
    #[must_use]
    pub fn new(limits: ParserLimits, last_event_id: &str) -> Self {
        Self {
            limits,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            name: Vec::new(),
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
            self.data = Vec::new();
            self.name = Vec::new();
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
        if self.skip_lf && !rest.is_empty() {
            self.skip_lf = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        let mut at = 0;
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &rest[at..]) {
            let end = at + found;
            if self.line.is_empty() {
                self.end_line(&rest[at..end], sink)?;
            } else {
                self.extend_line(&rest[at..end])?;
                // Taken out and put back, so that the buffer's memory is used again.
                let mut line = std::mem::take(&mut self.line);
                let ended = self.end_line(&line, sink);
                line.clear();
                self.line = line;
                ended?;
            }
            at = end + 1;
            if rest[end] == b'\r' {
                match rest.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    // A CR ends its line at once; should an LF follow in the next chunk, it is part of this end.
                    None => self.skip_lf = true,
                }
            }
        }
        self.extend_line(&rest[at..])
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

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        if self.line.len() + bytes.len() > self.limits.line_bytes_max {
            return Err(ParseError::LineTooLong(self.limits.line_bytes_max));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
        if line.is_empty() {
            self.dispatch(sink);
            return Ok(());
        }
        if line.len() > self.limits.line_bytes_max {
            return Err(ParseError::LineTooLong(self.limits.line_bytes_max));
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => {
                sink.comment();
                return Ok(());
            }
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &line[..0]),
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            b"id" if memchr::memchr(0, value).is_none() => {
                self.id.clear();
                self.id.push_str(&String::from_utf8_lossy(value));
                self.own_id = true;
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                sink.retry(saturating_decimal(value));
            }
            _ => {}
        }
        if self.data.len() + self.name.len() + self.id.len() > self.limits.event_bytes_max {
            return Err(ParseError::EventTooLarge(self.limits.event_bytes_max));
        }
        Ok(())
    }

    fn dispatch(&mut self, sink: &mut impl Sink) {
        if self.has_data {
            let name = String::from_utf8_lossy(&self.name);
            let data: Cow<'_, str> = String::from_utf8_lossy(&self.data);
            sink.event(EventRef {
                name: if name.is_empty() { "message" } else { &name },
                data: &data,
                last_event_id: &self.id,
                own_id: self.own_id,
            });
        } else if self.own_id {
            sink.id_only(&self.id);
        }
        self.has_data = false;
        self.own_id = false;
        self.data.clear();
        self.name.clear();
    }
}

fn saturating_decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}
