//! The log on Redis Streams: several nodes, a Redis that dies, forgets, hangs or changes its role.
#![cfg(all(feature = "redis", not(target_family = "wasm")))]

mod server_support;

use std::time::Duration;

use holdfast_sse::server::{EventLog, LogError, PublishError, RedisLog, RedisOptions};
use serde_json::json;
use server_support::node::{Node, numbers, texts};
use server_support::redis::{Persistence, Redis};
use server_support::{ask, get, resume};

// T8, S14: what one node stores, all nodes show, in one order; equal payloads are events of their own.
#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_are_one_log() {
    let redis = Redis::start(Persistence::None);
    let nodes = [Node::start(&redis).await, Node::start(&redis).await, Node::start(&redis).await];
    let mut readers = Vec::new();
    for node in &nodes {
        readers.push(node.listen().await);
    }
    let publishing = nodes.iter().enumerate().flat_map(|(index, node)| {
        (0..200).map(move |n| async move {
            // Pairs of equal text under keys of their own.
            node.try_publish(&format!("{}", n / 2), &format!("{index}-{n}")).await.expect("published")
        })
    });
    let mut ids = futures_util::future::join_all(publishing).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 600, "each has an id of its own");
    let mut ledgers = Vec::new();
    for reader in &mut readers {
        let mut ledger = Vec::new();
        for n in 1..=600 {
            let event = reader.event().await.expect("one more event");
            assert_eq!(event.sequence(), n);
            ledger.push((event.id, event.data));
        }
        ledgers.push(ledger);
    }
    assert!(ledgers.iter().all(|ledger| *ledger == ledgers[0]));
    // A key is known on all nodes.
    assert_eq!(nodes[1].try_publish("0", "0-0").await, nodes[2].try_publish("0", "0-0").await);
    let reused = nodes[1].try_publish("other", "0-0").await;
    assert_eq!(reused, Err(PublishError::Log(LogError::KeyReused)));
    // Another prefix is another log.
    let other = RedisOptions { prefix: "other".to_owned(), ..RedisOptions::new(redis.url()) };
    assert!(Node::with(other).await.try_publish("other", "0-0").await.expect("published").ends_with("-1"));
}

// A wake-up that got lost with its connection is no lost event.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_push_connection_loses_nothing() {
    let redis = Redis::start(Persistence::None);
    let (publisher, node) = (Node::start(&redis).await, Node::start(&redis).await);
    let mut reader = node.listen().await;
    for round in 0..5 {
        publisher.publish(round * 10 + 1).await;
        assert_eq!(texts(&mut reader, 1).await, numbers(round * 10 + 1..=round * 10 + 1));
        assert_ne!(redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]), "0", "somebody listened");
        // Half of them while nobody is subscribed, most likely; scripts are forgotten, too.
        for n in 2..=10 {
            publisher.publish(round * 10 + n).await;
            if n == 5 {
                assert_eq!(redis.ask(&["SCRIPT", "FLUSH"]), "OK");
            }
        }
        assert_eq!(texts(&mut reader, 9).await, numbers(round * 10 + 2..=round * 10 + 10));
    }
}

// With what it answered for on its disk, a killed Redis costs nobody anything but time.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_that_kept_all_goes_on_in_a_new_epoch() {
    let mut redis = Redis::start(Persistence::Always);
    let (publisher, node) = (Node::start(&redis).await, Node::start(&redis).await);
    let mut reader = node.listen().await;
    let mut ids = vec![publisher.publish(1).await, publisher.publish(2).await];
    assert_eq!(texts(&mut reader, 2).await, numbers(1..=2));
    redis.kill();
    let failed = publisher.try_publish("3", "k3").await;
    assert!(matches!(failed, Err(PublishError::Log(LogError::Storage(_)))), "{failed:?}");
    redis.restart();
    ids.push(publisher.publish(3).await);
    ids.push(publisher.publish(4).await);
    // The live reader on another node never heard of it.
    let (third, fourth) = (reader.any().await.expect("3"), reader.any().await.expect("4"));
    assert_eq!((third.data.as_str(), fourth.data.as_str()), ("3", "4"));
    assert_eq!((third.id.as_ref(), fourth.id.as_ref()), (ids.get(2), ids.get(3)));
    assert_ne!(ids[1].split('-').next(), ids[2].split('-').next(), "nobody proved it: another epoch");
    assert!(ids[2].ends_with("-1"));
    // Cursors of the epoch before are good; a key of before is known.
    let mut late = ask(&publisher.router, resume("/stream/a", &ids[0])).await;
    assert_eq!(texts(&mut late, 3).await, numbers(2..=4));
    assert_eq!(publisher.try_publish("1", "k1").await.as_ref(), Ok(&ids[0]));
}

