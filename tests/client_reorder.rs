//! Policy Reorder, in virtual time: what other servers number is put in order, holes are fetched where that is possible
//! and told where it is not, and the cursor never passes what is held back. // K11
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, exact, open, record};
use holdfast_sse::client::{
    Config, Input, Notice, OrderingConfig, OrderingRule, OutOfOrderPolicy, State, StoredRecord,
};

fn reorder() -> Config {
    let ordering = OrderingConfig { policy: OutOfOrderPolicy::Reorder, ..OrderingConfig::default() };
    Config { ordering, ..exact() }
}

fn envelope(name: &str) -> String {
    let (stream, number) = name.split_at(name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len()));
    let scope = if stream.is_empty() { String::new() } else { format!(r#","stream_id":"{stream}""#) };
    if number.is_empty() {
        return format!(r#"{{"type":"plain"{scope}}}"#);
    }
    format!(r#"{{"sequence":{number}{scope}}}"#)
}

/// Events named by stream and number (`7`, `a7`; `x` has no number), with an id each: `a7` has the id `a7`.
fn with_ids(names: &[&str]) -> String {
    names.iter().map(|name| format!("id: {name}\ndata: {}\n\n", envelope(name))).collect()
}

fn without_ids(names: &[&str]) -> String {
    names.iter().map(|name| format!("data: {}\n\n", envelope(name))).collect()
}

fn envelopes(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| envelope(name)).collect()
}

/// What is delivered of these events in one connection, and of which holes the app hears.
fn check(config: Config, body: &str, delivered: &[&str], gaps: &[(&str, &str, u64)]) -> Scenario {
    let mut scenario = Scenario::opened(config);
    scenario.bytes(body);
    if !gaps.is_empty() {
        scenario.pass(500);
    }
    assert_eq!(scenario.delivered(), envelopes(delivered), "{body}");
    let gaps: Vec<_> = gaps.iter().map(|(a, b, count)| ((*a).to_owned(), (*b).to_owned(), *count)).collect();
    assert_eq!(scenario.gaps(), gaps, "{body}");
    assert_eq!((scenario.state(), scenario.requests.len()), (State::Open, 1), "{body}");
    scenario
}

#[test]
fn early_events_wait_for_the_missing_ones_within_their_stream() {
    for body in [with_ids, without_ids] {
        check(reorder(), &body(&["1", "3", "2", "4"]), &["1", "2", "3", "4"], &[]);
        check(reorder(), &body(&["0", "1", "5", "3", "4", "2"]), &["0", "1", "2", "3", "4", "5"], &[]);
        check(
            reorder(),
            &body(&["a1", "a3", "b7", "3", "a2", "b8"]),
            &["a1", "b7", "3", "a2", "a3", "b8"],
            &[],
        );
        check(reorder(), &body(&["1", "3", "x", "2"]), &["1", "x", "2", "3"], &[]);
        check(
            reorder(),
            &body(&["18446744073709551614", "18446744073709551615"]),
            &["18446744073709551614"],
            &[],
        );
    }
    let last = "18446744073709551615";
    let hole = ("2", "18446744073709551613", u64::MAX - 3);
    check(reorder(), &without_ids(&["1", last]), &["1", last], &[hole]);
    let other_rule = |rule| {
        let mut config = reorder();
        config.ordering.rule = rule;
        config
    };
    // Without a notion of what is missing nothing is held back.
    check(other_rule(OrderingRule::None), &with_ids(&["1", "3", "2"]), &["1", "3", "2"], &[]);
    check(other_rule(OrderingRule::EventId), &with_ids(&["1", "3", "2"]), &["1", "3", "2"], &[]);
    check(Config { dedupe: None, ..reorder() }, &with_ids(&["1", "3", "4"]), &["1", "3", "4"], &[]);
}

#[test]
fn what_cannot_be_fetched_is_told_after_the_window() {
    check(reorder(), &without_ids(&["1", "4"]), &["1", "4"], &[("2", "3", 2)]);
    check(Config { repeatable: false, ..reorder() }, &with_ids(&["1", "3"]), &["1", "3"], &[("2", "2", 1)]);
    let both = [("2", "3", 2), ("6", "6", 1)];
    check(reorder(), &without_ids(&["a1", "b5", "a4", "b7"]), &["a1", "b5", "a4", "b7"], &both);
    // An id without an event, and one of many: not all that is held comes again.
    check(
        reorder(),
        "id: 1\ndata: {\"sequence\":1}\n\ndata: {\"sequence\":3}\n\n",
        &["1", "3"],
        &[("2", "2", 1)],
    );
}

#[test]
fn late_events_are_dropped_and_told() {
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(without_ids(&["5", "7"])).pass(500);
    assert_eq!(scenario.delivered(), envelopes(&["5", "7"]));
    scenario.take_notices();
    scenario.bytes(without_ids(&["6", "7", "9", "9", "8"]));
    assert_eq!(scenario.delivered(), envelopes(&["8", "9"]), "what was told missing stays away");
    let late: Vec<_> = scenario
        .take_notices()
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::OutOfOrder { last_sequence, sequence, dropped: true, .. } => last_sequence.zip(sequence),
            _ => None,
        })
        .collect();
    assert_eq!(late, [(7, 6), (7, 7), (9, 9)]);
}

