//! A TCP socket that gives up on a peer which takes nothing, and can put back the bytes it was recognised by.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::fate::Fate;

/// As many bytes tell HTTP/2 (`PRI * HTTP/2.0`, RFC 9113 section 3.4) from any method of HTTP/1.1.
const SIGN: &[u8] = b"PRI";

/// Sits below TLS, so that a write which TLS merely buffered does not pass for a peer that reads.
#[derive(Debug)]
pub(super) struct Socket {
    /// Shared with the connection's lane, which writes while nobody does here.
    tcp: Arc<TcpStream>,
    /// Bytes that were read to recognise the protocol, and are still to be handed on.
    seen: [u8; SIGN.len()],
    seen_from: u8,
    seen_to: u8,
    write_timeout: Duration,
    /// Runs while the peer's window is closed. Made with the first such write: most peers never need one.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Where its failure is told.
    fate: Arc<Fate>,
}

impl Socket {
    pub(super) fn new(tcp: Arc<TcpStream>, write_timeout: Duration) -> Self {
        let seen = [0; SIGN.len()];
        let fate = Arc::default();
        Self { tcp, seen, seen_from: 0, seen_to: 0, write_timeout, stalled: None, fate }
    }

    /// What becomes of it.
    pub(super) fn fate(&self) -> &Arc<Fate> {
        &self.fate
    }

    pub(super) fn tcp(&self) -> Arc<TcpStream> {
        Arc::clone(&self.tcp)
    }

    /// Whether the peer begins with HTTP/2's preface. Waits for its first bytes, which are read again afterwards.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut seen = [0; SIGN.len()];
        let mut count = 0;
        while count < SIGN.len() && seen[..count] == SIGN[..count] {
            self.tcp.readable().await?;
            match self.tcp.try_read(&mut seen[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.seen = seen;
        self.seen_to = u8::try_from(count).unwrap_or(0);
        Ok(seen == SIGN)
    }

    /// Passes on the outcome of a write, unless it has been waiting for too long.
    fn watched<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = outcome {
            self.stalled = None;
            return Poll::Ready(outcome.inspect_err(|error| self.fate.failed(error)));
        }
        let deadline = || Box::pin(sleep_until(Instant::now() + self.write_timeout));
        let stalled = self.stalled.get_or_insert_with(deadline);
        ready!(stalled.as_mut().poll(cx));
        self.fate.timed_out();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing of what is sent")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen_from < self.seen_to {
            let seen = &self.seen[usize::from(self.seen_from)..usize::from(self.seen_to)];
            let count = seen.len().min(buf.remaining());
            buf.put_slice(&seen[..count]);
            self.seen_from += u8::try_from(count).unwrap_or(0);
            return Poll::Ready(Ok(()));
        }
        let tcp = &self.tcp;
        let read = retry(|| tcp.poll_read_ready(cx), || tcp.try_read(buf.initialize_unfilled()));
        read.map(|read| read.inspect_err(|error| self.fate.failed(error)).map(|count| buf.advance(count)))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let tcp = &self.tcp;
        let outcome = retry(|| tcp.poll_write_ready(cx), || tcp.try_write(buf));
        self.watched(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = &self.tcp;
        let outcome = retry(|| tcp.poll_write_ready(cx), || tcp.try_write_vectored(bufs));
        self.watched(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.tcp).shutdown(Shutdown::Write))
    }
}

/// Tries until it is told to wait for the socket.
fn retry(
    mut wait: impl FnMut() -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(wait())?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}
