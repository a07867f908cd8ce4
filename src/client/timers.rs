//! The pending timers: one slot for each kind.

/// What a point in time is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The response head must be there.
    Connect,
    /// The next attempt is due.
    Retry,
    /// The connection has been up for long enough to forgive earlier failures.
    Stable,
    /// The stream may be dead.
    Liveness,
    /// A missing event has been waited for long enough.
    Gap,
    /// Results of asynchronous handlers are to be stored.
    Commit,
    /// The page has been hidden for a while.
    Hidden,
}

const KINDS: [Timer; 7] =
    [Timer::Connect, Timer::Retry, Timer::Stable, Timer::Liveness, Timer::Gap, Timer::Commit, Timer::Hidden];

#[derive(Debug, Default)]
pub(crate) struct TimerTable {
    at_ms: [Option<u64>; KINDS.len()],
}

impl TimerTable {
    pub(crate) fn set(&mut self, timer: Timer, at_ms: u64) {
        self.at_ms[timer as usize] = Some(at_ms);
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.at_ms[timer as usize] = None;
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at_ms[timer as usize].is_some()
    }

    /// Takes one timer that is due, and how late it is.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<(Timer, u64)> {
        KINDS.into_iter().find_map(|timer| {
            let at_ms = self.at_ms[timer as usize].filter(|at_ms| *at_ms <= now_ms)?;
            self.clear(timer);
            Some((timer, now_ms - at_ms))
        })
    }

    /// Takes this timer if it is due, also where nobody has looked since.
    pub(crate) fn take_due(&mut self, timer: Timer, now_ms: u64) -> bool {
        let slot = &mut self.at_ms[timer as usize];
        let is_due = slot.is_some_and(|at| at <= now_ms);
        if is_due {
            *slot = None;
        }
        is_due
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.at_ms.iter().flatten().min().copied()
    }
}
