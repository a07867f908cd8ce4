//! What happens within a stream, in virtual time: the cursor, repeats, order, holes and bounds. The traps that
//! other clients fell into, each as a test that fails on a client that falls into it.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, cannot_resume, event, exact, heartbeat, open, open_with, record};
use holdfast_sse::client::{
    CannotResumeFallback, Code, Config, DedupeConfig, Input, Notice, OrderingConfig, OutOfOrderPolicy, State,
};

/// What is delivered and where the next request begins, for a body that arrives at once and then ends.
fn check_body(body: &str, delivered: &[&str], cursor: &str) {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(body);
    assert_eq!(scenario.delivered(), delivered, "{body:?}");
    scenario.end().until_request();
    assert_eq!(scenario.asked_from(), cursor, "{body:?}");
}

// K7
// Trap: an id committed before its event.
#[test]
fn only_a_blank_line_commits_an_id() {
    check_body("id: 1\ndata: a\n\n", &["a"], "1");
    check_body("id: 1\ndata: a\n\nid: 2\ndata: b\n", &["a"], "1");
    check_body("id: 1\ndata: a\n\nid: 2\n\n", &["a"], "2");
    check_body("id: 1\ndata: a\n\nid\n\n", &["a"], "");
    check_body("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", &["a", "b"], "1");
    check_body("id: 1\ndata: a\n\ndata: b\n\n", &["a", "b"], "1");
    check_body("id: 1\r\ndata: a\r\n\r\nid: ü\rdata: b\r\r", &["a", "b"], "ü");
    // The kit's heartbeats had ids that no server could replay from.
    check_body(&format!("id: 1\ndata: a\n\n{}", heartbeat(1_000)), &["a"], "1");
    check_body(&format!("{}id: k-1\ndata: a\n\n", open("k-0")), &["a"], "k-1");
    check_body(&open("k-7"), &[], "k-7");
}

// K7
// Trap: a cursor that moves before the processing.
#[test]
fn the_cursor_is_what_was_processed_and_a_sync_batch_is_one_commit() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(event("1", "a") + &event("2", "b") + &event("3", "c"));
    assert_eq!(scenario.take_commits(), [record("3", &[])], "one write a batch");
    scenario.sync = false;
    scenario.bytes(event("4", "d") + &event("5", "e") + &event("6", "f"));
    assert_eq!(
        (scenario.client.last_event_id(), scenario.commits.len()),
        ("3", 0),
        "arrived is not processed"
    );
    scenario.done("e").done("f");
    assert_eq!(scenario.client.last_event_id(), "3", "behind the oldest unfinished");
    scenario.pass(249);
    assert!(scenario.commits.is_empty());
    scenario.pass(1);
    assert_eq!(scenario.take_commits(), [record("3", &["5", "6"])], "at most every 250 ms");
    scenario.done("d");
    scenario.input(Input::Flush).input(Input::Flush).pass(1_000);
    assert_eq!(scenario.take_commits(), [record("6", &[])], "once, and by the flush");
    scenario.bytes(event("7", "g"));
    let last = scenario.last_token;
    scenario.input(Input::Stop { started: last }).done("g");
    assert_eq!(scenario.take_commits(), [record("7", &[])], "after a stop at once");
    scenario.done("g").done("a");
    assert!(scenario.take_commits().is_empty());
}

