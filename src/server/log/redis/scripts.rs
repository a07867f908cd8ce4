//! The scripts that decide inside Redis, what they take and what they answer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use redis::{Cmd, Script, Value};

use super::options::RedisOptions;
use crate::server::log::{Bounds, Data, LogError, NewEvent, PageLimit, Place};

/// A script's text, and the name by which Redis knows it.
pub(super) struct Source {
    pub(super) code: &'static str,
    hash: String,
}

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            let code = concat!(include_str!("lua/common.lua"), include_str!($file));
            Source { code, hash: Script::new(code).get_hash().to_owned() }
        })
    };
}

static APPEND: LazyLock<Source> = script!("lua/append.lua");
static BOUNDS: LazyLock<Source> = script!("lua/bounds.lua");
static PAGE: LazyLock<Source> = script!("lua/page.lua");
static BEGIN: LazyLock<Source> = script!("lua/begin.lua");
static RAISE: LazyLock<Source> = script!("lua/raise.lua");
static REMOVE: LazyLock<Source> = script!("lua/remove.lua");

pub(super) fn all() -> [&'static Source; 6] {
    [&APPEND, &BOUNDS, &PAGE, &BEGIN, &RAISE, &REMOVE]
}

/// One call of a script.
pub(super) struct Call {
    command: Cmd,
}

impl Call {
    fn new(script: &Source, keys: &[String]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.hash).arg(keys.len()).arg(keys);
        Self { command }
    }

    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }

    pub(super) fn into_command(self) -> Cmd {
        self.command
    }
}

/// The names of keys. Channels are not empty, so those of the whole log cannot be a channel's.
pub(super) fn key(options: &RedisOptions, channel: &str, of: &str) -> String {
    format!("{}:{channel}:{of}", options.prefix)
}

/// Where a channel's events are announced.
pub(super) fn topic(options: &RedisOptions, channel: &str) -> String {
    key(options, channel, "live")
}

/// Where it is announced which channels were forgotten since nothing is left of them.
pub(super) fn forgotten_topic(options: &RedisOptions) -> String {
    key(options, "", "forgotten")
}

/// The channels that are there, by the time at which they were used last.
fn active_key(options: &RedisOptions) -> String {
    key(options, "", "active")
}

pub(super) fn epochs_key(options: &RedisOptions) -> String {
    key(options, "", "epochs")
}

/// Stores an event in the epoch `generation`, and in no other.
pub(super) fn append(options: &RedisOptions, generation: u32, channel: &str, event: &NewEvent) -> Call {
    let of_log = |of| key(options, "", of);
    let of = |of| key(options, channel, of);
    let keys = [of_log("log"), active_key(options), of("meta"), of("events"), of("keys"), of("key_order")];
    let mut call = Call::new(&APPEND, &keys);
    let (before, numbered, after) = match &event.data {
        Data::Text(text) => (text.as_str(), 0, ""),
        Data::Numbered { before, after } => (before.as_str(), 1, after.as_str()),
    };
    let keep = &options.retention;
    call.command.arg(channel).arg(topic(options, channel)).arg(&event.name);
    call.command.arg(before).arg(after).arg(numbered);
    match &event.key {
        Some(key) => call.command.arg(&key.text).arg(key.content),
        None => call.command.arg("").arg(""),
    };
    call.command.arg(keep.events_max).arg(keep.bytes_max).arg(keep.age_ms_max).arg(keep.keys_max);
    call.command.arg(keep.channels_max).arg(options.keys_age_ms_max.max(1)).arg(generation);
    match &event.state {
        Some(mark) => call.command.arg(&mark.key).arg(u8::from(mark.removed)),
        None => call.command.arg("").arg(0),
    };
    call.command.arg(&options.prefix);
    call
}

pub(super) fn bounds(options: &RedisOptions, channel: &str) -> Call {
    let keys = [key(options, "", "log"), key(options, channel, "meta"), key(options, channel, "events")];
    let mut call = Call::new(&BOUNDS, &keys);
    let keep = &options.retention;
    call.command.arg(keep.events_max).arg(keep.bytes_max).arg(keep.age_ms_max);
    call
}

pub(super) fn page(options: &RedisOptions, channel: &str, after: Place, limit: PageLimit) -> Call {
    let mut call = Call::new(&PAGE, &[key(options, channel, "meta"), key(options, channel, "events")]);
    let after = format!("{}-{}", after.generation, after.sequence);
    call.command.arg(after).arg(limit.events_max.max(1)).arg(limit.bytes_max);
    call
}

