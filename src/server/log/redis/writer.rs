//! Stores what publishers ask for: many events in one round trip, each by a script that decides alone.

use std::sync::Arc;

use redis::{Pipeline, RedisError, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::link::{Link, storage};
use super::scripts::{self, Answer, Stored};
use super::shared::Shared;
use crate::server::log::{Appended, Frame, LogError, NewEvent};

/// Bytes of one round trip; beyond it the rest waits for the next.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often one event is tried while the server changes below it.
const TRIES: usize = 4;

/// An event that waits to be stored.
pub(super) struct Append {
    pub(super) channel: String,
    pub(super) event: NewEvent,
    pub(super) answer: oneshot::Sender<Result<Appended, LogError>>,
    /// Its place in the queue, given back with the answer.
    pub(super) place: OwnedSemaphorePermit,
}

impl Append {
    fn bytes(&self) -> usize {
        self.event.bytes()
    }

    fn answer(self, result: Result<Appended, LogError>) {
        let _ = self.answer.send(result);
        drop(self.place);
    }
}

/// Works until the last sender is gone and all that was queued is answered.
pub(super) async fn run(shared: Arc<Shared>, link: Link, mut inbox: mpsc::UnboundedReceiver<Append>) {
    while let Some(first) = inbox.recv().await {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < shared.options.commit_events_max && bytes < BATCH_BYTES_MAX {
            let Ok(next) = inbox.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        store(&shared, &link, batch).await;
    }
}

async fn store(shared: &Shared, link: &Link, mut batch: Vec<Append>) {
    let mut failure =
        LogError::Storage("Redis: the server changes faster than it can be written to".to_owned());
    for _ in 0..TRIES {
        let (again, unproven) = match try_store(shared, link, batch).await {
            Ok((again, unproven)) => (again, unproven),
            Err((left, error)) => {
                // Nobody knows what became of these. A key makes a second attempt harmless; without one the publisher
                // must decide.
                let (keyed, unkeyed) = left.into_iter().partition(|append| append.event.key.is_some());
                let unkeyed: Vec<Append> = unkeyed;
                unkeyed.into_iter().for_each(|append| append.answer(Err(error.clone())));
                failure = error;
                (keyed, false)
            }
        };
        batch = again;
        if batch.is_empty() {
            return;
        }
        if unproven && let Err(error) = shared.begin_epoch(false).await {
            failure = error;
            break;
        }
    }
    batch.into_iter().for_each(|append| append.answer(Err(failure.clone())));
}

type Again = (Vec<Append>, bool);

/// One round trip. What surely was not stored and may be tried again comes back, and whether an epoch must begin first.
async fn try_store(
    shared: &Shared,
    link: &Link,
    batch: Vec<Append>,
) -> Result<Again, (Vec<Append>, LogError)> {
    let options = &shared.options;
    let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
    for append in &batch {
        pipeline.add_command(
            scripts::append(options, shared.told(), &append.channel, &append.event).into_command(),
        );
    }
    if options.replicas_min > 0 {
        // Half of what the answer may take, so that it comes before we give up on it.
        pipeline.cmd("WAIT").arg(options.replicas_min).arg((options.command_ms_max / 2).max(1));
    }
    let mut answers = match link.pipeline(&mut pipeline).await {
        Ok(answers) => answers,
        Err(error) => return Err((batch, error)),
    };
    let replicated = match options.replicas_min {
        0 => Ok(()),
        min => enough_replicas(answers.pop(), min),
    };
    let (mut again, mut unproven) = (Vec::new(), false);
    for (append, answer) in batch.into_iter().zip(answers) {
        let answer = match answer {
            Ok(value) => scripts::read(&value),
            Err(error) if error.code() == Some("NOSCRIPT") => {
                again.push(append);
                continue;
            }
            Err(error) => Err(storage(&error)),
        };
        let result = match answer {
            Ok(Answer::Unproven) => {
                unproven = true;
                again.push(append);
                continue;
            }
            Ok(Answer::Stored(stored)) => {
                show(shared, &append, &stored);
                replicated.clone().map(|()| Appended { place: stored.place, duplicate: false })
            }
            Ok(Answer::Known(place, content)) => match &append.event.key {
                Some(key) => replicated.clone().and_then(|()| key.known(place, content)),
                None => Err(scripts::strange()),
            },
            Ok(Answer::Full) => Err(LogError::TooManyChannels(options.retention.channels_max)),
            Ok(_) => Err(scripts::strange()),
            Err(error) => Err(error),
        };
        append.answer(result);
    }
    Ok((again, unproven))
}

fn enough_replicas(answer: Option<Result<Value, RedisError>>, min: u32) -> Result<(), LogError> {
    match answer {
        Some(Ok(Value::Int(replicas))) if replicas >= i64::from(min) => Ok(()),
        Some(Ok(Value::Int(replicas))) => Err(LogError::Storage(format!(
            "Redis: {replicas} replicas have the event, of {min} that must; publish it again under the same key"
        ))),
        Some(Err(error)) => Err(storage(&error)),
        _ => Err(scripts::strange()),
    }
}

/// Readers here need not wait for Redis to push what we know already.
fn show(shared: &Shared, append: &Append, stored: &Stored) {
    let Ok(channel) = shared.channel(&append.channel) else { return };
    shared.offer(&channel, stored, false, || {
        let data = append.event.data.render(stored.place.sequence);
        Frame::encode(stored.place, &stored.epoch, stored.at_ms, &append.event.name, &data).ok()
    });
}