// K10
// Trap: a duplicate by id alone.
#[test]
fn a_repeat_is_the_same_id_with_the_same_content() {
    let check = |config: Config, body: &str, delivered: &[&str]| {
        let mut scenario = Scenario::opened(config);
        scenario.bytes(body);
        assert_eq!(scenario.delivered(), delivered, "{body:?}");
        assert_eq!(
            scenario.client.stats().duplicates_ignored as usize,
            body.matches("data").count() - delivered.len()
        );
    };
    let twice = event("1", "a") + &event("1", "a");
    check(exact(), &twice, &["a"]);
    check(exact(), &(event("1", "a") + &event("1", "b")), &["a", "b"]);
    check(exact(), &(event("1", "a") + "event: x\n" + &event("1", "a")), &["a", "a"]);
    check(exact(), "data: a\n\ndata: a\n\n", &["a", "a"]);
    check(exact(), "id: 1\ndata: a\n\ndata: a\n\n", &["a", "a"]);
    check(Config { dedupe: None, ..exact() }, &twice, &["a", "a"]);
    let small = Config { dedupe: Some(DedupeConfig { size_max: 2, ttl_ms: 0 }), ..exact() };
    let far = event("1", "a") + &event("2", "b") + &event("3", "c") + &event("1", "a");
    check(small, &far, &["a", "b", "c", "a"]);
    // A reconnect keeps the window; a server that replays too much is met by it.
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(event("1", "a") + &event("2", "b")).end().until_request();
    scenario.accept().bytes(event("1", "a") + &event("2", "b") + &event("3", "c"));
    assert_eq!(scenario.delivered(), ["a", "b", "c"]);
}

// K11
#[test]
fn late_envelopes_meet_the_policy() {
    let body = "data: {\"sequence\":2}\n\ndata: {\"sequence\":1}\n\n";
    for (policy, delivered, told) in [
        (OutOfOrderPolicy::Drop, 1, 0),
        (OutOfOrderPolicy::DropWithCallback, 1, 1),
        (OutOfOrderPolicy::Accept, 2, 1),
    ] {
        let mut config = exact();
        config.ordering.policy = policy;
        let mut scenario = Scenario::opened(config);
        scenario.bytes(body);
        let notices = scenario.take_notices();
        let heard = notices.iter().filter(|notice| matches!(notice, Notice::OutOfOrder { .. })).count();
        assert_eq!((scenario.delivered().len(), heard), (delivered, told), "{policy:?}");
        scenario.end().until_request();
        scenario.accept().bytes("data: {\"sequence\":1}\n\n");
        assert_eq!(scenario.delivered().len(), 1, "a new connection numbers anew");
    }
}

// Trap: a protocol read from the shape of an id.
#[test]
fn ids_are_opaque_until_control_open_says_whose_they_are() {
    let mut scenario = Scenario::opened(exact());
    // Redis stream ids look like positions with holes.
    scenario.bytes(
        event("1526919030474-55", "a") + &event("1526919030474-99", "b") + &event("1526919030474-3", "c"),
    );
    assert_eq!(scenario.delivered(), ["a", "b", "c"]);
    scenario.end().until_request();
    scenario.accept().bytes("event: control.open\ndata: {\"payload\":{\"stream_id\":\"s\"}}\n\n");
    scenario.bytes(event("1526919030474-200", "d") + &event("1526919030474-300", "e"));
    assert_eq!(scenario.delivered(), ["d", "e"], "the kit's own control.open names no protocol");
    scenario.bytes(open("k-1") + &event("k-3", "early"));
    assert!(scenario.delivered().is_empty());
    scenario.end().until_request();
    scenario.accept().bytes(event("k-3", "again opaque"));
    assert_eq!(scenario.delivered(), ["again opaque"], "each connection announces itself");
}

/// What is delivered of these ids of our server, in one chunk behind position `k-0`.
fn check_order(ids: &[&str], delivered: &[&str]) {
    let mut scenario = Scenario::opened(exact());
    let body: String = ids.iter().map(|id| event(id, id)).collect();
    scenario.bytes(open("k-0") + &body);
    assert_eq!(scenario.delivered(), delivered, "{ids:?}");
    assert_eq!(scenario.requests.len(), 1);
}

