//! Every checker is seen to fail: each client with a defect is found out by the checker whose it is.

use std::collections::BTreeSet;

use holdfast_sse::client::DedupeConfig;

use super::check::Invariant;
use super::mutant::Mutant;
use super::plan::{Plan, Protocol};
use super::world::{self, Trial};

/// Seeds within which a defect comes to light.
const SEEDS: u64 = 300;

/// The defect, what it breaks, and the world that it needs, where it does not show in most.
type Row = (Mutant, Invariant, fn(&mut Plan));

const TABLE: &[Row] = &[
    (Mutant::DropsAnEvent, Invariant::NothingLost, any),
    (Mutant::CommitsEarly, Invariant::NothingLost, any),
    (Mutant::MovesAllChannels, Invariant::NothingLost, |plan| {
        plan.protocol = Protocol::Ours;
        plan.strips_cursor = false;
        plan.divide(3);
    }),
    (Mutant::SwallowsGaps, Invariant::NothingLost, any),
    (Mutant::SwallowsCannotResume, Invariant::NothingLost, any),
    (Mutant::DeliversTwice, Invariant::NothingTwice, any),
    (Mutant::GivesBackTooMuch, Invariant::NothingTwice, any),
    (Mutant::IgnoresDoneIds, Invariant::NothingTwice, any),
    (Mutant::RecognisesNothing, Invariant::NothingTwice, any),
    (Mutant::SwapsTwo, Invariant::InOrder, any),
    (Mutant::OrdersNothing, Invariant::InOrder, any),
    (Mutant::BendsData, Invariant::Unchanged, any),
    (Mutant::InventsAGap, Invariant::TrueReports, any),
    (Mutant::MiscountsGaps, Invariant::TrueReports, any),
    (Mutant::StoresUnfinishedIds, Invariant::TrueRecords, any),
    (Mutant::ForgetsDoneIds, Invariant::Stored, any),
    (Mutant::NeverStores, Invariant::Stored, any),
    (Mutant::IgnoresFlush, Invariant::Stored, any),
    (Mutant::AsksWithoutCursor, Invariant::Cursor, any),
    (Mutant::KeepsTheClearedCursor, Invariant::Cursor, any),
    (Mutant::IgnoresTheBackoff, Invariant::NoStorm, any),
    (Mutant::ResetsTheBackoffAtOpen, Invariant::NoStorm, |plan| flashes(plan, 200)),
    (Mutant::ResetsTheBackoffAtOpen, Invariant::NoStorm, |plan| flashes(plan, 500)),
    (Mutant::ResetsTheBackoffAtOpen, Invariant::NoStorm, |plan| flashes(plan, 1_000)),
    (Mutant::ResetsTheBackoffAtOpen, Invariant::NoStorm, |plan| {
        flashes(plan, 200);
        plan.config.retry.jitter = holdfast_sse::client::Jitter::Full;
    }),
    (Mutant::IgnoresRetryAfter, Invariant::NoStorm, any),
    (Mutant::NeverGivesUp, Invariant::NoStorm, |plan| {
        flashes(plan, 200);
        plan.config.retry.max_attempts = Some(3);
    }),
    (Mutant::RefreshesUnasked, Invariant::NoStorm, any),
    (Mutant::AsksWhileOffline, Invariant::NoRequest, any),
    (Mutant::AsksWhileStopped, Invariant::NoRequest, any),
    (Mutant::AsksWhileHidden, Invariant::NoRequest, any),
    (Mutant::RepeatsRequests, Invariant::NoRequest, any),
    (Mutant::KeepsItsConnection, Invariant::NoRequest, any),
    (Mutant::AsksWhileAside, Invariant::NoRequest, any),
    (Mutant::AsksBeforeRestored, Invariant::Cursor, |plan| plan.store_hangs_pct = 100),
    (Mutant::HoldsTooMuch, Invariant::Memory, any),
    (Mutant::RemembersTooMuch, Invariant::Memory, |plan| {
        plan.protocol = Protocol::Foreign { overlap: 0, looks_like_ours: false, numbered: false };
        plan.config.dedupe = Some(DedupeConfig { size_max: 20, ttl_ms: 0 });
    }),
    (Mutant::ReadsWhileBusy, Invariant::Memory, any),
    (Mutant::ReadsEndlessEvents, Invariant::Memory, any),
    (Mutant::GivesBackTooLittle, Invariant::Recovers, any),
    (Mutant::SleepsOn, Invariant::Recovers, any),
    (Mutant::NeverReconnects, Invariant::Recovers, any),
    (Mutant::NeverTimesOut, Invariant::Recovers, |plan| plan.faults = 40),
    (Mutant::IgnoresSilence, Invariant::Recovers, any),
];

fn any(_: &mut Plan) {}

/// A world of connections that end as soon as they have begun.
fn flashes(plan: &mut Plan, base_delay_ms: u64) {
    plan.config.retry.base_delay_ms = base_delay_ms;
    plan.server_retry_ms = None;
    (plan.config.repeatable, plan.config.auto_reconnect) = (true, true);
    plan.cut_pct = 100;
}

#[test]
fn each_defect_is_found_out_by_its_checker() {
    let mut missed = Vec::new();
    for (mutant, invariant, plan) in TABLE {
        let trial = Trial { mutant: *mutant, plan: *plan };
        let mut others = BTreeSet::new();
        let found = (0..SEEDS).find(|seed| {
            let broken = world::run(*seed, None, Some(&trial)).broken.map(|broken| broken.invariant);
            others.extend(broken);
            broken == Some(*invariant)
        });
        match found {
            Some(seed) => println!("{mutant:?}: {invariant:?} is broken in seed {seed}"),
            None => missed.push(format!("{mutant:?} breaks {others:?}, not {invariant:?}")),
        }
    }
    assert!(missed.is_empty(), "in {SEEDS} seeds:\n{}", missed.join("\n"));
}

#[test]
fn every_checker_has_a_defect_that_it_finds() {
    use Invariant::*;
    let all = [
        NothingLost,
        NothingTwice,
        InOrder,
        Unchanged,
        TrueReports,
        TrueRecords,
        Stored,
        Cursor,
        NoStorm,
        NoRequest,
        Memory,
        Recovers,
    ];
    for invariant in all {
        assert!(TABLE.iter().any(|row| row.1 == invariant), "{invariant:?}");
    }
}
