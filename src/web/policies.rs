//! The client's policies by themselves, for `holdfast-sse/policies`: the same code that a connector runs.

use js_sys::{Array, Object};
use wasm_bindgen::prelude::*;

use super::host::to_js;
use super::options::read_policies;
use crate::client::{Backoff, DedupeWindow, Exhausted, Liveness, Mark, OrderingGuard, TRANSITIONS};

/// What `retryIn` answers when there is no next attempt.
const ATTEMPTS_EXHAUSTED: f64 = -1.0;
const TIME_EXHAUSTED: f64 = -2.0;

/// One of each policy; the class in TypeScript that holds it uses one. Times are milliseconds of any clock that does not
/// go back.
#[wasm_bindgen]
pub struct Policies {
    backoff: Backoff,
    liveness: Liveness,
    dedupe: DedupeWindow,
    guard: OrderingGuard,
}

#[wasm_bindgen]
impl Policies {
    /// `options` are those of a connector that concern policies.
    ///
    /// # Errors
    /// An `Error` with `code` (`invalid_option`) and `option`.
    #[wasm_bindgen(constructor)]
    pub fn new(options: &Object) -> Result<Policies, JsValue> {
        let config = read_policies(options)?;
        Ok(Self {
            backoff: Backoff::new(config.retry, config.rng_seed),
            liveness: Liveness::new(config.liveness),
            dedupe: DedupeWindow::new(config.dedupe.unwrap_or_default()),
            guard: OrderingGuard::new(config.ordering),
        })
    }

    /// Counts a failure; answers how long to wait, or a negative number where there is no next attempt.
    #[wasm_bindgen(js_name = retryIn)]
    pub fn retry_in(&mut self, now_ms: f64, floor_ms: Option<f64>) -> f64 {
        match self.backoff.next_delay_ms(now_ms as u64, floor_ms.map(|floor| floor as u64)) {
            Ok(delay_ms) => delay_ms as f64,
            Err(Exhausted::Attempts) => ATTEMPTS_EXHAUSTED,
            Err(Exhausted::Time) => TIME_EXHAUSTED,
        }
    }

    /// Failures since the last `forgive`.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// Time since the first of them.
    #[wasm_bindgen(js_name = failingFor)]
    #[must_use]
    pub fn failing_for(&self, now_ms: f64) -> f64 {
        self.backoff.failing_for_ms(now_ms as u64) as f64
    }

    /// What failed before does not count any more.
    pub fn forgive(&mut self) {
        self.backoff.forgive();
    }

    /// The server's reconnection time, in place of the policy's base delay.
    #[wasm_bindgen(js_name = setServerRetry)]
    pub fn set_server_retry(&mut self, ms: f64) {
        self.backoff.set_server_retry(ms as u64);
    }

    /// A connection opened.
    pub fn opened(&mut self, now_ms: f64) {
        self.liveness.opened(now_ms as u64);
    }

    /// Something came.
    pub fn byte(&mut self, now_ms: f64) {
        self.liveness.byte(now_ms as u64);
    }

    /// The stream shows that it beats.
    pub fn beat(&mut self, interval_ms: Option<f64>) {
        self.liveness.beat(interval_ms.map(|interval| interval as u64));
    }

    /// When to ask for `silence`.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn deadline(&self) -> Option<f64> {
        self.liveness.deadline_ms().map(|at| at as f64)
    }

    /// The failure, if the deadline has passed: its name, how long it was silent, and whether that is reason to cut.
    pub fn silence(&mut self, now_ms: f64) -> Option<Array> {
        let failure = self.liveness.check(now_ms as u64)?;
        Some(Array::of3(&to_js(&failure.kind), &(failure.silent_ms as f64).into(), &failure.cut.into()))
    }

    /// Whether this event was seen; remembers it if not.
    #[wasm_bindgen(js_name = isRepeat)]
    pub fn is_repeat(&mut self, now_ms: f64, id: &str, name: &str, data: &str) -> bool {
        self.dedupe.is_repeat(now_ms as u64, id, name, data)
    }

    /// Forgets an event.
    pub fn forget(&mut self, id: &str) {
        self.dedupe.forget(id);
    }

    /// What an envelope is ordered by, and what came before it, where it is late.
    #[must_use]
    pub fn late(&mut self, envelope: &str) -> Option<Array> {
        let late = self.guard.check(envelope)?;
        let value = |mark: Mark| match mark {
            Mark::Sequence(sequence) => JsValue::from_f64(sequence as f64),
            Mark::Text(text) => text.into(),
        };
        Some(Array::of2(&value(late.mark), &value(late.last)))
    }

    /// The order begins anew.
    #[wasm_bindgen(js_name = resetOrder)]
    pub fn reset_order(&mut self) {
        self.guard.reset();
    }
}

/// All transitions between the states of a connection, as `{from, reason, to}`.
#[wasm_bindgen]
#[must_use]
pub fn transitions() -> JsValue {
    to_js(&TRANSITIONS.as_slice())
}
