//! What travels inside the fields: the JSON reader against `serde_json`, and ids that come back as they went.

use holdfast_sse::wire::{Cursor, Position, envelope, json};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\[\\]{}\",:\\\\]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec(("[a-z{}\\[\\],]{0,4}", inner), 0..5)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    })
}

/// Reads with the reader under test; raw values then go through `serde_json`.
fn read(text: &str) -> Option<Value> {
    let mut fields = serde_json::Map::new();
    let complete = json::object_fields(text, |key, raw| {
        let key = serde_json::from_str(&format!("\"{key}\"")).expect("a key");
        fields.insert(key, serde_json::from_str(raw).expect("a value"));
    });
    complete.then_some(Value::Object(fields))
}

fn channels() -> impl Strategy<Value = Vec<(String, Position)>> {
    let position =
        ("[a-z0-9]{1,32}", any::<u64>()).prop_map(|(epoch, sequence)| Position { epoch, sequence });
    prop::collection::btree_map(
        any::<String>().prop_filter("a channel has a name", |name| !name.is_empty()),
        position,
        1..8,
    )
    .prop_map(|channels| channels.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_are_read_as_serde_reads_them(value in value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            // Read back first: serde's floats lose their last digit on the way.
            let expected = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
            prop_assert_eq!(read(&text), expected);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\",:\\\\ 0-9a-eé🐎\n]{0,24}", any_text in any::<String>()) {
        for text in [&text, &any_text] {
            let known = json::object_fields(text, |_, _| {});
            // It skips what it does not need and so lets flaws pass; what is valid it never refuses.
            let valid = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
            prop_assert!(known || !valid, "refused {:?}", text);
            let _ = envelope::scan(text);
        }
    }

    #[test]
    fn written_strings_are_json(text in any::<String>()) {
        let mut out = String::new();
        json::write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), text);
    }

    #[test]
    fn cursors_come_back(channels in channels()) {
        let single = Cursor::Single(channels[0].1.clone());
        let composite = Cursor::Composite(channels);
        for cursor in [single, composite] {
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{:?} is no header value", text);
            if text.len() <= holdfast_sse::wire::id::CURSOR_BYTES_MAX {
                prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
            }
        }
    }

    #[test]
    fn no_text_makes_the_cursor_panic(text in "[a-c0-9:,%é🐎-]{0,24}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }
    }
}
