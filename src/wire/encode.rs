//! Writes event streams. Whatever it is given, it cannot be made to inject a line: names and ids with
//! CR, LF or NUL are refused, data is split at every line end that a parser would see.

use std::fmt;

/// Why something cannot be written as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// The event name holds CR, LF or NUL.
    InvalidName,
    /// The id holds CR, LF or NUL.
    InvalidId,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self {
            Self::InvalidName => "an event name",
            Self::InvalidId => "an event id",
        };
        write!(f, "{field} cannot hold a carriage return, a line feed or NUL")
    }
}

impl std::error::Error for EncodeError {}

/// Appends one event. `name` of `None` or `"message"` writes no `event` field, since that is its default.
///
/// # Errors
/// Name or id hold a character that would end their line; nothing has been written then.
pub fn event(out: &mut Vec<u8>, name: Option<&str>, id: Option<&str>, data: &str) -> Result<(), EncodeError> {
    if name.is_some_and(breaks_line) {
        return Err(EncodeError::InvalidName);
    }
    if id.is_some_and(breaks_line) {
        return Err(EncodeError::InvalidId);
    }
    out.reserve(data.len() + 64);
    if let Some(id) = id {
        field(out, b"id: ", id.as_bytes());
    }
    if let Some(name) = name.filter(|name| !matches!(*name, "" | "message")) {
        field(out, b"event: ", name.as_bytes());
    }
    data_lines(out, data.as_bytes());
    out.push(b'\n');
    Ok(())
}

/// Appends a comment, a sign of life that reaches no handler. Line ends in `text` become spaces.
pub fn comment(out: &mut Vec<u8>, text: &str) {
    out.push(b':');
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

/// Appends a `retry` field: the reconnection time in milliseconds.
pub fn retry(out: &mut Vec<u8>, ms: u64) {
    field(out, b"retry: ", ms.to_string().as_bytes());
    out.push(b'\n');
}

fn breaks_line(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn data_lines(out: &mut Vec<u8>, mut rest: &[u8]) {
    loop {
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            field(out, b"data: ", rest);
            return;
        };
        field(out, b"data: ", &rest[..end]);
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + if crlf { 2 } else { 1 }..];
    }
}
