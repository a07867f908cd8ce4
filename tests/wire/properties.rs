//! For whatever body: the parser says what a naive reading of the standard says, and no way of cutting the body shows.
//! For whatever event: what the encoder wrote is one event again, and nothing else.

use crate::support::{Said, oracle, parse, parse_every_way};
use holdfast_sse::wire::{EncodeError, ParserLimits, encode};
use proptest::collection::vec;
use proptest::prelude::*;

/// Pieces that the grammar knows come most often; then what is nearly right, characters, and bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "data",
        "data:",
        "data: ",
        "event:",
        "event: ",
        "id",
        "id:",
        "id: ",
        "retry: ",
        "retry:",
        ":",
        " ",
        "\n",
        "\n",
        "\n",
        "\r",
        "\r",
        "\r\n",
        "\r\n",
        "\n\n",
        "\r\r",
        "\r\n\r\n",
        "data: x\n",
        "data: x\n\n",
        "id: 1\n",
        "event: e\n",
        "retry: 1\n",
    ]);
    let nearly = prop::sample::select(vec![
        &b"\xEF\xBB\xBF"[..],
        b"\xEF\xBB",
        b"\xEF",
        b"\xBF",
        b"\0",
        b"Data: ",
        b"dat",
        b"99999999999999999999",
        b"1e3",
        b"-5",
        b"\xC3",
        b"\xC3\xA9",
        b"\xE2\x82",
        b"\xE2\x82\xAC",
        b"\xF0\x9F",
        b"\xF0\x9F\x90\x8E",
        b"\xED\xA0\x80",
        b"\xC0\x8A",
        b"\xE0\x80",
        b"\xF4\x90",
    ]);
    prop_oneof![
        6 => known.prop_map(|text| text.as_bytes().to_vec()),
        2 => nearly.prop_map(<[u8]>::to_vec),
        1 => any::<char>().prop_map(|character| character.to_string().into_bytes()),
        1 => vec(any::<u8>(), 1..4),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    vec(piece(), 0..48).prop_map(|pieces| pieces.concat())
}

/// What a name or an id may be made of, line ends and all.
fn text() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        "\0",
        ":",
        " ",
        "data: x",
        "\n\n",
        "id: 1",
        "\u{feff}",
        "message",
        "\u{1f40e}",
        "a",
    ]);
    let part =
        prop_oneof![3 => known.prop_map(str::to_owned), 2 => any::<String>(), 2 => "[a-z0-9 :-]{0,12}"];
    vec(part, 0..6).prop_map(|parts| parts.concat())
}

/// Some names and ids hold no line end, or the encoder would refuse nearly all.
fn field() -> impl Strategy<Value = Option<String>> {
    let clean = text().prop_map(|text| text.replace(['\r', '\n', '\0'], ""));
    prop::option::of(prop_oneof![3 => clean, 1 => text()])
}

fn breaks_line(field: Option<&String>) -> bool {
    field.is_some_and(|text| text.contains(['\r', '\n', '\0']))
}

/// The event that comes back: line ends in data are LF, and an empty name is the default.
fn read_back(name: Option<&str>, id: Option<&str>, inherited: &str, data: &str) -> Said {
    Said::Event {
        name: name.filter(|name| !name.is_empty()).unwrap_or("message").to_owned(),
        data: data.replace("\r\n", "\n").replace('\r', "\n"),
        id: id.unwrap_or(inherited).to_owned(),
        own_id: id.is_some(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_agrees_with_the_standard_however_the_body_is_cut(last_event_id in "[a-z]{0,3}", body in body()) {
        let (said, result) = parse_every_way(ParserLimits::default(), &last_event_id, &body);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(said, oracle(&last_event_id, &body));
    }

    #[test]
    fn random_cuts_never_show(body in vec(body(), 1..4), cuts in vec(any::<prop::sample::Index>(), 0..24)) {
        let body = body.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]);
        prop_assert_eq!(parse(ParserLimits::default(), "", chunks), (oracle("", &body), Ok(())));
    }

    #[test]
    fn limits_strike_at_the_same_byte_however_the_body_is_cut(
        line_bytes_max in 0_usize..24,
        event_bytes_max in 0_usize..24,
        body in body(),
    ) {
        let limits = ParserLimits { line_bytes_max, event_bytes_max };
        let (said, result) = parse_every_way(limits, "", &body);
        let unlimited = oracle("", &body);
        prop_assert!(unlimited.starts_with(&said), "{:?} is no beginning of {:?}", said, unlimited);
        if result.is_ok() {
            prop_assert_eq!(said, unlimited);
        }
    }

    #[test]
    fn what_the_encoder_wrote_is_that_one_event(name in field(), id in field(), data in text()) {
        let mut out = b"data: before\n\n".to_vec();
        let before = out.clone();
        let result = encode::event(&mut out, name.as_deref(), id.as_deref(), &data);
        if breaks_line(name.as_ref()) {
            prop_assert_eq!(result, Err(EncodeError::InvalidName));
        } else if breaks_line(id.as_ref()) {
            prop_assert_eq!(result, Err(EncodeError::InvalidId));
        } else {
            prop_assert_eq!(result, Ok(()));
            let (said, _) = parse(ParserLimits::default(), "", [&out[before.len()..]]);
            prop_assert_eq!(said, [read_back(name.as_deref(), id.as_deref(), "", &data)]);
        }
        if result.is_err() {
            prop_assert_eq!(out, before, "a refused event leaves nothing behind");
        }
    }

    #[test]
    fn a_stream_of_everything_comes_back_in_order(items in vec((0..4_u8, field(), field(), text(), any::<u64>()), 0..12)) {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let mut last_event_id = String::new();
        for (kind, name, id, text, ms) in &items {
            match kind {
                0 => {
                    encode::comment(&mut out, text);
                    expected.push(Said::Comment);
                }
                1 => {
                    encode::retry(&mut out, *ms);
                    expected.push(Said::Retry(*ms));
                }
                _ => {
                    if encode::event(&mut out, name.as_deref(), id.as_deref(), text).is_ok() {
                        expected.push(read_back(name.as_deref(), id.as_deref(), &last_event_id, text));
                        if let Some(id) = id {
                            last_event_id.clone_from(id);
                        }
                    }
                }
            }
        }
        prop_assert_eq!(parse(ParserLimits::default(), "", out.chunks(7)), (expected, Ok(())));
    }
}
