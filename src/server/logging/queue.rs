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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    lines_max: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// Lines that had no room since the writer told of it last.
    dropped: u64,
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
        let queue = Self { inner: Arc::clone(&inner) };
        // Without a thread nothing is logged, and nothing waits for it.
        let _ =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || inner.write(writer, dropped));
        queue
    }

    /// Waits until everything is written, at most for `within`: before the process ends. False where that was too short.
    pub fn flush(&self, within: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty() || state.dropped > 0;
        let waited = self.inner.changed.wait_timeout_while(self.inner.state(), within, unwritten);
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
        state.lines.push_back(line.into());
        drop(state);
        self.changed.notify_all();
    }

    fn write(&self, mut writer: impl Write, dropped: fn(u64) -> String) {
        loop {
            let idle = |state: &mut State| state.lines.is_empty() && state.dropped == 0;
            let waited = self.changed.wait_while(self.state(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            // Line by line: those that are not written yet count for the bound.
            let line = state.lines.pop_front();
            let line = line.unwrap_or_else(|| {
                dropped(std::mem::take(&mut state.dropped)).into_bytes().into_boxed_slice()
            });
            state.writing = true;
            drop(state);
            // There is nobody to tell that the log cannot be written.
            let _ = writer.write_all(&line).and_then(|()| writer.flush());
            self.state().writing = false;
            self.changed.notify_all();
        }
    }
}

/// Takes one line at each write, as the layer gives them.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.inner.push(line);
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

    #[test]
    fn lines_without_room_are_dropped_and_told() {
        let (go, may_go) = mpsc::channel();
        let (wrote, written) = mpsc::channel();
        let queue = LogQueue::to(Slow(may_go, wrote), 2, |count| format!("{count} dropped"));
        let mut writer = &queue;
        writer.write_all(b"1").expect("taken");
        // The first one is in the writer's hands once the queue is empty.
        while !queue.inner.state().lines.is_empty() {
            std::thread::yield_now();
        }
        for line in [b"2", b"3", b"4", b"5"] {
            writer.write_all(line).expect("taken, or dropped");
        }
        assert!(!queue.flush(Duration::ZERO), "nothing is written yet");
        (0..4).for_each(|_| go.send(()).expect("a writer"));
        assert!(queue.flush(Duration::from_secs(60)));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["1", "2", "3", "2 dropped"]);
    }
}