pub(super) fn begin(options: &RedisOptions, name: &str, least: u32, force: bool) -> Call {
    let of_log = |of| key(options, "", of);
    let keys = [of_log("log"), epochs_key(options), active_key(options), of_log("channels")];
    let mut call = Call::new(&BEGIN, &keys);
    call.command.arg(name).arg(least).arg(u8::from(force));
    call
}

pub(super) fn raise(options: &RedisOptions, channel: &str, place: Place, epoch: &str) -> Call {
    let log = key(options, "", "log");
    let keys = [epochs_key(options), active_key(options), key(options, channel, "meta"), log];
    let mut call = Call::new(&RAISE, &keys);
    call.command.arg(channel).arg(place.generation).arg(place.sequence).arg(epoch);
    call
}

pub(super) fn remove(options: &RedisOptions, channel: &str) -> Call {
    let mut call = Call::new(&REMOVE, &[key(options, "", "log"), active_key(options)]);
    call.command.arg(&options.prefix).arg(channel).arg(topic(options, channel));
    call
}

/// Whether there is a log of this prefix.
pub(super) fn exists(options: &RedisOptions) -> Call {
    let mut command = redis::cmd("EXISTS");
    command.arg(key(options, "", "log"));
    Call { command }
}

/// All epochs, as numbers and names.
pub(super) fn epochs(options: &RedisOptions) -> Call {
    let mut command = redis::cmd("HGETALL");
    command.arg(epochs_key(options));
    Call { command }
}

/// An event that was stored, and what stood before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) place: Place,
    pub(super) before: Place,
    pub(super) at_ms: u64,
    pub(super) epoch: String,
    /// It is the channel's first: no event was ever stored before it, or all of that was forgotten.
    pub(super) first: bool,
}

/// What a script answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nobody has shown yet that this server has what clients saw.
    Unproven,
    Stored(Stored),
    /// The key's event, and the fingerprint of its content.
    Known(Place, u64),
    /// There are as many channels as there may be.
    Full,
    Bounds {
        newest: (u32, String),
        bounds: Bounds,
        /// The newest event of each shared state.
        states: BTreeMap<String, Place>,
    },
    Begun(u32, String),
    Removed,
}

pub(super) fn strange() -> LogError {
    LogError::Storage(
        "Redis: an answer that this log does not give; is its prefix used by something else?".into(),
    )
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Reads what [`append`], [`bounds`] and [`begin`] answer.
pub(super) fn read(value: &Value) -> Result<Answer, LogError> {
    parse(value).ok_or_else(strange)
}

fn parse(value: &Value) -> Option<Answer> {
    let Value::Array(parts) = value else { return None };
    let part = |index: usize| parts.get(index).and_then(text);
    Some(match part(0)? {
        "unproven" => Answer::Unproven,
        "full" => Answer::Full,
        "removed" => Answer::Removed,
        "stored" => Answer::Stored(stored(part(1)?)?),
        "known" => {
            let mut numbers = part(1)?.split(' ');
            let place = place(&mut numbers)?;
            Answer::Known(place, numbers.next()?.parse().ok()?)
        }
        "begun" => {
            let (generation, epoch) = newest(part(1)?)?;
            Answer::Begun(generation, epoch)
        }
        "bounds" => {
            let newest = newest(part(1)?)?;
            let oldest = match part(2)? {
                "" => None,
                id => Some(stream_id(id)?),
            };
            let (bounds, states) = meta(parts.get(3)?, oldest, newest.0)?;
            Answer::Bounds { newest, bounds, states }
        }
        _ => return None,
    })
}

fn newest(text: &str) -> Option<(u32, String)> {
    let (generation, epoch) = text.split_once(' ')?;
    Some((generation.parse().ok()?, epoch.to_owned()))
}

fn place<'a>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<Place> {
    Some(Place { generation: numbers.next()?.parse().ok()?, sequence: numbers.next()?.parse().ok()? })
}

pub(super) fn stored(text: &str) -> Option<Stored> {
    let mut parts = text.split(' ');
    let (now, before) = (place(&mut parts)?, place(&mut parts)?);
    let (at_ms, epoch) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    // Nodes of an older release do not say.
    let first = parts.next() == Some("1");
    Some(Stored { place: now, before, at_ms, epoch, first })
}

/// `<generation>-<sequence>`, the id of a stream's entry.
pub(super) fn stream_id(id: &str) -> Option<Place> {
    place(&mut id.splitn(2, '-'))
}

