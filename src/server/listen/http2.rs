//! HTTP/2: many streams in one connection, each with a write timeout of its own.
//!
//! hyper keeps the chunk that a peer has no window for, and asks the body for no other: whoever answers pings and opens no
//! window would keep its streams for ever, and nothing that is said to a stream would reach it. So the task of each
//! stream is watched from outside; one whose peer takes nothing for too long is dropped, which resets that stream alone.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::{Shared, Stop, ms};
use crate::server::fate::{Carried, Fate};

/// What hyper is given at once: that much of a stream a slow peer has to take within the write timeout.
const PIECE_BYTES_MAX: usize = 8 << 10;
/// How long a connection with nothing to finish has for its goodbye, at most.
const FAREWELL_MS_MAX: u64 = 5_000;

/// Serves one connection to its end.
pub(super) async fn speak<I>(
    shared: &Arc<Shared>,
    io: I,
    peer: SocketAddr,
    mut stop: Stop,
    connection_fate: Arc<Fate>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = &shared.options;
    let mut http =
        hyper::server::conn::http2::Builder::new(Spawn { write_timeout: ms(options.write_ms_max) });
    http.timer(TokioTimer::new())
        .max_concurrent_streams(options.http2_streams_max)
        .max_header_list_size(u32::try_from(options.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(options.http2_window_bytes)
        .initial_connection_window_size(options.http2_window_bytes.saturating_mul(4))
        .max_send_buf_size(options.http2_send_bytes_max)
        .keep_alive_interval(ms(options.http2_ping_ms))
        .keep_alive_timeout(ms(options.http2_ping_ms));
    let open = Arc::new(Open::default());
    let service = {
        let (shared, open, fate) = (Arc::clone(shared), Arc::clone(&open), Arc::clone(&connection_fate));
        service_fn(move |request| {
            let one = open.begin();
            let (answer, fate) = (shared.answer(request, peer), Arc::clone(&fate));
            async move {
                let mut response = answer.await?;
                let watch = WATCH.try_with(Arc::clone).unwrap_or_default();
                if let Some(carried) = response.extensions_mut().remove::<Carried>() {
                    carried.by(&fate);
                    let _ = watch.carried.set(carried);
                }
                Ok::<_, std::convert::Infallible>(response.map(|body| Pieces {
                    body,
                    rest: Bytes::new(),
                    watch,
                    _one: one,
                }))
            }
        })
    };
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => {
            if ended.is_err_and(|error| error.is_timeout()) {
                connection_fate.timed_out();
            }
            return;
        }
        () = stop.told() => {}
        () = open.unused(ms(options.head_ms_max)) => {}
        () = open.idle(ms(options.http2_idle_ms_max)) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A peer that did not finish its preface, or does not answer the goodbye, would be waited for without end.
    tokio::select! {
        _ = connection => {}
        () = open.idle(ms(options.head_ms_max.min(FAREWELL_MS_MAX))) => {}
    }
}

tokio::task_local! {
    /// That of the stream whose task this is.
    static WATCH: Arc<Watch>;
}

/// What the body of a stream tells the watch over its task.
#[derive(Debug, Default)]
struct Watch {
    /// A piece was given since the watch looked last.
    moved: AtomicBool,
    /// The last thing that the body gave was a piece: hyper has room for no other, else it would have asked.
    full: AtomicBool,
    carried: OnceLock<Carried>,
}

/// Runs the tasks of streams, each under a watch.
#[derive(Debug, Clone, Copy)]
struct Spawn {
    write_timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        let watch = Arc::<Watch>::default();
        let task = WATCH.scope(Arc::clone(&watch), async move {
            task.await;
        });
        tokio::spawn(Watched {
            task: Box::pin(task),
            watch,
            write_timeout: self.write_timeout,
            stalled: None,
        });
    }
}

/// The task of a stream, which ends when the peer takes nothing of it for too long.
struct Watched<F> {
    task: Pin<Box<F>>,
    watch: Arc<Watch>,
    write_timeout: Duration,
    /// Runs while the peer has no room. Made with the first such wait: most streams never need one.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let full = this.watch.full.load(Ordering::Relaxed);
        if this.watch.moved.swap(false, Ordering::Relaxed) || !full {
            this.stalled = None;
        }
        if !full {
            return Poll::Pending;
        }
        let deadline = || Box::pin(sleep_until(Instant::now() + this.write_timeout));
        ready!(this.stalled.get_or_insert_with(deadline).as_mut().poll(cx));
        if let Some(carried) = this.watch.carried.get() {
            carried.timed_out();
        }
        Poll::Ready(())
    }
}

/// A body in small pieces, open until it is dropped.
#[derive(Debug)]
struct Pieces {
    body: Body,
    /// What is left of the frame before.
    rest: Bytes,
    watch: Arc<Watch>,
    _one: One,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.watch.full.store(false, Ordering::Relaxed);
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose()? {
                Some(frame) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                None => return Poll::Ready(None),
            }
        }
        this.watch.moved.store(true, Ordering::Relaxed);
        this.watch.full.store(true, Ordering::Relaxed);
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked before the first piece only.
        self.body.size_hint()
    }
}

/// The requests of one connection whose answers are not at their ends.
#[derive(Debug, Default)]
struct Open {
    now: AtomicUsize,
    begun: AtomicUsize,
}

impl Open {
    fn begin(self: &Arc<Self>) -> One {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
        One(Arc::clone(self))
    }

    /// Resolves when nothing at all was asked within that time.
    async fn unused(&self, within: Duration) {
        sleep(within).await;
        if self.begun.load(Ordering::Relaxed) > 0 {
            pending().await
        }
    }

    /// Resolves when nothing was asked or answered for one to two times `within`.
    async fn idle(&self, within: Duration) {
        let mut before = None;
        loop {
            let begun = (self.now.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed));
            if begun.is_some() && begun == before {
                return;
            }
            before = begun;
            sleep(within).await;
        }
    }
}

#[derive(Debug)]
struct One(Arc<Open>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
