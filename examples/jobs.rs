//! Jobs that report their progress as a stream, and wait for a word from outside.
//!
//! ```sh
//! cargo run --example jobs --features server
//! curl -i -X POST localhost:3000/jobs               # 202, Location: /jobs/<id>/sse
//! curl -N localhost:3000/jobs/<id>/sse              # what happened so far, and then what happens
//! curl -X POST localhost:3000/jobs/<id>/event -d '{"approved":true}' -H 'Content-Type: application/json'
//! ```
//!
//! Each job has a channel of its own. Whoever opens its stream, and whenever, sees all of it: a client without a cursor
//! begins at the start, one that was cut goes on where it was. A job that has ended is kept until others need its room; then
//! its channel is removed, too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_sse::server::{Hub, MemoryLog, Message, PublishError, Retention, StreamOptions};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Jobs that are kept at the same time. Beyond it the one that ended first is forgotten; where none has, nobody can begin
/// one.
const JOBS_MAX: usize = 1_000;
/// How long a job waits to be told.
const WAIT_MAX: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Jobs {
    /// What each job waits for its event by; `None` for one that has it, or has ended.
    waiting: HashMap<String, Option<oneshot::Sender<Value>>>,
    /// Those that have ended, in that order.
    ended: VecDeque<String>,
}

#[derive(Clone)]
struct App {
    hub: Hub,
    jobs: Arc<Mutex<Jobs>>,
}

impl App {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
#[allow(dead_code)] // The test takes the routes and has a listener of its own.
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::new(Arc::new(MemoryLog::new(Retention::default())), StreamOptions::default());
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("jobs: listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes(hub)).await?;
    Ok(())
}

/// The routes of the example, on a hub of the caller's.
pub(crate) fn routes(hub: Hub) -> Router {
    Router::new()
        .route("/jobs", post(begin))
        .route("/jobs/{id}/sse", get(follow))
        .route("/jobs/{id}/event", post(tell))
        .with_state(App { hub, jobs: Arc::default() })
}

/// `POST /jobs`: begins a job and says where to follow it.
async fn begin(State(app): State<App>) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let (tell, told) = oneshot::channel();
    let forgotten = {
        let mut jobs = app.jobs();
        let forgotten = if jobs.waiting.len() < JOBS_MAX { None } else { jobs.ended.pop_front() };
        if let Some(ended) = &forgotten {
            jobs.waiting.remove(ended);
        } else if jobs.waiting.len() >= JOBS_MAX {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "too_many_jobs");
        }
        jobs.waiting.insert(id.clone(), Some(tell));
        forgotten
    };
    if let Some(ended) = forgotten
        && let Err(error) = app.hub.remove(&ended).await
    {
        eprintln!("the events of the job {ended} stay: {error}");
    }
    // The job's first event is stored before anybody knows its address.
    if let Err(error) = step(&app.hub, &id, "job.started", json!({})).await {
        app.jobs().waiting.remove(&id);
        eprintln!("the job {id} did not begin: {error}");
        return problem(StatusCode::SERVICE_UNAVAILABLE, "log_unavailable");
    }
    tokio::spawn(run(app, id.clone(), told));
    let location = format!("/jobs/{id}/sse");
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(json!({ "id": id }))).into_response()
}

/// `GET /jobs/{id}/sse`: the job's stream.
async fn follow(State(app): State<App>, Path(id): Path<String>, request: Request) -> Response {
    if !app.jobs().waiting.contains_key(&id) {
        return problem(StatusCode::NOT_FOUND, "no_such_job");
    }
    let mut parts = request.into_parts().0;
    if parts.uri.query().is_none() {
        // A cursor in the header counts more than this.
        parts.uri = Uri::from_static("/?from=start");
    }
    app.hub.stream(&id, &parts).await
}

/// `POST /jobs/{id}/event`: what a waiting job waits for.
async fn tell(State(app): State<App>, Path(id): Path<String>, Json(event): Json<Value>) -> Response {
    let waiting = app.jobs().waiting.get_mut(&id).map(Option::take);
    match waiting {
        None => problem(StatusCode::NOT_FOUND, "no_such_job"),
        Some(None) => problem(StatusCode::CONFLICT, "not_waiting"),
        Some(Some(tell)) => match tell.send(event) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(_) => problem(StatusCode::CONFLICT, "not_waiting"),
        },
    }
}

fn problem(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({ "code": code }))).into_response()
}

/// The job itself: one step, a wait, another step.
async fn run(app: App, id: String, told: oneshot::Receiver<Value>) {
    let hub = &app.hub;
    let outcome = async {
        step(hub, &id, "step.started", json!({ "step": "prepare" })).await?;
        step(hub, &id, "step.completed", json!({ "step": "prepare" })).await?;
        step(hub, &id, "step.started", json!({ "step": "wait for approval" })).await?;
        let Ok(Ok(event)) = tokio::time::timeout(WAIT_MAX, told).await else {
            return step(hub, &id, "job.failed", json!({ "reason": "nobody approved it in time" })).await;
        };
        let approved = event["approved"] == true;
        let name = if approved { "step.completed" } else { "step.failed" };
        step(hub, &id, name, json!({ "step": "wait for approval", "event": event })).await?;
        step(hub, &id, if approved { "job.completed" } else { "job.failed" }, json!({})).await
    };
    if let Err(error) = outcome.await {
        eprintln!("the job {id} could not report: {error}");
    }
    app.jobs().ended.push_back(id);
}

async fn step(hub: &Hub, id: &str, name: &str, payload: Value) -> Result<(), PublishError> {
    hub.publisher().publish(id, Message::envelope(name, &payload)).await.map(|_| ())
}
