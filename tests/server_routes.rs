//! The routes beside the streams: reports, CORS and the debug routes.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use holdfast_sse::server::{CorsOrigins, Hub, MemoryLog, Message, Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::{End, Reader, ask, get, metrics, resume};

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
