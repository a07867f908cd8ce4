//! What a hidden page does to its stream, by option, in virtual time.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, event, exact, heartbeat, record, status};
use holdfast_sse::client::{Client, Config, Input, LivenessConfig, Notice, Output, State, WhenHidden};

fn hiding(when_hidden: WhenHidden) -> Config {
    let liveness = LivenessConfig { timeout_ms: 3_000, grace_ms: 0 };
    Config { when_hidden, hidden_after_ms: 1_000, liveness: Some(liveness), ..exact() }
}

/// An open stream that beats and has a cursor.
fn open(when_hidden: WhenHidden) -> Scenario {
    let mut scenario = Scenario::opened(hiding(when_hidden));
    scenario.bytes(heartbeat(100)).bytes(event("1", "a"));
    scenario.take_notices();
    scenario
}

/// Hidden for so long, then seen; answers how many requests were made while hidden, and after.
fn check(when_hidden: WhenHidden, hidden_ms: u64, state: State, requests: (usize, usize)) {
    let mut scenario = open(when_hidden);
    scenario.input(Input::Hidden).pass(hidden_ms);
    assert_eq!(scenario.state(), state, "{when_hidden:?} {hidden_ms} ms");
    let hidden = scenario.requests.len() - 1;
    scenario.input(Input::Visible);
    let after = scenario.requests.len() - 1 - hidden;
    assert_eq!((hidden, after), requests, "{when_hidden:?} {hidden_ms} ms");
    assert_eq!(scenario.asked_from(), if after > 0 { "1" } else { "" });
}

#[test]
fn only_a_page_that_stays_hidden_lets_go_of_its_stream() {
    check(WhenHidden::Close, 999, State::Open, (0, 0));
    check(WhenHidden::Close, 1_000, State::Retrying, (0, 1));
    check(WhenHidden::Close, 3_600_000, State::Retrying, (0, 1));
    check(WhenHidden::Pause, 3_600_000, State::Open, (0, 0));
    check(WhenHidden::Stay, 2_999, State::Open, (0, 0));
}

#[test]
fn a_close_for_being_hidden_is_told_and_nothing_is_asked_for_meanwhile() {
    let mut scenario = open(WhenHidden::Close);
    scenario.input(Input::Hidden).pass(1_000);
    let told = scenario.take_notices();
    let close = Notice::Close { reason: "hidden".to_owned(), will_reconnect: true, retry_in: None };
    assert!(told.contains(&close), "{told:?}");
    assert_eq!(scenario.aborted.len(), 1);
    // Neither what the network does nor what the app asks for makes a request that nobody would see.
    scenario.input(Input::Offline).input(Input::Online).input(Input::Awake).input(Input::Hidden);
    scenario.input(Input::Connect).input(Input::Reconnect { started: 1 }).pass(3_600_000);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Retrying, 1));

    scenario.input(Input::Offline).input(Input::Visible);
    assert_eq!(scenario.requests.len(), 1, "there is no network");
    scenario.input(Input::Online);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Connecting, 2));
}

#[test]
fn a_failure_is_not_retried_before_the_page_is_seen_and_the_wish_of_the_server_stands() {
    let mut scenario = Scenario::new(hiding(WhenHidden::Close));
    scenario.connect().head(status(503, Some(20_000)));
    scenario.input(Input::Hidden).pass(10_000).input(Input::Visible);
    assert_eq!(scenario.requests.len(), 1, "Retry-After is not over");
    assert_eq!(scenario.until_request(), 10_000);

    let mut scenario = Scenario::new(hiding(WhenHidden::Close));
    scenario.connect().input(Input::Hidden).pass(1_000);
    assert_eq!(
        (scenario.state(), scenario.aborted.len()),
        (State::Retrying, 1),
        "also before the answer came"
    );
    scenario.input(Input::Visible);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Connecting, 2));
}

#[test]
fn a_pause_stops_the_reading_and_its_silence_is_our_own_doing() {
    let mut scenario = open(WhenHidden::Pause);
    scenario.input(Input::Hidden).pass(999);
    assert!(scenario.client.is_drained());
    scenario.pass(1);
    assert!(!scenario.client.is_drained(), "no more is read");
    scenario.pass(3_600_000);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Open, 1));
    scenario.input(Input::Visible);
    assert!(scenario.client.is_drained());
    scenario.pass(2_999);
    assert_eq!(scenario.state(), State::Open, "the silence counts from now");
    scenario.pass(1);
    assert_eq!(scenario.state(), State::Retrying);
}

#[test]
fn what_was_in_hand_when_the_pause_came_is_still_accounted_for() {
    let mut scenario = Scenario::opened(hiding(WhenHidden::Pause)).asynchronous();
    scenario.bytes(event("1", "a")).input(Input::Hidden).pass(1_000);
    scenario.done("a");
    assert!(!scenario.client.is_drained());
    assert_eq!(scenario.client.last_event_id(), "1");
    scenario.input(Input::Visible);
    assert!(scenario.client.is_drained());
}

