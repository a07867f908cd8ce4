//! Who may open a stream, how many there may be, and what is said to one of them alone.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use holdfast_sse::server::{
    AuthRequest, Beginning, Channels, CloseReason, Denied, EventNames, Hooks, Hub, Identity, MemoryLog,
    Message, SendError, SlowConsumer, StreamOptions,
};
use serde_json::json;
use server_support::{End, Reader, ask, get};

const CORRELATION: &str = "0192f0c1-2345-4678-89ab-0123456789ab";

fn options() -> StreamOptions {
    StreamOptions { heartbeat_ms: 0, ..StreamOptions::default() }
}

fn hub(options: StreamOptions, hooks: Hooks) -> (Hub, Router) {
    let hub =
        Hub::with_hooks(Arc::new(MemoryLog::new(holdfast_sse::server::Retention::default())), options, hooks);
    let router = hub.router();
    (hub, router)
}

fn with(path: &str, header: &'static str, value: &str) -> Request<Body> {
    let mut request = get(path);
    request.headers_mut().insert(header, value.parse().expect("a header"));
    request
}

fn from(path: &str, address: &str) -> Request<Body> {
    let mut request = get(path);
    let address: SocketAddr = address.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(address));
    request
}

async fn publish(hub: &Hub, channel: &str, text: &str) {
    hub.channel(channel).publish(Message::text("n", text)).await.expect("published");
}

async fn metrics(router: &Router) -> String {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let response = router.clone().oneshot(get("/metrics")).await.expect("an answer");
    String::from_utf8(response.into_body().collect().await.expect("a body").to_bytes().to_vec())
        .expect("text")
}

// E5, and evstream's 200 before authentication, and its hook that threw where it answered null
#[tokio::test]
async fn nothing_is_sent_before_the_hook_agreed() {
    let hooks = Hooks::default().authorize(|request: AuthRequest| async move {
        assert!(!format!("{request:?}").contains("s3cret"), "no secret in a debug text");
        let token = request.bearer().map(str::to_owned);
        let token =
            token.or_else(|| request.cookie("session").map(str::to_owned)).or_else(|| request.query("token"));
        match token.as_deref() {
            Some("s3cret") if request.channels == ["a"] => Ok(Identity::new("ann")),
            Some("s3cret") => Err(Denied::forbidden("only a")),
            Some("later") => Err(Denied::unavailable("ask later", 7_000)),
            _ => Err(Denied::unauthorized("who are you?")),
        }
    });
    let (hub, router) = hub(options(), hooks);
    for (request, status, code) in [
        (get("/stream/a"), StatusCode::UNAUTHORIZED, "unauthorized"),
        (get("/stream/a?token=wrong"), StatusCode::UNAUTHORIZED, "unauthorized"),
        (get("/stream/a?token="), StatusCode::UNAUTHORIZED, "unauthorized"),
        (get("/stream/a?token=null"), StatusCode::UNAUTHORIZED, "unauthorized"),
        (with("/stream/a", "authorization", "Basic s3cret"), StatusCode::UNAUTHORIZED, "unauthorized"),
        (get("/stream/b?token=s3cret"), StatusCode::FORBIDDEN, "forbidden"),
        (get("/stream/a?token=later"), StatusCode::SERVICE_UNAVAILABLE, "server_error"),
    ] {
        let (got, body) = server_support::json(&router, request).await;
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{body}");
        assert!(!body.to_string().contains("s3cret"));
    }
    assert_eq!(ask(&router, get("/stream/a")).await.headers["www-authenticate"], "Bearer");
    assert_eq!(ask(&router, get("/stream/a?token=later")).await.headers["retry-after"], "7");
    assert_eq!(hub.active_streams(), 0);
    for request in [
        with("/stream/a", "authorization", "bearer s3cret"),
        with("/stream/a", "cookie", "x=1; session=s3cret"),
        get("/stream/a?token=s3cret"),
    ] {
        let reader = ask(&router, request).await;
        assert_eq!(reader.status, StatusCode::OK);
        assert_eq!(hub.streams()[0].identity.as_deref(), Some("ann"));
    }
    // One secret for all, by option.
    let (_, router) =
        self::hub(StreamOptions { stream_token: Some("all".to_owned()), ..options() }, Hooks::default());
    for (path, status) in [("/stream/a", 401), ("/stream/a?token=al", 401), ("/stream/a?token=all", 200)] {
        assert_eq!(ask(&router, get(path)).await.status.as_u16(), status, "{path}");
    }
}

