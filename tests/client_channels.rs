//! Streams of several channels, and credentials that expire: what the core makes of them, in virtual time.
#![cfg(not(target_family = "wasm"))]

mod client_support;

use client_support::{Scenario, cannot_resume, event, exact, open, record, status};
use holdfast_sse::client::{Code, Config, Notice, State};

const TWO: &str = "a:e-3,b:e-7";

fn listen(channel: &str, position: &str) -> String {
    format!(
        "event: control.listen\ndata: {{\"payload\":{{\"channel\":\"{channel}\",\"position\":\"{position}\",\
         \"replayable\":true}}}}\n\n"
    )
}

fn unlisten(channel: &str) -> String {
    format!("event: control.unlisten\ndata: {{\"payload\":{{\"channel\":\"{channel}\"}}}}\n\n")
}

fn close(reason: &str) -> String {
    format!("event: control.close\ndata: {{\"payload\":{{\"reason\":\"{reason}\"}}}}\n\n")
}

#[test]
fn each_channel_is_in_order_and_the_cursor_covers_them_all() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open(TWO));
    assert_eq!(scenario.client.last_event_id(), TWO, "a fresh client begins where its stream does");
    scenario.bytes(event("b:e-8,a:e-3", "b8") + &event("a:e-4,b:e-8", "a4"));
    assert_eq!(scenario.delivered(), ["b8", "a4"]);
    assert_eq!(scenario.client.last_event_id(), "a:e-4,b:e-8");
    // Repeats are dropped whatever the other parts say; a swap is put right.
    scenario.bytes(event("a:e-4,b:e-7", "a4") + &event("b:e-8,a:e-4", "b8"));
    assert_eq!(scenario.delivered(), Vec::<String>::new());
    assert_eq!(scenario.client.stats().duplicates_ignored, 2);
    scenario.bytes(event("a:e-6,b:e-8", "a6") + &event("b:e-9,a:e-6", "b9"));
    assert_eq!(scenario.delivered(), ["b9"], "one channel's hole does not hold the other up");
    assert_eq!(scenario.client.last_event_id(), "b:e-9,a:e-4", "nor does it move the cursor over the hole");
    scenario.bytes(event("a:e-5,b:e-8", "a5"));
    assert_eq!(scenario.delivered(), ["a5", "a6"]);
    assert_eq!(
        scenario.client.last_event_id(),
        "a:e-6,b:e-9",
        "what was held back does not put the other back"
    );
    scenario.end().until_request();
    assert_eq!(scenario.asked_from(), "a:e-6,b:e-9");
}

#[test]
fn a_hole_is_fetched_and_what_the_server_does_not_have_is_told() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open(TWO)).bytes(event("a:e-6,b:e-7", "a6"));
    scenario.until_request();
    assert_eq!(scenario.asked_from(), "a:e-3,b:e-7");
    scenario.accept().bytes(open(TWO) + &event("a:e-6,b:e-7", "a6"));
    scenario.pass(15_000);
    assert_eq!(scenario.gaps(), [("a:e-4".to_owned(), "a:e-5".to_owned(), 2)]);
    assert_eq!(scenario.delivered(), ["a6"]);
    // One channel cannot be resumed: the other goes on.
    let said = r#""channel":"b","requestedId":"a:e-6,b:e-7","newestAvailable":"b:e-20","position":"b:e-15","missing":8"#;
    scenario.bytes(cannot_resume(said)).bytes(event("b:e-16,a:e-6", "b16") + &event("a:e-7,b:e-16", "a7"));
    assert_eq!(scenario.delivered(), ["b16", "a7"]);
    assert_eq!(scenario.client.last_event_id(), "a:e-7,b:e-16");
    assert_eq!(scenario.client.stats().events_missing, 2 + 8);
}

#[test]
fn what_was_done_beyond_the_cursor_is_known_by_its_own_part() {
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open(TWO)).sync = false;
    scenario.bytes(event("a:e-4,b:e-7", "a4") + &event("b:e-8,a:e-4", "b8"));
    scenario.done("b8").pass(1_000);
    assert_eq!(scenario.take_commits().last(), Some(&record(TWO, &["b:e-8"])));
    // The next page gets both in another order: the other parts of the ids are others.
    let mut scenario = Scenario::new(exact()).restoring(TWO, &["b:e-8"]);
    scenario.connect().accept();
    assert_eq!(scenario.asked_from(), TWO);
    scenario.bytes(open(TWO) + &event("b:e-8,a:e-3", "b8") + &event("a:e-4,b:e-8", "a4"));
    assert_eq!(scenario.delivered(), ["a4"]);
    assert_eq!(scenario.take_commits().last(), Some(&record("a:e-4,b:e-8", &[])));
}

