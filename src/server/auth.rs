//! Who may open a stream: one hook, asked before the first byte.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::answer::Refusal;
use super::request;

/// Decides who may open a stream of which channels. A closure does:
///
/// ```
/// use holdfast_sse::server::{AuthRequest, Denied, Hooks, Identity};
///
/// let hooks = Hooks::default().authorize(|request: AuthRequest| async move {
///     match request.cookie("session") {
///         Some("ann-s-secret") => Ok(Identity::new("ann")),
///         Some(_) => Err(Denied::forbidden("this session may not read these channels")),
///         None => Err(Denied::unauthorized("log in first")),
///     }
/// });
/// # drop(hooks);
/// ```
pub trait Authorize: Send + Sync + 'static {
    /// Answers who is asking, or why not. Nothing is sent to the client before.
    fn authorize(&self, request: AuthRequest) -> BoxFuture<'static, Result<Identity, Denied>>;
}

impl<F, Answer> Authorize for F
where
    F: Fn(AuthRequest) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Identity, Denied>> + Send + 'static,
{
    fn authorize(&self, request: AuthRequest) -> BoxFuture<'static, Result<Identity, Denied>> {
        self(request).boxed()
    }
}

/// What a decision may depend on.
#[derive(Clone)]
pub struct AuthRequest {
    /// The request. Its query and headers may hold secrets: they are not for logs.
    pub parts: Parts,
    /// The channels that are asked for.
    pub channels: Vec<String>,
    /// Where the client is, as far as that is known.
    pub peer: Option<IpAddr>,
}

/// Without what may be secret.
impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("path", &self.parts.uri.path())
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl AuthRequest {
    /// The token of `Authorization: Bearer <token>`.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        std::str::from_utf8(request::bearer(&self.parts.headers)?).ok()
    }

    /// The first value of a parameter of the query, decoded. Query strings end up in other servers' logs: prefer a
    /// header or a cookie, where the client can set one.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        request::query(&self.parts, name)
    }

    /// The value of a cookie (RFC 6265, section 4.2).
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let headers = self.parts.headers.get_all(axum::http::header::COOKIE).into_iter();
        let mut pairs = headers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
        pairs.find_map(|pair| pair.trim().split_once('=').filter(|pair| pair.0 == name).map(|pair| pair.1))
    }
}

/// Who opened a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A name for lists and logs: a user's id, say, never a secret.
    pub name: String,
    /// When the stream must end; `None` is never. A token's own end, say.
    pub expires_at: Option<SystemTime>,
}

impl Identity {
    /// An identity that does not expire.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), expires_at: None }
    }

    /// The stream ends at this time, with [`CloseReason::AuthExpired`](super::CloseReason::AuthExpired): the client
    /// comes back at its cursor, its headers and URL asked anew.
    #[must_use]
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    pub(crate) fn left(&self) -> Option<Duration> {
        self.expires_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// Why a stream is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_ms: Option<u64>,
}

impl Denied {
    /// 401: nobody known asks. The client takes it as a reason to get fresh credentials. The message reaches the client.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message.into(), None)
    }

    /// 403: somebody known asks for what is not for them. The message reaches the client.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message.into(), None)
    }

    /// 503: nobody can tell at the moment. The client tries again, not before `retry_ms` milliseconds.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_ms: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message.into(), Some(retry_ms))
    }

    fn new(status: StatusCode, code: &'static str, message: String, retry_ms: Option<u64>) -> Self {
        Self { status, code, message, retry_ms }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let Denied { status, code, message, retry_ms } = denied;
        Self { retry_ms, ..Self::new(status, code, message) }
    }
}

/// One secret for all streams: as `Authorization: Bearer <token>`, or as `?token=` where a client has no headers.
#[derive(Clone)]
pub(crate) struct StreamToken(pub(crate) String);

impl Authorize for StreamToken {
    fn authorize(&self, request: AuthRequest) -> BoxFuture<'static, Result<Identity, Denied>> {
        let given = request.bearer().map(str::to_owned).or_else(|| request.query("token"));
        let right = given.is_some_and(|given| request::same_secret(given.as_bytes(), self.0.as_bytes()));
        let answer = if right {
            Ok(Identity::new("token"))
        } else {
            Err(Denied::unauthorized(
                "streams take `Authorization: Bearer <token>`, or `?token=` in the query",
            ))
        };
        ready(answer).boxed()
    }
}
