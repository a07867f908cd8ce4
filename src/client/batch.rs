//! The accepted events of one chunk, laid out so that they cross into JavaScript in one piece.
//!
//! The text of all fields stands in one arena, described by a table of fixed-size records whose offsets count
//! UTF-16 units: JavaScript decodes the arena and slices. Because a slice that an app keeps holds its whole
//! parent, the arena is cut into pieces of at most [`PIECE_BYTES_MAX`] (one larger event is a piece by itself).

use std::collections::HashMap;

use super::notice::Notice;

/// `u32` words of one record: name index, data start, data length, id start, id length, flags.
/// Starts and lengths are UTF-16 units within the record's piece. For a notice the first word is its index.
pub const RECORD_WORDS: usize = 6;
/// `u32` words of one piece: first byte, byte length, number of records.
pub const PIECE_WORDS: usize = 3;
/// Largest piece that is decoded at once, unless a single event is larger.
pub const PIECE_BYTES_MAX: usize = 16 << 10;
/// The name index of a record whose name stands in the arena, right behind its id; the flags' upper bits hold
/// its length.
pub const NO_NAME_INDEX: u32 = u32::MAX;
/// Longer names are never kept: a stream must not fill the memory with them.
const KEPT_NAME_BYTES_MAX: usize = 256;

const KIND_MASK: u32 = 0b111;
const OWN_ID: u32 = 0b1000;
const NAME_LENGTH_SHIFT: u32 = 4;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event for the app.
    Event = 0,
    /// A heartbeat of the server.
    Heartbeat = 1,
    /// Another control event of the server.
    Control = 2,
    /// Something found in the stream: [`Batch::notices`].
    Notice = 3,
    /// Nothing for the app: the cursor moves once everything before is finished.
    Cursor = 4,
}

/// One record, read back: for drivers that are not JavaScript, and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What it is.
    pub kind: Kind,
    /// The event name.
    pub name: &'a str,
    /// The data.
    pub data: &'a str,
    /// The id, where the event had one of its own.
    pub id: Option<&'a str>,
    /// By this token the event is reported as processed.
    pub token: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Batch {
    records: Vec<u32>,
    pieces: Vec<u32>,
    text: String,
    /// Bytes behind each record, so that Rust reads back without counting UTF-16 units.
    ranges: Vec<Range>,
    notices: Vec<Notice>,
    first_token: u64,
    piece_units: u32,
    names: Names,
}

#[derive(Debug, Clone, Copy, Default)]
struct Range {
    data: usize,
    id: usize,
    name: usize,
    end: usize,
}

/// Event names by number, bounded.
#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Box<str>, u32, foldhash::fast::FixedState>,
    list: Vec<Box<str>>,
    last: u32,
    max: usize,
    /// Names before this one are known to the other side.
    told: usize,
}

impl Names {
    fn index(&mut self, name: &str) -> Option<u32> {
        // Streams repeat the same name over and over.
        if self.list.get(self.last as usize).is_some_and(|last| **last == *name) {
            return Some(self.last);
        }
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None if self.list.len() < self.max && name.len() <= KEPT_NAME_BYTES_MAX => {
                let index = u32::try_from(self.list.len()).ok()?;
                self.list.push(name.into());
                self.by_name.insert(name.into(), index);
                index
            }
            None => return None,
        };
        self.last = index;
        Some(index)
    }
}

impl Batch {
    pub(crate) fn new(names_max: usize) -> Self {
        Self { names: Names { max: names_max, ..Names::default() }, ..Self::default() }
    }

    /// Empties the batch; its memory is used again.
    pub(crate) fn clear(&mut self, first_token: u64) {
        self.names.told = self.names.list.len();
        self.records.clear();
        self.pieces.clear();
        self.text.clear();
        self.ranges.clear();
        self.notices.clear();
        self.piece_units = 0;
        self.first_token = first_token;
    }

    pub(crate) fn push(&mut self, kind: Kind, name: &str, data: &str, id: Option<&str>) {
        let index = self.names.index(name);
        let inline_name = if index.is_none() { name } else { "" };
        let id_text = id.unwrap_or("");
        self.piece_for(data.len() + id_text.len() + inline_name.len());
        let range = Range {
            data: self.text.len(),
            id: self.text.len() + data.len(),
            name: self.text.len() + data.len() + id_text.len(),
            end: self.text.len() + data.len() + id_text.len() + inline_name.len(),
        };
        self.text.push_str(data);
        self.text.push_str(id_text);
        self.text.push_str(inline_name);
        let (data_units, id_units, name_units) =
            (utf16_units(data), utf16_units(id_text), utf16_units(inline_name));
        let start = self.piece_units;
        let flags = kind as u32 | if id.is_some() { OWN_ID } else { 0 } | (name_units << NAME_LENGTH_SHIFT);
        let name_index = index.unwrap_or(NO_NAME_INDEX);
        self.records.extend_from_slice(&[name_index, start, data_units, start + data_units, id_units, flags]);
        self.ranges.push(range);
        self.piece_units += data_units + id_units + name_units;
        self.end_piece();
    }

    pub(crate) fn push_notice(&mut self, notice: Notice) {
        self.piece_for(0);
        let index = u32::try_from(self.notices.len()).unwrap_or(u32::MAX);
        self.notices.push(notice);
        self.records.extend_from_slice(&[index, 0, 0, 0, 0, Kind::Notice as u32]);
        let end = self.text.len();
        self.ranges.push(Range { data: end, id: end, name: end, end });
        self.end_piece();
    }

