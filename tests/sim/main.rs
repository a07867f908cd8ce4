//! The simulator: client core, model server, store and a faulty network in one thread and virtual time, all from one
//! seed. `cargo xtask sim --seed N` replays one seed with its whole trace, `--count N` runs more of them, and `--first N`
//! begins with another than the first; it says so by `HOLDFAST_SIM_SEED`, `_COUNT` and `_FIRST`.
#![cfg(not(target_family = "wasm"))]

mod check;
mod mutant;
mod pace;
mod page;
mod plan;
mod rng;
mod server;
mod trials;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const SEEDS: u64 = 10_000;
const TRACE_TAIL: usize = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")))
}

/// Prints what is left of a run, and fails.
fn report(seed: u64, tail: usize) -> ! {
    let trace = world::Trace::default();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| world::run(seed, Some(&trace), None)));
    let trace = trace.borrow();
    let from = trace.len().saturating_sub(tail);
    // The plan comes first in a trace; it belongs to every report.
    if from > 0 {
        println!("{}\n...", trace[0]);
    }
    for line in &trace[from..] {
        println!("{line}");
    }
    let broken = match outcome {
        Err(_) => "it panics".to_owned(),
        Ok(outcome) => outcome
            .broken
            .map_or_else(String::new, |broken| format!("{:?} is broken: {}", broken.invariant, broken.what)),
    };
    panic!("seed {seed}: {broken}; `cargo xtask sim --seed {seed}` replays it");
}

fn trace_of(seed: u64) -> Vec<String> {
    let trace = world::Trace::default();
    world::run(seed, Some(&trace), None);
    trace.take()
}

/// A panic within the machine belongs to its seed, too.
fn run(seed: u64) -> Result<world::Outcome, u64> {
    let outcome = std::panic::catch_unwind(|| world::run(seed, None, None)).map_err(|_| seed)?;
    if outcome.broken.is_some() { Err(seed) } else { Ok(outcome) }
}

#[test]
fn every_seed_keeps_the_promise() {
    if let Some(seed) = number("HOLDFAST_SIM_SEED") {
        if run(seed).is_err() {
            report(seed, usize::MAX);
        }
        trace_of(seed).iter().for_each(|line| println!("{line}"));
        return;
    }
    let first = number("HOLDFAST_SIM_FIRST").unwrap_or(0);
    let count = number("HOLDFAST_SIM_COUNT").unwrap_or(SEEDS);
    let began = Instant::now();
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (deliveries, pages) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed.wrapping_sub(first) >= count {
                    break;
                }
                match run(seed) {
                    Ok(outcome) => {
                        deliveries.fetch_add(outcome.deliveries, Ordering::Relaxed);
                        pages.fetch_add(outcome.pages, Ordering::Relaxed);
                    }
                    Err(seed) => {
                        failed.push(seed);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            failed
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).min()
    });
    if let Some(seed) = failed {
        report(seed, TRACE_TAIL);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {} deliveries on {} pages, {:.0} seeds per second",
        deliveries.into_inner(),
        pages.into_inner(),
        count as f64 / seconds
    );
}

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        assert_eq!(trace_of(seed), trace_of(seed), "seed {seed}");
    }
}
