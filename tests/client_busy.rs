//! What becomes of a connection while the app is busy, in virtual time: nothing is asked for that would only lie about.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, event, exact, status};
use holdfast_sse::client::{Config, Input, State, WhenHidden};

/// An open stream whose app has its first event in hand.
fn busy() -> Scenario {
    let mut scenario = Scenario::opened(exact()).asynchronous();
    scenario.bytes(event("1", "a"));
    assert!(!scenario.client.is_drained());
    scenario
}

// Trap: a reconnect above the low-water mark.
#[test]
fn a_stream_that_ends_while_the_app_is_busy_is_made_anew_once_it_has_caught_up() {
    let mut scenario = busy();
    scenario.end().pass(3_600_000);
    scenario.input(Input::Online).input(Input::Awake).input(Input::Offline).input(Input::Online).pass(60_000);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Retrying, 1));
    scenario.done("a");
    assert_eq!(
        (scenario.state(), scenario.requests.len(), scenario.asked_from()),
        (State::Connecting, 2, "1")
    );

    // Where the delay is not over, that is waited for; a busy app does not shorten it.
    let mut scenario = busy();
    scenario.end().pass(400).done("a");
    assert_eq!(scenario.requests.len(), 1);
    assert_eq!(scenario.until_request(), 600);
}

#[test]
fn a_page_that_comes_back_to_a_busy_app_looks_after_its_connection_later() {
    for input in [|| Input::Online, || Input::Awake] {
        let mut scenario = busy();
        scenario.input(input()).input(input()).pass(60_000);
        assert_eq!((scenario.state(), scenario.aborted.len(), scenario.requests.len()), (State::Open, 0, 1));
        scenario.done("a");
        assert_eq!((scenario.aborted.len(), scenario.requests.len(), scenario.asked_from()), (1, 2, "1"));
        // Once is enough.
        scenario.accept().bytes(event("2", "b")).done("b");
        assert_eq!((scenario.state(), scenario.requests.len()), (State::Open, 2));
    }
    let mut scenario = busy();
    scenario.input(Input::Online).input(Input::Offline).done("a");
    assert_eq!(scenario.requests.len(), 1, "there is no network any more");
    scenario.input(Input::Online);
    assert_eq!(scenario.requests.len(), 2);

    let mut scenario = busy();
    scenario.input(Input::Online);
    let started = scenario.last_token;
    scenario.input(Input::Stop { started }).done("a");
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Closed, 1));
}

#[test]
fn what_the_app_asks_for_is_done_and_the_wish_of_the_server_stands() {
    let mut scenario = busy();
    let started = scenario.last_token;
    scenario.input(Input::Reconnect { started });
    assert_eq!((scenario.requests.len(), scenario.asked_from()), (2, "1"), "its body waits");
    scenario.head(status(503, Some(20_000))).pass(5_000).input(Input::Online).done("a");
    assert_eq!(scenario.requests.len(), 2, "Retry-After is not over");
    assert_eq!(scenario.until_request(), 15_000);
}

#[test]
fn a_page_that_paused_the_reading_asks_for_nothing_before_it_is_seen() {
    let config = Config { when_hidden: WhenHidden::Pause, hidden_after_ms: 1_000, ..exact() };
    let mut scenario = Scenario::opened(config);
    scenario
        .bytes(event("1", "a"))
        .input(Input::Hidden)
        .pass(1_000)
        .end()
        .pass(3_600_000)
        .input(Input::Online);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Retrying, 1));
    scenario.input(Input::Visible);
    assert_eq!(
        (scenario.state(), scenario.requests.len(), scenario.asked_from()),
        (State::Connecting, 2, "1")
    );
}