#[test]
fn repeats_swaps_and_borders_of_our_own_streams() {
    check_order(&["k-1", "k-2", "k-2", "k-1", "k-3"], &["k-1", "k-2", "k-3"]);
    check_order(&["k-2", "k-1", "k-3"], &["k-1", "k-2", "k-3"]);
    check_order(&["k-4", "k-2", "k-4", "k-3", "k-1"], &["k-1", "k-2", "k-3", "k-4"]);
    check_order(&["k-1", "m-1", "k-1", "m-2"], &["k-1", "m-1", "m-2"]);
    check_order(&["k-1", "m-2", "m-1", "m-3"], &["k-1", "m-1", "m-2", "m-3"]);
    // What can be sent by anybody must not overflow.
    check_order(&["k-0", "m-0", "k-18446744073709551615"], &["k-0", "m-0"]);
    let mut scenario = Scenario::opened(exact());
    scenario
        .bytes(open("k-18446744073709551615") + &event("k-18446744073709551615", "a") + &event("m-1", "b"));
    assert_eq!(scenario.delivered(), ["b"]);
}

// Trap: a silent hole behind a truncated replay.
#[test]
fn a_hole_is_held_fetched_once_and_then_told() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("k-0") + &event("k-1", "1") + &event("k-3", "3") + &event("k-4", "4"));
    assert_eq!(scenario.delivered(), ["1"]);
    scenario.pass(499);
    assert!(scenario.aborted.is_empty(), "it may still come");
    scenario.pass(1);
    assert_eq!((scenario.aborted.len(), scenario.state()), (1, State::Retrying));
    assert!((500..=1_000).contains(&scenario.until_request()));
    assert_eq!(scenario.asked_from(), "k-1");
    scenario.accept().bytes(open("k-1") + &event("k-3", "3") + &event("k-4", "4")).pass(500);
    assert_eq!(scenario.gaps(), [("k-2".to_owned(), "k-2".to_owned(), 1)]);
    assert_eq!((scenario.delivered(), scenario.state()), (vec!["3".to_owned(), "4".to_owned()], State::Open));
    assert_eq!((scenario.client.last_event_id(), scenario.client.stats().events_missing), ("k-4", 1));
    scenario.bytes(event("k-2", "2")).bytes(event("k-5", "5"));
    assert_eq!(scenario.delivered(), ["5"], "what was told missing stays away");
}

#[test]
fn a_hole_that_cannot_be_fetched_is_told_at_once() {
    let check = |config: Config, replayable: bool| {
        let mut scenario = Scenario::opened(config);
        scenario.bytes(open_with("k-0", replayable, 1_000) + &event("k-3", "3")).pass(500);
        assert_eq!(scenario.gaps(), [("k-1".to_owned(), "k-2".to_owned(), 2)]);
        assert_eq!((scenario.delivered(), scenario.state()), (vec!["3".to_owned()], State::Open));
    };
    check(exact(), false);
    check(Config { repeatable: false, ..exact() }, true);
    check(Config { auto_reconnect: false, ..exact() }, true);
}

#[test]
fn a_hole_before_a_new_epoch_is_not_left_behind() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("k-5") + &event("k-7", "7") + &event("m-1", "m1"));
    assert!(scenario.delivered().is_empty());
    scenario.until_request();
    assert_eq!(scenario.asked_from(), "k-5");
    scenario.accept().bytes(open("k-5") + &event("k-7", "7") + &event("m-1", "m1"));
    assert_eq!(scenario.delivered(), ["7", "m1"]);
    assert_eq!(scenario.gaps(), [("k-6".to_owned(), "k-6".to_owned(), 1)]);
}

#[test]
fn each_hole_is_fetched_for_itself() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("k-5") + &event("k-7", "7")).until_request();
    // What was fetched is lost with the end of the log, and the new epoch has a hole of its own at the same place.
    scenario.accept().bytes(open("k-5") + &event("m-2", "m2")).pass(500);
    assert_eq!((scenario.gaps(), scenario.state()), (vec![], State::Retrying));
}

#[test]
fn what_may_be_held_is_bounded_and_the_bound_has_an_outcome() {
    let mut bounds =
        OrderingConfig { held_events_max: 2, held_bytes_max: 1 << 20, ..OrderingConfig::default() };
    let early = event("k-3", "3") + &event("k-4", "4") + &event("k-5", "5");
    for large in [false, true] {
        if large {
            // Not one event fits.
            bounds = OrderingConfig { held_events_max: 256, held_bytes_max: 3, ..bounds };
        }
        let mut scenario = Scenario::opened(Config { ordering: bounds, ..exact() });
        scenario.bytes(open("k-1") + &early);
        assert_eq!((scenario.state(), scenario.events.len()), (State::Retrying, 0), "fetched at once");
        scenario.until_request();
        scenario.accept().bytes(open("k-1") + &early);
        assert_eq!(scenario.delivered(), ["3", "4", "5"], "large: {large}");
        assert_eq!(scenario.gaps(), [("k-2".to_owned(), "k-2".to_owned(), 1)], "large: {large}");
    }
}

