//! What a page goes on from, in virtual time: the record of an earlier one, and a cursor that the app forgets.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, cannot_resume, event, exact, open, open_with, record};
use holdfast_sse::client::{Config, Input};

// K7
#[test]
fn a_restored_page_skips_what_was_done_and_nothing_that_only_arrived() {
    let mut scenario = Scenario::new(exact()).restoring("1", &["3"]);
    scenario.connect().accept();
    assert_eq!(scenario.asked_from(), "1");
    scenario.bytes(event("2", "b") + &event("3", "c") + &event("4", "d"));
    assert_eq!(scenario.delivered(), ["b", "d"]);
    assert_eq!(scenario.take_commits().last(), Some(&record("4", &[])));
    for damaged in ["a\nb", "a\rb", "a\0b"] {
        let mut scenario = Scenario::new(exact()).restoring(damaged, &[]);
        scenario.connect();
        assert_eq!(scenario.asked_from(), "", "{damaged:?} cannot be sent");
    }
}

// Trap: an id processed by an earlier page that swallows another event.
#[test]
fn an_id_that_no_replay_brings_again_may_name_a_new_event() {
    let config = || Config { done_ids_max: 3, ..exact() };
    let restored = || {
        let mut scenario = Scenario::new(config()).restoring("1", &["3"]);
        scenario.connect().accept();
        scenario
    };
    // The server cannot replay, and says so.
    let mut scenario = restored();
    scenario.bytes(cannot_resume("\"requestedId\":\"1\"")).bytes(event("10", "x") + &event("3", "new"));
    assert_eq!(scenario.delivered(), ["x", "new"]);
    // It does not say so, and goes on elsewhere: so many events later the id is forgotten.
    let mut scenario = restored();
    scenario.bytes(event("10", "x") + "data: no id\n\n" + &event("11", "y") + &event("3", "old"));
    assert_eq!(scenario.delivered(), ["x", "no id", "y"]);
    let mut scenario = restored();
    scenario.bytes(event("10", "x") + &event("11", "y") + &event("12", "z"));
    assert_eq!(scenario.take_commits().last(), Some(&record("12", &["3"])));
    scenario.bytes(event("13", "last"));
    assert_eq!(scenario.take_commits().last(), Some(&record("13", &[])));
    scenario.bytes(event("3", "new"));
    assert_eq!(scenario.delivered(), ["x", "y", "z", "last", "new"]);
    // The ids of our own server name one event for ever.
    let mut scenario = Scenario::new(config()).restoring("k-1", &["k-5"]);
    scenario.connect().accept().bytes(open("k-1"));
    scenario.bytes((2..=5).map(|n| event(&format!("k-{n}"), &n.to_string())).collect::<String>());
    assert_eq!(scenario.delivered(), ["2", "3", "4"]);
    let mut scenario = Scenario::new(config()).restoring("k-1", &["k-5"]);
    scenario.connect().accept().bytes(open("k-1") + &cannot_resume("\"position\":\"k-4\",\"missing\":3"));
    scenario.bytes(event("k-5", "5") + &event("k-6", "6"));
    assert_eq!(scenario.delivered(), ["6"]);
    // So only ids from among so many events are stored.
    let mut scenario = Scenario::opened(config()).asynchronous();
    scenario.bytes((1..=5).map(|n| event(&n.to_string(), &n.to_string())).collect::<String>());
    scenario.done("4").done("5").done("3").input(Input::Flush);
    assert_eq!(scenario.take_commits().last(), Some(&record("", &["3", "4"])));
}

#[test]
fn a_cursor_that_is_forgotten_stays_forgotten() {
    let mut scenario = Scenario::new(exact()).restoring("1", &[]);
    scenario.input(Input::ClearCursor).connect();
    assert_eq!(scenario.asked_from(), "", "also where the store answers late");
    assert_eq!(scenario.take_commits(), [record("", &[])]);
    let mut scenario = Scenario::new(exact()).restoring("1", &[]);
    scenario.connect().input(Input::ClearCursor);
    assert_eq!((scenario.aborted.len(), scenario.asked_from()), (1, ""), "also what is under way");
    // What the app has in hand moves it no more, and still holds the reading back.
    let mut scenario = Scenario::opened(exact()).asynchronous();
    scenario.bytes(event("1", "a")).input(Input::ClearCursor);
    assert!(!scenario.client.is_drained());
    scenario.done("a").pass(1_000);
    assert_eq!((scenario.client.last_event_id(), scenario.client.is_drained()), ("", true));
    scenario.bytes(event("1", "a"));
    assert_eq!(scenario.delivered(), ["a", "a"], "the past is forgotten, repeats too");
}

#[test]
fn what_an_earlier_page_processed_is_not_told_as_missing() {
    let mut scenario = Scenario::new(exact()).restoring("k-1", &["k-5", "x-3", "k-3", "k-9"]);
    // The server does not heed the cursor.
    scenario.connect().accept().bytes(open_with("k-7", false, 15_000) + &event("k-8", "8"));
    scenario.pass(10_000);
    let gap = |first: &str, last: &str, count| (first.to_owned(), last.to_owned(), count);
    assert_eq!(scenario.gaps(), [gap("k-2", "k-2", 1), gap("k-4", "k-4", 1), gap("k-6", "k-7", 2)]);
    assert_eq!(scenario.client.stats().events_missing, 4);
    scenario.bytes(event("k-9", "9") + &event("k-10", "10"));
    assert_eq!(scenario.delivered(), ["8", "10"]);
}