#[test]
fn a_hole_is_fetched_once_and_then_told() {
    for (replay, delivered, gaps) in [
        (&["a2", "b1", "a3", "a4", "b2"][..], &["a2", "a3", "a4", "b2"][..], 0),
        // The server does not have it either.
        (&["b1", "a3", "a4", "b2"], &["b2", "a3", "a4"], 1),
        // It does not replay at all, and what is in hand is not lost.
        (&["b2"], &["b2", "a3"], 1),
    ] {
        let mut scenario = Scenario::opened(reorder());
        scenario.bytes(with_ids(&["a1", "a3", "b1"])).pass(499);
        assert_eq!(scenario.delivered(), envelopes(&["a1", "b1"]));
        assert_eq!(
            (scenario.aborted.len(), scenario.take_commits().last()),
            (0, Some(&record("a1", &["b1"])))
        );
        scenario.pass(1);
        assert_eq!((scenario.aborted.len(), scenario.state()), (1, State::Retrying));
        assert!((500..=1_000).contains(&scenario.until_request()), "by way of the backoff");
        assert_eq!(scenario.asked_from(), "a1");
        scenario.accept().bytes(with_ids(replay)).pass(500);
        assert_eq!(scenario.delivered(), envelopes(delivered), "{replay:?}");
        let told: Vec<_> = scenario
            .take_notices()
            .into_iter()
            .filter_map(|notice| match notice {
                Notice::Gap { first_missing, count, stream_id, .. } => {
                    Some((first_missing, count, stream_id))
                }
                _ => None,
            })
            .collect();
        assert_eq!(told.len(), gaps, "{replay:?}");
        assert!(told.iter().all(|gap| *gap == ("2".to_owned(), 1, Some("a".to_owned()))), "{told:?}");
        assert_eq!(scenario.client.stats().events_missing, gaps as u64);
        scenario.pass(100_000).bytes(with_ids(&["a5"]));
        assert_eq!((scenario.requests.len(), scenario.state()), (2, State::Open));
    }
}

#[test]
fn a_connection_that_ends_takes_nothing_with_it_that_was_in_hand() {
    // It does not come again: so it is delivered now.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(without_ids(&["1", "3"])).end();
    assert_eq!(scenario.delivered(), envelopes(&["1", "3"]));
    assert_eq!(scenario.gaps(), [("2".to_owned(), "2".to_owned(), 1)]);
    // It comes again, and the cursor is before it.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["1", "3"])).end().until_request();
    assert_eq!((scenario.delivered(), scenario.asked_from()), (envelopes(&["1"]), "1"));
    scenario.accept().pass(499).bytes(with_ids(&["3"])).pass(0);
    assert_eq!(scenario.state(), State::Open, "the window begins with the connection");
    scenario.bytes(with_ids(&["2", "4"]));
    assert_eq!(scenario.delivered(), envelopes(&["2", "3", "4"]));
    // After a page slept, everything is due at once: the hole, and the silence.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(": beat\n\n").pass(1_000).bytes(": beat\n\n".to_owned() + &without_ids(&["1", "3", "5"]));
    scenario.now += 1_000_000;
    scenario.input(Input::Timer);
    assert_eq!(scenario.delivered(), envelopes(&["1", "3", "5"]));
    assert_eq!((scenario.gaps().len(), scenario.state()), (2, State::Retrying));
    // A stop is the app's own wish: nothing is delivered after it.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(without_ids(&["1", "3"])).input(Input::Stop { started: u64::MAX });
    assert_eq!(scenario.delivered(), envelopes(&["1"]));
}