fn meta(fields: &Value, oldest: Option<Place>, newest: u32) -> Option<(Bounds, BTreeMap<String, Place>)> {
    let Value::Array(fields) = fields else { return None };
    let (mut head, mut begin) = (Place { generation: newest, sequence: 0 }, Place::default());
    let (mut ends, mut states) = (Vec::new(), BTreeMap::new());
    for pair in fields.chunks_exact(2) {
        let (name, value) = (text(&pair[0])?, text(&pair[1])?);
        match name {
            "generation" => head.generation = value.parse().ok()?,
            "sequence" => head.sequence = value.parse().ok()?,
            "begin" => begin = place(&mut value.split(' '))?,
            _ => {
                if let Some(generation) = name.strip_prefix("end:") {
                    ends.push((generation.parse().ok()?, value.parse().ok()?));
                } else if let Some(key) = name.strip_prefix("state:") {
                    states.insert(key.to_owned(), place(&mut value.split(' '))?);
                }
            }
        }
    }
    ends.sort_unstable();
    // Without a head of its own it begins where a new one does.
    Some((Bounds { oldest, begin, head: head.max(begin), ends }, states))
}

/// That a channel was removed: how far it had come, and what the channel of its name is now.
pub(super) fn removed(message: &[u8]) -> Option<(Place, Bounds)> {
    let mut numbers = std::str::from_utf8(message).ok()?.strip_prefix("removed ")?.split(' ');
    let (head, retired) = (place(&mut numbers)?, place(&mut numbers)?);
    Some((head, Bounds::new(numbers.next()?.parse().ok()?, retired)))
}

/// An event as it is announced to all nodes: what [`stored`] reads, the length of its name, a line end, name and data.
pub(super) fn announced(message: &[u8]) -> Option<(Stored, &str, &str)> {
    let message = std::str::from_utf8(message).ok()?;
    let (head, rest) = message.split_once('\n')?;
    let (head, length) = head.rsplit_once(' ')?;
    let (name, data) = rest.split_at_checked(length.parse().ok()?)?;
    Some((stored(head)?, name, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn at(generation: u32, sequence: u64) -> Place {
        Place { generation, sequence }
    }

    #[test]
    fn announcements_are_read_and_nonsense_is_not() {
        let stored =
            Stored { place: at(7, 2), before: at(6, 9), at_ms: 1, epoch: "e".to_owned(), first: false };
        let check = |message: &str, expected: Option<(Stored, &str, &str)>| {
            assert_eq!(announced(message.as_bytes()), expected, "{message:?}");
        };
        check("7 2 6 9 1 e 1\nna\nb", Some((stored.clone(), "n", "a\nb")));
        check("7 2 6 9 1 e 0\n", Some((stored.clone(), "", "")));
        check("7 2 6 9 1 e 0 1\nn", Some((stored.clone(), "n", "")));
        check("7 2 6 9 1 e 1 1\nn", Some((Stored { first: true, ..stored }, "n", "")));
        check("7 2 6 9 1 e 9\nshort", None);
        check("7 2 6 9 1 e\nn", None);
        check("7 -2 6 9 1 e 1\nn", None);
        check("", None);
    }

    #[test]
    fn answers_are_read_and_nonsense_is_not() {
        let check = |parts: &[Value], expected: Option<Answer>| {
            assert_eq!(read(&Value::Array(parts.to_vec())).ok(), expected);
        };
        check(&[bulk("known"), bulk("7 2 18446744073709551615")], Some(Answer::Known(at(7, 2), u64::MAX)));
        let fields =
            ["end:5", "1", "bytes", "3", "sequence", "2", "end:3", "4", "generation", "7", "state:k", "5 1"]
                .map(bulk);
        let states = BTreeMap::from([("k".to_owned(), at(5, 1))]);
        let bounds = Bounds {
            oldest: Some(at(5, 1)),
            begin: Place::default(),
            head: at(7, 2),
            ends: vec![(3, 4), (5, 1)],
        };
        check(
            &[bulk("bounds"), bulk("8 e"), bulk("5-1"), Value::Array(fields.to_vec())],
            Some(Answer::Bounds { newest: (8, "e".to_owned()), bounds, states }),
        );
        let bounds = Bounds { oldest: None, begin: Place::default(), head: at(8, 0), ends: vec![] };
        check(
            &[bulk("bounds"), bulk("8 e"), bulk(""), Value::Array(vec![])],
            Some(Answer::Bounds { newest: (8, "e".to_owned()), bounds, states: BTreeMap::new() }),
        );
        check(&[bulk("stored"), bulk("7 2")], None);
        check(&[bulk("other")], None);
        check(&[], None);
    }
}
