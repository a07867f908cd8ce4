//! For whatever order of whatever inputs: the machine does not panic, its timer cannot spin, and its memory is bounded.
#![cfg(not(target_family = "wasm"))]

use holdfast_sse::client::{
    Client, Code, Config, DedupeConfig, Head, Input, LivenessConfig, OrderingConfig, OutOfOrderPolicy,
    Output, RequestId, State, StoredRecord, TransportError, WhenHidden,
};
use holdfast_sse::wire::ParserLimits;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Connect,
    Restored(String),
    Head(u32, u16, bool, Option<u64>),
    Bytes(u32, Vec<u8>),
    End(u32),
    Failed(u32, bool),
    Timer,
    Processed(u64),
    Done(u64),
    Page(u8),
    Stop(u64),
    Reconnect(u64),
    /// The clock moves, backwards too.
    Clock(i64),
}

/// Requests by their age: 0 is the present one.
fn age() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0_u32), 1 => 1_u32..3, 1 => any::<u32>()]
}

fn token() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..60, 1 => any::<u64>()]
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![8 => 0_u64..12, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)];
    let epoch = prop::sample::select(vec!["k", "m", "p"]);
    let position = (epoch, number).prop_map(|(epoch, number)| format!("{epoch}-{number}"));
    prop_oneof![
        6 => position.clone().prop_map(|id| format!("id: {id}\ndata: {id}\n\n")),
        2 => position.clone().prop_map(|at| format!(
            "event: control.open\ndata: {{\"payload\":{{\"protocol\":\"holdfast/1\",\"position\":\"{at}\",\"replayable\":true}}}}\n\n"
        )),
        1 => (position.clone(), position.clone()).prop_map(|(at, newest)| format!(
            "event: control.cannot_resume\ndata: {{\"payload\":{{\"position\":\"{at}\",\"newestAvailable\":\"{newest}\"}}}}\n\n"
        )),
        1 => position.prop_map(|id| format!("id: {id}\n\n")),
        1 => any::<u64>().prop_map(|ms| format!("retry: {ms}\n\n: beat\n\n")),
        1 => any::<u64>().prop_map(|n| format!("data: {{\"sequence\":{n},\"stream_id\":\"{}\"}}\n\n", n % 5)),
        3 => (0_u64..9, 0_u64..3, any::<bool>()).prop_map(|(n, stream, has_id)| {
            let id = if has_id { format!("id: {stream}/{n}\n") } else { String::new() };
            format!("{id}data: {{\"sequence\":{n},\"stream_id\":\"{stream}\"}}\n\n")
        }),
        1 => any::<u64>().prop_map(|ms| format!("event: system.heartbeat\ndata: {{\"payload\":{{\"interval_ms\":{ms}}}}}\n\n")),
        1 => Just("id\n\nid:\ndata: x\n\n".to_owned()),
    ]
    .prop_map(String::into_bytes)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let whole = || vec(piece(), 1..6).prop_map(|pieces| pieces.concat());
    prop_oneof![
        6 => whole(),
        1 => (whole(), any::<prop::sample::Index>()).prop_map(|(bytes, at)| bytes[..at.index(bytes.len())].to_vec()),
        1 => vec(any::<u8>(), 0..200),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![6 => Just(200_u16), 1 => prop::sample::select(vec![204, 401, 404, 429, 503]), 1 => any::<u16>()];
    prop_oneof![
        3 => Just(Step::Connect),
        2 => prop_oneof![Just(String::new()), "[km]-[0-9]", ".*"].prop_map(Step::Restored),
        5 => (age(), status, any::<bool>(), any::<Option<u64>>()).prop_map(|(age, status, html, wait)| Step::Head(age, status, html, wait)),
        10 => (age(), bytes()).prop_map(|(age, bytes)| Step::Bytes(age, bytes)),
        1 => age().prop_map(Step::End),
        1 => (age(), any::<bool>()).prop_map(|(age, retry)| Step::Failed(age, retry)),
        5 => Just(Step::Timer),
        3 => token().prop_map(Step::Processed),
        3 => token().prop_map(Step::Done),
        2 => (0_u8..7).prop_map(Step::Page),
        1 => token().prop_map(Step::Stop),
        1 => token().prop_map(Step::Reconnect),
        4 => prop_oneof![4 => 0_i64..40_000, 1 => -100_000_i64..0, 1 => any::<i32>().prop_map(|ms| i64::from(ms) * 1_000)].prop_map(Step::Clock),
    ]
}

const HELD_MAX: usize = 4;