#[test]
fn an_event_within_a_hole_that_does_not_fit_is_not_told_missing() {
    let ordering = OrderingConfig { held_events_max: 1, ..OrderingConfig::default() };
    let mut scenario = Scenario::opened(Config { ordering, ..exact() });
    scenario.bytes(
        open_with("k-0", false, 15_000) + &event("k-1", "1") + &event("k-5", "5") + &event("k-4", "4"),
    );
    assert_eq!(scenario.delivered(), ["1", "4", "5"]);
    assert_eq!(scenario.gaps(), [("k-2".to_owned(), "k-3".to_owned(), 2)]);
}

#[test]
fn a_gap_that_the_app_did_not_hear_of_is_told_again() {
    let ordering = OrderingConfig { held_events_max: 0, ..OrderingConfig::default() };
    let mut scenario = Scenario::opened(Config { ordering, ..exact() }).asynchronous();
    let body = open_with("k-0", false, 15_000) + &event("k-1", "1") + &event("k-3", "3");
    scenario.bytes(&body);
    let started = scenario.token("1");
    scenario.done("1").input(Input::Reconnect { started }).take_notices();
    scenario.accept().bytes(open_with("k-1", false, 15_000) + &event("k-3", "3"));
    assert_eq!(scenario.gaps(), [("k-2".to_owned(), "k-2".to_owned(), 1)]);
}

#[test]
fn a_busy_app_is_not_taken_for_a_hole() {
    let mut scenario = Scenario::opened(exact()).asynchronous();
    scenario.bytes(open("k-0") + &event("k-1", "1") + &event("k-3", "3")).pass(60_000);
    assert_eq!(scenario.requests.len(), 1, "what is missing may stand unread in the socket");
    let last = scenario.last_token;
    scenario.input(Input::Processed(last)).bytes(event("k-2", "2"));
    assert_eq!(scenario.delivered(), ["1", "2", "3"]);
}

#[test]
fn a_wait_for_what_is_missing_that_ended_late_is_begun_again_once() {
    // Seed 3837 of the simulator: the page stood still, and what had come meanwhile was not read yet.
    let stand_still = |scenario: &mut Scenario| {
        scenario.now += 6_000;
        scenario.input(Input::Timer);
    };
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("k-0") + &event("k-1", "1") + &event("k-3", "3"));
    stand_still(&mut scenario);
    scenario.bytes(event("k-2", "2"));
    assert_eq!((scenario.delivered(), scenario.aborted.len()), (vec!["1".into(), "2".into(), "3".into()], 0));
    // In a hidden page each timer is late.
    scenario.bytes(event("k-5", "5"));
    stand_still(&mut scenario);
    assert_eq!((scenario.aborted.len(), scenario.state()), (0, State::Open));
    stand_still(&mut scenario);
    assert_eq!((scenario.aborted.len(), scenario.state()), (1, State::Retrying));
}

#[test]
fn many_holes_neither_give_up_nor_make_a_storm() {
    let mut config = exact();
    config.retry.max_attempts = Some(3);
    let mut scenario = Scenario::opened(config);
    let body: String = (1..=20).map(|n| event(&format!("k-{}", n * 2), &n.to_string())).collect();
    scenario.bytes(open("k-0") + &body);
    while scenario.client.last_event_id() != "k-40" {
        assert!(scenario.now < 120_000 && scenario.state() != State::Closed);
        if scenario.state() == State::Open {
            scenario.pass(500);
        } else {
            scenario.until_request();
            let rest = body.clone();
            let position = scenario.asked_from().to_owned();
            scenario.accept().bytes(open(&position) + &rest);
        }
    }
    assert!(scenario.now > 20 * 1_000, "{} ms for 20 holes", scenario.now);
}

