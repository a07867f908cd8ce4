//! `/debug/*`: routes that make trouble, for the demo page and for tests. Present only when the options ask for them.
//!
//! Each takes `?client=<id>` to act on the streams that were opened with the same parameter only. (K30)

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::answer::Refusal;
use super::faults::{Fault, REPEAT_MAX};
use super::hub::Hub;
use super::request::{invalid_client, is_label};
use super::stream;

/// Longest fault of a duration.
const FAULT_MS_MAX: u64 = 600_000;

#[derive(Debug, Deserialize)]
struct Order {
    client: Option<String>,
    ms: Option<String>,
    count: Option<String>,
}

pub(crate) fn routes() -> Router<Hub> {
    let on = |change: fn(&mut Fault, &Amounts)| {
        post(async move |State(hub): State<Hub>, order: Result<Query<Order>, QueryRejection>| {
            apply(&hub, &order?.0, change)
        })
    };
    Router::new()
        .route("/debug/buffer", get(buffer))
        .route("/debug/drop-connections", on(|fault, _| fault.drops += 1))
        .route(
            "/debug/refuse",
            on(|fault, amounts| {
                fault.refuse_until = Some(amounts.until);
                fault.drops += 1;
            }),
        )
        .route(
            "/debug/repeat",
            on(|fault, amounts| {
                fault.repeat_count = amounts.count;
                fault.repeats += 1;
            }),
        )
        .route("/debug/swap", on(|fault, _| fault.swaps += 1))
        .route("/debug/silence", on(|fault, amounts| fault.silent_until = Some(amounts.until)))
        .route("/debug/pause-events", on(|fault, _| fault.events_paused = true))
        .route("/debug/resume-events", on(|fault, _| fault.events_paused = false))
        .route("/debug/stop-heartbeats", on(|fault, _| fault.heartbeats_stopped = true))
        .route("/debug/resume-heartbeats", on(|fault, _| fault.heartbeats_stopped = false))
}

#[derive(Debug, Deserialize)]
struct Asked {
    channel: Option<String>,
}

/// What the log holds of a channel.
async fn buffer(
    State(hub): State<Hub>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let name = match asked?.0.channel {
        Some(name) => name,
        None => hub.inner.default_channel()?.to_owned(),
    };
    let channel = hub.inner.log.channel(&name).map_err(stream::refusal)?;
    let bounds = hub.inner.log.bounds(&channel).await.map_err(stream::refusal)?;
    let count = bounds.oldest.map_or(0, |oldest| bounds.distance(bounds.before(oldest), bounds.head));
    Ok(Json(json!({
        "channel": name,
        "oldestAvailable": bounds.oldest.map(|place| hub.inner.id(place)),
        "newestAvailable": hub.inner.id(bounds.head),
        "eventCount": count,
        "readers": channel.readers(),
    })))
}

struct Amounts {
    until: Instant,
    count: usize,
}

fn apply(
    hub: &Hub,
    order: &Order,
    change: fn(&mut Fault, &Amounts),
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Some(faults) = &hub.inner.faults else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "there are no debug routes here"));
    };
    if order.client.as_deref().is_some_and(|client| !is_label(client)) {
        return Err(invalid_client());
    }
    let ms = whole("ms", order.ms.as_deref(), 10_000, FAULT_MS_MAX)?;
    let count = whole("count", order.count.as_deref(), 1, REPEAT_MAX as u64)?;
    let amounts = Amounts {
        until: Instant::now() + Duration::from_millis(ms),
        count: usize::try_from(count).unwrap_or(REPEAT_MAX),
    };
    faults.order(order.client.as_deref(), |fault| change(fault, &amounts));
    Ok((StatusCode::OK, Json(json!({ "ok": true }))))
}

fn whole(name: &str, value: Option<&str>, default: u64, max: u64) -> Result<u64, Refusal> {
    let Some(value) = value else { return Ok(default) };
    value.parse().ok().filter(|number| *number <= max).ok_or_else(|| {
        Refusal::bad_request("invalid_query", format!("`{name}` takes a whole number from 0 to {max}"))
    })
}
