//! Two `holdfast serve` and one Redis: clients and publishers move between the servers, and each of the three is killed.
#![cfg(all(feature = "redis", not(target_family = "wasm")))]

mod server_support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_sse::client::Notice;
use serde_json::json;
use server_support::page::Page;
use server_support::redis::{Persistence, Redis};
use server_support::{Random, Reader, Server, get, resume, send, try_publish};
use tokio::sync::watch;

const PUBLISHERS: usize = 4;
const EVENTS_EACH: usize = 300;
/// Kills, each after so many more acknowledged events.
const KILLS: usize = 16;
const EVENTS_BETWEEN: usize = 60;

/// Where the servers are now: a new process has a new port.
type Addresses = Arc<Mutex<[String; 2]>>;

fn address(addresses: &Addresses, node: usize) -> String {
    addresses.lock().expect("addresses")[node % 2].clone()
}

async fn start(redis_url: &str, dir: &Path) -> Server {
    let mut command = Server::command(dir);
    command.env("SSE_REDIS_URL", redis_url).env("LOG_LEVEL", "off");
    tokio::task::spawn_blocking(|| Server::start(command)).await.expect("a server")
}

/// Publishes one after the other, to either server, until each is acknowledged.
async fn publish_all(
    addresses: Addresses,
    publisher: usize,
    acknowledged: Arc<watch::Sender<usize>>,
) -> Vec<(String, String)> {
    let mut ledger = Vec::new();
    for n in 0..EVENTS_EACH {
        let text = format!("{publisher}-{n}");
        let mut node = publisher + n;
        let id = loop {
            let address = address(&addresses, node);
            if let Some(id) = try_publish(&address, "a", &text, &text).await {
                break id;
            }
            // The other one, but not in a hot loop: Redis itself may be down.
            node += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        ledger.push((text, id));
        acknowledged.send_modify(|count| *count += 1);
    }
    ledger
}

/// A plain client, which would show a repeat: it keeps a cursor, moves to the other server now and then, and wherever its stream ends.
async fn read_raw(addresses: Addresses, mut random: Random) -> (Vec<(String, String)>, usize) {
    let (mut ledger, mut connections, mut node) = (Vec::<(String, String)>::new(), 0, 0);
    while ledger.len() < PUBLISHERS * EVENTS_EACH {
        node += 1;
        let request = match ledger.last() {
            Some((_, cursor)) => resume("/stream/a", cursor),
            None => get("/stream/a?from=start"),
        };
        let response = match send(&address(&addresses, node), request).await {
            Ok(response) if response.status().is_success() => response,
            _ => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        connections += 1;
        let mut reader = Reader::new(response);
        let leave_after = ledger.len() + 1 + usize::try_from(random.up_to(80)).expect("small");
        while ledger.len() < leave_after.min(PUBLISHERS * EVENTS_EACH) {
            let Ok(event) = reader.any().await else { break };
            assert_ne!(event.name, "control.cannot_resume", "{}", event.data);
            if !event.is_control() {
                ledger.push((event.data, event.id.expect("an id")));
            }
        }
    }
    (ledger, connections)
}

/// The client's own core, whose page moves to the other server with each request, and is closed and opened now and then.
async fn read_by_core(addresses: Addresses, mut random: Random) -> Page {
    let mut page = Page::open(Arc::new(move |request| address(&addresses, request)));
    let (mut moves, mut leave_after) = (0, 0);
    while page.events.len() < PUBLISHERS * EVENTS_EACH {
        page.step().await;
        if page.events.len() > leave_after {
            moves += 1;
            leave_after = page.events.len() + random.below(80);
            if moves % 2 == 0 { page.reload() } else { page.reconnect() }
        }
    }
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_exact_whoever_is_killed() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start(Persistence::Always);
    let mut nodes = [start(&redis.url(), dir.path()).await, start(&redis.url(), dir.path()).await];
    let addresses: Addresses = Arc::new(Mutex::new([nodes[0].address.clone(), nodes[1].address.clone()]));
    let (acknowledged, mut progress) = watch::channel(0);
    let acknowledged = Arc::new(acknowledged);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            tokio::spawn(publish_all(Arc::clone(&addresses), publisher, Arc::clone(&acknowledged)))
        })
        .collect();
    let plain = tokio::spawn(read_raw(Arc::clone(&addresses), random.fork()));
    let reader = tokio::spawn(read_by_core(Arc::clone(&addresses), random.fork()));

    // Each of the three at least once; the others, and their order, by chance.
    let mut kills: Vec<_> = (0..KILLS).map(|kill| if kill < 3 { kill } else { random.below(3) }).collect();
    for kill in (1..KILLS).rev() {
        kills.swap(kill, random.below(kill + 1));
    }
    let mut killed = [0; 3];
    for (kill, whom) in (1..).zip(kills) {
        let reached = progress.wait_for(|count| *count >= kill * EVENTS_BETWEEN);
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("progress within a minute")
            .expect("publishers");
        killed[whom] += 1;
        if whom == 2 {
            redis.kill();
            redis.restart();
        } else {
            nodes[whom].signal("-KILL");
            nodes[whom] = start(&redis.url(), dir.path()).await;
            addresses.lock().expect("addresses")[whom] = nodes[whom].address.clone();
        }
    }
    let mut ids = HashMap::new();
    for publisher in publishers {
        ids.extend(publisher.await.expect("published"));
    }
    let limit = Duration::from_secs(60);
    let page = tokio::time::timeout(limit, reader).await.expect("all within a minute").expect("a ledger");
    let ledger = &page.events;
    let (plain, connections) = tokio::time::timeout(limit, plain).await.expect("in time").expect("a ledger");
    assert!(*ledger == plain, "the core and a plain client were given the same");
    println!(
        "{} events, {} and {connections} requests; killed: {killed:?} (nodes, Redis)",
        ledger.len(),
        page.requests
    );
    assert!(killed.iter().all(|kills| *kills > 0));
    // The page heard of nothing missing, and gave up at nothing.
    let bad = |notice: &&Notice| {
        matches!(notice, Notice::CannotResume { .. } | Notice::Gap { .. } | Notice::GiveUp { .. })
    };
    assert_eq!(page.notices.iter().find(bad), None);

    assert_eq!(ids.len(), ledger.len(), "as many as were published");
    for (text, id) in ledger {
        assert_eq!(ids.remove(text).as_ref(), Some(id), "{text} twice, unknown, or under another id");
    }
    assert!(ids.is_empty(), "lost: {ids:?}");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher}-");
        let mine = ledger.iter().filter_map(|(text, _)| text.strip_prefix(&prefix)?.parse::<usize>().ok());
        assert!(mine.eq(0..EVENTS_EACH), "publisher {publisher} is out of order");
    }
    // Any other client sees the same.
    for node in &nodes {
        let mut late = node.stream(get("/stream/a?from=start")).await;
        for (text, id) in ledger {
            let event = late.event().await.expect("one more event");
            assert_eq!((&event.data, event.id.as_ref()), (text, Some(id)));
        }
    }
}

