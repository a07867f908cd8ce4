//! What happens between two questions to the log: an event that is stored there is not taken for one that is missing.
#![cfg(all(feature = "server", not(target_family = "wasm")))]

mod server_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use holdfast_sse::server::log::{
    Appended, Bounds, Channel, Data, EventLog, Frame, LogError, NewEvent, PageLimit, Place, Retention,
};
use holdfast_sse::server::{Hub, StreamOptions};
use server_support::own_log::OwnLog;
use server_support::{ask, get};

/// A log in which, when told so, an event is stored right behind a page that was found empty.
struct Racing {
    log: OwnLog,
    armed: AtomicBool,
}

fn event(text: &str) -> NewEvent {
    NewEvent { name: "n".to_owned(), data: Data::Text(text.to_owned()), key: None, state: None }
}

impl EventLog for Racing {
    fn append(&self, channel: &str, event: NewEvent) -> BoxFuture<'_, Result<Appended, LogError>> {
        self.log.append(channel, event)
    }

    fn channel(&self, name: &str) -> Result<Arc<Channel>, LogError> {
        self.log.channel(name)
    }

    fn bounds<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Bounds, LogError>> {
        self.log.bounds(channel)
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        after: Place,
        limit: PageLimit,
    ) -> BoxFuture<'a, Result<Vec<Frame>, LogError>> {
        Box::pin(async move {
            let page = self.log.page(channel, after, limit).await?;
            if page.is_empty() && self.armed.swap(false, Ordering::Relaxed) {
                self.log.append(channel.name(), event("4")).await?;
            }
            Ok(page)
        })
    }

    fn epoch(&self, generation: u32) -> Option<Arc<str>> {
        self.log.epoch(generation)
    }

    fn generation(&self, epoch: &str) -> Option<u32> {
        self.log.generation(epoch)
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.begin_epoch()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.log.close()
    }

    fn durable(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn what_is_stored_while_an_epoch_begins_is_not_missing() {
    let log = Arc::new(Racing { log: OwnLog::new(Retention::default()), armed: AtomicBool::new(false) });
    let hub = Hub::new(Arc::clone(&log) as Arc<dyn EventLog>, StreamOptions::default());
    let mut reader = ask(&hub.router(), get("/stream/a")).await;
    reader.named("control.open").await;
    for text in ["1", "2", "3"] {
        log.append("a", event(text)).await.expect("stored");
        assert_eq!(reader.event().await.expect("an event").data, text);
    }
    // The epoch is known before it has an event, as several nodes of one log come to know of it.
    log.begin_epoch().await.expect("an epoch");
    log.armed.store(true, Ordering::Relaxed);
    let channel = log.channel("a").expect("a channel");
    let head = Place { generation: 1, sequence: 0 };
    channel.advance(Bounds { oldest: None, head, ends: vec![(0, 3)], ..channel.bounds() });
    let next = reader.any().await.expect("the next event");
    assert_eq!((next.name.as_str(), next.data.as_str()), ("n", "4"));
}

// A log that lost its end shows less than was heard of: nobody asks it again and again.
#[tokio::test(start_paused = true)]
async fn a_head_beyond_all_events_is_waited_at() {
    let log = Arc::new(Racing { log: OwnLog::new(Retention::default()), armed: AtomicBool::new(false) });
    let hub = Hub::new(Arc::clone(&log) as Arc<dyn EventLog>, StreamOptions::default());
    log.append("a", event("1")).await.expect("stored");
    let channel = log.channel("a").expect("a channel");
    let shorter = channel.bounds();
    log.append("a", event("2")).await.expect("stored");
    channel.advance(shorter);
    let mut reader = ask(&hub.router(), get("/stream/a")).await;
    reader.named("control.open").await;
    // A stream that is busy with the log has no heartbeat.
    reader.named("system.heartbeat").await;
}
