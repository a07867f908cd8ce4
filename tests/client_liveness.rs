//! Dead streams and quiet ones, told apart.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, event, exact, heartbeat, open_with};
use holdfast_sse::client::{Code, Config, Input, LivenessConfig, LivenessKind, Notice, State};

/// When a stream is found dead: bytes at these times, then silence.
fn check_liveness(bytes: &[(u64, String)], failure: (LivenessKind, bool), at: u64) {
    let mut scenario = Scenario::opened(exact());
    for (when, text) in bytes {
        let wait = when - scenario.now;
        scenario.pass(wait).bytes(text);
    }
    let wait = at - 1 - scenario.now;
    scenario.pass(wait);
    assert_eq!(scenario.client.stats().liveness_failures, 0, "{bytes:?}");
    scenario.pass(1);
    let told: Vec<_> = scenario
        .take_notices()
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::LivenessFailure { failure, cut, .. } => Some((failure, cut)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [failure], "{bytes:?}");
    assert_eq!(scenario.state(), if failure.1 { State::Retrying } else { State::Open });
    scenario.pass(900_000);
    if !failure.1 {
        assert_eq!(scenario.client.stats().liveness_failures, 1, "told once");
    }
}

// K9
// Trap: a buffering proxy taken for silence, a quiet stream cut.
#[test]
fn dead_streams_are_told_from_quiet_ones() {
    use LivenessKind::{NoFirstByte, Silence};
    let comment = || ": hello\n\n".to_owned();
    check_liveness(&[], (NoFirstByte, false), 30_000);
    check_liveness(&[(10_000, event("1", "a"))], (Silence, false), 40_000);
    // A greeting is no heartbeat; a comment that comes again is.
    check_liveness(&[(10_000, comment())], (Silence, false), 40_000);
    check_liveness(&[(10_000, comment()), (10_999, comment())], (Silence, false), 40_999);
    check_liveness(&[(10_000, comment()), (11_000, comment())], (Silence, true), 41_000);
    check_liveness(&[(10_000, heartbeat(1_000)), (25_000, ":".to_owned())], (Silence, true), 55_000);
    check_liveness(&[(1_000, heartbeat(20_000))], (Silence, true), 51_000);
    check_liveness(&[(1_000, open_with("k-1", true, 40_000))], (Silence, true), 101_000);
    check_liveness(&[(1_000, heartbeat(86_400_000))], (Silence, true), 31_000);
}

// K9
#[test]
fn a_server_that_beats_is_expected_to_beat_on_the_next_connection() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(heartbeat(1_000)).end().until_request();
    scenario.accept().pass(30_000);
    assert_eq!(scenario.errors(), [(Code::NoFirstByte, true)]);
    let liveness = Some(LivenessConfig { timeout_ms: 1_000, grace_ms: 5_000 });
    let mut scenario = Scenario::opened(Config { liveness, ..exact() });
    scenario.pass(4_999);
    assert_eq!(scenario.client.stats().liveness_failures, 0, "grace");
    scenario.pass(1);
    assert_eq!(scenario.client.stats().liveness_failures, 1);
    let mut scenario = Scenario::opened(Config { liveness: None, ..exact() });
    scenario.bytes(heartbeat(1_000)).pass(1 << 40);
    assert_eq!(scenario.state(), State::Open);
}

// Trap: a stream cut because the app was busy.
#[test]
fn the_watch_rests_while_the_app_is_busy() {
    let mut scenario = Scenario::opened(exact()).asynchronous();
    scenario.bytes(": beat\n\n").pass(1_000);
    scenario.bytes(": beat\n\n".to_owned() + &event("1", "a")).pass(200_000);
    assert_eq!(scenario.state(), State::Open);
    scenario.done("a").pass(29_999);
    // Results that come twice are no life of the server's.
    scenario.done("a");
    assert_eq!(scenario.state(), State::Open);
    scenario.pass(1);
    assert_eq!(scenario.errors(), [(Code::Silence, true)]);
    scenario.until_request();
    scenario.accept().bytes(event("2", "b"));
    let started = scenario.last_token;
    scenario.input(Input::Reconnect { started });
    scenario.accept().pass(1_000).done("b").pass(30_000);
    assert_eq!(scenario.errors(), [(Code::NoFirstByte, true)], "a rest is no first byte");
}