#[test]
fn a_server_that_numbers_anew_is_followed() {
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["a7", "a9", "a8"])).end().until_request();
    scenario.accept();
    let anew = "id: n1\ndata: {\"sequence\":1,\"stream_id\":\"a\"}\n\nid: n2\ndata: {\"sequence\":2,\"stream_id\":\"a\"}\n\n";
    scenario.delivered();
    scenario.bytes(anew);
    assert_eq!(scenario.delivered(), envelopes(&["a1", "a2"]));
    // With a hole that it will never close.
    scenario.bytes("id: n4\ndata: {\"sequence\":4,\"stream_id\":\"a\"}\n\n").end().until_request();
    let anew = anew.replace("id: n", "id: o");
    scenario.accept().bytes(&anew).pass(500).until_request();
    scenario.accept().bytes(&anew).pass(5_000);
    assert_eq!(scenario.delivered(), envelopes(&["a1", "a2", "a4"]));
    assert_eq!(scenario.gaps(), [("3".to_owned(), "3".to_owned(), 1)]);
    scenario.bytes(with_ids(&["a3"]));
    assert_eq!(scenario.delivered(), envelopes(&["a3"]), "its own, not the one that was told missing");
    // A replay that begins before this page's time is no new numbering.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["7", "8", "10"])).pass(500).until_request();
    scenario.accept().bytes(with_ids(&["5", "6", "7", "8", "9", "10", "11"]));
    assert_eq!(scenario.delivered(), envelopes(&["7", "8", "5", "6", "9", "10", "11"]));
    scenario.end().until_request();
    scenario.accept().bytes(with_ids(&["4", "5", "6", "7", "8", "9", "10", "11", "12"])).pass(500);
    assert_eq!((scenario.delivered(), scenario.gaps()), (envelopes(&["4", "12"]), vec![]));
    // Without a cursor nothing is continued.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(without_ids(&["5"])).end().until_request();
    scenario.accept().bytes(without_ids(&["9", "10"]));
    assert_eq!(scenario.delivered(), envelopes(&["5", "9", "10"]));
}

