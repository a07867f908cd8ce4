//! A reader of one JSON object's top level: keys and raw values, without allocation.
//!
//! The wasm build carries no JSON library: all that the client needs from JSON are a few fields of envelopes
//! and control events. Values stay as they were written; what is nested is skipped over, not checked in depth.

/// Calls `field` with each key and its raw value of the object that `text` is.
///
/// Answers false where `text` is not one object (then some fields may have been reported before the flaw).
/// Keys are compared as written: one with an escape in it is reported with its escape.
pub fn object_fields<'a>(text: &'a str, mut field: impl FnMut(&'a str, &'a str)) -> bool {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return false;
    }
    at = skip_space(bytes, at + 1);
    if bytes.get(at) == Some(&b'}') {
        return skip_space(bytes, at + 1) == bytes.len();
    }
    loop {
        let Some(key_end) = skip_string(bytes, at) else { return false };
        let key = &text[at + 1..key_end - 1];
        at = skip_space(bytes, key_end);
        if bytes.get(at) != Some(&b':') {
            return false;
        }
        at = skip_space(bytes, at + 1);
        let Some(value_end) = skip_value(bytes, at) else { return false };
        field(key, &text[at..value_end]);
        at = skip_space(bytes, value_end);
        match bytes.get(at) {
            Some(b',') => at = skip_space(bytes, at + 1),
            Some(b'}') => return skip_space(bytes, at + 1) == bytes.len(),
            _ => return false,
        }
    }
}

/// The text of a raw string value, where it holds no escape (ids and names never need one).
#[must_use]
pub fn plain_string(raw: &str) -> Option<&str> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// A raw value as a whole number that is not negative.
#[must_use]
pub fn unsigned(raw: &str) -> Option<u64> {
    if raw.is_empty() || !raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    raw.parse().ok()
}

/// Writes `text` as a JSON string.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[(character as usize) >> 4]));
                out.push(char::from(HEX[(character as usize) & 15]));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The index behind the string that starts at `at`.
fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The index behind the value that starts at `at`.
fn skip_value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => skip_string(bytes, at),
        b'{' | b'[' => skip_nested(bytes, at),
        _ => {
            let length = bytes[at..]
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
                .unwrap_or(bytes.len() - at);
            (length > 0).then_some(at + length)
        }
    }
}

/// Counts brackets, not their kinds: depth costs no stack, so no nesting can overflow it.
fn skip_nested(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = skip_string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        object_fields(text, |key, value| found.push((key, value))).then_some(found)
    }

    #[test]
    fn top_level_fields_and_nothing_deeper() {
        let check = |text, expected: Option<&[(&str, &str)]>| {
            assert_eq!(fields(text).as_deref(), expected, "{text}");
        };
        check("{}", Some(&[]));
        check(" { \"a\" : 1 , \"b\":\"x\" } ", Some(&[("a", "1"), ("b", "\"x\"")]));
        check(
            r#"{"p":{"sequence":9,"q":["}"]},"sequence":3}"#,
            Some(&[("p", r#"{"sequence":9,"q":["}"]}"#), ("sequence", "3")]),
        );
        check(r#"{"a":"\"}\\","b":null}"#, Some(&[("a", r#""\"}\\""#), ("b", "null")]));
        for broken in [
            "",
            "[]",
            "7",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}x",
            "{\"a\":\"\\",
            "{a:1}",
        ] {
            check(broken, None);
        }
    }

    #[test]
    fn a_million_brackets_cost_no_stack() {
        let text = format!("{{\"a\":{}1{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(fields(&text).is_some());
    }

    #[test]
    fn strings_are_written_as_json() {
        let mut out = String::new();
        write_string(&mut out, "a\"\\\n\u{1f}é");
        assert_eq!(out, r#""a\"\\\u000a\u001fé""#);
    }
}
