//! Cursors: what is replayed to whom, and what is said where that cannot be.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use holdfast_sse::server::{Retention, StreamOptions};
use serde_json::{Value, json};
use server_support::hub::{memory, names_until, options, plain, publish};
use server_support::{ask, get, metrics, resume};

// K20, K21, and the kit's scenario that passed without any cannot_resume
#[tokio::test]
async fn what_cannot_be_resumed_is_said_and_only_that_is_missing() {
    let (hub, router, log) = memory(Retention { events_max: 5, ..Retention::default() }, options());
    publish(&hub, 1..=20).await;
    let epoch = log.epoch(0).expect("an epoch");
    let huge = "9".repeat(7000);
    for (cursor, code, missing) in [
        (format!("{epoch}-10"), "buffer_expired", json!(5)),
        (format!("{epoch}-0"), "buffer_expired", json!(15)),
        ("another-3".to_owned(), "event_not_found", Value::Null),
        (format!("{epoch}--3"), "invalid_event_id", Value::Null),
        (format!("{epoch}-99999999999999999999"), "invalid_event_id", Value::Null),
        ("{}".to_owned(), "invalid_event_id", Value::Null),
        (format!("b:{epoch}-3"), "invalid_event_id", Value::Null),
        (huge, "invalid_event_id", Value::Null),
    ] {
        let mut reader = ask(&router, resume("/stream/a", &cursor)).await;
        let open = reader.any().await.expect("the handshake").payload();
        let event = reader.any().await.expect("the refusal");
        assert_eq!((event.name.as_str(), &event.id), ("control.cannot_resume", &None));
        let refused = event.payload();
        assert_eq!(refused["code"], code, "{cursor}");
        assert_eq!(refused["missing"], missing, "{cursor}");
        assert!(cursor.starts_with(refused["requestedId"].as_str().expect("text")));
        assert_eq!(refused["oldestAvailable"], format!("{epoch}-16"));
        assert_eq!(refused["newestAvailable"], format!("{epoch}-20"));
        assert_eq!(refused["action"], "start_fresh");
        assert_eq!(refused["position"], format!("{epoch}-15"));
        assert_eq!(open["position"], refused["position"]);
        if code == "buffer_expired" {
            assert_eq!(refused["reason"], "events_expired");
        }
        assert_eq!(reader.sequences(5).await, [16, 17, 18, 19, 20]);
        assert_eq!(reader.any().await.expect("the end").name, "control.replay_end");
        assert!(reader.quiet(20).await);
    }
    // Right behind the oldest that is gone, nothing is missing.
    let mut reader = ask(&router, resume("/stream/a", &format!("{epoch}-15"))).await;
    assert_eq!(reader.sequences(5).await, [16, 17, 18, 19, 20]);
    let metrics = metrics(&router, "").await.1;
    assert!(metrics.contains("sse_server_cannot_resume_total{reason=\"buffer_expired\"} 2\n"), "{metrics}");
}