// Without persistence the loss is told to everybody: who listens, who comes back, on old nodes and on new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgot_all_is_told_to_everybody() {
    let mut redis = Redis::start(Persistence::None);
    let (node, other) = (Node::start(&redis).await, Node::start(&redis).await);
    let mut reader = node.listen().await;
    let old = [node.publish(1).await, node.publish(2).await];
    assert_eq!(texts(&mut reader, 2).await, numbers(1..=2));
    redis.restart();
    // Told at once, not only with the next event.
    let refused = reader.named("control.cannot_resume").await.payload();
    assert_eq!((&refused["code"], &refused["requestedId"]), (&json!("event_not_found"), &json!(old[1])));
    let new = other.publish(3).await;
    assert!(new.ends_with("-1") && new.split('-').next() != old[0].split('-').next());
    let event = reader.any().await.expect("3");
    assert_eq!((event.data.as_str(), event.id), ("3", Some(new.clone())));
    let fresh = Node::start(&redis).await;
    for (who, node) in [("old", &node), ("other", &other), ("fresh", &fresh)] {
        for cursor in &old {
            let mut late = ask(&node.router, resume("/stream/a", cursor)).await;
            let refused = late.named("control.cannot_resume").await.payload();
            assert_eq!(refused["code"], "event_not_found", "{who} {cursor}");
            assert_eq!(texts(&mut late, 1).await, ["3"], "{who} {cursor}");
        }
        let (_, refused) = node.resume(&new).await;
        assert_eq!(refused, None, "{who}");
    }
}

// A backup that is older than what clients have seen: the nodes remember how far it had come.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgot_the_end_is_told_how_much() {
    let mut redis = Redis::start(Persistence::None);
    let node = Node::start(&redis).await;
    let mut reader = node.listen().await;
    let mut ids = Vec::new();
    for n in 1..=8 {
        ids.push(node.publish(n).await);
        if n == 5 {
            assert_eq!(redis.ask(&["SAVE"]), "OK");
        }
    }
    assert_eq!(texts(&mut reader, 8).await, numbers(1..=8));
    redis.restart();
    // Who has seen all misses nothing.
    let mut late = ask(&node.router, resume("/stream/a", &ids[7])).await;
    late.named("control.replay_end").await;
    ids.push(node.publish(9).await);
    assert!(ids[8].ends_with("-1"), "no number is given out twice");
    assert_eq!(late.any().await.expect("9").data, "9");
    assert_eq!(reader.any().await.expect("9").data, "9");
    // What the node still has in memory it gives. Elsewhere one is told how many are gone, and gets the rest.
    let mut late = ask(&node.router, resume("/stream/a", &ids[5])).await;
    assert_eq!(texts(&mut late, 3).await, numbers(7..=9));
    let fresh = Node::start(&redis).await;
    for (seen, missing, rest) in [(6, 2, vec![9]), (5, 3, vec![9]), (3, 3, vec![4, 5, 9])] {
        let mut late = ask(&fresh.router, resume("/stream/a", &ids[seen - 1])).await;
        let (mut told, mut got) = (0, Vec::new());
        while got.len() < rest.len() {
            let event = late.any().await.expect("more");
            match event.name.as_str() {
                "control.cannot_resume" => told += event.payload()["missing"].as_u64().expect("a count"),
                "n" => got.push(event.data.parse::<u64>().expect("a number")),
                _ => {}
            }
        }
        assert_eq!((told, got), (missing, rest), "seen {seen}");
    }
}

// A primary that was made a replica, took over another one's data and was promoted again, all without a cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_role_begins_an_epoch() {
    let (redis, empty) = (Redis::start(Persistence::None), Redis::start(Persistence::None));
    let node = Node::start(&redis).await;
    let before = node.publish(1).await;
    redis.follow(empty.port()).await;
    let refused = node.try_publish("2", "k2").await;
    assert!(matches!(refused, Err(PublishError::Log(LogError::Storage(_)))), "{refused:?}");
    redis.promote();
    let after = node.publish(2).await;
    assert!(after.ends_with("-1") && after.split('-').next() != before.split('-').next(), "{before} {after}");
}

