//! The real `holdfast serve`: its life, its death, and what it takes.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::path::Path;
use std::process::{Command, Stdio};

use axum::http::StatusCode;
use serde_json::json;
use server_support::{End, Server, get, publish, resume};

fn start(dir: &Path) -> Server {
    Server::start(Server::command(dir))
}

#[tokio::test]
async fn a_lost_data_folder_is_another_epoch() {
    let dir = tempfile::tempdir().expect("a folder");
    let body = r#"{"data":"x"}"#;
    let server = start(dir.path());
    let (_, first) = server.json(publish("a", "secret", None, body)).await;
    let cursor = first["id"].as_str().expect("an id").to_owned();
    server.kill();

    let server = start(dir.path());
    let mut reader = server.stream(resume("/stream/a", &cursor)).await;
    let open = reader.named("control.open").await.payload();
    assert_eq!(open["position"], cursor, "the same log goes on");
    reader.named("control.replay_end").await;
    server.json(publish("a", "secret", None, body)).await;
    assert_eq!(reader.any().await.expect("the next").sequence(), 2);
    server.kill();

    // Restored from a backup, as the operator says: the ids after it must not be given out a second time.
    let mut command = Server::command(dir.path());
    command.arg("--new-epoch");
    let server = Server::start(command);
    let (_, renewed) = server.json(publish("a", "secret", None, body)).await;
    let renewed = renewed["id"].as_str().expect("an id");
    assert!(renewed.ends_with("-1") && renewed.split('-').next() != cursor.split('-').next());
    server.kill();

    std::fs::remove_dir_all(dir.path()).expect("deleted");
    let server = start(dir.path());
    let mut reader = server.stream(resume("/stream/a", &cursor)).await;
    let refused = reader.named("control.cannot_resume").await.payload();
    assert_eq!((&refused["code"], &refused["requestedId"]), (&json!("event_not_found"), &json!(cursor)));
}

#[tokio::test]
async fn a_memory_log_is_another_epoch_with_each_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let mut command = Server::command(dir.path());
        command.arg("--memory");
        let server = Server::start(command);
        let (_, answer) = server.json(publish("a", "secret", None, r#"{"data":"x"}"#)).await;
        epochs.push(answer["id"].as_str().expect("an id").to_owned());
        let (_, info) = server.json(get("/info")).await;
        assert_eq!(info["durable"], false);
    }
    assert_ne!(epochs[0], epochs[1]);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
}