#[test]
fn the_window_is_bounded_and_the_bound_has_an_outcome() {
    let bounded = |held_events_max, held_bytes_max| {
        let mut config = reorder();
        (config.ordering.held_events_max, config.ordering.held_bytes_max) = (held_events_max, held_bytes_max);
        config
    };
    let many: Vec<String> = (3..=6).map(|n| n.to_string()).chain((1..=3).map(|n| format!("b{n}"))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // Early events, and such as pass by meanwhile: both fill it.
    for (config, names) in [
        (bounded(3, 1 << 20), &many[..]),
        (bounded(2, 1 << 20), &["3", "b1", "b2", "b3"]),
        (bounded(256, 40), &["3", "4", "5", "6"]),
        (bounded(0, 0), &["3"]),
    ] {
        let mut scenario = Scenario::opened(config.clone());
        scenario.bytes(with_ids(&["1"]) + &with_ids(names));
        assert_eq!(scenario.state(), State::Retrying, "fetched at once: {names:?}");
        let mut delivered = scenario.delivered();
        scenario.until_request();
        assert_eq!(scenario.asked_from(), "1");
        scenario.accept().bytes(with_ids(names)).pass(500);
        delivered.extend(scenario.delivered());
        assert_eq!(scenario.gaps(), [("2".to_owned(), "2".to_owned(), 1)], "{names:?}");
        let mut expected = envelopes(&[&["1"], names].concat());
        let held: Vec<_> = delivered.iter().filter(|data| !data.contains('b')).cloned().collect();
        assert!(held.is_sorted(), "{held:?}");
        delivered.sort();
        expected.sort();
        assert_eq!(delivered, expected, "each once: {names:?}");
        // Where nothing can be fetched it is told at once.
        let mut scenario = Scenario::opened(config);
        scenario.bytes(without_ids(&["1"]) + &without_ids(names));
        assert_eq!((scenario.state(), scenario.delivered().len()), (State::Open, names.len() + 1));
    }
    // What does not fit may be the first after the hole.
    let mut scenario = Scenario::opened(bounded(1, 1 << 20));
    scenario.bytes(without_ids(&["1", "5", "4", "6"]));
    assert_eq!(scenario.delivered(), envelopes(&["1", "4", "5", "6"]));
    assert_eq!(scenario.gaps(), [("2".to_owned(), "3".to_owned(), 2)]);
    // Scopes are bounded, too; the oldest is let go.
    let mut config = reorder();
    config.ordering.scopes_max = 2;
    let body = without_ids(&["a1", "a3", "b1", "c1"]);
    assert_eq!(Scenario::opened(config).bytes(body).gaps(), [("2".to_owned(), "2".to_owned(), 1)]);
}

#[test]
fn a_server_that_swaps_all_the_time_does_not_hold_the_cursor_up() {
    let mut scenario = Scenario::opened(reorder());
    for n in 1..1_000 {
        let (odd, even) = ((2 * n + 1).to_string(), (2 * n).to_string());
        scenario.bytes(with_ids(&[&odd, &even]));
        let stored = scenario.take_commits().pop();
        if n > 1 {
            assert_eq!(stored, Some(record(&even, &[&odd])));
        }
    }
}

#[test]
fn our_own_streams_keep_their_own_order() {
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(without_ids(&["1", "3"]) + &open("k-0"));
    assert_eq!(scenario.delivered(), envelopes(&["1", "3"]), "whose server it is, is known now");
    scenario.bytes("id: k-2\ndata: b\n\nid: k-1\ndata: a\n\n");
    assert_eq!(scenario.delivered(), ["a", "b"]);
    scenario.bytes(without_ids(&["9", "11"]));
    assert_eq!(scenario.delivered(), envelopes(&["9", "11"]));
}

#[test]
fn a_forgotten_cursor_stays_forgotten_while_something_is_held() {
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["1", "3"])).input(Input::ClearCursor).pass(500);
    assert_eq!(scenario.delivered(), envelopes(&["1", "3"]));
    assert_eq!((scenario.state(), scenario.client.last_event_id()), (State::Open, ""));
    // What was held when the person logged out is not given to the next one.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["1", "3"])).end().input(Input::ClearCursor).until_request();
    scenario.accept().bytes(with_ids(&["8"])).pass(1_000);
    assert_eq!((scenario.delivered(), scenario.asked_from()), (envelopes(&["1", "8"]), ""));
    // Seed 12049 of the simulator: what is held is no late event when it comes again.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["1", "3"])).input(Input::ClearCursor);
    scenario.bytes(with_ids(&["3", "2"]));
    assert_eq!(scenario.delivered(), envelopes(&["1", "2", "3"]));
    let is_late = |notice: &Notice| matches!(notice, Notice::OutOfOrder { .. });
    assert!(!scenario.take_notices().iter().any(is_late));
    // An empty id clears it, once what is before it is settled.
    let mut scenario = Scenario::opened(reorder());
    scenario.bytes(with_ids(&["1", "3"]) + "id\n\n");
    assert_eq!(scenario.client.last_event_id(), "1");
    scenario.bytes(with_ids(&["x"]) + "id\n\n" + &without_ids(&["2"]));
    assert_eq!(scenario.client.last_event_id(), "");
}

/// A server whose log has these events in this order, and which sends them in another: the page is left after each of
/// them, and the next page must give the app what it lacks, and nothing twice.
fn check_reload(log: &[&str], sent: &[&str]) {
    for left_after in 1..=sent.len() {
        let mut first = Scenario::opened(reorder());
        let mut got = Vec::new();
        for name in &sent[..left_after] {
            first.bytes(with_ids(&[name]));
        }
        got.extend(first.delivered());
        let StoredRecord { cursor, done } = first.client.progress();
        let mut second = Scenario::new(reorder());
        second.restores = Some(StoredRecord { cursor: cursor.clone(), done });
        second.connect().accept();
        let at = log.iter().position(|name| *name == cursor).expect("the cursor is of this log");
        second.bytes(with_ids(&log[at + 1..]));
        second.pass(5_000);
        got.extend(second.delivered());
        let late = second.take_notices().iter().filter(|n| matches!(n, Notice::OutOfOrder { .. })).count();
        let (mut got, mut all) = (got, envelopes(log));
        got.sort();
        all.sort();
        assert!(late <= 1, "{log:?} {sent:?}");
        assert_eq!(got.len() + late, all.len(), "left after {left_after} of {sent:?}, log {log:?}: {got:?}");
        got.dedup();
        assert_eq!(got.len() + late, all.len(), "twice, left after {left_after} of {sent:?}: {got:?}");
    }
}