// The outcome of an append is unknown when no answer comes; the key makes it one event all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_given_up_and_nothing_is_stored_twice() {
    let redis = Redis::start(Persistence::None);
    let node = Node::with(RedisOptions { command_ms_max: 300, ..RedisOptions::new(redis.url()) }).await;
    let mut reader = node.listen().await;
    node.publish(1).await;
    redis.freeze();
    let publishing = node.try_publish("2", "k2");
    let failed = tokio::time::timeout(Duration::from_secs(20), publishing).await.expect("it is given up");
    assert!(matches!(failed, Err(PublishError::Log(LogError::Storage(_)))), "{failed:?}");
    redis.thaw();
    let second = node.publish(2).await;
    assert!(second.ends_with("-2"), "{second}");
    node.publish(3).await;
    assert_eq!(texts(&mut reader, 3).await, numbers(1..=3));
}

// Load balancers turn away from a node whose Redis is gone, and come back.
#[tokio::test(flavor = "multi_thread")]
async fn health_tells_whether_redis_answers() {
    let mut redis = Redis::start(Persistence::Always);
    let node = Node::start(&redis).await;
    let until = async |expected: (u16, &str)| {
        let told = async {
            loop {
                let (status, body) = server_support::json(&node.router, get("/health")).await;
                if (status.as_u16(), body["status"].as_str().unwrap_or_default()) == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.unwrap_or_else(|_| panic!("{expected:?}"));
    };
    until((200, "ok")).await;
    redis.kill();
    until((503, "log_failed")).await;
    redis.restart();
    until((200, "ok")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_must_have_an_event_are_waited_for() {
    let redis = Redis::start(Persistence::None);
    let careful = RedisOptions { replicas_min: 1, command_ms_max: 1_000, ..RedisOptions::new(redis.url()) };
    let node = Node::with(careful).await;
    let failed = node.try_publish("1", "k1").await;
    let Err(PublishError::Log(LogError::Storage(why))) = failed else { panic!("{failed:?}") };
    assert!(why.contains("0 replicas have the event, of 1"), "{why}");
    let _replica = Redis::replica_of(&redis);
    // The same event, acknowledged once a replica has it.
    let first = node.publish(1).await;
    node.publish(2).await;
    let mut reader = ask(&node.router, get("/stream/a?from=start")).await;
    assert_eq!(reader.event().await.expect("1").id, Some(first));
    assert_eq!(texts(&mut reader, 1).await, ["2"]);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_without_the_password() {
    for (options, expected) in [
        (RedisOptions::new("http://user:hunter2@host"), "the URL of the Redis log cannot be used"),
        (
            RedisOptions::new("redis://127.0.0.1:1,http://user:hunter2@host"),
            "the URL of the Redis log cannot be used",
        ),
        (RedisOptions::new("rediss://user:hunter2,@127.0.0.1:1"), "Redis: "),
        (RedisOptions::new("redis://:hunter2@127.0.0.1:1, rediss://user:hunter2@127.0.0.1:1"), "Redis: "),
        (RedisOptions::new("redis://user:hunter2@127.0.0.1:1"), "Redis: "),
        (
            RedisOptions { prefix: "a b".to_owned(), ..RedisOptions::new("redis://:hunter2@host") },
            "the prefix of the Redis log takes 1 to 64 visible ASCII characters",
        ),
    ] {
        assert!(!format!("{options:?}").contains("hunter2"));
        let said = RedisLog::open(options).await.expect_err("refused").to_string();
        assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
}

// What a node holds of a channel goes when nobody listens any more, and its subscription with it.
#[tokio::test(flavor = "multi_thread")]
async fn without_readers_a_node_follows_nothing() {
    let redis = Redis::start(Persistence::None);
    let node = Node::start(&redis).await;
    let reader = node.listen().await;
    let topic = "holdfast:a:live";
    assert_eq!(redis.ask(&["PUBSUB", "NUMSUB", topic]).split_whitespace().last(), Some("1"));
    node.publish(1).await;
    drop(reader);
    let gone = async {
        while redis.ask(&["PUBSUB", "NUMSUB", topic]).split_whitespace().last() != Some("0") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("unsubscribed");
    assert_eq!(node.log.channel("a").expect("a channel").readers(), 0);
    let mut reader = node.listen().await;
    node.publish(2).await;
    assert_eq!(texts(&mut reader, 1).await, ["2"]);
}
