//! The routes of a hub, and those of them that only report.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::answer::Refusal;
use super::hub::Hub;
use super::options::CorsOrigins;
use super::{clock, debug, publish};
use crate::wire::control;

pub(crate) fn router(hub: &Hub) -> Router {
    let mut router = Router::new()
        .route("/stream", get(streams))
        .route("/stream/{channel}", get(stream))
        .route("/publish/{channel}", post(publish::publish))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/info", get(info));
    if hub.inner.options.debug_routes {
        router = router.merge(debug::routes());
    }
    let router = router.with_state(hub.clone());
    match cors(&hub.inner.options.cors) {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// `?channel=a&channel=b`: one stream of several channels; without any the default one.
async fn streams(State(hub): State<Hub>, request: Request) -> Response {
    hub.stream_by_query(&request.into_parts().0).await
}

async fn stream(
    State(hub): State<Hub>,
    channel: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    Ok(hub.stream(&channel?.0, &request.into_parts().0).await)
}

/// 200 while streams are admitted and events stored; 503 from the moment the server is stopping, and while the log's
/// storage fails, so that a load balancer turns away.
async fn health(State(hub): State<Hub>) -> Response {
    let (status, word) = match (hub.inner.draining(), hub.inner.log.healthy()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "log_failed"),
        (false, true) => (StatusCode::OK, "ok"),
    };
    let body = json!({
        "status": word,
        "uptime_seconds": hub.inner.metrics.uptime_seconds(),
        "active_streams": hub.active_streams(),
    });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn metrics(State(hub): State<Hub>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], hub.inner.metrics.text())
        .into_response()
}

/// What a client may want to know before it connects.
async fn info(State(hub): State<Hub>) -> Response {
    let options = &hub.inner.options;
    let body = json!({
        "name": "holdfast",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": control::PROTOCOL,
        "server_time": clock::iso(clock::unix_ms()),
        "default_channel": options.default_channel,
        "durable": hub.inner.log.durable(),
        "heartbeat_interval": options.heartbeat_ms,
        "retry": options.retry_ms,
        "connections_max": options.connections_max,
        "publishing": options.publish_token.as_ref().is_some_and(|token| !token.is_empty()),
        "debug_routes": options.debug_routes,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Answer for everything that is not there.
pub(crate) async fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here: try /stream, /stream/{channel}, /publish/{channel}, /health, /metrics or /info",
    )
}

fn cors(origins: &CorsOrigins) -> Option<CorsLayer> {
    let layer = CorsLayer::new()
        .allow_methods([axum::http::Method::GET, axum::http::Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::CONTENT_TYPE,
            header::HeaderName::from_static("last-event-id"),
            header::HeaderName::from_static("idempotency-key"),
            header::HeaderName::from_static("x-trace-id"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            header::HeaderName::from_static("x-stream-id"),
            header::HeaderName::from_static("x-trace-id"),
        ])
        .max_age(std::time::Duration::from_hours(1));
    match origins {
        CorsOrigins::SameOrigin => None,
        CorsOrigins::Any => Some(layer.allow_origin(tower_http::cors::Any)),
        CorsOrigins::List(list) => {
            let list = list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(layer.allow_origin(AllowOrigin::list(list)).allow_credentials(true))
        }
    }
}
