//! The ids that our own server hands out: a position in a log, and the cursor of a stream.
//!
//! A [`Position`] is `<epoch>-<sequence>`: the epoch names one unbroken life of a log, the sequence counts the
//! events of one channel within it, from 1; 0 is the place before the first. A [`Cursor`] is what a client
//! resumes from: one position, or `<channel>:<position>` for each of several channels, joined by commas. The id of
//! an event on a stream of several channels is such a cursor; the event's own channel stands first, the others in any
//! order: so [`Part::first`] names the event, whatever happened on the other channels.
//! Other servers' ids may look the same: nothing here applies before their `control.open` announced the protocol.

use std::fmt;

/// Longest epoch, in bytes.
pub const EPOCH_BYTES_MAX: usize = 32;
/// Most channels in one cursor.
pub const CURSOR_CHANNELS_MAX: usize = 64;
/// Longest cursor, in bytes, that is looked at.
pub const CURSOR_BYTES_MAX: usize = 8 << 10;

/// A place in one channel of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// One unbroken life of the log: 1–32 of `a–z 0–9`.
    pub epoch: String,
    /// The number of an event within its channel and epoch; 0 is before the first.
    pub sequence: u64,
}

/// The text is not an id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an event id of this server: it should look like <epoch>-<sequence>")
    }
}

impl std::error::Error for InvalidId {}

impl Position {
    /// Splits `<epoch>-<sequence>` without copying.
    #[must_use]
    pub fn split(text: &str) -> Option<(&str, u64)> {
        let (epoch, digits) = text.rsplit_once('-')?;
        Some((valid_epoch(epoch)?, sequence(digits)?))
    }
}

impl std::str::FromStr for Position {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (epoch, sequence) = Self::split(text).ok_or(InvalidId)?;
        Ok(Self { epoch: epoch.to_owned(), sequence })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// What a client resumes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// A stream of one channel.
    Single(Position),
    /// A stream of several channels, each with its own position, sorted by channel name.
    Composite(Vec<(String, Position)>),
}

impl Cursor {
    /// The longest that a composite cursor of these channels can become, in bytes.
    pub fn bytes_max<'a>(channels: impl Iterator<Item = &'a str>) -> usize {
        // `,` and `:`, and a position: an epoch, `-` and a number of up to 20 digits.
        channels.map(|channel| escape_channel(channel).len() + 2 + EPOCH_BYTES_MAX + 1 + 20).sum()
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(InvalidId);
        }
        if !text.contains(':') {
            return text.parse().map(Self::Single);
        }
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (channel, position) = part.split_once(':').ok_or(InvalidId)?;
            parts.push((unescape(channel).ok_or(InvalidId)?, position.parse()?));
            if parts.len() > CURSOR_CHANNELS_MAX {
                return Err(InvalidId);
            }
        }
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        if parts.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(InvalidId);
        }
        Ok(Self::Composite(parts))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(position) => position.fmt(f),
            Self::Composite(parts) => {
                for (index, (channel, position)) in parts.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    escape(f, channel)?;
                    write!(f, ":{position}")?;
                }
                Ok(())
            }
        }
    }
}

/// One channel of a composite cursor, without copying. The channel is as it is written there: percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The whole part.
    pub text: &'a str,
    /// The channel, as it is written.
    pub channel: &'a str,
    /// The epoch of its position.
    pub epoch: &'a str,
    /// The sequence of its position.
    pub sequence: u64,
}

impl<'a> Part<'a> {
    /// Reads `<channel>:<epoch>-<sequence>`.
    #[must_use]
    pub fn split(text: &'a str) -> Option<Self> {
        let (channel, position) = text.split_once(':').filter(|part| !part.0.is_empty())?;
        let (epoch, sequence) = Position::split(position)?;
        Some(Self { text, channel, epoch, sequence })
    }

    /// The first part of a composite cursor: of an event's id, the event's own.
    #[must_use]
    pub fn first(cursor: &'a str) -> Option<Self> {
        Self::split(cursor.split(',').next()?)
    }
}

/// A channel's name as it stands in a composite cursor.
#[must_use]
pub fn escape_channel(channel: &str) -> String {
    let mut text = String::with_capacity(channel.len());
    // Writing to a string does not fail.
    let _ = escape(&mut text, channel);
    text
}

fn valid_epoch(epoch: &str) -> Option<&str> {
    let valid = (1..=EPOCH_BYTES_MAX).contains(&epoch.len())
        && epoch.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    valid.then_some(epoch)
}

/// Digits only, no sign, no leading zero, no overflow: one number has one spelling.
fn sequence(digits: &str) -> Option<u64> {
    let canonical =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok())?
}

/// Percent-encodes what would end a channel name within a cursor, or a header value.
fn escape(f: &mut impl fmt::Write, channel: &str) -> fmt::Result {
    for byte in channel.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            write!(f, "{}", byte as char)?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|channel| !channel.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_nothing_else_parses() {
        let check = |text: &str, valid: bool| {
            let parsed = text.parse::<Cursor>();
            assert_eq!(parsed.is_ok(), valid, "{text:?} parsed as {parsed:?}");
            if let Ok(cursor) = parsed {
                assert_eq!(cursor.to_string(), text);
            }
        };
        check("k3f9-0", true);
        check("k3f9-18446744073709551615", true);
        check("news:k3f9-12", true);
        check("a:k3f9-1,b%2Cc:k3f9-2", true);
        check("", false);
        check("k3f9", false);
        check("k3f9-", false);
        check("-1", false);
        check("k3f9-01", false);
        check("k3f9-+1", false);
        check("k3f9--1", false);
        check("K3F9-1", false);
        check("k3f9-18446744073709551616", false);
        check("1700000000000-0-1", false);
        check("a:k3f9-1,a:k3f9-2", false);
        check("a:k3f9-1,b", false);
        check(":k3f9-1", false);
        check(&format!("{}-1", "e".repeat(33)), false);
        check(&"9".repeat(1 << 20), false);
    }
}