// K20, K21, K23, K26
#[tokio::test]
async fn a_replay_over_the_limit_is_cut_and_told_so() {
    let limit = StreamOptions { replay_events_max: Some(3), ..options() };
    let (hub, router, log) = memory(Retention { events_max: 15, ..Retention::default() }, limit);
    publish(&hub, 1..=20).await;
    let e = log.epoch(0).expect("an epoch");
    for (request, refused, available) in [
        (resume("/stream/a", &format!("{e}-10")), Some(("replay_too_large", json!(7))), 10),
        // What had expired is missing, too.
        (resume("/stream/a", &format!("{e}-1")), Some(("buffer_expired", json!(16))), 15),
        (resume("/stream/a", "other-1"), Some(("event_not_found", Value::Null)), 15),
        (get("/stream/a?from=start"), None, 15),
        (get("/stream/a?last=9"), None, 9),
    ] {
        let mut reader = ask(&router, request).await;
        let open = reader.any().await.expect("the handshake").payload();
        assert_eq!(open["position"], format!("{e}-17"));
        if let Some((code, missing)) = refused {
            let told = reader.any().await.expect("the refusal").payload();
            assert_eq!((&told["code"], &told["missing"]), (&json!(code), &missing));
            assert_eq!((&told["position"], &told["reason"]), (&open["position"], &told["reason"]));
        }
        let start = reader.any().await.expect("the replay").payload();
        assert_eq!(start["reason"], "replay_truncated");
        assert_eq!(
            (&start["totalAvailable"], &start["sending"], &start["eventCount"], &start["maxReplayBatch"]),
            (&json!(available), &json!(3), &json!(3), &json!(3))
        );
        assert_eq!(reader.sequences(3).await, [18, 19, 20]);
        let end = reader.any().await.expect("the end").payload();
        assert_eq!((&end["eventCount"], &end["truncated"]), (&json!(3), &json!(true)));
    }
    // Three are no more than three.
    let mut reader = ask(&router, resume("/stream/a", &format!("{e}-17"))).await;
    reader.named("control.open").await;
    assert_eq!(reader.any().await.expect("the replay").payload()["reason"], "replay_started");
    assert_eq!(reader.sequences(3).await, [18, 19, 20]);
    assert_eq!(reader.any().await.expect("the end").payload()["truncated"], false);
    let metrics = metrics(&router, "").await.1;
    for line in [
        "sse_server_replays_attempted_total 4\n",
        "sse_server_replays_succeeded_total 1\n",
        "sse_server_replays_failed_total 3\n",
        "sse_server_replay_events_sent_total 18\n",
        "sse_server_cannot_resume_total{reason=\"replay_too_large\"} 1\n",
        "sse_server_cannot_resume_total{reason=\"resume_disabled\"} 0\n",
        "sse_server_cannot_resume_total{reason=\"no_buffer\"} 0\n",
    ] {
        assert!(metrics.contains(line), "no {line:?} in {metrics}");
    }
}

// K20: also with nothing missed a cursor has its answer, and each beginning of a replay its end.
#[tokio::test]
async fn a_client_that_missed_nothing_is_told_so() {
    let (hub, router, log) = plain();
    publish(&hub, 1..=2).await;
    let cursor = format!("{}-2", log.epoch(0).expect("an epoch"));
    let mut reader = ask(&router, resume("/stream/a", &cursor)).await;
    let names = names_until(&mut reader, "control.replay_start").await;
    assert_eq!(names, ["control.open", "control.replay_start"]);
    let end = reader.any().await.expect("the end");
    assert_eq!((end.name.as_str(), &end.payload()["eventCount"]), ("control.replay_end", &json!(0)));
    publish(&hub, 3..=3).await;
    assert_eq!(reader.any().await.expect("the live event").sequence(), 3);
    // Who came without one is told nothing.
    let mut reader = ask(&router, get("/stream/a")).await;
    reader.named("control.open").await;
    assert!(reader.quiet(20).await);
}

// K21
#[tokio::test]
async fn a_server_that_resumes_nothing_says_so() {
    let (hub, router, log) = memory(Retention::default(), StreamOptions { resume: false, ..options() });
    publish(&hub, 1..=5).await;
    let e = log.epoch(0).expect("an epoch");
    for (path, position, replayed) in [
        ("/stream/a", 5, &[][..]),
        ("/stream/a?from=start", 0, &[1, 2, 3, 4, 5]),
        ("/stream/a?last=1", 4, &[5]),
    ] {
        let mut reader = ask(&router, resume(path, &format!("{e}-2"))).await;
        let open = reader.named("control.open").await.payload();
        assert_eq!(
            (&open["replayable"], &open["position"]),
            (&json!(false), &json!(format!("{e}-{position}")))
        );
        let refused = reader.any().await.expect("the refusal").payload();
        assert_eq!((&refused["code"], &refused["position"]), (&json!("resume_disabled"), &open["position"]));
        assert_eq!(refused["action"], "start_fresh");
        assert_eq!(reader.sequences(replayed.len()).await, replayed);
    }
    let metrics = metrics(&router, "").await.1;
    assert!(metrics.contains("sse_server_cannot_resume_total{reason=\"resume_disabled\"} 3\n"), "{metrics}");
}

