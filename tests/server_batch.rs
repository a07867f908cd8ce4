//! Several events published together, in Rust and over HTTP.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode};
use holdfast_sse::server::{Hub, LogError, MemoryLog, Message, PublishError, Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::{ask, get, publish};

fn hub() -> Hub {
    let options = StreamOptions {
        publish_token: Some("secret".to_owned()),
        batch_events_max: 4,
        heartbeat_ms: 0,
        ..StreamOptions::default()
    };
    Hub::new(Arc::new(MemoryLog::new(Retention::default())), options)
}

async fn post(router: &Router, kind: &'static str, key: Option<&str>, body: &str) -> (StatusCode, Value) {
    let mut request = publish("a", "secret", key, body);
    request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    server_support::json(router, request).await
}

#[tokio::test]
async fn messages_are_stored_together_in_their_order() {
    let hub = hub();
    let message = |n: u32| Message::text("n", n.to_string());
    let first = hub.publisher().publish("a", message(0).idempotency_key("k")).await.expect("published");
    let all = vec![message(1), message(0).idempotency_key("k"), message(2)];
    let all = hub.publisher().publish_all("a", all).await.expect("published");
    assert_eq!((&all[1].id, all[1].duplicate), (&first.id, true));
    let mut reader = ask(&hub.router(), get("/stream/a?from=start")).await;
    for (id, data) in [(&first.id, "0"), (&all[0].id, "1"), (&all[2].id, "2")] {
        let event = reader.event().await.expect("an event");
        assert_eq!((event.id.as_ref(), event.data.as_str()), (Some(id), data));
    }
    // All or nothing.
    for (wrong, error) in [
        (Message::text("control.x", ""), PublishError::ReservedName),
        (Message::text("n", "other").idempotency_key("k"), PublishError::Log(LogError::KeyReused)),
        (Message::text("n", "x".repeat((1 << 20) + 1)), PublishError::TooLarge(1 << 20)),
    ] {
        assert_eq!(hub.publisher().publish_all("a", vec![message(3), wrong]).await, Err(error));
    }
    let five = (3..8).map(message).collect();
    assert_eq!(hub.publisher().publish_all("a", five).await, Err(PublishError::TooMany(4)));
    hub.publisher().publish("a", message(9)).await.expect("published");
    assert_eq!(reader.event().await.expect("the next").data, "9");
}

// T: 4.0.5 batchedDispatchEvent
#[tokio::test]
async fn several_events_come_in_one_request() {
    let hub = hub();
    let router = hub.router();
    let lines = "{\"event\":\"n\",\"data\":\"1\",\"idempotency_key\":\"k\"}\r\n\n{\"type\":\"x\",\"payload\":{\"one\":1}}\n";
    let (status, first) = post(&router, "application/x-ndjson; charset=utf-8", None, lines).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    let array = r#" [{"event":"n","data":"1","idempotency_key":"k"},{"event":"n","data":"2"}]"#;
    let (status, second) = post(&router, "application/json", None, array).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    let duplicates = |answer: &Value| {
        [&answer["events"][0]["duplicate"], &answer["events"][1]["duplicate"]].map(|d| d == &json!(true))
    };
    assert_eq!((duplicates(&first), duplicates(&second)), ([false, false], [true, false]));
    assert_eq!(first["events"][0]["id"], second["events"][0]["id"]);
    let mut reader = ask(&router, get("/stream/a?from=start")).await;
    let events = [reader.event().await, reader.event().await, reader.event().await]
        .map(|event| event.expect("an event"));
    assert_eq!(events.clone().map(|event| event.name), ["n", "x", "n"]);
    assert_eq!((events[1].payload(), events[2].data.as_str()), (json!({ "one": 1 }), "2"));
    assert_eq!(events[1].json()["sequence"], 2);

    let ok = r#"{"event":"n","data":"3"}"#;
    let five = format!("[{}]", [ok; 5].join(","));
    for (kind, key, body, status, code) in [
        ("application/x-ndjson", None, format!("{ok}\n{{\"event\""), 400, "invalid_body"),
        ("application/json", None, format!("[{ok},{{\"x\":1}}]"), 400, "invalid_body"),
        (
            "application/json",
            None,
            format!(r#"[{ok},{{"event":"control.x","data":""}}]"#),
            400,
            "reserved_event_name",
        ),
        ("application/json", Some("k"), format!("[{ok}]"), 400, "invalid_idempotency_key"),
        (
            "application/json",
            None,
            format!(r#"[{ok},{{"event":"n","data":"x","idempotency_key":"k"}}]"#),
            422,
            "idempotency_key_reused",
        ),
        ("application/json", None, five, 413, "too_many_events"),
        ("application/json", None, "[]".to_owned(), 400, "invalid_body"),
        ("application/x-ndjson", None, "\n".to_owned(), 400, "invalid_body"),
    ] {
        let (answered, answer) = post(&router, kind, key, &body).await;
        assert_eq!((answered.as_u16(), &answer["code"]), (status, &json!(code)), "{body}: {answer}");
    }
    // Which of several is wrong is said; and nothing of all that was stored.
    let (_, answer) = post(&router, "application/x-ndjson", None, &format!("{ok}\n[]")).await;
    assert!(answer["message"].as_str().is_some_and(|message| message.contains("event 2: ")), "{answer}");
    // A single event takes the key either way.
    let keyed = r#"{"event":"n","data":"4","idempotency_key":"l"}"#;
    let (_, one) = post(&router, "application/json", None, keyed).await;
    assert_eq!(reader.event().await.expect("the next").data, "4");
    assert_eq!(
        post(&router, "application/json", Some("l"), r#"{"event":"n","data":"4"}"#).await.1["id"],
        one["id"]
    );
}
