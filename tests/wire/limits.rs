//! The bounds of a line and an event: exactly where they are, and that no way of cutting the body moves them.

use crate::support::Said::{Comment, Retry};
use crate::support::{Recorder, Said, message, parse_every_way};
use holdfast_sse::wire::{ParseError, Parser, ParserLimits};

const LINE_MAX: usize = 16;
const EVENT_MAX: usize = 24;
const LIMITS: ParserLimits = ParserLimits { line_bytes_max: LINE_MAX, event_bytes_max: EVENT_MAX };

/// Also: the parser stays failed, says nothing more, and holds nothing more.
#[track_caller]
fn check_limits(body: impl AsRef<[u8]>, expected: impl AsRef<[Said]>, result: Result<(), ParseError>) {
    let body = body.as_ref();
    let context = String::from_utf8_lossy(body);
    assert_eq!(parse_every_way(LIMITS, "", body), (expected.as_ref().to_vec(), result), "body {context:?}");
    for chunk_bytes in [1, 2, 3, 5, 7, usize::MAX] {
        let mut parser = Parser::new(LIMITS, "");
        let mut said = Recorder::default();
        let mut last = Ok(());
        for chunk in body.chunks(chunk_bytes) {
            last = parser.feed(chunk, &mut said);
            assert!(
                parser.buffered_bytes() <= LINE_MAX + EVENT_MAX,
                "body {context:?} holds {}",
                parser.buffered_bytes()
            );
        }
        assert_eq!(
            (&said.0[..], last),
            (expected.as_ref(), result),
            "body {context:?} in chunks of {chunk_bytes}"
        );
        if result.is_err() {
            assert_eq!(parser.buffered_bytes(), 0, "body {context:?}");
            assert_eq!(parser.feed(b"", &mut said), result);
            assert_eq!(parser.feed(b"\n\ndata: later\n\n", &mut said), result);
            assert_eq!(said.0, expected.as_ref());
        }
    }
}

#[test]
fn a_line_may_have_its_limit_and_not_one_byte_more() {
    let too_long = Err(ParseError::LineTooLong(LINE_MAX));
    for (at_limit, said) in [
        ("data: 789abcdefg", vec![message("789abcdefg")]),
        (": 3456789abcdefg", vec![Comment]),
        ("unknown: abcdefg", vec![]),
        ("no_colon_abcdefg", vec![]),
    ] {
        assert_eq!(at_limit.len(), LINE_MAX);
        for end in ["\n", "\r", "\r\n"] {
            check_limits(format!("{at_limit}{end}{end}"), &said, Ok(()));
            check_limits(format!("{at_limit}h{end}{end}"), [], too_long);
            // A field that began before adds nothing to a line's bytes.
            check_limits(format!("event: e{end}{at_limit}h{end}{end}"), [], too_long);
        }
        // Not ended yet: what is there already decides.
        check_limits(at_limit, [], Ok(()));
        check_limits(format!("{at_limit}h"), [], too_long);
        check_limits(format!("\u{feff}{at_limit}"), [], Ok(()));
        check_limits(format!("\u{feff}{at_limit}h"), [], too_long);
    }
    // Ends of lines do not count, however many.
    check_limits("\r\n".repeat(LINE_MAX), [], Ok(()));
    check_limits("data: a\n\n".repeat(20), vec![message("a"); 20], Ok(()));
    // Events before it are delivered.
    check_limits(format!("data: a\n\n{}\n\ndata: b\n\n", "x".repeat(LINE_MAX + 1)), [message("a")], too_long);
    check_limits(format!("data: a\n\ndata: b\n{}", "x".repeat(LINE_MAX + 1)), [message("a")], too_long);
    // A line counts as it arrived, whatever its decoding makes of it.
    check_limits(b"data: \xFF89abcdefg\n\n", [message("\u{fffd}89abcdefg")], Ok(()));
    check_limits(b"data: \xFF89abcdefgh\n\n", [], too_long);
    // What looked like a byte order mark counts once it is none.
    check_limits([b"\xEF\xBB".as_slice(), &[b'x'; LINE_MAX - 2]].concat(), [], Ok(()));
    check_limits([b"\xEF\xBB".as_slice(), &[b'x'; LINE_MAX - 1]].concat(), [], too_long);
}

