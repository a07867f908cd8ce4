//! The core in a real browser: fetch, streams, localStorage and timers, and a real server where there is one
//! (`cargo xtask test` starts it; `wasm-pack test --headless --chrome` alone leaves those tests out, and says so).
#![cfg(target_family = "wasm")]

mod web_support;

use holdfast_sse::web::{Connector, Host};
use js_sys::{Function, JSON, Object, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};
use web_support::{Bench, SERVER, fetch_of, store, stored};

wasm_bindgen_test_configure!(run_in_browser);

#[wasm_bindgen_test]
async fn a_stream_of_the_real_server_arrives_and_resumes() {
    let Some(server) = SERVER else {
        console_log!("left out: no server, since this is not run by `cargo xtask test`");
        return;
    };
    let url = format!("{server}/stream");
    let key = format!("holdfast:1:{url}");
    store(&key, None);
    let options = r#"{"persistLastEventId":true,"retryPolicy":{"baseDelayMs":20}}"#;

    let first = Bench::new(&url, options, None);
    first.connector.connect();
    first.wait_for("three ticks", |bench| bench.events().len() >= 3).await;
    first.connector.stop(f64::from(u32::MAX), None);
    let seen = first.events();
    let last = seen.last().expect("three came").id.clone();
    assert!(seen.iter().all(|event| event.name == "domain.tick" && !event.id.is_empty()), "{seen:?}");
    assert!(stored(&key).is_some_and(|record| record.contains(&last)), "{:?}", stored(&key));
    drop(first);

    // What a reload does: nothing is left but what is stored.
    let second = Bench::new(&url, options, None);
    second.connector.connect();
    second.wait_for("two more ticks", |bench| bench.events().len() >= 2).await;
    assert_eq!(second.told_text("resumeAttempt", "lastEventId"), std::slice::from_ref(&last));
    let numbers = |events: &[web_support::Seen]| -> Vec<u64> {
        events
            .iter()
            .map(|e| e.id.rsplit_once('-').expect("a position").1.parse().expect("a number"))
            .collect()
    };
    let (before, after) = (numbers(&seen), numbers(&second.events()));
    assert_eq!(after[0], before[before.len() - 1] + 1, "the very next event: {before:?} {after:?}");
    second.connector.stop(f64::from(u32::MAX), None);
    store(&key, None);
}

#[wasm_bindgen_test]
async fn heartbeats_and_control_events_are_told_apart() {
    let Some(server) = SERVER else {
        console_log!("left out: no server, since this is not run by `cargo xtask test`");
        return;
    };
    let bench = Bench::new(&format!("{server}/stream"), "{}", None);
    bench.connector.connect();
    let has = |kind: u32, name: &'static str| {
        move |bench: &Bench| bench.recorded.borrow().events.iter().any(|e| e.kind == kind && e.name == name)
    };
    bench.wait_for("the announcement", has(2, "control.open")).await;
    bench.wait_for("a heartbeat", has(1, "system.heartbeat")).await;
    assert_eq!(bench.connector.state(), "open");
    bench.connector.stop(f64::from(u32::MAX), None);
    assert_eq!(bench.connector.state(), "closed");
}

