//! Takes an event stream out of hyper's hands once its head is sent.
//!
//! hyper keeps two buffers of 8 KiB for each HTTP/1.1 connection, and more around them. An event stream needs neither:
//! nothing is read any more, and each event is written as it is. So hyper is given a body that never says anything;
//! when the head has gone out, the connection is taken apart, and [`run`] writes the real body in the chunked coding
//! (RFC 9112 section 7.1). After the stream's end hyper gets the connection back.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::server::lane::Lane;
use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Where the service leaves a stream for the task of its connection.
#[derive(Debug, Default)]
pub(super) struct Handover {
    body: Mutex<Option<Body>>,
    /// hyper asked for the body, so it has written the head.
    asked: AtomicBool,
    /// The last write did not go through.
    blocked: AtomicBool,
}

/// What hyper is given as the body of an answer.
#[derive(Debug)]
pub(super) enum Given {
    Whole(Body),
    Withheld(Arc<Handover>),
}

impl Handover {
    /// Keeps the body back if it is an event stream, and the answer to a `plain` request: one in HTTP/1.1, since the
    /// version before knows no chunks, of which hyper has nothing more to read.
    pub(super) fn offer(self: &Arc<Self>, plain: bool, response: Response) -> Response<Given> {
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        let endless = kind.starts_with(b"text/event-stream")
            && parts.status == hyper::StatusCode::OK
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
            && body.size_hint().exact().is_none();
        if !(plain && endless) {
            return Response::from_parts(parts, Given::Whole(body));
        }
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        Response::from_parts(parts, Given::Withheld(Arc::clone(self)))
    }

    /// The body, once the head of its answer has gone out.
    pub(super) fn take(&self) -> Option<Body> {
        if !self.asked.load(Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            return None;
        }
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl hyper::body::Body for Given {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            // Nobody is woken: the task looks after each of its polls.
            Self::Withheld(handover) => {
                handover.asked.store(true, Ordering::Relaxed);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Withheld(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Withheld(_) => SizeHint::default(),
        }
    }
}

/// A connection that notes whether its last write went through.
#[derive(Debug)]
pub(super) struct Noted<I> {
    pub(super) io: I,
    pub(super) handover: Arc<Handover>,
}

impl<I> Noted<I> {
    fn note<T>(&self, outcome: Poll<T>) -> Poll<T> {
        self.handover.blocked.store(outcome.is_pending(), Ordering::Relaxed);
        outcome
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Noted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Noted<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Writes a body to its end; what a `lane` began it finishes. Answers whether the connection can take another request:
/// `quiet` tells that nothing has been sent behind this one, which is still so at the end.
///
/// # Errors
/// When the peer is gone or reads nothing, or the body failed: the connection has to be dropped in the middle.
pub(super) async fn run<I>(
    io: &mut I,
    mut body: Body,
    mut quiet: bool,
    lane: Option<&Lane>,
) -> io::Result<bool>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut byte = [0; 1];
        tokio::select! {
            biased;
            rest = rest(lane) => {
                io.write_all(&rest).await?;
                written(lane);
            }
            frame = body.frame() => match frame {
                None => {
                    finish(io, lane).await?;
                    io.write_all(b"0\r\n\r\n").await?;
                    io.flush().await?;
                    return Ok(quiet);
                }
                Some(frame) => {
                    let frame = frame.map_err(io::Error::other)?;
                    if let Ok(data) = frame.into_data() {
                        if let Some(lane) = lane {
                            lane.hear(&data);
                        }
                        finish(io, lane).await?;
                        write_chunk(io, data).await?;
                        written(lane);
                    }
                }
            },
            read = io.read(&mut byte), if quiet => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // A request before the answer to this one has ended. It is not read: nobody pipelines
                // behind a stream, and what is not read cannot pile up.
                quiet = false;
            }
        }
    }
}

fn written(lane: Option<&Lane>) {
    if let Some(lane) = lane {
        lane.written();
    }
}

/// Waits for a chunk that the lane left in the middle.
async fn rest(lane: Option<&Lane>) -> Bytes {
    match lane {
        Some(lane) => poll_fn(|cx| lane.poll_rest(cx)).await,
        None => std::future::pending().await,
    }
}

/// Writes what is left of the lane's chunk: it may have come to that since the last look.
async fn finish<I: AsyncWrite + Unpin>(io: &mut I, lane: Option<&Lane>) -> io::Result<()> {
    match lane {
        Some(lane) => io.write_all(&lane.take_rest()).await,
        None => Ok(()),
    }
}

async fn write_chunk<I: AsyncWrite + Unpin>(io: &mut I, data: Bytes) -> io::Result<()> {
    if data.is_empty() {
        // An empty chunk is the end of the body.
        return Ok(());
    }
    let mut size = [0; 18];
    let mut left = &mut size[..];
    write!(left, "{:x}\r\n", data.len())?;
    let length = 18 - left.len();
    let mut chunk = Buf::chain(&size[..length], data).chain(&b"\r\n"[..]);
    io.write_all_buf(&mut chunk).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::super::socket::Socket;
    use super::*;
    use crate::server::lane::Page;
    use crate::server::log::Place;

    // The socket takes a part of what the lane has while the stream itself is about to speak.
    #[tokio::test]
    async fn what_a_lane_began_is_finished_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (tcp, _) = listener.accept().await.expect("a peer");
        tcp.writable().await.expect("an open socket");
        let tcp = Arc::new(tcp);
        let lane = Arc::new(Lane::new(Arc::clone(&tcp), Arc::default()));
        let mut io = Socket::new(tcp, std::time::Duration::from_secs(30));

        let first = Bytes::from_static(b"first");
        let large = 32 << 20;
        let words = {
            let (lane, first) = (Arc::clone(&lane), first.clone());
            futures_util::stream::unfold(0, move |said| {
                let (lane, first) = (Arc::clone(&lane), first.clone());
                async move {
                    let place = |sequence| Place { generation: 0, sequence };
                    match said {
                        0 => {
                            lane.say(&first);
                            Some((Ok::<_, io::Error>(first), 1))
                        }
                        1 => {
                            let chunk =
                                [format!("{large:x}\r\n").as_bytes(), &vec![b'x'; large], b"\r\n"].concat();
                            let chunk = Bytes::from(chunk);
                            assert!(lane.park(place(0)));
                            let (after, last) = (place(0), place(1));
                            assert!(lane.push(&Page { after, last, events: 1, bytes: 1, chunk: &chunk }));
                            assert_eq!(lane.unpark(), place(1));
                            let last = Bytes::from_static(b"last");
                            lane.say(&last);
                            Some((Ok(last), 2))
                        }
                        _ => None,
                    }
                }
            })
        };
        let wanted = [
            b"5\r\nfirst\r\n".as_slice(),
            format!("{large:x}\r\n").as_bytes(),
            &vec![b'x'; large],
            b"\r\n4\r\nlast\r\n0\r\n\r\n",
        ]
        .concat();
        let (mut reading, _writing) = peer.into_split();
        let mut came = vec![0; wanted.len()];
        let (ran, read) = tokio::join!(
            run(&mut io, Body::from_stream(words), true, Some(&lane)),
            reading.read_exact(&mut came)
        );
        assert!(ran.expect("written"));
        read.expect("read");
        assert!(came == wanted, "the chunks are mixed up");
    }
}
