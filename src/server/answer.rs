//! Answers that are not streams: JSON that says what went wrong, and what to do about it.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::wire::id::CURSOR_BYTES_MAX;

/// A refusal: `{"error", "message", "code"}`, with `retry` (ms) and `Retry-After` where trying again makes sense.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) retry_ms: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_ms: None }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn too_many_channels(max: usize) -> Self {
        let message = format!("a stream takes at most {max} channels: open another one for the rest");
        Self::bad_request("channels_per_stream", message)
    }

    pub(crate) fn cursor_too_long() -> Self {
        let message = format!(
            "the names of these channels are too long for one stream: its cursor, which holds them all, takes at most \
             {CURSOR_BYTES_MAX} bytes. Open another one for some of them"
        );
        Self::bad_request("cursor_too_long", message)
    }

    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, retry_ms: u64) -> Self {
        Self { retry_ms: Some(retry_ms), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }
}

impl From<PathRejection> for Refusal {
    fn from(_: PathRejection) -> Self {
        Self::bad_request(
            "invalid_channel",
            "the channel in the path cannot be read: it should be UTF-8, percent-encoded",
        )
    }
}

impl From<QueryRejection> for Refusal {
    fn from(_: QueryRejection) -> Self {
        Self::bad_request("invalid_query", "the query cannot be read: it should be name=value pairs")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({
            "error": self.status.canonical_reason().unwrap_or("Error"),
            "message": self.message,
            "code": self.code,
        });
        if let Some(ms) = self.retry_ms {
            body["retry"] = ms.into();
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(ms) = self.retry_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
