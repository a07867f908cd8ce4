//! What a client asks of a stream, in its headers and its query.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Query};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::answer::Refusal;
use super::options::{Beginning, StreamOptions};
use super::resume::Wanted;
use crate::wire::id::CURSOR_BYTES_MAX;

/// The parts of a request that a stream depends on.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) wanted: Wanted,
    /// The channels that the query names.
    pub(crate) channels: Vec<String>,
    /// Where the client is, as far as that is known.
    pub(crate) peer: Option<IpAddr>,
    /// Who the debug routes should act on.
    pub(crate) client: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// Longest `client`, in bytes.
const LABEL_BYTES_MAX: usize = 64;
/// Longest trace id, in bytes.
const TRACE_BYTES_MAX: usize = 128;

impl StreamRequest {
    pub(crate) fn read(request: &Parts, options: &StreamOptions) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&request.uri)?;
        let query = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        // Browsers send the header on their own; the query is for first connections, and for pages that
        // must avoid the preflight which the header costs across origins.
        let header = request.headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
        let cursor = header
            .as_deref()
            .filter(|id| !id.is_empty())
            .or_else(|| query("lastEventId").or_else(|| query("last_event_id")).filter(|id| !id.is_empty()));
        let wanted = Wanted {
            // One byte more than the limit is enough to be refused for it.
            cursor: cursor.map(|id| cut(id, CURSOR_BYTES_MAX + 1).to_owned()),
            fresh: beginning(query("from"), query("last"), options.fresh)?,
        };
        let client = match query("client") {
            Some(client) if is_label(client) => Some(client.to_owned()),
            Some(_) => return Err(invalid_client()),
            None => None,
        };
        let trace_id = trace_id(&request.headers, query("trace_id"));
        let channels = pairs.iter().filter(|pair| pair.0 == "channel").map(|pair| pair.1.clone()).collect();
        Ok(Self { wanted, channels, peer: peer(request, options), client, trace_id })
    }
}

pub(crate) fn invalid_client() -> Refusal {
    Refusal::bad_request(
        "invalid_client",
        format!("`client` takes 1 to {LABEL_BYTES_MAX} of the characters a-z A-Z 0-9 - _ . :"),
    )
}

/// Whether `text` is fit for logs and tables as it is.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && is_plain(text)
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

fn beginning(from: Option<&str>, last: Option<&str>, default: Beginning) -> Result<Beginning, Refusal> {
    match (from, last) {
        (Some(_), Some(_)) => {
            Err(Refusal::bad_request("invalid_query", "`from` and `last` exclude each other"))
        }
        (None, None) => Ok(default),
        (Some("now"), None) => Ok(Beginning::Now),
        (Some("start"), None) => Ok(Beginning::Start),
        (Some(_), None) => Err(Refusal::bad_request("invalid_query", "`from` takes `now` or `start`")),
        (None, Some(count)) => {
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            let count = digits.then(|| count.parse().ok()).flatten();
            count.map(Beginning::Last).ok_or_else(|| {
                Refusal::bad_request("invalid_query", "`last` takes a whole number of events, 0 or more")
            })
        }
    }
}

/// The address of the connection, or the one that a proxy of the app's own tells.
fn peer(request: &Parts, options: &StreamOptions) -> Option<IpAddr> {
    let told = options.address_header.as_deref().and_then(|name| {
        // Whatever stands before the last one was written by somebody else.
        let last = request.headers.get_all(name).iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim().parse().ok()
    });
    told.or_else(|| {
        request.extensions.get::<ConnectInfo<SocketAddr>>().map(|connection| connection.0.ip().to_canonical())
    })
}

/// The first value of a parameter of the query, decoded.
pub(crate) fn query(request: &Parts, name: &str) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&request.uri).ok()?;
    pairs.into_iter().find(|pair| pair.0 == name).map(|pair| pair.1)
}

/// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Compares in a time that does not tell how much of a guess was right.
pub(crate) fn same_secret(given: &[u8], secret: &[u8]) -> bool {
    given.len() == secret.len() && given.iter().zip(secret).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The first of the usual places that holds one that can be passed on.
pub(crate) fn trace_id(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let traceparent = header("traceparent").and_then(|value| value.split('-').nth(1));
    let mut places = [header("x-trace-id"), header("x-request-id"), traceparent, query].into_iter().flatten();
    places.find(|id| id.len() <= TRACE_BYTES_MAX && is_plain(id)).map(str::to_owned)
}

/// The first `bytes_max` bytes of `text`, or a little less, so as not to split a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