#[test]
fn a_request_that_may_not_be_repeated_and_a_stream_that_was_stopped_are_left_alone() {
    let config = Config { repeatable: false, liveness: None, ..hiding(WhenHidden::Close) };
    let mut scenario = Scenario::opened(config);
    scenario.input(Input::Hidden).pass(3_600_000);
    assert_eq!(scenario.state(), State::Open);

    let mut scenario = open(WhenHidden::Close);
    scenario.input(Input::Hidden).pass(1_000).input(Input::Stop { started: 1 }).pass(10_000);
    assert_eq!((scenario.state(), scenario.requests.len(), scenario.wait), (State::Closed, 1, None));
    // The app starts it anew: it goes on until the page has been hidden for that long again.
    scenario.connect().accept().pass(999);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Open, 2));
    scenario.pass(1);
    assert_eq!(scenario.state(), State::Retrying);
}

/// A page that is left and comes back: its state in the meantime, and the requests made until then and after. Of its return
/// it hears first that it is seen again.
fn check_left(name: &str, make: impl Fn() -> Scenario, state: State, requests: (usize, usize)) {
    for back in [Input::Awake, Input::Online] {
        let mut scenario = make();
        scenario.input(Input::PutAside);
        assert_eq!(scenario.state(), state, "{name}");
        scenario.input(Input::Hidden).pass(3_600_000).input(Input::Visible);
        let meanwhile = scenario.requests.len();
        scenario.input(back);
        assert_eq!((meanwhile, scenario.requests.len() - meanwhile), requests, "{name}");
    }
}

#[test]
fn a_page_that_is_left_holds_no_connection_until_it_comes_back() {
    let quiet = |repeatable| Scenario::opened(Config { repeatable, liveness: None, ..exact() });
    let with_cursor = |repeatable| {
        let mut scenario = quiet(repeatable);
        scenario.bytes(event("1", "a"));
        scenario
    };
    check_left("open, with a cursor", || with_cursor(true), State::Retrying, (1, 1));
    // What comes meanwhile would be lost, and so the page is loaded anew instead.
    check_left("open, without a cursor", || quiet(true), State::Open, (1, 0));
    check_left("not to be repeated", || with_cursor(false), State::Open, (1, 0));
    let retrying = || {
        let mut scenario = with_cursor(true);
        scenario.end();
        scenario
    };
    check_left("between two attempts", retrying, State::Retrying, (1, 1));
}

#[test]
fn leaving_a_page_is_told_and_a_stop_ends_it() {
    let mut scenario = open(WhenHidden::Stay);
    scenario.input(Input::PutAside);
    let close = Notice::Close { reason: "page_left".to_owned(), will_reconnect: true, retry_in: None };
    assert!(scenario.take_notices().contains(&close));
    assert_eq!(scenario.aborted.len(), 1);
    scenario.input(Input::Stop { started: 1 }).input(Input::Connect);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Connecting, 2));
}

#[test]
fn a_page_that_comes_back_before_the_store_answered_asks_from_its_cursor() {
    for (leaves, returns) in [(Input::PutAside, Input::Awake), (Input::Hidden, Input::Visible)] {
        let config = Config { when_hidden: WhenHidden::Close, hidden_after_ms: 0, ..exact() };
        let mut client = Client::new(config);
        let mut outputs = |input: Input<'_>| {
            client.handle_input(0, input);
            std::iter::from_fn(|| {
                Some(client.poll_output()).filter(|output| !matches!(output, Output::Wait(_)))
            })
            .filter(|output| matches!(output, Output::Restore | Output::Request(_)))
            .collect::<Vec<_>>()
        };
        assert_eq!(outputs(Input::Connect), [Output::Restore]);
        assert_eq!(outputs(leaves), []);
        assert_eq!(outputs(Input::Timer), []);
        assert_eq!(outputs(returns), [], "what the store has is not known yet");
        let asked = outputs(Input::Restored(Some(record("7", &[]))));
        assert!(
            matches!(&asked[..], [Output::Request(request)] if request.last_event_id == "7"),
            "{asked:?}"
        );
    }
}

#[test]
fn an_app_that_catches_up_brings_no_page_back_that_was_left() {
    let mut scenario = Scenario::opened(exact()).asynchronous();
    // The page slept, and the new connection was put off until the app has caught up.
    scenario.bytes(event("1", "a")).input(Input::Awake).input(Input::PutAside);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Retrying, 1));
    scenario.done("a").pass(60_000);
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Retrying, 1));
    scenario.input(Input::Awake);
    assert_eq!((scenario.state(), scenario.asked_from()), (State::Connecting, "1"));
}