#[wasm_bindgen_test]
async fn text_crosses_the_boundary_unharmed_in_any_script() {
    let long = "😀é€x".repeat(9_000);
    let stream =
        format!("id: 1\ndata: plain\n\nevent: größe\nid: ключ\ndata: 日本\ndata: 😀\n\ndata: {long}\n\n");
    // Cut within characters: the chunks are bytes.
    let fetch = Function::new_with_args(
        "url, init",
        &format!(
            "const bytes = new TextEncoder().encode({stream:?});
             const body = new ReadableStream({{ start(controller) {{
               for (let at = 0; at < bytes.length; at += 7_001) controller.enqueue(bytes.slice(at, at + 7_001));
               controller.close();
             }} }});
             return Promise.resolve(new Response(body, {{ headers: {{ 'content-type': 'text/event-stream' }} }}));"
        ),
    );
    let bench = Bench::new("/stream", r#"{"autoReconnect":false}"#, Some(&fetch));
    bench.connector.connect();
    bench.wait_for("the end", |bench| bench.connector.state() == "closed").await;
    let events: Vec<_> = bench.events().into_iter().map(|event| (event.name, event.data, event.id)).collect();
    let expected = [("message", "plain", "1"), ("größe", "日本\n😀", "ключ"), ("message", long.as_str(), "")];
    let expected = expected.map(|(name, data, id)| (name.to_owned(), data.to_owned(), id.to_owned()));
    assert_eq!(events, expected);
    assert_eq!(bench.connector.last_event_id(), "ключ");
}

#[wasm_bindgen_test]
async fn a_request_that_hangs_is_given_up_and_made_again() {
    let hangs = Function::new_with_args(
        "url, init",
        "self.hanging = (self.hanging ?? 0) + 1;
         return new Promise((_, reject) => init.signal.addEventListener('abort', () => {
           self.aborted = (self.aborted ?? 0) + 1;
           reject(init.signal.reason);
         }));",
    );
    let options = r#"{"timeout":30,"retryPolicy":{"baseDelayMs":10,"maxAttempts":2}}"#;
    let bench = Bench::new("/stream", options, Some(&hangs));
    bench.connector.connect();
    bench.wait_for("giving up", |bench| bench.connector.state() == "closed").await;
    let expected = ["connect_timeout", "connect_timeout", "connect_timeout", "gave_up"];
    assert_eq!(bench.told_text("error", "code"), expected);
    assert_eq!(
        bench.told("retry", "attempt").iter().filter_map(JsValue::as_f64).collect::<Vec<_>>(),
        [1.0, 2.0]
    );
    let count =
        |name: &str| Reflect::get(&js_sys::global(), &name.into()).ok().and_then(|count| count.as_f64());
    assert_eq!((count("hanging"), count("aborted")), (Some(3.0), Some(3.0)), "each request was given up");
}

#[wasm_bindgen_test]
async fn storage_that_holds_rubbish_is_told_once_and_the_stream_goes_on() {
    let key = "holdfast:1:rubbish";
    store(key, Some("{not json"));
    let options = r#"{"persistLastEventId":true,"persistKey":"rubbish","autoReconnect":false}"#;
    let bench = Bench::new("/stream", options, Some(&fetch_of(&["id: 5\ndata: x\n\n"])));
    bench.connector.connect();
    bench.wait_for("the end", |bench| bench.connector.state() == "closed").await;
    assert_eq!(bench.told_text("error", "code"), ["storage_unavailable"]);
    assert_eq!(bench.events().len(), 1);
    assert!(stored(key).is_some_and(|record| record.contains(r#""cursor":"5""#)), "it is written over");
    store(key, Some(r#"{"v":99,"cursor":"9"}"#));
    let later = Bench::new("/stream", options, Some(&fetch_of(&[": nothing\n\n"])));
    later.connector.connect();
    later.wait_for("the end", |bench| bench.connector.state() == "closed").await;
    assert_eq!(later.connector.last_event_id(), "", "an unknown version counts as absent");
    assert!(later.told("error", "code").is_empty());
    store(key, None);
}

#[wasm_bindgen_test]
fn options_that_cannot_be_used_are_named_with_what_they_take() {
    let check = |url: &str, options: &str, code: &str, option: &str, words: &[&str]| {
        let object: Object = JSON::parse(options).expect("JSON").unchecked_into();
        let host: Host = Object::new().unchecked_into();
        let Err(error) = Connector::new(url.into(), &object, host) else {
            panic!("{url} {options} was accepted");
        };
        let field = |name: &str| Reflect::get(&error, &name.into()).ok().and_then(|value| value.as_string());
        assert_eq!(
            (field("code").as_deref(), field("option").as_deref()),
            (Some(code), Some(option)),
            "{options}"
        );
        let message = field("message").expect("a message");
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    };
    let option =
        |options: &str, option: &str, words: &[&str]| check("/s", options, "invalid_option", option, words);
    option(r#"{"retryPolcy":{}}"#, "retryPolcy", &["unknown option retryPolcy", "did you mean retryPolicy?"]);
    option(r#"{"zzzzzzzzzzzz":1}"#, "zzzzzzzzzzzz", &["unknown option", "it takes onEvent, "]);
    option(r#"{"timeout":"5s"}"#, "timeout", &["takes a number from 1 to 2147483647", r#"got "5s""#]);
    option(r#"{"timeout":0}"#, "timeout", &["from 1", "got 0"]);
    option(r#"{"timeout":2147483648}"#, "timeout", &["to 2147483647", "got 2147483648"]);
    option(r#"{"timeout":true}"#, "timeout", &["got true"]);
    option(r#"{"retryPolicy":5}"#, "retryPolicy", &["retryPolicy takes an object", "got 5"]);
    option(r#"{"retryPolicy":{"jitter":1}}"#, "retryPolicy.jitter", &["did you mean retryPolicy.jitterPct?"]);
    option(r#"{"retryPolicy":{"jitterPct":20}}"#, "retryPolicy.jitterPct", &["from 0 to 1", "got 20"]);
    option(r#"{"retryPolicy":{"maxAttempts":-1}}"#, "retryPolicy.maxAttempts", &["or Infinity", "got -1"]);
    option(r#"{"persistLastEventId":"yes"}"#, "persistLastEventId", &["true or false", r#"got "yes""#]);
    option(r#"{"persistKey":""}"#, "persistKey", &["a string that is not empty"]);
    option(r#"{"onEvent":"f"}"#, "onEvent", &["takes a function", r#"got "f""#]);
    option(
        r#"{"orderingRule":"sequence"}"#,
        "orderingRule",
        &["'SEQUENCE', 'EVENT_ID', 'TIMESTAMP', 'NONE'", r#"got "sequence""#],
    );
    option(r#"{"outOfOrderPolicy":[]}"#, "outOfOrderPolicy", &["got an array"]);
    option(r#"{"headers":"x"}"#, "headers", &["an object of header names", r#"got "x""#]);
    option(r#"{"handlerConcurrency":1001}"#, "handlerConcurrency", &["from 1 to 1000"]);
    check("http://[", "{}", "invalid_url", "url", &["cannot parse the URL", "http://["]);
    check("ftp://x/", "{}", "invalid_url", "url", &["not one of http or https"]);
}

#[wasm_bindgen_test]
async fn infinity_is_what_the_documented_defaults_say() {
    let options = Object::new();
    let policy = Object::new();
    for name in ["maxAttempts", "maxRetryTimeMs"] {
        Reflect::set(&policy, &name.into(), &f64::INFINITY.into()).expect("an object");
    }
    Reflect::set(&options, &"retryPolicy".into(), &policy).expect("an object");
    assert!(Connector::new("/s".into(), &options, Object::new().unchecked_into()).is_ok());
}
