//! The routes beside the streams: publishing, reports, CORS and the debug routes.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use holdfast_sse::server::{CorsOrigins, Hub, MemoryLog, Message, PublishError, Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::{End, Reader, ask, get, publish, resume};

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

// All three ways to ask for a stream lead through one door.
#[tokio::test]
async fn streams_are_compressed_on_every_route() {
    let (_, router) = hub(StreamOptions {
        compress: true,
        default_channel: Some("a".to_owned()),
        ..StreamOptions::default()
    });
    for path in ["/stream", "/stream?channel=a", "/stream?channel=a&channel=b", "/stream/a"] {
        let request = Request::get(path).header("accept-encoding", "gzip").body(Body::empty());
        let reader = ask(&router, request.expect("a request")).await;
        assert_eq!(reader.headers["content-encoding"], "gzip", "{path}");
        assert_eq!(reader.headers["vary"], "accept-encoding", "{path}");
    }
}

// K30
#[tokio::test]
async fn the_buffer_is_shown_where_debug_routes_are() {
    let (hub, router) = hub(StreamOptions { debug_routes: true, ..StreamOptions::default() });
    let _reader = opened(&router, "").await;
    say(&hub, 1..=3).await;
    let (status, buffer) = server_support::json(&router, get("/debug/buffer?channel=a")).await;
    let id = |buffer: &Value, name: &str| buffer[name].as_str().expect("an id").to_owned();
    assert_eq!((status, &buffer["channel"], &buffer["eventCount"]), (StatusCode::OK, &json!("a"), &json!(3)));
    assert!(id(&buffer, "oldestAvailable").ends_with("-1") && id(&buffer, "newestAvailable").ends_with("-3"));
    assert_eq!(buffer["readers"], 1);
    let (_, empty) = server_support::json(&router, get("/debug/buffer?channel=empty")).await;
    assert_eq!((&empty["oldestAvailable"], &empty["eventCount"]), (&Value::Null, &json!(0)));
    let (status, _) = server_support::json(&router, get("/debug/buffer?channel=%0a")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

async fn metrics(router: &Router, accept: &str) -> (String, String) {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let request = Request::get("/metrics").header("accept", accept).body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (kind, String::from_utf8(bytes.to_vec()).expect("text"))
}

// K26
#[tokio::test]
async fn metrics_are_written_in_the_format_that_is_asked_for() {
    let (_, router) = with_token();
    drop(opened(&router, "").await);
    for accept in ["", "*/*", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"] {
        let (kind, text) = metrics(&router, accept).await;
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{accept}: {kind}");
        assert!(text.contains("# TYPE sse_server_streams_opened counter\n") && text.ends_with("# EOF\n"));
    }
    let (kind, text) = metrics(&router, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for line in [
        "# HELP sse_server_streams_opened_total Streams that were opened.\n",
        "# TYPE sse_server_streams_opened_total counter\n",
        "\nsse_server_streams_opened_total 1\n",
        "# TYPE sse_server_active_streams gauge\n",
        "sse_server_disconnects_total{reason=\"client_close\"} 1\n",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(!text.contains("# EOF") && !text.contains("_total_total"));
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

#[tokio::test]
async fn a_stream_without_a_name_is_the_default_channel_or_not_there() {
    let (_, router) = hub(StreamOptions { debug_routes: true, ..StreamOptions::default() });
    for path in ["/stream", "/stream?from=start", "/debug/buffer"] {
        let (status, body) = server_support::json(&router, get(path)).await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("no_default_channel")), "{path}");
        let message = body["message"].as_str().expect("text");
        assert!(message.starts_with("name a channel: /stream/{channel}"), "{message}");
    }
    let (_, info) = server_support::json(&router, get("/info")).await;
    assert_eq!(info["default_channel"], Value::Null);

    let default_channel = Some("news".to_owned());
    let (_, router) = hub(StreamOptions { default_channel, ..StreamOptions::default() });
    let mut reader = ask(&router, get("/stream")).await;
    assert_eq!(reader.named("control.open").await.payload()["channel"], "news");
}

// K30
#[tokio::test]
async fn health_info_and_metrics_report() {
    let (_, router) = with_token();
    let (status, health) = server_support::json(&router, get("/health")).await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("ok")));
    let (_, info) = server_support::json(&router, get("/info")).await;
    assert_eq!((&info["protocol"], &info["publishing"]), (&json!("holdfast/1"), &json!(true)));
    assert!(!info.to_string().contains("secret"));
    let metrics = ask(&router, get("/metrics")).await;
    assert!(
        metrics.headers["content-type"].to_str().expect("text").starts_with("application/openmetrics-text")
    );
    for path in ["/debug/drop-connections", "/debug/swap", "/nothing"] {
        let request = Request::post(path).body(Body::empty()).expect("a request");
        assert_eq!(ask(&router, request).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_by_list() {
    let preflight = |origin: &str| {
        Request::options("/stream/a")
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "last-event-id,authorization,x-tenant")
            .body(Body::empty())
            .expect("a request")
    };
    let list = CorsOrigins::List(vec!["https://app.example".to_owned()]);
    for (cors, origin, allowed) in [
        (CorsOrigins::SameOrigin, "https://app.example", None),
        (CorsOrigins::Any, "https://app.example", Some("*")),
        (list.clone(), "https://app.example", Some("https://app.example")),
        (list.clone(), "https://app.example.evil.example", None),
        (list, "null", None),
    ] {
        let cors_headers = vec!["X-Tenant".to_owned(), "no name".to_owned()];
        let (_, router) = hub(StreamOptions { cors, cors_headers, ..StreamOptions::default() });
        let answer = ask(&router, preflight(origin)).await;
        let header = |reader: &Reader, name: &str| {
            reader.headers.get(name).map(|value| value.to_str().expect("text").to_lowercase())
        };
        assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), allowed, "{origin}");
        if allowed.is_some() {
            assert_eq!(answer.status, StatusCode::OK);
            let headers = header(&answer, "access-control-allow-headers").expect("a list");
            for name in
                ["authorization", "cache-control", "last-event-id", "traceparent", "x-request-id", "x-tenant"]
            {
                assert!(headers.split(',').any(|allowed| allowed.trim() == name), "{name} in {headers}");
            }
        }
        let mut request = resume("/stream/a", "x-1");
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
        let answer = ask(&router, request).await;
        assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), allowed);
        let exposed = header(&answer, "access-control-expose-headers").unwrap_or_default();
        assert!(exposed.contains("retry-after") || allowed.is_none());
    }
}