#[test]
fn an_event_may_have_its_limit_and_not_one_byte_more() {
    let too_large = Err(ParseError::EventTooLarge(EVENT_MAX));
    // 10 + LF + 10 + LF + 2 = 24.
    let at_limit = "data: 789abcdefg\ndata: 789abcdefg\ndata: 12";
    check_limits(format!("{at_limit}\n\n"), [message("789abcdefg\n789abcdefg\n12")], Ok(()));
    check_limits(format!("{at_limit}3\n\n"), [], too_large);
    check_limits(format!("{at_limit}3\n"), [], too_large);
    // Not before the line has ended: it may have been another field.
    check_limits(format!("{at_limit}3"), [], Ok(()));
    check_limits(format!("{at_limit}\ndata\n\n"), [], too_large);
    check_limits(format!("{at_limit}\nevent: e\n\n"), [], too_large);
    check_limits(format!("{at_limit}\nid: 1\n\n"), [], too_large);
    check_limits(
        format!("{at_limit}\nfoo: 1\n: c\n\n"),
        [Comment, message("789abcdefg\n789abcdefg\n12")],
        Ok(()),
    );
    // Name and id count too: 9 + 10 + 5 = 24.
    let all = "event: 89abcdefg\nid: 56789abcde\ndata: ";
    let event = |data: &str| Said::Event {
        name: "89abcdefg".to_owned(),
        data: data.to_owned(),
        id: "56789abcde".to_owned(),
        own_id: true,
    };
    check_limits(format!("{all}12345\n\n"), [event("12345")], Ok(()));
    check_limits(format!("{all}123456\n\n"), [], too_large);
    // A limit is one event's, not the stream's.
    check_limits(
        format!("{all}12345\n\n").repeat(3),
        [event("12345"), event("12345"), event("12345")],
        Ok(()),
    );
    // Empty lines of data are bytes as well.
    check_limits(format!("{}\n", "data\n".repeat(EVENT_MAX + 1)), [message(&"\n".repeat(EVENT_MAX))], Ok(()));
    check_limits(format!("{}\n", "data\n".repeat(EVENT_MAX + 2)), [], too_large);
    // An event counts as it is handed over: U+FFFD has three bytes.
    check_limits(
        [b"data: ", &[0xFF; EVENT_MAX / 3][..], b"\n\n"].concat(),
        [message(&"\u{fffd}".repeat(8))],
        Ok(()),
    );
    check_limits([b"data: ", &[0xFF; EVENT_MAX / 3 + 1][..], b"\n\n"].concat(), [], too_large);
    // Events before it are delivered, its own parts are not.
    check_limits(format!("data: a\n\nretry: 1\nid: 7\n{at_limit}\n\n"), [message("a"), Retry(1)], too_large);
}

#[test]
fn errors_name_the_limit() {
    assert_eq!(ParseError::LineTooLong(16).to_string(), "a line of the stream is longer than 16 bytes");
    assert_eq!(ParseError::EventTooLarge(24).to_string(), "an event of the stream is larger than 24 bytes");
}

#[test]
fn what_waits_is_counted() {
    let mut parser = Parser::new(ParserLimits::default(), "");
    let mut said = Recorder::default();
    let mut buffered = |chunk: &str| {
        parser.feed(chunk.as_bytes(), &mut said).expect("within the limits");
        parser.buffered_bytes()
    };
    assert_eq!(buffered("da"), 2);
    assert_eq!(buffered("ta: abc"), 9);
    assert_eq!(buffered("\n"), 3);
    assert_eq!(buffered("event: e\n"), 4);
    assert_eq!(buffered("data: d\n"), 6);
    assert_eq!(buffered("\n"), 0);
    assert_eq!(buffered("data: a\n\ndata: b\n\n:"), 1);
}
