//! The log on Redis when answers get lost, connections break and replicas take over.
#![cfg(all(feature = "redis", not(target_family = "wasm")))]

mod server_support;

use std::process::Stdio;
use std::sync::Arc;

use holdfast_sse::server::{EventLog, LogError, Message, PublishError, RedisLog, RedisOptions};
use server_support::node::{Node, numbers, texts};
use server_support::proxy::Proxy;
use server_support::redis::{Persistence, Redis};
use server_support::{Reader, Server, ask, get, resume, try_publish};

// All that were under way on a connection that broke share the one that is made instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_replaced_once() {
    let redis = Redis::start(Persistence::None);
    let proxy = Proxy::before(&redis).await;
    let log = Arc::new(RedisLog::open(RedisOptions::new(proxy.url())).await.expect("a log"));
    let mark = "holdfast:m:meta";
    for round in 1..=5 {
        // Nothing is answered, so that all of them wait.
        redis.freeze();
        let before: usize = proxy.said(mark).iter().sum();
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let log = Arc::clone(&log);
                tokio::spawn(async move { log.bounds(&log.channel("m").expect("a channel")).await })
            })
            .collect();
        proxy.heard(mark, before + 50).await;
        proxy.cut();
        redis.thaw();
        for call in calls {
            call.await.expect("a call").expect("bounds");
        }
        assert_eq!(proxy.said(mark).len(), round + 1, "round {round}");
    }
}

/// What a reader is given until the event `last`: texts, and how many it was told are missing.
async fn ledger(reader: &mut Reader, last: &str) -> (Vec<String>, u64) {
    let (mut got, mut missing) = (Vec::new(), 0);
    while got.last().is_none_or(|text| text != last) {
        let event = reader.any().await.expect("one more event");
        match event.name.as_str() {
            "control.cannot_resume" => missing += event.payload()["missing"].as_u64().expect("a count"),
            "n" => got.push(event.data),
            _ => {}
        }
    }
    (got, missing)
}

// Events that only their publisher's node knew of are told of before anything of the new epoch is, though that node
// follows no channel and noticed nothing but its own next append.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_of_what_was_lost_before_it_stores_more() {
    // A first replica makes Redis's own id another one: an epoch begins, and is lost as a whole or with its end alone.
    for (replica_at, what) in [(1, "an end"), (8, "an epoch")] {
        let (redis, old) = (Redis::start(Persistence::None), Redis::start(Persistence::None));
        let publisher = Node::start(&redis).await;
        let mut ids = Vec::new();
        for n in 1..=10 {
            if n == replica_at {
                old.follow(redis.port()).await;
            }
            if n == 8 {
                old.caught_up_with(&redis).await;
                old.promote();
            }
            ids.push(publisher.publish(n).await);
        }
        // All at once, and without a cut: what it has now ends at 7.
        redis.follow(old.port()).await;
        redis.promote();
        let last = publisher.publish(11).await;
        assert!(last.ends_with("-1"), "no number is given out twice");
        let edge = Node::start(&redis).await;
        for (node, name) in [(&edge, "edge"), (&publisher, "publisher")] {
            let mut reader = ask(&node.router, resume("/stream/a", &ids[4])).await;
            let expected = vec!["6".to_owned(), "7".to_owned(), "11".to_owned()];
            assert_eq!(ledger(&mut reader, "11").await, (expected, 3), "{what}, {name}");
        }
    }
}

// A replica that is promoted while it lags: its address is found, what was lost is told with a new epoch, no id comes
// twice, and the old primary is not taken for one when it comes back as it was.
#[tokio::test(flavor = "multi_thread")]
async fn clients_move_with_the_nodes_to_a_promoted_replica() {
    let (mut redis, replica) = (Redis::start(Persistence::Always), Redis::start(Persistence::None));
    let lag = Proxy::before(&redis).await;
    replica.follow(lag.port()).await;
    // The replica first: it is passed over for as long as it is none.
    let both = format!("{},{}", replica.url(), redis.url());
    let nodes = [Node::at(both.clone()).await, Node::at(both.clone()).await];
    let mut live = nodes[1].listen().await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(nodes[0].publish(n).await);
    }
    replica.caught_up_with(&redis).await;
    lag.refuse();
    for n in 6..=8 {
        ids.push(nodes[0].publish(n).await);
    }
    assert_eq!(texts(&mut live, 8).await, numbers(1..=8));
    redis.kill();
    let refused = nodes[0].try_publish("9", "k9").await;
    assert!(matches!(refused, Err(PublishError::Log(LogError::Storage(_)))), "{refused:?}");
    replica.promote();
    for n in 9..=10 {
        ids.push(nodes[1].publish(n).await);
    }
    // Who had all misses nothing.
    assert_eq!(ledger(&mut live, "10").await, (numbers(9..=10), 0));
    redis.restart();
    let fresh = Node::at(both).await;
    ids.push(fresh.publish(11).await);
    ids.push(nodes[0].publish(12).await);
    let mut all = ids.clone();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12, "{ids:?}");
    // A client of before, on each node: three are gone, and it is told.
    for (node, name) in [(&fresh, "fresh"), (&nodes[0], "publisher")] {
        let mut late = ask(&node.router, resume("/stream/a", &ids[3])).await;
        let expected: Vec<_> = ["5", "9", "10", "11", "12"].map(str::to_owned).into();
        assert_eq!(ledger(&mut late, "12").await, (expected, 3), "{name}");
    }
    assert_eq!(texts(&mut live, 2).await, numbers(11..=12));
}

// A prefix with a colon could be another prefix with the beginning of a channel's name.
#[tokio::test(flavor = "multi_thread")]
async fn prefixes_cannot_run_into_channels() {
    let redis = Redis::start(Persistence::None);
    let at = |prefix: &str| RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::new(redis.url()) };
    let refused = RedisLog::open(at("app:staging")).await.expect_err("refused").to_string();
    assert!(refused.contains("colon") && refused.contains("app.staging"), "{refused}");
    let channels = ["news", "staging:news", ":news", "news:", "a:events", "a", "log"];
    let mut opened = Vec::new();
    for prefix in ["app", "app.staging", "app::"] {
        if prefix.contains(':') {
            // One that is there from before this rule stays readable.
            redis.ask(&["HSET", "app::::log", "generation", "1", "epoch", "old", "authority", "other"]);
        }
        let node = Node::with(at(prefix)).await;
        for channel in channels {
            let message = Message::text("n", format!("{prefix} {channel}"));
            let id = node.hub.publisher().publish(channel, message).await.expect("published").id;
            assert!(id.ends_with("-1"), "{prefix} {channel}: {id}");
        }
        opened.push(node);
    }
}

// TLS to Redis, with a certificate that must be known.
#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_is_used_where_its_certificate_is_trusted() {
    let (redis, dir) = (Redis::start_with_tls(), tempfile::tempdir().expect("a folder"));
    let command = || {
        let mut command = Server::command(dir.path());
        command.env("SSE_REDIS_URL", redis.url());
        command
    };
    let refused = command().stderr(Stdio::piped()).output().expect("the holdfast command");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    let server = || {
        let mut command = command();
        command.env("SSL_CERT_FILE", redis.certificate());
        tokio::task::spawn_blocking(|| Server::start(command))
    };
    let (here, there) = (server().await.expect("a server"), server().await.expect("a server"));
    let mut reader = there.stream(get("/stream/a")).await;
    reader.named("control.open").await;
    let id = try_publish(&here.address, "a", "k", "secret").await.expect("published");
    let event = reader.event().await.expect("the event");
    assert_eq!((event.data.as_str(), event.id), ("secret", Some(id)));
}