fn trouble(heartbeat_ms: u64) -> (Hub, Router) {
    hub(StreamOptions { debug_routes: true, heartbeat_ms, ..StreamOptions::default() })
}

async fn order(router: &Router, path: &str) -> StatusCode {
    ask(router, Request::post(format!("/debug/{path}")).body(Body::empty()).expect("a request")).await.status
}

async fn opened(router: &Router, query: &str) -> Reader {
    let mut reader = ask(router, get(&format!("/stream/a{query}"))).await;
    reader.named("control.open").await;
    reader
}

async fn say(hub: &Hub, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        hub.publisher().publish("a", Message::text("n", n.to_string())).await.expect("published");
    }
}

// K30
#[tokio::test(start_paused = true)]
async fn connections_are_cut_in_the_middle_and_refused_for_a_while() {
    let (hub, router) = trouble(0);
    let mut mine = opened(&router, "?client=me").await;
    let mut other = opened(&router, "?client=you").await;
    let mut nobody = opened(&router, "").await;
    assert_eq!(order(&router, "drop-connections?client=me").await, StatusCode::OK);
    assert_eq!(mine.any().await, Err(End::Cut), "no control.close before");
    assert!(other.quiet(100).await && nobody.quiet(100).await);

    assert_eq!(order(&router, "refuse?ms=10000&client=me").await, StatusCode::OK);
    let refused = ask(&router, get("/stream/a?client=me")).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"10".parse().expect("a header"))
    );
    opened(&router, "?client=third").await;
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    drop(mine);
    let mut mine = opened(&router, "?client=me").await;
    // What was ordered before a stream was opened does not cut it.
    assert!(mine.quiet(100).await);

    assert_eq!(order(&router, "drop-connections").await, StatusCode::OK);
    for reader in [&mut mine, &mut other, &mut nobody] {
        assert_eq!(reader.any().await, Err(End::Cut));
    }
    drop((mine, other, nobody));
    assert_eq!(hub.active_streams(), 0);
}

