//! Publishing: what is taken, as what it arrives, and what is refused.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use holdfast_sse::server::{Hub, MemoryLog, Message, PublishError, Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::{ask, get, metrics, publish};

fn hub(options: StreamOptions) -> (Hub, Router) {
    let hub = Hub::new(Arc::new(MemoryLog::new(Retention::default())), options);
    let router = hub.router();
    (hub, router)
}

fn with_token() -> (Hub, Router) {
    hub(StreamOptions {
        publish_token: Some("secret".to_owned()),
        heartbeat_ms: 0,
        ..StreamOptions::default()
    })
}

// K16, K19, S3
#[tokio::test]
async fn what_is_published_arrives_as_envelope_or_as_it_is() {
    let (_, router) = with_token();
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;

    let body = "{\"type\":\"domain.order.created\",\n \"payload\":{\"z\":1,\r\n\"a\":[1.0,12345678901234567890],\"t\":\"l\\nm\"}}";
    let (status, answer) = server_support::json(&router, publish("a", "secret", None, body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let event = reader.any().await.expect("the event");
    assert_eq!(event.id.as_deref(), answer["id"].as_str());
    assert_eq!((event.name.as_str(), &answer["duplicate"]), ("domain.order.created", &json!(false)));
    assert!(!event.data.contains('\n'), "one data line: {}", event.data);
    assert!(event.data.contains("[1.0,12345678901234567890]"), "numbers keep their spelling: {}", event.data);
    let envelope = event.json();
    assert_eq!((&envelope["type"], &envelope["sequence"]), (&json!("domain.order.created"), &json!(1)));
    assert_eq!(envelope["payload"]["t"], "l\nm");
    let fields: Vec<_> = envelope.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["event_id", "payload", "sequence", "ts", "type"]);

    let body = json!({ "event": "line", "data": "one\r\ntwo\nthree\r\n\nid: 9\n" }).to_string();
    server_support::json(&router, publish("a", "secret", None, &body)).await;
    let event = reader.any().await.expect("the event");
    assert_eq!((event.name.as_str(), event.data.as_str()), ("line", "one\ntwo\nthree\n\nid: 9\n"));
    assert_eq!(event.sequence(), 2);
    server_support::json(&router, publish("a", "secret", None, r#"{"data":""}"#)).await;
    let event = reader.any().await.expect("the event");
    assert_eq!((event.name.as_str(), event.data.as_str()), ("message", ""));
}

#[tokio::test]
async fn a_retry_under_the_same_key_is_not_a_second_event() {
    let (_, router) = with_token();
    let body = r#"{"type":"domain.a","payload":{"n":1}}"#;
    let (_, first) = server_support::json(&router, publish("a", "secret", Some("k-1"), body)).await;
    for _ in 0..3 {
        let (status, again) = server_support::json(&router, publish("a", "secret", Some("k-1"), body)).await;
        assert_eq!((status, &again["id"], &again["duplicate"]), (StatusCode::OK, &first["id"], &json!(true)));
    }
    // Another content, name or kind under the same key is a mistake that must not pass for a success.
    for other in [
        r#"{"type":"domain.a","payload":{"n":2}}"#,
        r#"{"type":"domain.b","payload":{"n":1}}"#,
        r#"{"event":"domain.a","data":"1"}"#,
    ] {
        let (status, answer) =
            server_support::json(&router, publish("a", "secret", Some("k-1"), other)).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency_key_reused"))
        );
    }
    let (_, other) = server_support::json(&router, publish("a", "secret", Some("k-2"), body)).await;
    assert!(other["id"].as_str().expect("text").ends_with("-2"));
}

// K18, and newline injection
#[tokio::test]
async fn what_would_lie_to_clients_is_refused() {
    let (hub, router) = with_token();
    let max = StreamOptions::default().event_bytes_max;
    let check = async |channel: &str, key: Option<&str>, body: String, status: StatusCode, code: &str| {
        let (got, answer) = server_support::json(&router, publish(channel, "secret", key, &body)).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{answer}");
        assert!(answer["error"].is_string() && answer["message"].is_string(), "{answer}");
    };
    let bad = StatusCode::BAD_REQUEST;
    for name in ["a\nb", "a\rid: 1", "a\u{0}", "a\u{85}", "", &"x".repeat(129)] {
        let body = json!({ "event": name, "data": "" }).to_string();
        check("a", None, body, bad, "invalid_event_name").await;
        let body = json!({ "type": name, "payload": 1 }).to_string();
        check("a", None, body, bad, "invalid_event_name").await;
    }
    for name in ["control.open", "control.", "system.heartbeat"] {
        check("a", None, json!({ "event": name, "data": "" }).to_string(), bad, "reserved_event_name").await;
        check("a", None, json!({ "type": name, "payload": {} }).to_string(), bad, "reserved_event_name")
            .await;
    }
    let good = r#"{"data":"x"}"#.to_owned();
    for channel in ["a%0Ab", "a%00", "%ff", &"x".repeat(129)] {
        check(channel, None, good.clone(), bad, "invalid_channel").await;
    }
    for key in ["", "a b", "\u{e9}", &"k".repeat(129)] {
        check("a", Some(key), good.clone(), bad, "invalid_idempotency_key").await;
    }
    for body in [
        "",
        "[]",
        "{",
        r#"{"type":"a"}"#,
        r#"{"payload":1}"#,
        r#"{"type":"a","payload":1,"data":"x"}"#,
        r#"{"data":1}"#,
        r#"{"data":"x","id":"7"}"#,
        "{\"data\":\"\u{1}\"}",
    ] {
        check("a", None, body.to_owned(), bad, "invalid_body").await;
    }
    let large = json!({ "data": "x".repeat(max + 1) }).to_string();
    check("a", None, large, StatusCode::PAYLOAD_TOO_LARGE, "event_too_large").await;
    check("a", None, " ".repeat(max * 2), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
    let deep = format!("{{\"type\":\"a\",\"payload\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let _ = server_support::json(&router, publish("deep", "secret", None, &deep)).await;

    let publisher = hub.publisher();
    let refused = publisher.publish("a", Message::text("a\nid: 1", "")).await;
    assert_eq!(refused, Err(PublishError::InvalidName));
    let refused = publisher.publish("a", Message::envelope("system.x", &json!({}))).await;
    assert_eq!(refused, Err(PublishError::ReservedName));
    let refused = publisher.publish("a", Message::envelope("domain.x", &json!([]))).await;
    assert_eq!(refused, Err(PublishError::InvalidEnvelope("payload")));
    // None of all this was stored.
    let first = publisher.publish("a", Message::text("n", "1")).await.expect("published");
    assert!(first.id.ends_with("-1"), "{}", first.id);
}

// K16: what `validateEvent` of the client refuses is not published as an envelope.
#[tokio::test]
async fn an_envelope_that_breaks_its_schema_is_refused_with_the_field() {
    let (_, router) = with_token();
    let envelope = |field: &str, value: Value| {
        let mut body = json!({ "type": "domain.a", "payload": {} });
        body[field] = value;
        body.to_string()
    };
    let mut refused = 0;
    for (field, value) in [
        ("type", json!("Domain.a")),
        ("type", json!("domain..a")),
        ("type", json!(".a")),
        ("type", json!("1a")),
        ("type", json!("domain a")),
        ("type", json!("x".repeat(101))),
        ("payload", json!(1)),
        ("payload", json!("x")),
        ("payload", json!([1])),
        ("payload", Value::Null),
        ("correlation_id", json!("c-1")),
        ("correlation_id", json!("0192F0C1-2345-7678-89ab-0123456789ab")),
        ("trace_id", json!("")),
        ("trace_id", json!("t".repeat(129))),
        ("stream_id", json!("s".repeat(101))),
        ("retry", json!(300_001)),
    ] {
        let body = envelope(field, value.clone());
        let (status, answer) = server_support::json(&router, publish("a", "secret", None, &body)).await;
        let code = if value.is_null() { "invalid_body" } else { "invalid_envelope" };
        assert_eq!((status, answer["code"].as_str()), (StatusCode::BAD_REQUEST, Some(code)), "{body}");
        let message = answer["message"].as_str().expect("text");
        assert!(value.is_null() || message.contains(&format!("`{field}`")), "{body}: {message}");
        refused += u32::from(!value.is_null());
    }
    let (status, _) = server_support::json(&router, publish("a", "wrong", None, "{}")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let text = metrics(&router, "").await.1;
    for (code, count) in [("invalid_envelope", refused), ("unauthorized", 1)] {
        let line = format!("sse_server_rejected_publishes_total{{reason=\"{code}\"}} {count}\n");
        assert!(text.contains(&line), "{text}");
    }
    // An event of the app's own form is free text.
    let (status, _) =
        server_support::json(&router, publish("a", "secret", None, r#"{"event":"Any Name","data":"[1]"}"#))
            .await;
    assert_eq!(status, StatusCode::OK);
}

// K16, K28: the order of the places is that of `extractTraceId`; what cannot be passed on is passed over.
#[tokio::test]
async fn ids_of_traces_and_correlations_get_into_envelopes() {
    let (_, router) = with_token();
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    let uuid = "0192f0c1-2345-7678-89ab-0123456789ab";
    let body = json!({
        "type": "domain.a", "payload": {}, "correlation_id": uuid, "stream_id": "s-1", "retry": 2000,
    });
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = |id: &str| {
        let mut body = body.clone();
        body["trace_id"] = id.into();
        body.to_string()
    };
    for (path, headers, body, trace_id) in [
        ("/publish/a", &[][..], body.to_string(), Value::Null),
        ("/publish/a?trace_id=q-1", &[], body.to_string(), json!("q-1")),
        ("/publish/a?trace_id=q-1", &[("traceparent", parent)], body.to_string(), json!(&parent[3..35])),
        ("/publish/a", &[("traceparent", parent), ("x-request-id", "r-1")], body.to_string(), json!("r-1")),
        ("/publish/a", &[("x-request-id", "r-1"), ("x-trace-id", "t-1")], body.to_string(), json!("t-1")),
        ("/publish/a", &[("x-request-id", "r-1"), ("x-trace-id", "no good")], body.to_string(), json!("r-1")),
        ("/publish/a", &[("x-trace-id", "t-1")], own("mine"), json!("mine")),
    ] {
        let mut request = Request::post(path).header("authorization", "Bearer secret");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, _) =
            server_support::json(&router, request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(status, StatusCode::OK);
        let envelope = reader.any().await.expect("the event").json();
        assert_eq!(envelope["trace_id"], trace_id, "{path} {headers:?}");
        assert_eq!(
            (&envelope["correlation_id"], &envelope["stream_id"], &envelope["retry"]),
            (&json!(uuid), &json!("s-1"), &json!(2000))
        );
        let stream = Request::get(path.replace("publish", "stream"));
        let stream = headers.iter().fold(stream, |request, (name, value)| request.header(*name, *value));
        let mut opened = ask(&router, stream.body(Body::empty()).expect("a request")).await;
        let expected = if trace_id == "mine" { json!("t-1") } else { trace_id };
        assert_eq!(opened.named("control.open").await.payload()["trace_id"], expected);
    }
}

#[tokio::test]
async fn publishing_takes_the_token_and_is_off_without_one() {
    for token in [None, Some(String::new())] {
        let (_, router) = hub(StreamOptions { publish_token: token, ..StreamOptions::default() });
        let (status, body) = server_support::json(&router, publish("a", "", None, "{}")).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("publishing_off")));
        let message = body["message"].as_str().expect("text");
        assert!(
            message.contains("StreamOptions::publish_token") && message.contains("SSE_PUBLISH_TOKEN"),
            "{message}"
        );
    }
    let (_, router) = with_token();
    for given in ["", "Secret", "secre", "secrets", "secret "] {
        let reader = ask(&router, publish("a", given, None, "{}")).await;
        assert_eq!(reader.status, StatusCode::UNAUTHORIZED, "{given:?}");
        assert_eq!(reader.headers["www-authenticate"], "Bearer");
    }
    let bare = Request::post("/publish/a").body(Body::empty()).expect("a request");
    assert_eq!(ask(&router, bare).await.status, StatusCode::UNAUTHORIZED);
    // The body of somebody without the token is not even read.
    let endless = Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    let request = Request::post("/publish/a").body(endless).expect("a request");
    let answer = tokio::time::timeout(Duration::from_secs(10), ask(&router, request)).await;
    assert_eq!(answer.expect("an answer at once").status, StatusCode::UNAUTHORIZED);
}