#[test]
fn a_reload_at_any_point_loses_nothing_and_repeats_nothing() {
    let ordered = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let swapped = ["1", "3", "2", "5", "4", "6", "8", "7"];
    let far = ["1", "4", "5", "2", "6", "3", "7", "8"];
    for sent in [&ordered, &swapped, &far] {
        // The log is in the order of the numbers, and only the way here mixed them up …
        check_reload(&ordered, sent);
    }
    // … or the producers' numbers are mixed up in the log itself.
    check_reload(&swapped, &swapped);
    let streams = ["a1", "b1", "a3", "b2", "x", "b4", "a2", "b3", "a4"];
    check_reload(&streams, &streams);
}

#[test]
fn what_the_app_was_not_given_comes_again() {
    let mut scenario = Scenario::opened(reorder()).asynchronous();
    scenario.bytes(with_ids(&["1"])).input(Input::Processed(1));
    scenario.bytes(with_ids(&["3", "2", "5"]));
    let given = scenario.token(&envelope("2"));
    scenario.done(&envelope("2")).input(Input::Reconnect { started: given });
    assert_eq!(scenario.asked_from(), "1");
    scenario.delivered();
    scenario.accept().bytes(with_ids(&["2", "3", "4", "5"]));
    assert_eq!(scenario.delivered(), envelopes(&["3", "4", "5"]));
}

#[test]
fn a_full_window_gives_up_no_hole_whose_replay_is_on_its_way() {
    let mut config = reorder();
    config.ordering.held_events_max = 1;
    let mut scenario = Scenario::opened(config.clone());
    // b2 and a2 are left out, and only what a2 holds back shows.
    scenario.bytes(with_ids(&["a1", "b1", "a3", "x1", "x2"])).until_request();
    assert_eq!(scenario.asked_from(), "b1");
    scenario.accept().bytes(with_ids(&["b2", "a2", "a3", "x1", "x2"]));
    assert_eq!(scenario.delivered(), envelopes(&["a1", "b1", "x1", "b2", "a2", "a3", "x2"]));
    assert_eq!(scenario.gaps(), []);
    // A hole of another stream, which shows before the replay has come so far, is fetched with it …
    let mut scenario = Scenario::opened(config);
    scenario.bytes(with_ids(&["a1", "b1", "a3", "x1", "x2"])).until_request();
    scenario.accept().bytes(with_ids(&["b3"])).until_request();
    assert_eq!(scenario.asked_from(), "b1");
    // … and of the two that one is given up which the new connection came past.
    scenario.accept().bytes(with_ids(&["b3"]));
    assert_eq!(scenario.gaps(), [("2".to_owned(), "2".to_owned(), 1)]);
    scenario.bytes(with_ids(&["a2", "a3", "x1", "x2"]));
    assert_eq!(scenario.delivered(), envelopes(&["a1", "b1", "x1", "b3", "a2", "a3", "x2"]));
    assert_eq!(scenario.gaps(), []);
}

#[test]
fn what_was_finished_and_given_back_is_not_told_as_missing() {
    let mut scenario = Scenario::opened(Config { unfinished_max: 8, ..reorder() }).asynchronous();
    scenario.bytes(with_ids(&["1", "2", "3", "4"])).done(&envelope("1")).done(&envelope("3"));
    let second = scenario.token(&envelope("2"));
    scenario.input(Input::Stop { started: second - 1 });
    scenario.delivered();
    // The log has lost them both meanwhile.
    scenario.connect().accept().bytes(with_ids(&["4"])).until_request();
    scenario.accept().bytes(with_ids(&["4"])).pass(500);
    assert_eq!(scenario.gaps(), [("2".to_owned(), "2".to_owned(), 1)]);
    assert_eq!(scenario.delivered(), envelopes(&["4"]));
    assert_eq!(scenario.client.stats().events_missing, 1);
    // What is told may be given back, and is told again.
    scenario.input(Input::Reconnect { started: second - 1 }).accept().bytes(with_ids(&["4"])).until_request();
    scenario.accept().bytes(with_ids(&["4"])).pass(500);
    assert_eq!(scenario.gaps(), [("2".to_owned(), "2".to_owned(), 1)]);
}