#[test]
fn a_handler_that_fails_after_the_stop_gives_its_event_back() {
    let mut scenario = Scenario::opened(Config { unfinished_max: 8, ..exact() }).asynchronous();
    scenario.bytes(event("1", "a") + &event("2", "b") + &event("3", "c")).done("a").done("c");
    let (second, last) = (scenario.token("b"), scenario.last_token);
    scenario.input(Input::Stop { started: last });
    scenario.take_notices();
    // The app's handler was still at work; only now is it known that the event must come again.
    scenario.input(Input::Stop { started: second - 1 });
    assert_eq!(scenario.take_notices(), [], "it is stopped already");
    scenario.delivered();
    scenario.connect().accept();
    assert_eq!(scenario.asked_from(), "1");
    scenario.bytes(event("2", "b") + &event("3", "c") + &event("4", "d"));
    assert_eq!(scenario.delivered(), ["b", "d"], "the third was finished");
}

#[test]
fn what_is_in_hand_of_a_forgotten_past_takes_no_new_beginning_back() {
    for (position, old, new) in [("k-5", "k-6", "k-9"), ("a:k-5,b:k-2", "a:k-6,b:k-2", "a:k-9,b:k-2")] {
        let config = || Config { unfinished_max: 8, ..exact() };
        // The stream begins anew elsewhere.
        let mut scenario = Scenario::opened(config()).asynchronous();
        scenario.bytes(open(position) + &event(old, "old"));
        let before = scenario.token("old") - 1;
        scenario.end().input(Input::ClearCursor).until_request();
        assert_eq!(scenario.asked_from(), "");
        let next = new.replace("k-9", "k-10");
        scenario.accept().bytes(open(new) + &event(&next, "new"));
        assert_eq!(scenario.delivered(), ["old", "new"]);
        scenario.input(Input::Stop { started: before }).connect();
        assert_eq!(scenario.asked_from(), new, "the old event failed, and the new one comes again");
        assert_eq!(scenario.take_commits().last(), Some(&record(new, &[])));
        scenario.accept().bytes(open(new) + &event(&next, "new"));
        assert_eq!(scenario.delivered(), ["new"]);
        // It goes on where it is.
        let mut scenario = Scenario::opened(config()).asynchronous();
        scenario.bytes(open(position) + &event(old, "old")).input(Input::ClearCursor);
        scenario.bytes(event(&old.replace("k-6", "k-7"), "new"));
        scenario.input(Input::Stop { started: before }).connect();
        assert_eq!(scenario.asked_from(), old);
    }
}

#[test]
fn only_ids_that_the_next_page_waits_for_are_stored() {
    let config = || Config { done_ids_max: 3, unfinished_max: 8, ..exact() };
    let events =
        |numbers: std::ops::RangeInclusive<u64>| numbers.map(|n| event(&n.to_string(), &n.to_string()));
    let mut scenario = Scenario::opened(config()).asynchronous();
    scenario.bytes(events(1..=8).collect::<String>()).done("8");
    let seventh = scenario.token("7");
    scenario.input(Input::Stop { started: seventh - 1 });
    assert_eq!(scenario.take_commits().last(), Some(&record("", &[])), "the eighth is too far off");
    scenario.done("1").done("2").done("3").pass(250);
    assert_eq!(scenario.take_commits().last(), Some(&record("3", &[])));
    scenario.done("4").pass(250);
    assert_eq!(scenario.take_commits().last(), Some(&record("4", &["8"])), "within four events");
    scenario.delivered();
    scenario.connect().accept();
    assert_eq!(scenario.asked_from(), "6");
    scenario.bytes(events(7..=9).collect::<String>());
    assert_eq!(scenario.delivered(), ["7", "9"], "this page remembers it all the same");
}

#[test]
fn of_too_many_that_are_given_back_the_nearest_are_remembered() {
    let config = Config { done_ids_max: 3, unfinished_max: 8, ..exact() };
    let mut scenario = Scenario::opened(config).asynchronous();
    let events: Vec<_> = (1..=9).map(|n| event(&n.to_string(), &n.to_string())).collect();
    scenario.bytes(events.concat());
    for done in ["3", "6", "7", "8"] {
        scenario.done(done);
    }
    let (second, fifth) = (scenario.token("2"), scenario.token("5"));
    scenario.input(Input::Stop { started: fifth - 1 }).input(Input::Stop { started: second - 1 });
    scenario.delivered();
    scenario.connect().accept();
    assert_eq!(scenario.asked_from(), "1");
    scenario.bytes(events[1..].concat());
    assert_eq!(scenario.delivered(), ["2", "4", "5", "8", "9"]);
}

#[test]
fn what_lies_before_the_new_place_takes_no_others_places() {
    let mut scenario = Scenario::new(exact()).restoring("k-1", &["k-3", "k-6"]);
    scenario.connect().accept().bytes(open("k-1") + &cannot_resume("\"position\":\"k-4\",\"missing\":3"));
    assert_eq!(scenario.take_commits().last(), Some(&record("k-4", &["k-6"])));
    scenario.bytes(event("k-5", "5") + &event("k-6", "6"));
    assert_eq!(scenario.delivered(), ["5"]);
}
