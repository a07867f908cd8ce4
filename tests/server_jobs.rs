//! The example `jobs` over a real socket.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

#[path = "../examples/jobs.rs"]
mod jobs;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use holdfast_sse::server::{EventLog, Hub, MemoryLog, Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::{Reader, get, json, resume, send};

async fn start() -> String {
    let hub = Hub::new(Arc::new(MemoryLog::new(Retention::default())), StreamOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, jobs::routes(hub)).await });
    address
}

async fn ask(address: &str, request: Request<Body>) -> Response<Body> {
    send(address, request).await.expect("an answer")
}

fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

/// The next `count` events as `(name, step)`, and the last one's id.
async fn steps(reader: &mut Reader, count: usize) -> (Vec<(String, Value)>, String) {
    let (mut steps, mut id) = (Vec::new(), String::new());
    for _ in 0..count {
        let event = reader.event().await.expect("one more event");
        steps.push((event.name.clone(), event.payload()["step"].clone()));
        id = event.id.expect("an id");
    }
    (steps, id)
}

// T13, T5
#[tokio::test]
async fn a_job_is_followed_told_and_ended() {
    let address = start().await;
    for (approved, end) in [(true, "completed"), (false, "failed")] {
        let begun = ask(&address, post("/jobs", &json!({}))).await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()["location"].to_str().expect("text").to_owned();
        let event_path = location.replace("/sse", "/event");

        let mut early = Reader::new(ask(&address, get(&location)).await);
        assert_eq!(early.headers["content-type"], "text/event-stream");
        let (until_wait, cursor) = steps(&mut early, 4).await;
        let before = [
            ("job.started".to_owned(), Value::Null),
            ("step.started".to_owned(), json!("prepare")),
            ("step.completed".to_owned(), json!("prepare")),
            ("step.started".to_owned(), json!("wait for approval")),
        ];
        assert_eq!(until_wait, before);
        // The connection is lost, and the job goes on meanwhile.
        drop(early);
        let told = ask(&address, post(&event_path, &json!({ "approved": approved }))).await;
        assert_eq!(told.status(), StatusCode::NO_CONTENT);
        let after =
            [(format!("step.{end}"), json!("wait for approval")), (format!("job.{end}"), Value::Null)];
        let mut again = Reader::new(ask(&address, resume(&location, &cursor)).await);
        assert_eq!(steps(&mut again, 2).await.0, after);
        // One that comes when all is over sees all of it.
        let mut late = Reader::new(ask(&address, get(&location)).await);
        assert_eq!(steps(&mut late, 6).await.0, [before.as_slice(), after.as_slice()].concat());
        // It waits no more.
        assert_eq!(ask(&address, post(&event_path, &json!({}))).await.status(), StatusCode::CONFLICT);
    }
}

#[tokio::test]
async fn jobs_that_are_not_there_are_404() {
    let address = start().await;
    for request in [get("/jobs/none/sse"), post("/jobs/none/event", &json!({}))] {
        assert_eq!(ask(&address, request).await.status(), StatusCode::NOT_FOUND);
    }
}

// A job that has ended is in nobody's way, and its channel does not stay.
#[tokio::test]
async fn ended_jobs_make_room_for_others() {
    let log = Arc::new(MemoryLog::new(Retention::default()));
    let router = jobs::routes(Hub::new(Arc::clone(&log) as Arc<dyn EventLog>, StreamOptions::default()));
    let begin = async || {
        let (status, answer) = json(&router, post("/jobs", &json!({}))).await;
        (status, answer["id"].as_str().unwrap_or_default().to_owned())
    };
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        let (status, id) = begin().await;
        assert_eq!(status, StatusCode::ACCEPTED);
        ids.push(id);
    }
    // All of them wait: no more can begin.
    assert_eq!(begin().await.0, StatusCode::SERVICE_UNAVAILABLE);
    for (n, first) in ids.iter().enumerate().take(200) {
        let told =
            json(&router, post(&format!("/jobs/{first}/event"), &json!({ "approved": n % 2 == 0 }))).await;
        assert_eq!(told.0, StatusCode::NO_CONTENT);
        // Its last event is seen a moment before it has ended.
        while begin().await.0 != StatusCode::ACCEPTED {
            tokio::task::yield_now().await;
        }
        let (status, _) = json(&router, get(&format!("/jobs/{first}/sse"))).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let channel = log.channel(first).expect("a channel");
        assert!(!log.bounds(&channel).await.expect("bounds").is_used(), "its events stay");
    }
}