// K22
#[tokio::test]
async fn sigterm_says_goodbye_and_closes_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Server::command(dir.path());
    command.env("SHUTDOWN_GRACE_PERIOD", "1000");
    let server = Server::start(command);
    let mut reader = server.stream(get("/stream/a")).await;
    reader.named("control.open").await;
    server.json(publish("a", "secret", None, r#"{"data":"x"}"#)).await;
    server.signal("-TERM");
    assert_eq!(reader.event().await.expect("what was published").data, "x");
    assert_eq!(reader.named("control.close").await.payload()["reason"], "server_shutdown");
    assert_eq!(reader.any().await, Err(End::Clean));
    assert!(*reader.retries().last().expect("a retry") <= 150);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn while_it_says_goodbye_newcomers_hear_503_and_a_second_signal_ends_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Server::command(dir.path());
    // A silenced stream does not leave on its own, so the drain lasts until its deadline.
    command.env("SHUTDOWN_GRACE_PERIOD", "600000").arg("--debug-routes");
    let server = Server::start(command);
    let mut reader = server.stream(get("/stream/a")).await;
    reader.named("control.open").await;
    let silence = axum::http::Request::post("/debug/silence?ms=600000").body(axum::body::Body::empty());
    server.json(silence.expect("a request")).await;
    server.signal("-INT");
    let refused = loop {
        let (status, health) = server.json(get("/health")).await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(health["status"], "draining");
            break server.stream(get("/stream/a")).await;
        }
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    server.signal("-TERM");
    assert_eq!(server.ended().await.code(), Some(130));
    assert_eq!(reader.any().await, Err(End::Cut));
}

// K29
#[tokio::test]
async fn the_demo_ticks_and_the_settings_arrive() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Server::command(dir.path());
    command.envs([("SSE_TICK_INTERVAL", "20"), ("SSE_HEARTBEAT_INTERVAL", "50"), ("MAX_CONNECTIONS", "1")]);
    let server = Server::start(command);
    let mut reader = server.stream(get("/stream")).await;
    let open = reader.named("control.open").await.payload();
    assert_eq!((&open["tick_interval"], &open["heartbeat_interval"]), (&json!(20), &json!(50)));
    assert_eq!(reader.retries(), [50]);
    let (first, second) = (reader.event().await.expect("a tick"), reader.event().await.expect("a tick"));
    assert_eq!((first.name.as_str(), second.sequence()), ("domain.tick", first.sequence() + 1));
    assert_eq!(second.payload()["n"].as_u64(), first.payload()["n"].as_u64().map(|n| n + 1));
    reader.named("system.heartbeat").await;
    assert_eq!(server.stream(get("/stream")).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn files_are_served_beside_the_routes() {
    let dir = tempfile::tempdir().expect("a folder");
    let site = tempfile::tempdir().expect("a folder");
    std::fs::write(site.path().join("index.html"), "<!doctype html>hello").expect("written");
    std::fs::write(site.path().join("core.wasm"), b"\0asm").expect("written");
    std::fs::write(dir.path().join("secret.txt"), "secret").expect("written");
    let mut command = Server::command(&dir.path().join("log"));
    command.arg("--site").arg(site.path());
    let server = Server::start(command);
    for (path, status, kind) in [
        ("/", 200, "text/html"),
        ("/index.html", 200, "text/html"),
        ("/core.wasm", 200, "application/wasm"),
        ("/info", 200, "application/json"),
    ] {
        let answer = server.stream(get(path)).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.headers["content-type"].to_str().expect("text").split(';').next(),
            Some(kind),
            "{path}"
        );
        if path != "/info" {
            let policy = answer.headers["content-security-policy"].to_str().expect("text");
            assert!(policy.contains("'wasm-unsafe-eval'") && policy.contains("default-src 'self'"));
        }
    }
    let outside = format!("/..%2f{}%2fsecret.txt", dir.path().file_name().expect("a name").to_string_lossy());
    for path in ["/nothing.js", outside.as_str()] {
        assert_eq!(server.stream(get(path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

/// Runs `holdfast` with settings that are wrong, and gives what it says.
fn complaint(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the holdfast command");
    assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn the_help_names_the_one_setting_without_a_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(["serve", "--help"]).output();
    let help = String::from_utf8(output.expect("the holdfast command").stdout).expect("text");
    assert!(help.contains("SSE_PUBLISH_TOKEN"), "{help}");
}

// K29
#[test]
fn a_wrong_setting_is_named_with_what_it_got_and_what_it_takes() {
    for (name, value, takes) in [
        ("PORT", "http", "a whole number from 0 to 65535"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", "", "a whole number from 0 to 65535"),
        ("SSE_TICK_INTERVAL", "1s", "a whole number from 0 to 3600000"),
        ("SSE_HEARTBEAT_INTERVAL", "-5", "a whole number from 0 to 3600000"),
        ("SSE_RETRY_TIMEOUT", "1e3", "a whole number from 0 to 3600000"),
        ("SSE_MAX_BUFFER_SIZE", "0", "a whole number from 1 to 1000000000"),
        ("SSE_MAX_REPLAY_BATCH", "no", "a whole number from 1 to 100000"),
        ("SSE_BUFFER_TTL_MS", "1.5", "a whole number from 0 to 18446744073709551615"),
        ("MAX_CONNECTIONS", "0", "a whole number from 1 to 10000000"),
        ("SHUTDOWN_GRACE_PERIOD", "soon", "a whole number from 0 to 3600000"),
        ("SSE_WRITE_TIMEOUT", "0", "a whole number from 1 to 3600000"),
        ("SSE_SOCKETS_PER_ADDRESS", "-1", "a whole number from 0 to 10000000"),
        ("SSE_FRESH", "later", "`now`, `start` or a number of events"),
        ("SSE_CHANNELS_PER_STREAM", "65", "a whole number from 1 to 64"),
        ("SSE_ADDRESS_HEADER", "a b", "the name of a header, like X-Forwarded-For"),
        ("SSE_CORS_HEADERS", "a b", "names of headers, joined by commas"),
        ("SSE_COMPRESS", "yes", "true or false"),
        ("LOG_HEARTBEATS", "maybe", "true or false"),
        ("LOG_LEVEL", "loud", "one of debug, info, warn, error, off"),
        ("SSE_CORS_ORIGINS", "app.example", "`*` or origins like https://app.example:8443, joined by commas"),
    ] {
        let said = complaint(&["serve"], &[(name, value)]);
        assert_eq!(said, format!("holdfast: {name}: got {value:?}, takes {takes}\n"));
    }
    let said = complaint(&["serve", "--port", "x"], &[]);
    assert_eq!(said, "holdfast: --port: got \"x\", takes a whole number from 0 to 65535\n");
    assert!(
        complaint(&["serve"], &[("SSE_HEARTBEAT", "1")])
            .starts_with("holdfast: SSE_HEARTBEAT: there is no such setting")
    );
    assert!(complaint(&["serve", "--prot", "1"], &[]).contains("--prot"));
    assert!(complaint(&["serve", "--tls-cert", "x"], &[]).contains("--tls-key"));
    let said = complaint(&["serve", "--tls-cert", "/nowhere/c.pem", "--tls-key", "k"], &[]);
    assert!(said.starts_with("holdfast: --tls-cert, --tls-key: /nowhere/c.pem: "), "{said}");
    let said = complaint(&["serve"], &[("SSE_PUBLISH_TOKEN", "hunter two")]);
    assert!(said.starts_with("holdfast: SSE_PUBLISH_TOKEN: takes") && !said.contains("hunter"));
    assert!(complaint(&["serve", "--site", "/nowhere", "--memory", "--port", "0"], &[]).contains("--site"));
}

// Hostile heads: the answer is a 4xx or a closed connection, and the server goes on.
#[tokio::test]
async fn bombs_of_headers_are_refused_and_nothing_else_suffers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path());
    let mut reader = server.stream(get("/stream/a")).await;
    reader.named("control.open").await;
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for head in [
        format!("GET /stream/a HTTP/1.1\r\nhost: x\r\nlast-event-id: {}\r\n\r\n", "9".repeat(1 << 20)),
        format!("GET /stream/a?lastEventId={} HTTP/1.1\r\nhost: x\r\n\r\n", "9".repeat(1 << 20)),
        format!("GET /stream/a HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let mut socket = tokio::net::TcpStream::connect(&server.address).await.expect("a connection");
        // The server may hang up before it has read all of it.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    server.json(publish("a", "secret", None, r#"{"data":"x"}"#)).await;
    assert_eq!(reader.event().await.expect("the event").data, "x");
}

// K27, K29
#[tokio::test]
async fn logs_are_lines_of_known_keys_without_secrets() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = tempfile::NamedTempFile::new().expect("a file");
    let run = async |dir: &Path, heartbeats: &str, replay: &str| -> Vec<serde_json::Value> {
        let from = std::fs::metadata(log.path()).expect("a file").len();
        let mut command = Server::command(dir);
        command.envs([
            ("LOG_LEVEL", "debug"),
            ("SSE_HEARTBEAT_INTERVAL", "20"),
            ("SSE_PUBLISH_TOKEN", "hunter2"),
        ]);
        command.envs([("LOG_HEARTBEATS", heartbeats), ("LOG_REPLAY", replay)]);
        let append = std::fs::OpenOptions::new().append(true).open(log.path()).expect("the file");
        let server = {
            command.stderr(append);
            Server::start(command)
        };
        server.json(publish("a", "hunter2", Some("hunter2"), r#"{"data":"x"}"#)).await;
        server.json(publish("a", "hunter2-wrong", None, "{}")).await;
        let mut request = resume("/stream/a?token=hunter2&lastEventId=hunter2", "hunter2-cursor");
        for (name, value) in [("authorization", "Bearer hunter2"), ("cookie", "session=hunter2")] {
            request.headers_mut().insert(name, value.parse().expect("a header"));
        }
        let mut reader = server.stream(request).await;
        reader.named("control.replay_end").await;
        reader.named("system.heartbeat").await;
        drop(reader);
        server.json(get("/stream/%00?token=hunter2")).await;
        let (_, last) = server.json(publish("a", "hunter2", None, r#"{"data":"x"}"#)).await;
        let mut reader = server.stream(resume("/stream/a", last["id"].as_str().expect("an id"))).await;
        reader.named("control.replay_end").await;
        drop(reader);
        server.json(publish("a", "hunter2", None, r#"{"type":"Wrong","payload":{}}"#)).await;
        server.signal("-TERM");
        assert!(server.ended().await.success());
        let lines = std::fs::read_to_string(log.path()).expect("text");
        lines[usize::try_from(from).expect("small")..]
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    };
    let quiet = run(&dir.path().join("a"), "false", "false").await;
    let loud = run(&dir.path().join("b"), "true", "true").await;
    let has = |lines: &[serde_json::Value], event: &str| lines.iter().any(|line| line["event"] == event);
    for event in [
        "stream.connect",
        "stream.open",
        "stream.close",
        "stream.reject",
        "resume.attempt",
        "resume.success",
        "resume.cannot_resume",
        "publish.reject",
        "validation.error",
    ] {
        assert!(has(&quiet, event), "{event} is missing in {quiet:?}");
    }
    for event in ["heartbeat.sent", "replay.start", "replay.end"] {
        assert!(!has(&quiet, event) && has(&loud, event), "{event}");
    }
    for line in quiet.iter().chain(&loud) {
        let line = line.as_object().expect("an object");
        let known = ["ts", "level", "component", "event", "message", "stream_id", "details"];
        assert!(line.keys().all(|key| known.contains(&key.as_str())), "{line:?}");
        assert!(
            known[..5].iter().all(|key| line.get(*key).is_some_and(|value| value.is_string())),
            "{line:?}"
        );
        assert!(["debug", "info", "warn", "error"].contains(&line["level"].as_str().expect("text")));
    }
    let whole = std::fs::read_to_string(log.path()).expect("text");
    assert!(!whole.contains("hunter2"), "{whole}");
}