#[tokio::test]
async fn events_are_repeated_and_swapped_but_the_log_stays_right() {
    let (hub, router) = trouble(0);
    let mut reader = opened(&router, "?client=me").await;
    let mut other = opened(&router, "").await;
    say(&hub, 1..=3).await;
    assert_eq!(reader.sequences(3).await, [1, 2, 3]);
    assert_eq!(order(&router, "repeat?count=2&client=me").await, StatusCode::OK);
    assert_eq!(reader.sequences(2).await, [2, 3], "the last two again");
    assert_eq!(order(&router, "swap?client=me").await, StatusCode::OK);
    say(&hub, 4..=4).await;
    assert!(reader.quiet(50).await, "the first of both is held back");
    say(&hub, 5..=6).await;
    assert_eq!(reader.sequences(3).await, [5, 4, 6]);
    assert_eq!(other.sequences(6).await, [1, 2, 3, 4, 5, 6]);
    // With nothing sent before, the next one comes twice.
    let mut fresh = opened(&router, "?client=new").await;
    order(&router, "repeat?count=1&client=new").await;
    say(&hub, 7..=8).await;
    assert_eq!(fresh.sequences(3).await, [7, 7, 8]);
    let mut replayed = opened(&router, "?from=start").await;
    assert_eq!(replayed.sequences(8).await, (1..=8).collect::<Vec<_>>());
    for wrong in
        ["repeat?count=101", "repeat?count=-1", "silence?ms=x", "swap?client=a%20b", "refuse?ms=600001"]
    {
        assert_eq!(order(&router, wrong).await, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

// K30
#[tokio::test(start_paused = true)]
async fn streams_fall_silent_and_heartbeats_and_events_stop_and_go_on() {
    let (hub, router) = trouble(1000);
    let mut reader = opened(&router, "?client=me").await;
    order(&router, "silence?ms=5000&client=me").await;
    say(&hub, 1..=2).await;
    assert!(reader.quiet(4990).await, "not even a heartbeat");
    let mut late = ask(&router, get("/stream/a?client=me")).await;
    assert_eq!(late.status, StatusCode::OK, "headers, but not a byte");
    assert_eq!(reader.sequences(2).await, [1, 2]);
    late.named("control.open").await;

    order(&router, "pause-events").await;
    say(&hub, 3..=3).await;
    for _ in 0..3 {
        assert_eq!(reader.any().await.expect("a heartbeat").name, "system.heartbeat");
    }
    order(&router, "resume-events").await;
    assert_eq!(reader.sequences(1).await, [3]);

    order(&router, "stop-heartbeats").await;
    assert!(reader.quiet(10_000).await);
    order(&router, "resume-heartbeats").await;
    reader.named("system.heartbeat").await;
}

#[tokio::test]
async fn ten_thousand_visitors_with_faults_are_forgotten() {
    let (_, router) = trouble(0);
    let mut first = opened(&router, "?client=first").await;
    for n in 0..10_000 {
        assert_eq!(order(&router, &format!("silence?ms=600000&client=c{n}")).await, StatusCode::OK);
    }
    // The table is bounded: the first of them is as if it had never been, the last is still silent.
    opened(&router, "?client=c0").await;
    let mut last = ask(&router, get("/stream/a?client=c9999")).await;
    assert!(last.quiet(50).await);
    // A stream whose visitor was forgotten obeys what is for everybody.
    assert_eq!(order(&router, "drop-connections").await, StatusCode::OK);
    assert_eq!(first.any().await, Err(End::Cut));
}

#[tokio::test]
async fn a_hub_is_mounted_in_an_app_of_its_own_routes() {
    let (hub, inner) = with_token();
    let streams = hub.clone();
    let own = axum::routing::get(async move |request: axum::extract::Request| {
        streams.stream("orders:7", &request.into_parts().0).await
    });
    let app = Router::new().nest("/events", inner).route("/orders/7/events", own);
    let mut reader = ask(&app, get("/orders/7/events?from=start")).await;
    assert_eq!(reader.named("control.open").await.payload()["channel"], "orders:7");
    let path = "/events/publish/orders:7";
    let request =
        Request::post(path).header("authorization", "bearer secret").body(Body::from(r#"{"data":"x"}"#));
    let (status, _) = server_support::json(&app, request.expect("a request")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reader.event().await.expect("the event").data, "x");
    let info: Value = server_support::json(&app, get("/events/info")).await.1;
    assert_eq!(info["name"], "holdfast");
}