/// What was given out beyond an epoch's end is lost; all before was seen, and is not sent again.
#[tokio::test]
async fn a_cursor_beyond_its_epochs_end_goes_on_from_there() {
    let (hub, router, log) = memory(Retention { events_max: 5, ..Retention::default() }, options());
    let epoch = |generation| log.epoch(generation).expect("an epoch");
    let check = async |cursor: String, position: String, expected: &[String]| {
        let mut reader = ask(&router, resume("/stream/a", &cursor)).await;
        let open = reader.any().await.expect("the handshake").payload();
        let refused = reader.any().await.expect("the refusal").payload();
        assert_eq!(open["position"], position, "{cursor}");
        assert_eq!(refused["position"], position, "{cursor}");
        assert_eq!(refused["requestedId"], cursor);
        assert_eq!((&refused["code"], &refused["missing"]), (&json!("event_not_found"), &Value::Null));
        if !expected.is_empty() {
            assert_eq!(reader.any().await.expect("a replay").name, "control.replay_start");
        }
        for id in expected {
            assert_eq!(reader.any().await.expect("an event").id.as_ref(), Some(id), "{cursor}");
        }
        if !expected.is_empty() {
            assert_eq!(reader.any().await.expect("the end").name, "control.replay_end");
        }
        assert!(reader.quiet(20).await, "{cursor}");
    };
    let id = |generation, sequence: u64| format!("{}-{sequence}", epoch(generation));
    publish(&hub, 1..=20).await;
    check(id(0, 21), id(0, 20), &[]).await;
    check(id(0, u64::MAX), id(0, 20), &[]).await;
    // The epoch's end is stored. The one between stored nothing.
    log.begin_epoch().await.expect("a new epoch");
    log.begin_epoch().await.expect("a new epoch");
    publish(&hub, 21..=22).await;
    check(id(0, 23), id(0, 20), &[id(2, 1), id(2, 2)]).await;
    check(id(1, 3), id(1, 0), &[id(2, 1), id(2, 2)]).await;
    check(id(2, 3), id(2, 2), &[]).await;
    // It is not, but what is stored follows it.
    publish(&hub, 23..=25).await;
    let stored = [id(2, 1), id(2, 2), id(2, 3), id(2, 4), id(2, 5)];
    check(id(0, 23), id(0, 20), &stored).await;
    // What followed it is gone, too.
    publish(&hub, 26..=26).await;
    let stored = [id(2, 2), id(2, 3), id(2, 4), id(2, 5), id(2, 6)];
    check(id(0, 23), id(2, 1), &stored).await;
    check(id(1, 3), id(2, 1), &stored).await;
}

#[tokio::test]
async fn the_end_of_an_old_epoch_is_resumed_without_a_word() {
    let (hub, router, log) = plain();
    publish(&hub, 1..=3).await;
    log.begin_epoch().await.expect("a new epoch");
    publish(&hub, 4..=5).await;
    let (old, new) = (log.epoch(0).expect("the old"), log.epoch(1).expect("the new"));
    let check = async |cursor: String, expected: &[String], refused: bool| {
        let mut reader = ask(&router, resume("/stream/a", &cursor)).await;
        let names = names_until(&mut reader, "control.replay_start").await;
        assert_eq!(names.contains(&"control.cannot_resume".to_owned()), refused, "{cursor}");
        for id in expected {
            assert_eq!(reader.event().await.expect("an event").id.as_ref(), Some(id));
        }
    };
    let all =
        [format!("{old}-1"), format!("{old}-2"), format!("{old}-3"), format!("{new}-1"), format!("{new}-2")];
    check(format!("{old}-3"), &all[3..], false).await;
    check(format!("{old}-1"), &all[1..], false).await;
    check(format!("{new}-1"), &all[4..], false).await;
    // More than the old epoch ever had: that was lost, and what comes before was seen.
    check(format!("{old}-4"), &all[3..], true).await;
}