#[test]
fn channels_come_and_go() {
    let mut scenario = Scenario::opened(exact());
    // A stream that began without channels.
    scenario
        .bytes("event: control.open\ndata: {\"payload\":{\"protocol\":\"holdfast/1\",\"channels\":[]}}\n\n");
    scenario.bytes(listen("a", "a:e-3") + &event("a:e-4", "a4"));
    scenario.bytes(listen("b", "b:e-0") + &event("b:e-1,a:e-4", "b1"));
    assert_eq!(scenario.delivered(), ["a4", "b1"]);
    assert_eq!(scenario.client.last_event_id(), "b:e-1,a:e-4");
    scenario.bytes(unlisten("a") + &event("b:e-2", "b2"));
    assert_eq!((scenario.delivered(), scenario.client.last_event_id()), (vec!["b2".to_owned()], "b:e-2"));
    // A new connection may be of other channels, or of one.
    scenario.end().until_request();
    scenario.accept().bytes(open("b:e-2,c:e-5") + &event("b:e-2,c:e-5", "b2") + &event("c:e-6,b:e-2", "c6"));
    assert_eq!(scenario.delivered(), ["c6"]);
    scenario.end().until_request();
    assert_eq!(scenario.asked_from(), "c:e-6,b:e-2");
    scenario.accept().bytes(open("e-1") + &event("e-2", "2"));
    assert_eq!((scenario.delivered(), scenario.client.last_event_id()), (vec!["2".to_owned()], "e-2"));
}

#[test]
fn given_back_events_come_again_on_their_own_channel() {
    let mut scenario = Scenario::opened(exact()).asynchronous();
    scenario.bytes(open(TWO));
    scenario.bytes(event("a:e-4,b:e-7", "a4") + &event("b:e-8,a:e-4", "b8"));
    let started = scenario.token("a4");
    scenario.input(holdfast_sse::client::Input::Reconnect { started });
    assert_eq!(scenario.asked_from(), "a:e-4,b:e-7");
    scenario.accept().bytes(open("a:e-4,b:e-7") + &event("b:e-8,a:e-4", "b8"));
    assert_eq!(scenario.delivered(), ["a4", "b8", "b8"], "it was never handled");
}

// K22: `auth_expired` means: come back with fresh credentials.
#[test]
fn expired_credentials_are_renewed_at_once_but_not_in_a_circle() {
    let config = Config { can_refresh_credentials: true, ..exact() };
    let mut scenario = Scenario::opened(config.clone());
    scenario.bytes(open("e-3")).pass(config.stable_after_ms + 1);
    scenario.bytes(event("e-4", "x") + &close("auth_expired")).end();
    assert_eq!((scenario.state(), scenario.asked_from()), (State::Connecting, "e-4"), "at once");
    let closed = scenario.take_notices().into_iter().find_map(|notice| match notice {
        Notice::Close { reason, retry_in, .. } => Some((reason, retry_in)),
        _ => None,
    });
    assert_eq!(closed, Some(("auth_expired".to_owned(), Some(0))));
    // A server that lets in and throws out again meets the backoff.
    scenario.accept().bytes(close("auth_expired")).end();
    assert_eq!(scenario.state(), State::Retrying);
    assert!(scenario.until_request() >= 1_000);
    // What the app gives is refused: once more is asked, then it ends.
    scenario.head(status(401, None)).head(status(401, None));
    assert_eq!((scenario.state(), scenario.errors()), (State::Closed, vec![(Code::AuthRequired, false)]));
    // Nothing fresh can be had: it is a close like any other.
    let mut scenario = Scenario::opened(exact());
    scenario.bytes(open("e-3")).pass(config.stable_after_ms + 1).bytes(close("auth_expired")).end();
    assert_eq!(scenario.state(), State::Retrying);
}
