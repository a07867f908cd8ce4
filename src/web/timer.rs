//! One timer for all that the machine waits for.

use gloo_timers::callback::Timeout;

/// Longest wait that `setTimeout` can do: beyond 2^31 − 1 ms it fires at once.
const WAIT_MS_MAX: u64 = i32::MAX as u64;

/// A timer that is later than this tells of a sleep. Browsers delay those of hidden pages by up to a minute.
const LATE_MS_MAX: f64 = 90_000.0;

#[derive(Default)]
pub(crate) struct WakeUp {
    pending: Option<(u64, Timeout)>,
}

impl WakeUp {
    /// Wakes at `at_ms` or earlier; never is `None`. A timer that would fire before is left alone: an early call
    /// is a no-op for the machine, and each chunk that comes moves its deadline.
    ///
    /// `wake` hears whether the machine slept meanwhile. Only the wall clock knows: others stand still, or not, in a
    /// sleep.
    pub(crate) fn set(&mut self, now_ms: u64, at_ms: Option<u64>, wake: impl FnOnce(bool) + 'static) {
        let Some(at_ms) = at_ms else {
            self.pending = None;
            return;
        };
        if self.pending.as_ref().is_some_and(|(pending, _)| *pending <= at_ms) {
            return;
        }
        let wait = at_ms.saturating_sub(now_ms).min(WAIT_MS_MAX);
        let due = js_sys::Date::now() + wait as f64;
        let fire = move || wake(js_sys::Date::now() - due > LATE_MS_MAX);
        self.pending = Some((now_ms + wait, Timeout::new(wait as u32, fire)));
    }

    /// The timer has fired: its closure is given back.
    pub(crate) fn fired(&mut self) {
        self.pending = None;
    }
}

/// Milliseconds on the page's monotonic clock.
pub(crate) fn now_ms() -> u64 {
    thread_local! {
        static PERFORMANCE: Option<wasm_bindgen::JsValue> = super::host::global("performance");
    }
    PERFORMANCE.with(|performance| {
        let reading = performance.as_ref().map_or_else(js_sys::Date::now, performance_now);
        reading.max(0.0) as u64
    })
}

fn performance_now(performance: &wasm_bindgen::JsValue) -> f64 {
    use wasm_bindgen::JsCast;
    performance.unchecked_ref::<Performance>().now()
}

#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    type Performance;
    #[wasm_bindgen(method)]
    fn now(this: &Performance) -> f64;
}
