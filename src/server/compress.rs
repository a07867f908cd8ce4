//! gzip and zstd for streams, flushed behind every event: nothing waits in the compressor.
//!
//! Each compressed stream keeps a compressor: about 60 KiB for zstd, whose window is kept small, about 260 KiB for
//! gzip, whose window is not ours to choose. So it is off unless asked for. `no-transform` in `Cache-Control`
//! forbids intermediaries to do the same (RFC 9111 section 5.2.2.6); a server's own coding is none of its business.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use flate2::write::GzEncoder;
use hyper::body::Frame;
use zstd::stream::raw::{CParameter, Encoder as ZstdEncoder, InBuffer, Operation, OutBuffer};

/// 16 KiB: repeats in events are near each other.
const ZSTD_WINDOW_LOG: u32 = 14;
const ZSTD_HASH_LOG: u32 = 12;
const ZSTD_LEVEL: i32 = 1;

/// The codings that we offer, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
}

const CODINGS: [Coding; 2] = [Coding::Zstd, Coding::Gzip];

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Compresses a stream's answer if the client takes that, and says in either case what the choice depended on.
pub(crate) fn apply(request: &HeaderMap, mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = choose(request) else { return response };
    let Ok(coder) = Coder::new(coding) else {
        // No memory for it; the stream itself needs much less.
        return response;
    };
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::new(Compressed { body, coder: Some(coder) }))
}

/// The coding with the highest weight above zero, unless the client would rather have none (RFC 9110 section 12.5.3).
fn choose(request: &HeaderMap) -> Option<Coding> {
    let (mut identity, mut any) = (None, None);
    let mut weights = [None; CODINGS.len()];
    let lists = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in lists.flat_map(|list| list.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")))
            .map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0));
        let slot = match name.to_ascii_lowercase().as_str() {
            "zstd" => &mut weights[0],
            "gzip" | "x-gzip" => &mut weights[1],
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *slot = Some(weight);
    }
    let mut best = (None, identity.unwrap_or(0.0));
    for (coding, weight) in CODINGS.into_iter().zip(weights) {
        let weight = weight.or(any).unwrap_or(0.0);
        let better = if best.0.is_none() { weight >= best.1 } else { weight > best.1 };
        if weight > 0.0 && better {
            best = (Some(coding), weight);
        }
    }
    best.0
}

enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static>),
}

impl Coder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast())),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                encoder.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG))?;
                Self::Zstd(encoder)
            }
        })
    }

    /// All that `data` comes to, so that a decoder can give all of it.
    fn write(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Zstd(encoder) => {
                let mut input = InBuffer::around(data);
                let mut out = Vec::with_capacity(data.len() / 2 + ZSTD_ROOM_BYTES);
                while input.pos() < data.len() {
                    grow(&mut out, |out| encoder.run(&mut input, out))?;
                }
                while grow(&mut out, |out| encoder.flush(out))? > 0 {}
                Ok(out.into())
            }
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Zstd(mut encoder) => {
                let mut out = Vec::new();
                while grow(&mut out, |out| encoder.finish(out, true))? > 0 {}
                Ok(out.into())
            }
        }
    }
}

/// Room that is made for what zstd writes.
const ZSTD_ROOM_BYTES: usize = 512;

/// Lets zstd append to `out`, which has room for something.
fn grow(
    out: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<usize> {
    if out.capacity() == out.len() {
        out.reserve(ZSTD_ROOM_BYTES);
    }
    let position = out.len();
    step(&mut OutBuffer::around_pos(out, position))
}

/// A body whose chunks are compressed one by one.
struct Compressed {
    body: Body,
    /// Until its last bytes were given.
    coder: Option<Coder>,
}

impl hyper::body::Body for Compressed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(coder) = &mut this.coder else { return Poll::Ready(None) };
        let bytes = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => coder.write(&data),
                // Trailers stand behind the coding.
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            },
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => match this.coder.take() {
                Some(coder) => coder.finish(),
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(bytes.map(Frame::data).map_err(axum::Error::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_is_the_clients_choice() {
        for (accepts, chosen) in [
            (&[][..], None),
            (&["gzip, deflate, br, zstd"][..], Some("zstd")),
            (&["gzip, deflate, br"], Some("gzip")),
            (&["gzip", "zstd;q=0.9"], Some("gzip")),
            (&["zstd;q=0, gzip;q=0.1"], Some("gzip")),
            (&["GZIP; Q=0.5"], Some("gzip")),
            (&["gzip;q=0.5, identity"], None),
            (&["gzip;q=0.5, identity;q=0.5"], Some("gzip")),
            (&["identity"], None),
            (&["br, deflate"], None),
            (&["*"], Some("zstd")),
            (&["*;q=0.1, zstd;q=0"], Some("gzip")),
            (&["*;q=0"], None),
            (&["gzip;q=x"], None),
            (&[",;,q=1"], None),
        ] {
            let mut request = HeaderMap::new();
            for value in accepts {
                request.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(choose(&request).map(Coding::name), chosen, "{accepts:?}");
        }
    }
}
