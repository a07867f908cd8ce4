//! The routes of a hub, and those of them that only report.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::answer::Refusal;
use super::hub::Hub;
use super::options::{CorsOrigins, StreamOptions};
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
    match cors(&hub.inner.options) {
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
) -> Response {
    match channel {
        Ok(Path(channel)) => hub.stream(&channel, &request.into_parts().0).await,
        Err(rejection) => hub.refuse(&rejection.into()),
    }
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

/// OpenMetrics, unless the request takes `text/plain` and does not name that.
async fn metrics(State(hub): State<Hub>, headers: HeaderMap) -> Response {
    let accepts = |kind| {
        let mut lists = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        lists.any(|list| list.contains(kind))
    };
    let metrics = &hub.inner.metrics;
    let (kind, text) = if accepts("text/plain") && !accepts("application/openmetrics-text") {
        ("text/plain; version=0.0.4; charset=utf-8", metrics.plain_text())
    } else {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text())
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], text).into_response()
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

/// What pages of other hosts may send: all that we read, and what the options add.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-trace-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

fn cors(options: &StreamOptions) -> Option<CorsLayer> {
    let more = options.cors_headers.iter().filter_map(|name| name.parse::<HeaderName>().ok());
    let layer = CorsLayer::new()
        .allow_methods([axum::http::Method::GET, axum::http::Method::POST])
        .allow_headers(REQUEST_HEADERS.into_iter().chain(more).collect::<Vec<_>>())
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static("x-stream-id"),
            HeaderName::from_static("x-trace-id"),
        ])
        .max_age(std::time::Duration::from_hours(1));
    match &options.cors {
        CorsOrigins::SameOrigin => None,
        CorsOrigins::Any => Some(layer.allow_origin(tower_http::cors::Any)),
        CorsOrigins::List(list) => {
            let list = list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(layer.allow_origin(AllowOrigin::list(list)).allow_credentials(true))
        }
    }
}