// K8
#[test]
fn what_cannot_be_resumed_is_told_and_followed_by_the_fallback() {
    let answer = open("k-8")
        + &cannot_resume(
            r#""requestedId":"k-2","oldestAvailable":"k-9","newestAvailable":"k-10","missing":6,"position":"k-8""#,
        )
        + &event("k-9", "9");
    for fallback in
        [CannotResumeFallback::StartFresh, CannotResumeFallback::Close, CannotResumeFallback::Callback]
    {
        let mut scenario = Scenario::new(Config { cannot_resume: fallback, ..exact() }).restoring("k-2", &[]);
        scenario.connect().accept().bytes(&answer);
        let notices = scenario.take_notices();
        let closes = notices
            .iter()
            .any(|n| matches!(n, Notice::Error { code: Code::CannotResume, will_retry: false, .. }));
        assert_eq!(closes, fallback == CannotResumeFallback::Close);
        let told = notices.into_iter().find_map(|notice| match notice {
            Notice::CannotResume {
                code, requested_id, oldest_available, newest_available, missing, ..
            } => Some((code, requested_id, oldest_available, newest_available, missing)),
            _ => None,
        });
        let some = |text: &str| Some(text.to_owned());
        let expected = ("buffer_expired".to_owned(), some("k-2"), some("k-9"), some("k-10"), Some(6));
        assert_eq!((told, scenario.client.stats().events_missing), (Some(expected), 6));
        if fallback == CannotResumeFallback::Close {
            assert_eq!((scenario.state(), scenario.client.last_event_id()), (State::Closed, "k-2"));
            assert!(scenario.delivered().is_empty());
        } else {
            assert_eq!(scenario.delivered(), ["9"]);
            assert_eq!(scenario.client.last_event_id(), "k-9");
        }
    }
    // Another server's: without a position the cursor would only be refused again.
    let mut scenario = Scenario::new(exact()).restoring("x", &[]);
    scenario.connect().accept().bytes(cannot_resume(r#""reason":"events_expired""#)).end().until_request();
    assert_eq!(scenario.asked_from(), "");
}

#[test]
fn a_server_that_begins_with_its_oldest_event_repeats_nothing() {
    let mut scenario = Scenario::opened(exact());
    scenario
        .bytes(open("k-0") + &event("k-1", "1") + &event("k-2", "2") + &event("k-3", "3"))
        .end()
        .until_request();
    // k-3 was lost with the end of the log: a new epoch.
    let refused =
        open("k-0") + &cannot_resume(r#""requestedId":"k-3","newestAvailable":"m-1","position":"k-0""#);
    scenario.accept().bytes(refused + &event("k-1", "1") + &event("k-2", "2"));
    assert_eq!(scenario.client.last_event_id(), "k-2", "a cut here does not begin it all again");
    scenario.bytes(event("m-1", "m1"));
    assert_eq!(scenario.delivered(), ["1", "2", "3", "m1"]);
    // The same within one epoch, whose numbers are given anew: that is no repeat.
    scenario.end().until_request();
    let refused =
        open("k-0") + &cannot_resume(r#""requestedId":"m-1","newestAvailable":"m-0","position":"m-0""#);
    scenario.accept().bytes(refused + &event("m-1", "new"));
    assert_eq!(scenario.delivered(), ["new"]);
}

#[test]
fn what_was_not_begun_comes_again_and_what_was_does_not() {
    for ours in [false, true] {
        for stop in [false, true] {
            let mut scenario = Scenario::opened(exact()).asynchronous();
            let id = |n: u32| format!("k-{n}");
            let body = |from: u32| (from..=5).map(|n| event(&id(n), &n.to_string())).collect::<String>();
            let hello = |at: u32| if ours { open(&id(at)) } else { String::new() };
            scenario.bytes(hello(0) + &body(1));
            scenario.done("2");
            let started = scenario.token("3");
            if stop {
                scenario.input(Input::Stop { started }).connect();
            } else {
                scenario.input(Input::Reconnect { started });
            }
            assert_eq!(scenario.asked_from(), "k-3", "ours: {ours}");
            assert_eq!(scenario.delivered().len(), 5);
            scenario.accept().bytes(hello(3) + &body(4));
            assert_eq!(scenario.delivered(), ["4", "5"], "ours: {ours}");
            // One that failed goes back, and what is finished behind it does not come again.
            scenario.input(Input::Done(1)).input(Input::Done(3));
            let mut scenario = Scenario::opened(exact()).asynchronous();
            scenario.bytes(hello(0) + &body(1));
            scenario.done("3");
            let started = scenario.token("1") - 1;
            scenario.delivered();
            scenario.input(Input::Reconnect { started });
            scenario.accept().bytes(hello(0) + &body(1));
            assert_eq!(scenario.delivered(), ["1", "2", "4", "5"], "ours: {ours}");
        }
    }
}

#[test]
fn limits_reach_a_named_outcome_and_keep_the_cursor() {
    let mut config = exact();
    (config.limits.line_bytes_max, config.limits.event_bytes_max) = (100, 150);
    let long = "x".repeat(101);
    for (body, code) in [
        (format!("data: {long}\n\n"), Code::LineTooLong),
        (format!("data: {0}\ndata: {0}\n\n", &long[..80]), Code::EventTooLarge),
    ] {
        let mut scenario = Scenario::opened(config.clone());
        scenario.bytes(event("1", "a") + &body);
        assert_eq!((scenario.delivered(), scenario.errors()), (vec!["a".to_owned()], vec![(code, false)]));
        assert_eq!((scenario.state(), scenario.client.last_event_id()), (State::Closed, "1"));
        assert_eq!(scenario.aborted.len(), 1);
    }
    let mut scenario = Scenario::opened(Config { done_ids_max: 3, ..exact() }).asynchronous();
    scenario.bytes((0..10).map(|n| event(&n.to_string(), &n.to_string())).collect::<String>());
    for n in 1..10 {
        scenario.done(&n.to_string());
    }
    scenario.input(Input::Flush);
    assert_eq!(scenario.take_commits(), [record("", &["1", "2", "3"])]);
    // Names beyond the bound, and very long ones, are not kept.
    let mut scenario = Scenario::opened(Config { names_max: 2, ..exact() });
    for n in 0..5 {
        scenario.bytes(format!("event: {}{n}\ndata: x\n\n", "n".repeat(if n == 0 { 300 } else { 3 })));
    }
    let kept: Vec<_> = scenario.client.batch().new_names().collect();
    assert_eq!((kept.len(), scenario.delivered().len()), (0, 5));
}

#[test]
fn a_cursor_that_did_not_arrive_leaves_no_silent_hole() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("k-0") + &event("k-1", "1") + &event("k-2", "2")).end().until_request();
    assert_eq!(scenario.asked_from(), "k-2");
    // A proxy took the header away: the server begins with now, and says so.
    scenario.accept().bytes(open("k-10") + &event("k-11", "11")).until_request();
    scenario.accept().bytes(open("k-10") + &event("k-11", "11")).pass(500);
    assert_eq!(scenario.gaps(), [("k-3".to_owned(), "k-10".to_owned(), 8)]);
    assert_eq!(scenario.delivered(), ["1", "2", "11"]);
}

#[test]
fn a_server_that_numbers_anew_is_not_taken_for_a_late_one() {
    let envelope = |id: &str, sequence: u64| {
        event(id, &format!("{{\"stream_id\":\"s\",\"sequence\":{sequence},\"payload\":{{}}}}"))
    };
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(envelope("a", 7) + &envelope("b", 8)).end().until_request();
    scenario.accept().bytes(envelope("c", 1) + &envelope("d", 2) + &envelope("e", 1));
    assert_eq!(scenario.delivered().len(), 4);
    assert_eq!(scenario.client.stats().out_of_order, 1, "within one connection late is late");
}