// Without persistence the loss is told: to who listens, and to who comes back, at either server.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_persistence_is_no_silent_loss() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start(Persistence::None);
    let nodes = [start(&redis.url(), dir.path()).await, start(&redis.url(), dir.path()).await];
    let mut reader = nodes[1].stream(get("/stream/a")).await;
    let open = reader.named("control.open").await.payload();
    assert_eq!(open["replayable"], true);
    let mut last = String::new();
    for n in 1..=3 {
        let text = n.to_string();
        last = try_publish(&nodes[0].address, "a", &text, &text).await.expect("published");
        assert_eq!(reader.event().await.expect("the event").data, text);
    }
    redis.kill();
    redis.restart();
    let refused = reader.named("control.cannot_resume").await.payload();
    assert_eq!((&refused["code"], &refused["requestedId"]), (&json!("event_not_found"), &json!(last)));
    let mut kept = Vec::new();
    for node in &nodes {
        let mut late = node.stream(resume("/stream/a", &last)).await;
        assert_eq!(late.named("control.cannot_resume").await.payload()["code"], "event_not_found");
        let text = node.address.clone();
        let published = async {
            loop {
                if let Some(id) = try_publish(&node.address, "a", &text, &text).await {
                    return id;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let id = tokio::time::timeout(Duration::from_secs(30), published).await.expect("published");
        kept.push((Some(id), text));
        let event = reader.event().await.expect("the event");
        assert_eq!(Some(&(event.id, event.data)), kept.last());
        // Who was refused gets all that there is.
        for expected in &kept {
            let event = late.event().await.expect("the event");
            assert_eq!(&(event.id, event.data), expected);
        }
    }
}
