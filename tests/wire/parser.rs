//! The parser against the HTML standard, sections 9.2.5 (the format) and 9.2.6 (its interpretation), sentence by
//! sentence. Each row is parsed whole, cut in two at every place, and byte by byte.

use crate::support::{Recorder, Said, id, inherits, message, named, oracle, parse, parse_every_way, with_id};
use holdfast_sse::wire::{Parser, ParserLimits};

use Said::{Comment, Retry};

#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: impl AsRef<[Said]>) {
    check_from("", body, expected);
}

#[track_caller]
fn check_from(last_event_id: &str, body: impl AsRef<[u8]>, expected: impl AsRef<[Said]>) {
    let (body, expected) = (body.as_ref(), expected.as_ref());
    let (said, result) = parse_every_way(ParserLimits::default(), last_event_id, body);
    assert_eq!(said, expected, "body {:?}", String::from_utf8_lossy(body));
    assert_eq!(result, Ok(()));
    assert_eq!(oracle(last_event_id, body), expected, "the oracle, body {:?}", String::from_utf8_lossy(body));
}

#[test]
fn examples_of_the_standard() {
    check("data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]);
    check(
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [Comment, with_id("1", "first event"), with_id("", "second event")],
    );
    check(
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [Comment, with_id("1", "first event"), with_id("", "second event"), message(" third event")],
    );
    check("data\n\ndata\ndata\n\ndata:\n", [message(""), message("\n")]);
    check("data:test\n\ndata: test\n\n", [message("test"), message("test")]);
    check(
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [named("add", "73857293"), named("remove", "2153"), named("add", "113411")],
    );
}

// Trap: CR and CRLF.
#[test]
fn lines_end_with_lf_cr_or_crlf() {
    for end in ["\n", "\r", "\r\n"] {
        check(format!("data: a{end}{end}data: b{end}{end}"), [message("a"), message("b")]);
        check(format!("id: 1{end}event: e{end}retry: 5{end}: c{end}{end}"), [Retry(5), Comment, id("1")]);
    }
    check("data: a\r\ndata: b\rdata: c\n\r\n", [message("a\nb\nc")]);
    // CRLF is one end, LFCR are two.
    check("data: a\r\n", []);
    check("data: a\n\r", [message("a")]);
    check("data: a\r\n\r", [message("a")]);
    check("data: a\r\r\n", [message("a")]);
    check("data: a\r\r\ndata: b\n\n", [message("a"), message("b")]);
    check("data: a\n\ndata: b\r\rdata: c\r\n\r\n", [message("a"), message("b"), message("c")]);
    // No other character ends a line.
    for not_an_end in ["\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}", "\0"] {
        check(format!("data: a{not_an_end}b\n\n"), [message(&format!("a{not_an_end}b"))]);
    }
}

/// What each chunk brings, the moment it is fed.
fn check_chunks(chunks: &[(&str, &[Said])]) {
    let mut parser = Parser::new(ParserLimits::default(), "");
    for (chunk, expected) in chunks {
        let mut said = Recorder::default();
        parser.feed(chunk.as_bytes(), &mut said).expect("within the limits");
        assert_eq!(said.0, *expected, "chunk {chunk:?} of {chunks:?}");
    }
}

// Trap: an event ended by CR CR that waits for the next byte.
#[test]
fn an_event_is_delivered_with_the_byte_that_ends_it() {
    check_chunks(&[("data: a\n", &[]), ("\n", &[message("a")])]);
    check_chunks(&[("data: a\r\r", &[message("a")])]);
    check_chunks(&[("data: a\r\n\r", &[message("a")]), ("\n", &[]), ("data: b\n\n", &[message("b")])]);
    // An LF after a CR at the end of a chunk belongs to it, and is not an empty line.
    check_chunks(&[("data: a\r", &[]), ("\n", &[]), ("", &[]), ("\n", &[message("a")])]);
    check_chunks(&[("data: a\r", &[]), ("", &[]), ("\n", &[]), ("\r\n", &[message("a")])]);
    check_chunks(&[("data: a\r", &[]), ("\ndata: b\r", &[]), ("\r", &[message("a\nb")])]);
    // Only directly after: not once another byte came between.
    check_chunks(&[("data: a\r", &[]), (":", &[]), ("\n", &[Comment]), ("\n", &[message("a")])]);
    check_chunks(&[("retry: 7\r", &[Retry(7)]), (":\r", &[Comment])]);
}

// Trap: two byte order marks stripped.
#[test]
fn one_byte_order_mark_is_stripped() {
    check("\u{feff}data: a\n\n", [message("a")]);
    check("\u{feff}\ndata: a\n\n", [message("a")]);
    check("\u{feff}", []);
    // The second belongs to the field's name, and there is no such field.
    check("\u{feff}\u{feff}data: a\n\n", []);
    check("\u{feff}\u{feff}data: a\ndata: b\n\n", [message("b")]);
    // Elsewhere it is a character like any other.
    check("\n\u{feff}data: a\n\n", []);
    check("data: \u{feff}a\n\n", [message("\u{feff}a")]);
    check("data:\u{feff} a\n\n", [message("\u{feff} a")]);
    check(":\n\u{feff}data: a\n\n", [Comment]);
    // Two bytes of it that turn out to be none become U+FFFD, and spoil the name of the first field.
    check(b"\xEF\xBBdata: a\ndata: b\n\n", [message("b")]);
    check(b"\xEFdata: a\ndata: b\n\n", [message("b")]);
    check(b"\xEF\xBB\ndata: b\n\n", [message("b")]);
    check(b"\xEF\n\n", []);
    check(b"\xEF\xBB", []);
    check(b"\xEF\xEF\xBB\xBFdata: a\ndata: b\n\n", [message("b")]);
    check(b"\xEF\xBB\xEF\xBB\xBFdata: a\ndata: b\n\n", [message("b")]);
    check(b"\xEF\xBB\xBEdata: a\ndata: b\n\n", [message("b")]);
    // Nor is the mark of another encoding one.
    check(b"\xFE\xFFdata: a\ndata: b\n\n", [message("b")]);
}

#[test]
fn a_line_that_starts_with_a_colon_is_a_comment() {
    check(":\n", [Comment]);
    check(": data: a\n\n", [Comment]);
    check("::data: a\n:\n\n", [Comment, Comment]);
    check("data: a\n: between\ndata: b\n\n", [Comment, message("a\nb")]);
    // A space before the colon makes it a field without meaning.
    check(" : a\n\n", []);
}

#[test]
fn a_field_is_what_stands_before_the_first_colon() {
    check("data:a:b:c\n\n", [message("a:b:c")]);
    check("data:::\n\n", [message("::")]);
    check("data: a: b\n\n", [message("a: b")]);
    // Without a colon the whole line is the field's name, and its value is empty.
    check("data\n\n", [message("")]);
    check("event: e\nevent\ndata: a\n\n", [message("a")]);
    check("id: 1\nid\ndata: a\n\n", [with_id("", "a")]);
    check("retry\n\n", []);
    check("data a\n\n", []);
}

#[test]
fn one_space_after_the_colon_is_dropped() {
    check("data:a\n\n", [message("a")]);
    check("data: a\n\n", [message("a")]);
    check("data:  a\n\n", [message(" a")]);
    check("data: \n\n", [message("")]);
    check("data:  \n\n", [message(" ")]);
    check("data:\ta\n\n", [message("\ta")]);
    check("data:\u{a0}a\n\n", [message("\u{a0}a")]);
    check("data: a \n\n", [message("a ")]);
    check(
        "event:  e \nid:  1 \ndata:a\n\n",
        [Said::Event { name: " e ".to_owned(), data: "a".to_owned(), id: " 1 ".to_owned(), own_id: true }],
    );
}

#[test]
fn field_names_are_compared_literally() {
    for line in [
        "Data: a",
        "DATA: a",
        "dаta: a",
        "data : a",
        " data: a",
        "data\0: a",
        "datum: a",
        "dat: a",
        "dataa: a",
        "\u{feff}data: a",
    ] {
        check(format!(":\n{line}\n\n"), [Comment]);
    }
    for line in ["Id: 1", "ID: 1", "id : 1", " id: 1", "i: 1", "ids: 1", "lastEventId: 1"] {
        check(format!("{line}\ndata: a\n\n"), [message("a")]);
    }
    for line in ["Event: e", "event : e", "events: e", "even: e", "type: e"] {
        check(format!("{line}\ndata: a\n\n"), [message("a")]);
    }
    for line in ["Retry: 1", "retry : 1", "retrys: 1", "retr: 1"] {
        check(format!("{line}\n"), []);
    }
    check("foo: bar\nfoo\ndata: a\n\u{1f40e}: b\n\n", [message("a")]);
}

#[test]
fn data_lines_are_joined_by_lf() {
    check("data: a\ndata: b\ndata: c\n\n", [message("a\nb\nc")]);
    check("data: a\nevent: e\ndata: b\n\n", [named("e", "a\nb")]);
    check("data: a\nfoo: x\ndata\nid: 1\ndata:\ndata: b\n\n", [with_id("1", "a\n\n\nb")]);
    check("data\ndata\n\n", [message("\n")]);
    check("data:\ndata: a\n\n", [message("\na")]);
    check("data: a\ndata:\n\n", [message("a\n")]);
    check("data: a\0b\n\n", [message("a\0b")]);
    // Nothing is left for the event after.
    check("data: a\ndata: b\n\ndata: c\n\n\n\ndata\n\n", [message("a\nb"), message("c"), message("")]);
}

#[test]
fn without_data_there_is_no_event() {
    check("", []);
    check("\n\n\r\r\r\n\r\n", []);
    check("event: e\n\n", []);
    check("event: e\n\ndata: a\n\n", [message("a")]);
    check("retry: 5\n\n", [Retry(5)]);
    check("foo: bar\n\n", []);
}

#[test]
fn an_event_name_counts_for_one_event() {
    check("event: e\ndata: a\n\ndata: b\n\n", [named("e", "a"), message("b")]);
    check("event: e\nevent: f\ndata: a\n\n", [named("f", "a")]);
    check("data: a\nevent: e\n\n", [named("e", "a")]);
    check("event: e\nevent:\ndata: a\n\n", [message("a")]);
    check("event:\ndata: a\n\n", [message("a")]);
    check("event: message\ndata: a\n\n", [message("a")]);
    check("event: error\ndata: a\n\n", [named("error", "a")]);
    check("event: a\0b\ndata: a\n\n", [named("a\0b", "a")]);
}

#[test]
fn an_id_stays_until_another_comes() {
    check("id: 1\ndata: a\n\ndata: b\n\n", [with_id("1", "a"), inherits("1", "b")]);
    check(
        "id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: c\n\n",
        [with_id("1", "a"), with_id("2", "b"), inherits("2", "c")],
    );
    check("id: 1\nid: 2\ndata: a\n\n", [with_id("2", "a")]);
    check("data: a\nid: 1\n\n", [with_id("1", "a")]);
    check_from("0", "data: a\n\nid: 1\ndata: b\n\n", [inherits("0", "a"), with_id("1", "b")]);
    // An empty id clears it.
    for clear in ["id", "id:", "id: "] {
        check_from("0", format!("{clear}\ndata: a\n\ndata: b\n\n"), [with_id("", "a"), message("b")]);
        check_from("0", format!("{clear}\n\ndata: b\n\n"), [id(""), message("b")]);
    }
    // An id with NUL is ignored: the one before stays.
    check("id: 1\0\ndata: a\n\n", [message("a")]);
    check("id: \0\n\n", []);
    check("id: 1\nid: 2\0\ndata: a\n\n", [with_id("1", "a")]);
    check_from("0", "id: 1\0\ndata: a\n\n", [inherits("0", "a")]);
    // Ids are opaque text.
    check("id: 1 \u{17d}lu\u{165}\u{1f40e}:\ndata: a\n\n", [with_id("1 \u{17d}lu\u{165}\u{1f40e}:", "a")]);
}

#[test]
fn an_id_is_committed_at_the_blank_line() {
    check("id: 1\n\n", [id("1")]);
    check("id: 1\n\nid: 2\n\n", [id("1"), id("2")]);
    check("id: 1\nevent: e\n\ndata: a\n\n", [id("1"), inherits("1", "a")]);
    check("id: 1\n", []);
    check("id: 1", []);
    check("id: 1\ndata: a\n\nid: 2\n", [with_id("1", "a")]);
    check("id: 1\ndata: a\n\nid: 2\ndata: b\n", [with_id("1", "a")]);
    // A blank line after a block without an id says nothing again.
    check("id: 1\n\n\n\nevent: e\n\n", [id("1")]);
    check_chunks(&[("id: 1\n", &[]), (": still not\n", &[Comment]), ("\n", &[id("1")])]);
}

// Trap: `retry: 1e3`, `retry: -5`.
#[test]
fn retry_takes_digits_only() {
    check("retry: 1500\n", [Retry(1500)]);
    check("retry:0\n", [Retry(0)]);
    check("retry: 007\n", [Retry(7)]);
    check("retry: 4294967296\n", [Retry(1 << 32)]);
    check("retry: 18446744073709551615\n", [Retry(u64::MAX)]);
    check("retry: 18446744073709551616\n", [Retry(u64::MAX)]);
    check(format!("retry: {}\n", "9".repeat(300)), [Retry(u64::MAX)]);
    check(format!("retry: 1{}\n", "0".repeat(300)), [Retry(u64::MAX)]);
    check(format!("retry: {}1\n", "0".repeat(300)), [Retry(1)]);
    // It counts at the end of its line, not of its block.
    check("retry: 1\nretry: 2\ndata: a\n\n", [Retry(1), Retry(2), message("a")]);
    for value in [
        "", " ", "1e3", "-5", "+5", "1.5", "1 ", "  1", "0x10", "1\0", "\u{661}", "\u{ff11}", "1,000", "5s",
        "Infinity",
    ] {
        check(format!("retry: {value}\n\n"), []);
    }
    check("retry\n", []);
    check("retry: 1", []);
}

// Trap: an unterminated tail delivered.
#[test]
fn what_no_blank_line_ended_is_dropped() {
    check("data: a", []);
    check("data: a\n", []);
    check("data: a\r\n", []);
    check("data: a\n\ndata: b", [message("a")]);
    check("data: a\n\ndata: b\n", [message("a")]);
    check("data: a\n\n:", [message("a")]);
    // A new body starts afresh.
    let (said, _) = parse(ParserLimits::default(), "", [b"event: e\ndata: a\n".as_slice()]);
    assert_eq!(said, []);
    check("\n", []);
}

/// Rows of the decoder standard: one U+FFFD for each maximal part of a sequence that could have been valid.
#[test]
fn broken_utf_8_becomes_replacement_characters() {
    let rows: &[(&[u8], &str)] = &[
        // Bytes that occur nowhere, and continuations without a beginning.
        (b"\xFF", "\u{fffd}"),
        (b"\xFE\xFF", "\u{fffd}\u{fffd}"),
        (b"\x80", "\u{fffd}"),
        (b"\x80\xBF", "\u{fffd}\u{fffd}"),
        (b"\xC0", "\u{fffd}"),
        (b"\xF5\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xF8\x88\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        // Overlong.
        (b"\xC0\x80", "\u{fffd}\u{fffd}"),
        (b"\xC1\xBF", "\u{fffd}\u{fffd}"),
        (b"\xE0\x80\x8A", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xE0\x9F\xBF", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xF0\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        // An overlong line feed, colon and NUL are none.
        (b"a\xC0\x8Ab\xC0\xBAc\xC0\x80", "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}\u{fffd}"),
        // Surrogates, and beyond the last character.
        (b"\xED\xA0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xED\xBF\xBF", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xED\xA0\xBD\xED\xB0\x8E", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xF4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", "\u{d7ff}\u{e000}\u{10ffff}"),
        // Cut short: one for all of what was there.
        (b"\xC3", "\u{fffd}"),
        (b"\xE2\x82", "\u{fffd}"),
        (b"\xF0\x9F", "\u{fffd}"),
        (b"\xF0\x9F\x90", "\u{fffd}"),
        (b"\xF0\x9F\x90a", "\u{fffd}a"),
        (b"\xE2\x82\xE2\x82\xAC", "\u{fffd}\u{20ac}"),
        (b"\xF0\x9F\xF0\x9F\x90\x8E", "\u{fffd}\u{1f40e}"),
        (b"\xC3\xC3\xA9", "\u{fffd}\u{e9}"),
        (b"\xC3 ", "\u{fffd} "),
        (b"\xE2\x82:", "\u{fffd}:"),
    ];
    for (bytes, text) in rows {
        for end in ["\n", "\r", "\r\n"] {
            let end = end.as_bytes();
            check([b"data: ", *bytes, end, end].concat(), [message(text)]);
            // The part of a sequence at the end of a line does not join the next line's.
            check(
                [b"data:", *bytes, end, b"data:", *bytes, end, end].concat(),
                [message(&format!("{text}\n{text}"))],
            );
            check([b"event: ", *bytes, end, b"data", end, end].concat(), [named(text, "")]);
            check([b"id: ", *bytes, end, b"data", end, end].concat(), [with_id(text, "")]);
            check([b"id: ", *bytes, end, end].concat(), [id(text)]);
            check([b"data", *bytes, b": a", end, end].concat(), []);
            check([b"retry: 1", *bytes, end].concat(), []);
        }
    }
    // A sequence whose rest follows a line end stays broken.
    check(b"data: \xF0\x9F\ndata: \x90\x8E\n\n", [message("\u{fffd}\n\u{fffd}\u{fffd}")]);
    // Broken bytes elsewhere leave the rest of the body alone.
    check(b"\xFF\ndata: a\n\n:\xC3\ndata: \xC3\xA9\n\n", [message("a"), Comment, message("\u{e9}")]);
}

// Trap: characters cut between two chunks.
#[test]
fn characters_may_be_cut_anywhere() {
    let text = "\u{e9}\u{20ac}\u{1f40e}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{fffd}";
    check(
        format!("event: {text}\nid: {text}\ndata: {text}\ndata: {text}\n\n"),
        [Said::Event {
            name: text.to_owned(),
            data: format!("{text}\n{text}"),
            id: text.to_owned(),
            own_id: true,
        }],
    );
}