    /// Opens a new piece where `bytes` more would make the present one too large.
    fn piece_for(&mut self, bytes: usize) {
        let fits = self.pieces.len() >= PIECE_WORDS && {
            let length = self.pieces[self.pieces.len() - 2] as usize;
            length + bytes <= PIECE_BYTES_MAX
        };
        if !fits {
            self.pieces.extend_from_slice(&[self.text.len() as u32, 0, 0]);
            self.piece_units = 0;
        }
    }

    /// Counts the record just written into the present piece.
    fn end_piece(&mut self) {
        let at = self.pieces.len() - PIECE_WORDS;
        self.pieces[at + 1] = self.text.len() as u32 - self.pieces[at];
        self.pieces[at + 2] += 1;
    }

    /// The record table, [`RECORD_WORDS`] a record.
    #[must_use]
    pub fn records(&self) -> &[u32] {
        &self.records
    }

    /// The piece table, [`PIECE_WORDS`] a piece.
    #[must_use]
    pub fn pieces(&self) -> &[u32] {
        &self.pieces
    }

    /// The arena.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What records of [`Kind::Notice`] point to.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Names that this batch uses for the first time, in the order of their indices.
    pub fn new_names(&self) -> impl Iterator<Item = &str> {
        self.names.list[self.names.told..].iter().map(|name| &**name)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The token of the first record; each next one counts one up.
    #[must_use]
    pub fn first_token(&self) -> u64 {
        self.first_token
    }

    /// The token of the last record.
    #[must_use]
    pub fn last_token(&self) -> Option<u64> {
        (self.ranges.len() as u64).checked_sub(1).map(|offset| self.first_token + offset)
    }

    /// The records, read back. Those of [`Kind::Notice`] have neither name nor data.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.ranges.iter().zip(self.records.chunks_exact(RECORD_WORDS)).enumerate().map(
            |(index, (range, record))| {
                let flags = record[5];
                let kind = match flags & KIND_MASK {
                    0 => Kind::Event,
                    1 => Kind::Heartbeat,
                    2 => Kind::Control,
                    3 => Kind::Notice,
                    _ => Kind::Cursor,
                };
                let name = match (kind, record[0]) {
                    (Kind::Notice, _) => "",
                    (_, NO_NAME_INDEX) => &self.text[range.name..range.end],
                    (_, index) => &self.names.list[index as usize],
                };
                Event {
                    kind,
                    name,
                    data: &self.text[range.data..range.id],
                    id: (flags & OWN_ID != 0).then(|| &self.text[range.id..range.name]),
                    token: self.first_token + index as u64,
                }
            },
        )
    }
}

/// The length of `text` in JavaScript: one unit a character, two beyond the basic plane.
fn utf16_units(text: &str) -> u32 {
    if text.is_ascii() {
        return text.len() as u32;
    }
    let units: usize =
        text.bytes().map(|byte| usize::from(byte & 0xC0 != 0x80) + usize::from(byte >= 0xF0)).sum();
    units as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_javascript() {
        for text in ["", "abc", "é", "€", "😀", "a😀é€\u{10FFFF}\u{FFFD}"] {
            assert_eq!(utf16_units(text) as usize, text.encode_utf16().count(), "{text}");
        }
    }

    /// Reads the tables as JavaScript does: decode a piece, slice by UTF-16 units.
    fn read_as_javascript(batch: &Batch) -> Vec<(String, String)> {
        let mut records = batch.records().chunks_exact(RECORD_WORDS);
        let mut out = Vec::new();
        for piece in batch.pieces().chunks_exact(PIECE_WORDS) {
            let (start, length) = (piece[0] as usize, piece[1] as usize);
            let units: Vec<u16> = batch.text()[start..start + length].encode_utf16().collect();
            let slice = |start: u32, length: u32| {
                String::from_utf16(&units[start as usize..(start + length) as usize])
                    .expect("whole characters")
            };
            for record in records.by_ref().take(piece[2] as usize) {
                out.push((slice(record[1], record[2]), slice(record[3], record[4])));
            }
        }
        assert!(records.next().is_none(), "each record belongs to a piece");
        out
    }

    #[test]
    fn tables_describe_what_was_pushed_across_pieces() {
        let mut batch = Batch::new(2);
        let mut expected = Vec::new();
        for index in 0..500 {
            let data = format!("{index} {}", "é😀x".repeat(index % 40));
            let data = if index == 250 { "long ".repeat(10_000) } else { data };
            batch.push(Kind::Event, ["a", "b", "c"][index % 3], &data, Some(&index.to_string()));
            expected.push((data, index.to_string()));
            if index % 100 == 0 {
                batch.push_notice(Notice::ResumeAttempt { last_event_id: String::new() });
                expected.push((String::new(), String::new()));
            }
        }
        assert_eq!(read_as_javascript(&batch), expected);
        let names: Vec<_> =
            batch.events().filter(|event| event.kind == Kind::Event).map(|e| e.name).take(6).collect();
        assert_eq!(names, ["a", "b", "c", "a", "b", "c"], "the third name has no number and travels as text");
        assert!(
            batch.pieces().chunks_exact(PIECE_WORDS).all(|p| p[1] as usize <= PIECE_BYTES_MAX || p[2] == 1)
        );
        assert_eq!(batch.new_names().collect::<Vec<_>>(), ["a", "b"]);
        batch.clear(batch.first_token() + batch.len() as u64);
        assert_eq!(batch.new_names().count(), 0, "names are told once");
    }
}
