//! A request's body that has to arrive within its time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time begins when a handler first asks for the body: one that is not wanted costs nothing.
#[derive(Debug)]
pub(super) struct TimedBody {
    body: MapErr<Incoming, fn(hyper::Error) -> io::Error>,
    within: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, within: Duration) -> Self {
        Self { body: body.map_err(io::Error::other), within, deadline: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            return frame;
        }
        let within = self.within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + within)));
        deadline.as_mut().poll(cx).map(|()| {
            Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive within its time")))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
