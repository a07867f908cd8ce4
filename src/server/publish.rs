//! `POST /publish/{channel}`: publishing for back ends in any language, one event or several together.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::Refusal;
use super::hub::Hub;
use super::log::LogError;
use super::publisher::{Message, PublishError, Published};
use super::request;

/// The body: an envelope's type and payload, or an event that is stored as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    trace_id: Option<String>,
    correlation_id: Option<String>,
    stream_id: Option<String>,
    retry: Option<u64>,
    event: Option<String>,
    data: Option<String>,
    /// Of an event among several; a single one may also have it in the header.
    idempotency_key: Option<String>,
}

const SHAPES: &str = r#"the body takes {"type": name, "payload": object, "trace_id"?, "correlation_id"?, "stream_id"?, "retry"?} or {"event": name, "data": text}, or several of them: an array, or with Content-Type application/x-ndjson one a line; each takes "idempotency_key", too"#;

/// Room for the JSON around a payload, and for what escapes add to a text.
const BODY_OVERHEAD_BYTES: usize = 4096;

pub(crate) async fn publish(
    State(hub): State<Hub>,
    channel: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<serde_json::Value>, Refusal> {
    store(&hub, channel, request).await.inspect_err(|refusal| hub.refuse_publish(refusal))
}

async fn store(
    hub: &Hub,
    channel: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<serde_json::Value>, Refusal> {
    let (parts, body) = request.into_parts();
    // Nothing of the body is read for somebody who may not publish.
    authorize(hub.inner.options.publish_token.as_deref(), &parts.headers)?;
    let Path(channel) = channel?;
    let body_bytes_max = hub.inner.options.event_bytes_max.saturating_add(BODY_OVERHEAD_BYTES);
    let body = to_bytes(body, body_bytes_max).await.map_err(|_| {
        let message = format!("the body could not be read, or is larger than {body_bytes_max} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })?;
    let trace_id = request::trace_id(&parts.headers, request::query(&parts, "trace_id").as_deref());
    let traced = |body| message(body, trace_id.clone());
    let header = parts.headers.get("idempotency-key");
    let publisher = hub.publisher();
    let published = |one: Published| json!({ "id": one.id, "duplicate": one.duplicate });
    let Some(bodies) = batch(&parts.headers, &body)? else {
        let mut message = traced(serde_json::from_slice(&body).map_err(|error| invalid_body(&error))?)?;
        if let Some(key) = header {
            // A key that is no text becomes one that the publisher refuses.
            message = message.idempotency_key(key.to_str().unwrap_or_default());
        }
        return Ok(Json(published(publisher.publish(&channel, message).await.map_err(refusal)?)));
    };
    if header.is_some() {
        let message = "several events take \"idempotency_key\" each, and no Idempotency-Key header";
        return Err(Refusal::bad_request("invalid_idempotency_key", message));
    }
    if bodies.is_empty() {
        return Err(invalid_body(&"there is no event in it"));
    }
    let messages = bodies.into_iter().map(traced).collect::<Result<_, Refusal>>()?;
    let all = publisher.publish_all(&channel, messages).await.map_err(refusal)?;
    Ok(Json(json!({ "events": all.into_iter().map(published).collect::<Vec<_>>() })))
}

/// The events of a body that has several: an array, or lines by its content type.
fn batch<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Option<Vec<Body<'a>>>, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-ndjson") {
        let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let bodies = lines.enumerate().map(|(index, line)| {
            let invalid = |error| invalid_body(&format!("event {}: {error}", index + 1));
            serde_json::from_slice(line).map_err(invalid)
        });
        return bodies.collect::<Result<_, _>>().map(Some);
    }
    if body.trim_ascii_start().first() == Some(&b'[') {
        return serde_json::from_slice(body).map(Some).map_err(|error| invalid_body(&error));
    }
    Ok(None)
}

fn invalid_body(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::bad_request("invalid_body", format!("{SHAPES}: {error}"))
}

/// The trace that the body names goes before that of the request.
fn message(body: Body<'_>, trace_id: Option<String>) -> Result<Message, Refusal> {
    let Body { trace_id: own_trace_id, correlation_id, stream_id, retry, idempotency_key, .. } = body;
    let bare = own_trace_id.is_none() && correlation_id.is_none() && stream_id.is_none() && retry.is_none();
    let message = match (body.kind, body.payload, body.event, body.data) {
        (Some(kind), Some(payload), None, None) => {
            let mut message = Message::envelope_raw(kind, payload);
            message.trace_id = own_trace_id.or(trace_id);
            message.correlation_id = correlation_id;
            message.stream_id = stream_id;
            message.retry_ms = retry;
            message
        }
        (None, None, event, Some(data)) if bare => {
            Message::text(event.unwrap_or_else(|| "message".to_owned()), data)
        }
        _ => return Err(Refusal::bad_request("invalid_body", SHAPES)),
    };
    Ok(match idempotency_key {
        Some(key) => message.idempotency_key(key),
        None => message,
    })
}

fn authorize(token: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "publishing_off",
            "publishing over HTTP is off: set StreamOptions::publish_token (for `holdfast serve`, the variable \
             SSE_PUBLISH_TOKEN) to a secret of yours, and send it as `Authorization: Bearer <token>`",
        ));
    };
    if request::bearer(headers).is_some_and(|given| request::same_secret(given, token.as_bytes())) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "publishing takes `Authorization: Bearer <token>` with the token of StreamOptions::publish_token (of \
         `holdfast serve`: SSE_PUBLISH_TOKEN)",
    ))
}

fn refusal(error: PublishError) -> Refusal {
    let message = error.to_string();
    match error {
        PublishError::ReservedName => Refusal::bad_request("reserved_event_name", message),
        PublishError::InvalidName | PublishError::Log(LogError::InvalidName) => {
            Refusal::bad_request("invalid_event_name", message)
        }
        PublishError::InvalidEnvelope(_) => Refusal::bad_request("invalid_envelope", message),
        PublishError::InvalidKey => Refusal::bad_request("invalid_idempotency_key", message),
        PublishError::TooLarge(_) => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", message),
        PublishError::TooMany(_) => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", message),
        PublishError::Log(LogError::InvalidChannel) => Refusal::bad_request("invalid_channel", message),
        PublishError::Log(LogError::TooManyChannels(_)) => {
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "too_many_channels", message)
        }
        PublishError::Log(LogError::KeyReused) => {
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
        }
        PublishError::Log(LogError::Unsupported) => {
            Refusal::new(StatusCode::NOT_IMPLEMENTED, "unsupported", message)
        }
        PublishError::Log(LogError::Closed) => Refusal::unavailable("server_shutdown", message, 1000),
        PublishError::Log(LogError::Storage(reason)) => {
            tracing::error!(event = "log.failed", reason);
            Refusal::unavailable("server_error", "the event log cannot be written", 5000)
        }
    }
}