fn config(policy: OutOfOrderPolicy) -> Config {
    Config {
        limits: ParserLimits { line_bytes_max: 300, event_bytes_max: 300 },
        dedupe: Some(DedupeConfig { size_max: 8, ttl_ms: 1_000 }),
        ordering: OrderingConfig {
            held_events_max: HELD_MAX,
            held_bytes_max: 200,
            scopes_max: 2,
            policy,
            ..OrderingConfig::default()
        },
        liveness: Some(LivenessConfig { timeout_ms: 5_000, grace_ms: 1_000 }),
        when_hidden: WhenHidden::Close,
        hidden_after_ms: 2_000,
        done_ids_max: 5,
        names_max: 2,
        can_refresh_credentials: true,
        report_duplicates: true,
        ..Config::default()
    }
}

/// Takes all that the machine wants done; answers when it wants to be called again.
fn drain(client: &mut Client, present: &mut u32) -> Option<u64> {
    for _ in 0..1_000 {
        match client.poll_output() {
            Output::Wait(at) => return at,
            Output::Request(request) => {
                assert!(request.id.0 > *present, "each request has its own id");
                *present = request.id.0;
            }
            Output::Commit(record) => assert!(record.done.len() <= 5),
            Output::Deliver => {
                let batch = client.batch();
                assert!(!batch.is_empty());
                assert_eq!(batch.events().count(), batch.len());
            }
            Output::Restore | Output::Abort(_) | Output::Notify(_) => {}
        }
    }
    panic!("the outputs never end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_order_of_inputs_breaks_the_machine(reorders in any::<bool>(), steps in vec(step(), 1..80)) {
        let policy = if reorders { OutOfOrderPolicy::Reorder } else { OutOfOrderPolicy::DropWithCallback };
        let mut client = Client::new(config(policy));
        let (mut now, mut present) = (0_u64, 0_u32);
        for step in steps {
            let request = |age: u32| RequestId(present.wrapping_sub(age));
            let before = client.stats().events_received;
            match &step {
                Step::Clock(by) => now = now.saturating_add_signed(*by),
                Step::Connect => client.handle_input(now, Input::Connect),
                Step::Restored(cursor) => {
                    let record = StoredRecord { cursor: cursor.clone(), done: vec![cursor.clone(); 8] };
                    client.handle_input(now, Input::Restored(Some(record)));
                }
                Step::Head(age, status, html, retry_after_ms) => {
                    let kind = if *html { "text/html" } else { "text/event-stream" };
                    let head = Head { status: *status, content_type: Some(kind.to_owned()), retry_after_ms: *retry_after_ms };
                    client.handle_input(now, Input::Head(request(*age), head));
                }
                Step::Bytes(age, bytes) => client.handle_input(now, Input::Bytes(request(*age), bytes)),
                Step::End(age) => client.handle_input(now, Input::End(request(*age))),
                Step::Failed(age, retry) => {
                    let error = TransportError { code: Code::NetworkError, message: String::new(), retry: *retry };
                    client.handle_input(now, Input::Failed(request(*age), error));
                }
                Step::Timer => client.handle_input(now, Input::Timer),
                Step::Processed(token) => client.handle_input(now, Input::Processed(*token)),
                Step::Done(token) => client.handle_input(now, Input::Done(*token)),
                Step::Page(0) => client.handle_input(now, Input::Flush),
                Step::Page(1) => client.handle_input(now, Input::Online),
                Step::Page(2) => client.handle_input(now, Input::Offline),
                Step::Page(3) => client.handle_input(now, Input::Awake),
                Step::Page(4) => client.handle_input(now, Input::Hidden),
                Step::Page(5) => client.handle_input(now, Input::Visible),
                Step::Page(_) => client.handle_input(now, Input::ClearCursor),
                Step::Stop(started) => client.handle_input(now, Input::Stop { started: *started }),
                Step::Reconnect(started) => client.handle_input(now, Input::Reconnect { started: *started }),
            }
            let mut wait = drain(&mut client, &mut present);
            // Each event is one record, released from what is held, or one that is told about.
            let arrived = (client.stats().events_received - before) as usize;
            prop_assert!(client.batch().len() <= 4 * (arrived + HELD_MAX) + 400);
            // Called at the time it asked for, it asks for a later one, or none.
            for _ in 0..8 {
                let Some(at) = wait.filter(|at| *at <= now) else { break };
                client.handle_input(now, Input::Timer);
                wait = drain(&mut client, &mut present);
                prop_assert!(wait.is_none_or(|next| next > now), "due at {at}, now {now}: again {wait:?}");
            }
            if matches!(client.state(), State::Idle | State::Closed) {
                prop_assert!(wait.is_none(), "a closed stream waits for nothing: {wait:?}");
            }
        }
    }
}
