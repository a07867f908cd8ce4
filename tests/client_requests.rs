//! What an app decides about requests, answers and the pace of reading, in virtual time.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, event, exact, heartbeat, status};
use holdfast_sse::client::{Code, Config, Decision, Head, Input, LivenessConfig, RequestId, State};

fn html() -> Head {
    Head { status: 200, content_type: Some("text/html".to_owned()), retry_after_ms: None }
}

/// What follows when the app decides so about this answer: the state, the errors and the delay of the next request.
fn check_decision(
    config: Config,
    head: Head,
    decision: Decision,
    state: State,
    errors: &[(Code, bool)],
) -> Scenario {
    let mut scenario = Scenario::new(config);
    scenario.connect();
    let id = scenario.id();
    scenario.input(Input::Decided(id, head.clone(), decision));
    assert_eq!(scenario.state(), state, "{head:?} {decision:?}");
    assert_eq!(scenario.errors(), errors, "{head:?} {decision:?}");
    scenario
}

#[test]
fn the_decision_of_the_app_stands_above_the_rules() {
    let mut open = check_decision(exact(), html(), Decision::Accept, State::Open, &[]);
    open.bytes(event("1", "a"));
    assert_eq!(open.delivered(), ["a"]);

    let again = [(Code::HttpStatus, true)];
    let mut not_found =
        check_decision(exact(), status(404, Some(7_000)), Decision::Retry, State::Retrying, &again);
    assert!(not_found.until_request() >= 7_000, "Retry-After is a floor here, too");
    let mut fine = check_decision(exact(), Head::event_stream(), Decision::Retry, State::Retrying, &again);
    assert_eq!((fine.until_request(), fine.aborted.len()), (1_000, 1));

    let end = [(Code::HttpStatus, false)];
    for head in [Head::event_stream(), status(503, None), status(204, None)] {
        check_decision(exact(), head, Decision::Stop, State::Closed, &end);
    }
    let once = Config { repeatable: false, ..exact() };
    check_decision(once, status(503, None), Decision::Retry, State::Closed, &end);
}

#[test]
fn a_decision_about_an_earlier_request_is_ignored() {
    let mut scenario = Scenario::new(exact());
    scenario.connect().input(Input::Decided(RequestId(99), Head::event_stream(), Decision::Stop));
    assert_eq!(scenario.state(), State::Connecting);
    let id = scenario.accept().id();
    scenario.input(Input::Decided(id, status(500, None), Decision::Stop));
    assert_eq!(scenario.state(), State::Open, "its head has come");
}

#[test]
fn the_reading_pauses_at_the_allowed_number_and_not_before() {
    let liveness = LivenessConfig { timeout_ms: 1_000, grace_ms: 0 };
    let config = Config { unfinished_max: 3, liveness: Some(liveness), ..exact() };
    let mut scenario = Scenario::opened(config);
    scenario.bytes(heartbeat(100)).sync = false;
    scenario.bytes(event("1", "a") + &event("2", "b"));
    assert!(scenario.client.is_drained(), "one more may come");
    scenario.bytes(event("3", "c"));
    assert!(!scenario.client.is_drained());
    scenario.pass(5_000);
    assert_eq!(scenario.state(), State::Open, "silence is our own doing meanwhile");
    scenario.done("b");
    assert!(scenario.client.is_drained(), "one more may be at work, though the oldest is not through");
    scenario.done("c").done("a");
    scenario.pass(1_001);
    assert_eq!(scenario.state(), State::Retrying, "from now on silence is the server's");

    let config = Config { unfinished_max: 0, ..exact() };
    assert!(Scenario::opened(config).client.is_drained(), "one is the least");
}

// Trap: heartbeats and finished events that take the places of handlers.
#[test]
fn what_is_finished_takes_no_handlers_place_and_is_bounded_all_the_same() {
    let config = Config { unfinished_max: 2, records_max: 8, ..exact() };
    let mut scenario = Scenario::opened(config).asynchronous();
    scenario.bytes(event("1", "a"));
    for data in ["b", "c"] {
        scenario.bytes(heartbeat(100)).bytes(event(data, data));
        assert!(!scenario.client.is_drained(), "{data}");
        scenario.done(data);
        assert!(scenario.client.is_drained(), "{data}: one of two is at work");
    }
    scenario.bytes(heartbeat(100)).bytes(heartbeat(100));
    assert!(scenario.client.is_drained(), "seven records");
    scenario.bytes(heartbeat(100));
    assert!(!scenario.client.is_drained(), "eight of them, and the first is not finished");
    assert!(scenario.client.is_behind(1_000) && scenario.client.unfinished() == 1);
    scenario.done("a");
    assert!(scenario.client.is_drained());

    let config = Config { unfinished_max: 4, records_max: 1, ..exact() };
    let mut scenario = Scenario::opened(config).asynchronous();
    scenario.bytes(event("1", "a") + &event("2", "b") + &event("3", "c"));
    assert!(scenario.client.is_drained(), "never fewer than may be unfinished");
    scenario.bytes(event("4", "d"));
    assert!(!scenario.client.is_drained());
}
