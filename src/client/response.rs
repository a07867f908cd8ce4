//! What a response head means: read on, try again, or stop.

use super::notice::Code;

/// What the transport knows once a response has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` header, as it came.
    pub content_type: Option<String>,
    /// `Retry-After`, turned into milliseconds from now; see [`retry_after_ms`] for its first form.
    pub retry_after_ms: Option<u64>,
}

impl Head {
    /// The head of an ordinary event stream.
    #[must_use]
    pub fn event_stream() -> Self {
        Self { status: 200, content_type: Some("text/event-stream".to_owned()), retry_after_ms: None }
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3), as milliseconds. Its other form, a date, needs a wall
/// clock: the driver reads that one.
#[must_use]
pub fn retry_after_ms(text: &str) -> Option<u64> {
    let digits = text.trim();
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000))
}

/// What the app made of a response, in place of the rules below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its body is an event stream, whatever the head says.
    Accept,
    /// Try again, by the retry policy.
    Retry,
    /// Close the stream.
    Stop,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Accept => Self::Accept,
            Decision::Retry => Self::Retry(Code::HttpStatus),
            Decision::Stop => Self::Stop(Code::HttpStatus),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An event stream.
    Accept,
    /// 204: the server asks not to come back (HTML standard, section 9.2.3).
    End,
    /// Ask the app for fresh credentials and repeat at once.
    Refresh,
    /// Wait and repeat.
    Retry(Code),
    /// Repeating cannot help.
    Stop(Code),
}

/// `was_open`: some connection before has been an event stream, so that a wrong content type is more likely a
/// proxy's error page than a wrong address. `can_refresh`: fresh credentials can be had, and were not just tried.
pub(crate) fn judge(head: &Head, was_open: bool, can_refresh: bool) -> Verdict {
    match head.status {
        200 if is_event_stream(head.content_type.as_deref()) => Verdict::Accept,
        200 if was_open => Verdict::Retry(Code::WrongContentType),
        200 => Verdict::Stop(Code::WrongContentType),
        204 => Verdict::End,
        401 | 403 if can_refresh => Verdict::Refresh,
        401 | 403 => Verdict::Stop(Code::AuthRequired),
        408 | 425 | 429 | 500..=599 => Verdict::Retry(Code::HttpStatus),
        _ => Verdict::Stop(Code::HttpStatus),
    }
}

/// The `DisconnectReason` of an answer that is no stream.
pub(crate) fn close_reason(code: Code, head: &Head) -> &'static str {
    match (code, head.status) {
        (Code::HttpStatus, 429) => "rate_limited",
        (Code::HttpStatus, 503) => "overload_reject",
        (Code::HttpStatus, 500..=599) => "server_error",
        _ => code.as_str(),
    }
}

/// A sentence a person can act on.
pub(crate) fn describe_head(code: Code, head: &Head) -> String {
    match code {
        Code::WrongContentType => format!(
            "the server answered {} with content type {}, not text/event-stream; is this the address of a stream?",
            head.status,
            head.content_type.as_deref().unwrap_or("(none)"),
        ),
        Code::AuthRequired => format!(
            "the server answered {}: give fresh credentials (headers and URL may be functions), then connect()",
            head.status
        ),
        _ => format!("the server answered with status {}", head.status),
    }
}

/// Parameters and letter case do not matter (RFC 9110, section 8.3.1).
fn is_event_stream(content_type: Option<&str>) -> bool {
    content_type
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_and_content_type_has_its_decision() {
        let check = |status, content_type: Option<&str>, was_open, can_refresh, expected| {
            let head = Head { status, content_type: content_type.map(str::to_owned), retry_after_ms: None };
            assert_eq!(judge(&head, was_open, can_refresh), expected, "{status} {content_type:?}");
        };
        let stream = Some("text/event-stream");
        check(200, stream, false, false, Verdict::Accept);
        check(200, Some("Text/Event-Stream ; charset=UTF-8"), false, false, Verdict::Accept);
        check(200, Some("text/html"), false, false, Verdict::Stop(Code::WrongContentType));
        check(200, Some("text/html"), true, false, Verdict::Retry(Code::WrongContentType));
        check(200, Some("text/event-streamer"), false, false, Verdict::Stop(Code::WrongContentType));
        check(200, None, false, false, Verdict::Stop(Code::WrongContentType));
        check(204, None, false, false, Verdict::End);
        check(401, None, true, true, Verdict::Refresh);
        check(403, None, true, false, Verdict::Stop(Code::AuthRequired));
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            check(status, stream, false, false, Verdict::Retry(Code::HttpStatus));
        }
        for status in [201, 206, 304, 400, 404, 405, 410, 418, 422, 600] {
            check(status, stream, true, true, Verdict::Stop(Code::HttpStatus));
        }
    }

    #[test]
    fn retry_after_takes_digits_only_and_never_wraps() {
        let check = |text, expected| assert_eq!(retry_after_ms(text), expected, "{text:?}");
        check("0", Some(0));
        check(" 120 ", Some(120_000));
        check("99999999999999999999", Some(u64::MAX));
        check("", None);
        check("-1", None);
        check("1.5", None);
        check("Wed, 21 Oct 2026 07:28:00 GMT", None);
    }
}
