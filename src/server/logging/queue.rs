//! Log lines on their way out: a thread of their own writes them, so that a full pipe or a slow disk holds up no request.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// A bounded queue of lines. What has no room is dropped and counted; a later line says how many were
/// (`log.dropped`). Cheap to clone. It is a writer for [`layer`](super::layer).
#[derive(Debug, Clone)]
pub struct LogQueue {
    open: Arc<Open>,
}

/// What all clones of a queue share. When the last of them goes, the thread writes what is left and ends.
#[derive(Debug)]
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    lines_max: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the number of those that had no room before it.
    lines: VecDeque<(u64, Box<[u8]>)>,
    /// Lines that had no room since the last one that had.
    dropped: u64,
    /// Nobody can add lines any more.
    closed: bool,
    /// The writer has lines in its hands.
    writing: bool,
}

impl LogQueue {
    /// A queue of at most 8,192 lines to stderr.
    #[must_use]
    pub fn stderr() -> Self {
        Self::to(io::stderr(), 8192, super::dropped_as_json)
    }

    /// A queue of at most `lines_max` lines to any writer. `dropped` writes the line that tells how many had no room.
    #[must_use]
    pub fn to(writer: impl Write + Send + 'static, lines_max: usize, dropped: fn(u64) -> String) -> Self {
        let state = Mutex::default();
        let inner = Arc::new(Inner { state, changed: Condvar::new(), lines_max: lines_max.max(1) });
        let queue = Self { open: Arc::new(Open(Arc::clone(&inner))) };
        // Without a thread nothing is logged, and nothing waits for it.
        let _ =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || inner.write(writer, dropped));
        queue
    }

    /// Waits until everything is written, at most for `within`: before the process ends. False where that was too short.
    pub fn flush(&self, within: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty() || state.dropped > 0;
        let inner = &self.open.0;
        let waited = inner.changed.wait_timeout_while(inner.state(), within, unwritten);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // No step that is taken under the lock can panic in the middle.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() >= self.lines_max {
            state.dropped += 1;
            return;
        }
        let before = std::mem::take(&mut state.dropped);
        state.lines.push_back((before, line.into()));
        drop(state);
        self.changed.notify_all();
    }

    fn write(&self, mut writer: impl Write, dropped: fn(u64) -> String) {
        loop {
            let empty = |state: &State| state.lines.is_empty() && state.dropped == 0;
            let waited = self.changed.wait_while(self.state(), |state| empty(state) && !state.closed);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if empty(&state) {
                return;
            }
            // Line by line: those that are not written yet count for the bound.
            let (before, line) = match state.lines.pop_front() {
                Some((before, line)) => (before, Some(line)),
                None => (std::mem::take(&mut state.dropped), None),
            };
            state.writing = true;
            drop(state);
            // There is nobody to tell that the log cannot be written.
            if before > 0 {
                let _ = writer.write_all(dropped(before).as_bytes());
            }
            let _ = writer.write_all(line.as_deref().unwrap_or_default()).and_then(|()| writer.flush());
            self.state().writing = false;
            self.changed.notify_all();
        }
    }
}

/// Takes one line at each write, as the layer gives them.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.open.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Each write waits until it may.
    struct Slow(mpsc::Receiver<()>, mpsc::Sender<String>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn until_waiting(queue: &LogQueue, lines: usize) {
        while queue.open.0.state().lines.len() != lines {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_queue_that_is_never_empty_tells_what_it_dropped() {
        let (go, may_go) = mpsc::channel();
        let (wrote, written) = mpsc::channel();
        let queue = LogQueue::to(Slow(may_go, wrote), 2, |count| format!("{count} dropped"));
        let mut writer = &queue;
        writer.write_all(b"1").expect("taken");
        until_waiting(&queue, 0);
        for line in [b"2", b"3", b"4"] {
            writer.write_all(line).expect("taken, or dropped");
        }
        go.send(()).expect("a writer");
        until_waiting(&queue, 1);
        writer.write_all(b"5").expect("taken");
        // What was taken is written though the queue is gone, and then the thread ends.
        drop(queue);
        (0..4).for_each(|_| go.send(()).expect("a writer"));
        let lines = std::iter::from_fn(|| match written.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => Some(line),
            Err(error) => {
                assert_eq!(error, mpsc::RecvTimeoutError::Disconnected, "the thread does not end");
                None
            }
        });
        assert_eq!(lines.collect::<Vec<_>>(), ["1", "2", "3", "1 dropped", "5"]);
    }

    #[test]
    fn lines_without_room_are_dropped_and_told() {
        let (go, may_go) = mpsc::channel();
        let (wrote, written) = mpsc::channel();
        let queue = LogQueue::to(Slow(may_go, wrote), 2, |count| format!("{count} dropped"));
        let mut writer = &queue;
        writer.write_all(b"1").expect("taken");
        // The first one is in the writer's hands once the queue is empty.
        until_waiting(&queue, 0);
        for line in [b"2", b"3", b"4", b"5"] {
            writer.write_all(line).expect("taken, or dropped");
        }
        assert!(!queue.flush(Duration::ZERO), "nothing is written yet");
        (0..4).for_each(|_| go.send(()).expect("a writer"));
        assert!(queue.flush(Duration::from_secs(60)));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["1", "2", "3", "2 dropped"]);
    }
}