// E5, K22
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_credentials() {
    let hooks = Hooks::default().authorize(|_: AuthRequest| async {
        Ok(Identity::new("ann").expires_at(SystemTime::now() + Duration::from_secs(60)))
    });
    let (_, router) = hub(options(), hooks);
    let begun = tokio::time::Instant::now();
    let mut reader = ask(&router, get("/stream/a")).await;
    assert_eq!(reader.named("control.close").await.payload()["reason"], "auth_expired");
    assert!((58..=60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(reader.any().await, Err(End::Clean));
    assert_eq!(reader.retries(), [3000], "no extra pause: it is to come back at once");
}

// E6, E11, E12, K25
#[tokio::test]
async fn limits_refuse_with_a_code_and_give_places_back() {
    let limits = StreamOptions {
        connections_max: 4,
        connections_per_address_max: Some(2),
        listeners_per_channel_max: Some(2),
        ..options()
    };
    let (hub, router) = hub(limits, Hooks::default());
    let check = async |request: Request<Body>, status: u16, code: &str| {
        let (got, body) = server_support::json(&router, request).await;
        assert_eq!(
            (got.as_u16(), body["code"].as_str(), &body["retry"]),
            (status, Some(code), &json!(3000)),
            "{body}"
        );
    };
    let a = ask(&router, from("/stream/a", "10.0.0.1:1")).await;
    let b = ask(&router, from("/stream/b", "10.0.0.1:2")).await;
    check(from("/stream/c", "10.0.0.1:3"), 429, "rate_limited").await;
    let c = ask(&router, from("/stream/a", "10.0.0.2:1")).await;
    check(from("/stream/a", "10.0.0.3:1"), 503, "too_many_listeners").await;
    let d = ask(&router, from("/stream/d", "10.0.0.2:2")).await;
    check(from("/stream/e", "10.0.0.4:1"), 503, "overload_reject").await;
    assert_eq!(hub.streams().iter().filter(|stream| stream.peer == Some([10, 0, 0, 1].into())).count(), 2);
    drop((a, d));
    let again = ask(&router, from("/stream/a", "10.0.0.1:4")).await;
    assert_eq!((again.status, hub.session_count("a")), (StatusCode::OK, 2));
    drop((b, c, again));
    assert_eq!((hub.active_streams(), hub.active_channels()), (0, 0));
}

// E12, by a handler that adds channels
#[tokio::test]
async fn a_full_channel_cannot_be_listened_to() {
    let (hub, router) =
        hub(StreamOptions { listeners_per_channel_max: Some(1), ..options() }, Hooks::default());
    let held = ask(&router, get("/stream/a")).await;
    let (parts, ()) = Request::get("/").body(()).expect("a request").into_parts();
    let (stream, _response) = hub.open(&[], &parts).await.expect("opened");
    assert!(matches!(stream.listen("a"), Err(SendError::Refused("too_many_listeners", _))));
    assert_eq!((hub.session_count("a"), stream.stats().channels.len()), (1, 0));
    drop(held);
    assert_eq!(stream.listen("a"), Ok(true));
    assert_eq!(hub.session_count("a"), 1);
}

#[tokio::test]
async fn all_streams_of_an_identity_are_kicked() {
    let hooks = Hooks::default().authorize(|request: AuthRequest| async move {
        request.query("user").map(Identity::new).ok_or_else(|| Denied::unauthorized("who?"))
    });
    let (hub, router) = hub(options(), hooks);
    let mut anns =
        [ask(&router, get("/stream/a?user=ann")).await, ask(&router, get("/stream/b?user=ann")).await];
    let mut bob = ask(&router, get("/stream/a?user=bob")).await;
    bob.named("control.open").await;
    assert_eq!(hub.kick_identity("ann", CloseReason::AuthExpired), 2);
    for reader in &mut anns {
        assert_eq!(reader.named("control.close").await.payload()["reason"], "auth_expired");
        assert_eq!(reader.any().await, Err(End::Clean));
    }
    assert!(bob.quiet(20).await);
    drop(anns);
    assert_eq!((hub.kick_identity("ann", CloseReason::AuthExpired), hub.active_streams()), (0, 1));
}

// What a client writes into the proxy's header stands before what the proxy adds.
#[tokio::test]
async fn the_address_is_the_one_that_the_proxy_tells() {
    let limits = StreamOptions {
        address_header: Some("X-Forwarded-For".to_owned()),
        connections_per_address_max: Some(1),
        ..options()
    };
    let (hub, router) = hub(limits, Hooks::default());
    let via = |forwarded: &[&str]| {
        let mut request = from("/stream/a", "10.0.0.1:1");
        for value in forwarded {
            request.headers_mut().append("x-forwarded-for", value.parse().expect("a header"));
        }
        request
    };
    let mut held = Vec::new();
    for (forwarded, status, peer) in [
        (&["192.0.2.1"][..], 200, "192.0.2.1"),
        (&["198.51.100.9, 192.0.2.1"], 429, ""),
        (&["198.51.100.9", "192.0.2.1"], 429, ""),
        (&["192.0.2.1, 192.0.2.2"], 200, "192.0.2.2"),
        (&[" 2001:db8::1 "], 200, "2001:db8::1"),
        // Without the proxy's word the connection's own address counts.
        (&["nonsense"], 200, "10.0.0.1"),
        (&[], 429, ""),
    ] {
        let reader = ask(&router, via(forwarded)).await;
        assert_eq!(reader.status.as_u16(), status, "{forwarded:?}");
        if status == 200 {
            let peers: Vec<_> = hub.streams().iter().filter_map(|stream| stream.peer).collect();
            assert!(peers.contains(&peer.parse().expect("an address")), "{forwarded:?}: {peers:?}");
            held.push(reader);
        }
    }
}

// K22, K26: every reason reaches the client and its counter.
#[tokio::test]
async fn a_stream_is_kicked_with_a_reason() {
    let (hub, router) = hub(options(), Hooks::default());
    for reason in CloseReason::ALL {
        let mut reader = ask(&router, get("/stream/a")).await;
        assert!(hub.kick(&hub.streams()[0].id, reason));
        assert_eq!(reader.named("control.close").await.payload()["reason"], reason.as_str());
        assert_eq!(reader.any().await, Err(End::Clean));
    }
    assert!(!hub.kick("stream-x", CloseReason::RateLimited));
    let text = metrics(&router).await;
    for reason in CloseReason::ALL {
        assert!(text.contains(&format!("sse_server_disconnects_total{{reason=\"{reason}\"}} 1\n")), "{text}");
    }
    for name in [
        "uptime_seconds",
        "active_streams",
        "streams_opened_total",
        "rejected_connections_total",
        "heartbeats_sent_total",
        "heartbeats_failed_total",
        "events_sent_total",
        "replays_attempted_total",
        "replays_succeeded_total",
        "replays_failed_total",
        "replay_events_sent_total",
        "cannot_resume_total{reason=\"event_not_found\"}",
    ] {
        assert!(text.contains(&format!("\nsse_server_{name} ")), "{name} in {text}");
    }
}

// E1, E2, K14, and evstream's undocumented `to(id, msg)`
#[tokio::test]
async fn a_handler_writes_to_one_client() {
    let (hub, router) = hub(StreamOptions { direct_events_max: 6, ..options() }, Hooks::default());
    let (parts, ()) = Request::get("/?trace_id=t-1").body(()).expect("a request").into_parts();
    let (stream, response) = hub.open(&[], &parts).await.expect("opened");
    let mut reader = Reader::new(response);
    assert_eq!(reader.named("control.open").await.payload()["replayable"], false);
    stream.send_with_id("7", Message::text("message", "one\nid: 9")).expect("sent");
    stream
        .send(Message::envelope("domain.a.b", &json!({ "x": 1 })).trace_id("t").correlation_id(CORRELATION))
        .expect("sent");
    stream.control("control.custom", &json!({ "y": 2 })).expect("sent");
    stream.heartbeat().expect("sent");
    stream.error("it broke", "broken").expect("sent");
    hub.send_to(stream.id(), Message::text("n", "direct")).expect("sent");
    assert_eq!(stream.send(Message::text("n", "")), Err(SendError::Full(6)));
    let event = reader.any().await.expect("an event");
    assert_eq!((event.id.as_deref(), event.data.as_str()), (Some("7"), "one\nid: 9"));
    // K16: the kit lost the trace.
    let envelope = reader.any().await.expect("an envelope").json();
    assert_eq!(
        (&envelope["trace_id"], &envelope["correlation_id"], &envelope["payload"]),
        (&json!("t"), &json!(CORRELATION), &json!({ "x": 1 }))
    );
    for name in ["control.custom", "system.heartbeat", "system.error", "n"] {
        let event = reader.any().await.expect("an event");
        assert_eq!((event.name.as_str(), &event.id), (name, &None));
    }
    for refused in ["control.open", "system.heartbeat", "own", "control.a\nb"] {
        assert_eq!(stream.control(refused, &json!({})), Err(SendError::NotControl), "{refused}");
    }
    assert_eq!(stream.send_with_id("a\nb", Message::text("n", "")), Err(SendError::InvalidId));
    assert_eq!(
        stream.send(Message::text("control.x", "")).map_err(|error| error.code()),
        Err("invalid_event")
    );
    let stats = stream.stats();
    assert_eq!((stats.events_sent, stats.trace_id.as_deref(), stats.resumed), (3, Some("t-1"), false));
    assert_eq!(stats.bytes_sent as usize, reader.bytes);
    stream.close(CloseReason::StreamEnded).expect("closed");
    assert_eq!(reader.named("control.close").await.payload()["reason"], "stream_ended");
    assert_eq!(reader.any().await, Err(End::Clean));
    drop(reader);
    assert_eq!(stream.send(Message::text("n", "")), Err(SendError::Closed));
    assert_eq!(hub.send_to("nobody", Message::text("n", "")), Err(SendError::Closed));
    // A stream of a channel has the log's ids.
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    let stream = hub.find(&hub.streams()[0].id).expect("open");
    assert_eq!(stream.send_with_id("7", Message::text("n", "")), Err(SendError::InvalidId));
    stream.send(Message::text("only", "you")).expect("sent");
    assert_eq!(reader.any().await.map(|event| (event.name, event.id)), Ok(("only".to_owned(), None)));
}

// E3, E4, E18
#[tokio::test(start_paused = true)]
async fn evstreams_names_are_spoken_where_they_are_asked_for() {
    let names =
        StreamOptions { names: EventNames::Evstream, heartbeat_ms: 5_000, ..StreamOptions::default() };
    let (hub, router) = hub(names, Hooks::default());
    let mut reader = ask(&router, get("/stream/a")).await;
    assert_eq!(reader.named("heartbeat").await.data, "");
    let stream = hub.find(&hub.streams()[0].id).expect("open");
    stream.error("no", "broken").expect("sent");
    assert_eq!(reader.named("error").await.json(), json!({ "message": "no", "code": "broken" }));
    stream.close(CloseReason::StreamEnded).expect("closed");
    assert_eq!(reader.named("end").await.data, "");
    assert_eq!(reader.any().await, Err(End::Clean));
}

// E10, S6, S7, S8, S9
#[tokio::test]
async fn the_app_checks_greets_and_hears_of_the_end() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&ended);
    let hooks = Hooks::default()
        .validate(|parts, _| match parts.uri.query() {
            Some(query) if query.contains("bad") => Err("`bad` is not known".to_owned()),
            _ => Ok(()),
        })
        .initial(|info| async move {
            vec![Message::envelope("domain.count", &json!({ "n": info.channels.len() }))]
        })
        .on_disconnect(move |info, reason| {
            heard.lock().expect("whole").push((info.channels.clone(), reason))
        });
    let (hub, router) = hub(options(), hooks);
    let (status, body) = server_support::json(&router, get("/stream/a?bad")).await;
    assert_eq!(
        (status, &body["code"], &body["message"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_params"), &json!("`bad` is not known"))
    );
    let mut other = ask(&router, get("/stream/a")).await;
    other.named("domain.count").await;
    let mut reader = ask(&router, get("/stream?channel=a&channel=b")).await;
    let greeting = reader.event().await.expect("the greeting");
    assert_eq!((greeting.payload(), greeting.id), (json!({ "n": 2 }), None));
    publish(&hub, "a", "1").await;
    assert_eq!(reader.event().await.expect("an event").data, "1");
    assert_eq!(other.event().await.expect("an event").data, "1", "the greeting was the newcomer's alone");
    drop(reader);
    drop(other);
    let pair = vec!["a".to_owned(), "b".to_owned()];
    let expected = [(pair, CloseReason::ClientClose), (vec!["a".to_owned()], CloseReason::ClientClose)];
    assert_eq!(*ended.lock().expect("whole"), expected);
}

// S1, S2, S3, S4, T1, T2, T3, T4, T5
#[tokio::test]
async fn channels_are_named_by_ids_and_begin_as_the_options_say() {
    let (hub, _) = hub(StreamOptions { fresh: Beginning::Start, ..options() }, Hooks::default());
    let channels = Channels::new(&hub, "comments", "live");
    assert_eq!(Channels::new(&hub, "", "").get("7").name(), "7");
    let channel = channels.get("7");
    assert_eq!(channel.name(), "comments:7:live");
    let first = channel.send(&json!({ "type": "added" })).await.expect("published");
    let (parts, ()) = Request::get("/own/route").body(()).expect("a request").into_parts();
    let mut reader = Reader::new(channel.stream(&parts).await);
    let event = reader.event().await.expect("stored events come first");
    assert_eq!(
        (event.name.as_str(), event.id, event.data.as_str()),
        ("message", Some(first.id), r#"{"type":"added"}"#)
    );
    channel.publish(Message::text("live", "2")).await.expect("published");
    assert_eq!(reader.event().await.expect("live").name, "live");
    assert_eq!((channel.session_count(), channels.get("8").session_count()), (1, 0));
}

// S5, S15, E9
#[tokio::test(start_paused = true)]
async fn listeners_are_counted_and_told_of_each_other() {
    let (hub, router) = hub(StreamOptions { presence_ms: 1_000, ..options() }, Hooks::default());
    let mut first = ask(&router, get("/stream/a")).await;
    assert_eq!(first.named("control.presence").await.payload(), json!({ "channel": "a", "count": 1 }));
    let others = futures_util::future::join_all((0..50).map(|_| ask(&router, get("/stream/a")))).await;
    let told = first.named("control.presence").await;
    assert_eq!((told.payload()["count"].as_u64(), &told.id), (Some(51), &None), "many comings are one event");
    drop(others);
    assert_eq!(first.named("control.presence").await.payload()["count"], 1);
    assert_eq!((hub.session_count("a"), hub.active_channels()), (1, 1));
    drop(first);
    assert_eq!((hub.session_count("a"), hub.active_channels()), (0, 0));
}

#[tokio::test]
async fn a_slow_reader_is_closed_where_the_policy_says_so() {
    for (events_max, bytes_max) in [(10, usize::MAX), (u64::MAX, 200)] {
        let slow = SlowConsumer::Close { events_max, bytes_max };
        let (hub, router) = hub(StreamOptions { slow, ..options() }, Hooks::default());
        for n in 0..30 {
            publish(&hub, "a", &n.to_string()).await;
        }
        // The replay that was asked for does not count.
        let mut reader = ask(&router, get("/stream/a?from=start")).await;
        reader.named("control.replay_end").await;
        publish(&hub, "a", "near").await;
        assert_eq!(reader.event().await.expect("an event").data, "near");
        for n in 0..30 {
            publish(&hub, "a", &n.to_string()).await;
        }
        assert_eq!(reader.any().await.expect("the end").payload()["reason"], "overload_reject");
        assert_eq!(reader.any().await, Err(End::Clean));
    }
}

/// One client that never reads, over a real socket: it holds up nobody, and gets all when it reads again.
#[tokio::test(flavor = "multi_thread")]
async fn one_stuck_client_costs_the_others_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const EVENTS: u64 = 8_000;
    let (hub, router) = hub(options(), Hooks::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stuck = tokio::net::TcpStream::connect(&address).await.expect("connected");
    stuck.write_all(b"GET /stream/a HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    let mut byte = [0];
    stuck.read_exact(&mut byte).await.expect("it is open");
    let stuck_id = hub.streams()[0].id.clone();
    let mut reader = Reader::new(server_support::send(&address, get("/stream/a")).await.expect("an answer"));
    reader.named("control.open").await;
    let text = "x".repeat(2_000);
    let publishing = async {
        for _ in 0..EVENTS {
            publish(&hub, "a", &text).await;
        }
    };
    let reading = async {
        for n in 1..=EVENTS {
            assert_eq!(reader.event().await.expect("an event").sequence(), n);
        }
    };
    tokio::join!(publishing, reading);
    let sent = hub.find(&stuck_id).expect("still open").stats().events_sent;
    assert!(sent < EVENTS, "{sent} events are in the stuck one's buffers");
    let mut all = Vec::new();
    let last = format!("-{EVENTS}\n");
    while !all.windows(last.len()).any(|window| window == last.as_bytes()) {
        let begin = all.len();
        all.resize(begin + (1 << 20), 0);
        let count = stuck.read(&mut all[begin..]).await.expect("bytes");
        assert!(count > 0, "it goes on");
        // Only the new part, and a little before it, needs to be looked at.
        all.truncate(begin + count);
        all.drain(..all.len().saturating_sub((1 << 20) + 64));
    }
    server.abort();
}
