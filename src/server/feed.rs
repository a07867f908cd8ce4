//! One channel as one stream reads it: a place in the log, moved page by page to the head.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Refusal;
use super::faults::Trouble;
use super::hub::Inner;
use super::log::{Channel, Frame, LogError, Place};
use super::options::{Beginning, SlowConsumer};
use super::request::cut;
use super::resume::{self, Refused, Wanted};
use super::stream::refusal;
use super::voice::Voice;
use crate::wire::id::escape_channel;

/// The bytes of a cursor that are repeated to its sender.
const ECHO_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) channel: Arc<Channel>,
    head: watch::Receiver<Place>,
    /// The last event that was handed to the connection.
    place: Place,
    replay: Option<Replay>,
    /// Begins the ids of this channel on a stream of several.
    label: Option<Box<str>>,
    presence: Option<watch::Receiver<usize>>,
    /// How many listeners were told of.
    crowd: usize,
    /// What is still to be said of the way it began.
    beginning: Option<Box<Began>>,
}

/// The stored events that were there when the client came.
#[derive(Debug)]
struct Replay {
    until: Place,
    sent: u64,
    truncated: bool,
}

/// How a feed begins.
#[derive(Debug)]
struct Began {
    requested: Option<String>,
    refused: Option<Refused>,
    count: u64,
    /// How many there would be without a limit on replays.
    available: u64,
    head: Place,
}

/// What a feed came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is nothing more.
    AtHead,
    /// The client is further behind than is allowed.
    TooSlow,
    /// There may be more.
    Moved,
    /// What comes next is gone; the feed stands behind the gap.
    Gone { requested: String, refused: Refused },
    /// The next events, without a gap.
    Events(Vec<Frame>),
}

/// How far a reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is nothing more.
    AtHead,
    /// There may be more.
    Moved,
    /// The client is further behind than is allowed.
    TooSlow,
}

/// What a feed waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Events,
    /// The number of listeners changed.
    Crowd,
    /// Cannot happen while a stream is open: the log outlives its readers.
    LogGone,
}

impl Feed {
    /// The feed of a channel for a stream that a client opens, alone or as one of `several`.
    pub(crate) async fn open(
        hub: &Arc<Inner>,
        name: &str,
        wanted: &Wanted,
        several: bool,
    ) -> Result<Self, Refusal> {
        let mut feed = Self::begin_at(hub, name, wanted, several, false).await.map_err(refusal)?;
        feed.presence = (hub.options.presence_ms > 0).then(|| hub.registry.presence(name)).flatten();
        Ok(feed)
    }

    /// The feed of a channel, from where it is wanted. Limits of streams do not concern our `own` code.
    pub(crate) async fn begin_at(
        hub: &Arc<Inner>,
        name: &str,
        wanted: &Wanted,
        several: bool,
        own: bool,
    ) -> Result<Self, LogError> {
        let channel = hub.log.channel(name)?;
        // The head is watched before the bounds are read, so that nothing falls between the two.
        let head = channel.head();
        let bounds = hub.log.bounds(&channel).await?;
        let options = &hub.options;
        let log = hub.log.as_ref();
        let may_resume = own || options.resume;
        let mut start = resume::resolve(wanted, name, several, &bounds, log, may_resume);
        let mut events_max = options.replay_events_max.filter(|_| !own);
        // Who newly comes to a channel of state is given its value.
        if !(start.resumed && may_resume)
            && wanted.fresh == Beginning::Now
            && let Some(place) = hub.states.beginning(hub, &channel, &bounds).await
        {
            start.move_to(place);
            // Without the value, what comes behind it is worth nothing.
            events_max = None;
        }
        let available = bounds.distance(start.place, bounds.head);
        if let Some(events_max) = events_max {
            start.shorten(events_max, &bounds);
        }
        let cursor = wanted.cursor.as_deref().filter(|_| start.resumed);
        let began = Began {
            requested: cursor.map(|id| cut(id, ECHO_BYTES_MAX).to_owned()),
            refused: start.refused,
            count: bounds.distance(start.place, bounds.head),
            available,
            head: bounds.head,
        };
        Ok(Self {
            channel,
            head,
            place: start.place,
            replay: None,
            label: several.then(|| (escape_channel(name) + ":").into()),
            presence: None,
            crowd: 0,
            beginning: Some(Box::new(began)),
        })
    }

    /// The channel's name.
    pub(crate) fn name(&self) -> &str {
        self.channel.name()
    }

    /// How a place of this channel looks on this stream.
    pub(crate) fn id(&self, hub: &Inner, place: Place) -> String {
        let id = hub.id(place);
        match &self.label {
            Some(label) => format!("{label}{id}"),
            None => id,
        }
    }

    /// The id of the last event.
    pub(crate) fn position(&self, hub: &Inner) -> String {
        self.id(hub, self.place)
    }

    /// Why it does not begin where it was wanted, and the cursor that wanted it there. Asked for once.
    pub(crate) fn take_refusal(&mut self) -> Option<(String, Refused)> {
        let began = self.beginning.take()?;
        Some((began.requested.unwrap_or_default(), began.refused?))
    }

    /// How many stored events it begins with.
    pub(crate) fn replay_count(&self) -> u64 {
        self.beginning.as_ref().map_or(0, |began| began.count)
    }

    /// Says how it begins.
    pub(crate) fn begin(&mut self, voice: &mut Voice) {
        let Some(began) = self.beginning.take() else { return };
        let metrics = &voice.hub.metrics;
        if began.requested.is_some() {
            metrics.replays_attempted.inc();
            let outcome =
                if began.refused.is_some() { &metrics.replays_failed } else { &metrics.replays_succeeded };
            outcome.inc();
            let stream_id = &*voice.entry.id;
            tracing::info!(event = "resume.attempt", stream_id, channel = self.name());
            if began.refused.is_none() {
                tracing::info!(
                    event = "resume.success",
                    stream_id,
                    channel = self.name(),
                    replay = began.count
                );
            }
        }
        if let Some(refused) = &began.refused {
            voice.cannot_resume(self, began.requested.as_deref(), refused);
        }
        if began.count > 0 {
            voice.replay_start(self.name(), began.requested.as_deref(), began.count, began.available);
            let truncated = began.count < began.available;
            self.replay = Some(Replay { until: began.head, sent: 0, truncated });
        } else if began.requested.is_some() && began.refused.is_none() {
            voice.replay_start(self.name(), began.requested.as_deref(), 0, 0);
            voice.replay_end(self.name(), 0, false);
        }
    }

    /// Whether there is something to read.
    pub(crate) fn is_behind(&self) -> bool {
        self.place < *self.head.borrow()
    }

    /// Whether events go out as they are stored, and nothing is to be said before or between them.
    pub(crate) fn is_plain(&self) -> bool {
        self.label.is_none() && self.replay.is_none() && self.presence.is_none() && self.beginning.is_none()
    }

    /// The last event that was handed to the connection.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Events up to this place were handed over another way.
    pub(crate) fn skip_to(&mut self, place: Place) {
        self.place = self.place.max(place);
    }

    /// Waits until the head moves.
    pub(crate) async fn moved(&mut self) -> News {
        if self.head.changed().await.is_ok() { News::Events } else { News::LogGone }
    }

    /// The same, or until the number of listeners changed and it is time to tell.
    pub(crate) async fn news(&mut self, presence_at: Instant) -> News {
        let Self { head, presence, .. } = self;
        let crowd = async {
            match presence {
                Some(presence) => {
                    tokio::time::sleep_until(presence_at).await;
                    presence.changed().await.is_ok()
                }
                None => false,
            }
        };
        tokio::select! {
            moved = head.changed() => if moved.is_ok() { News::Events } else { News::LogGone },
            true = crowd => News::Crowd,
        }
    }

    /// Says how many listen, where that is news.
    pub(crate) fn tell_presence(&mut self, voice: &mut Voice) {
        let Some(presence) = &mut self.presence else { return };
        let count = *presence.borrow_and_update();
        if self.crowd != count {
            self.crowd = count;
            voice.presence(self.channel.name(), count);
        }
    }

    /// Says the next page. `others` are the places of the stream's other channels, as its ids tell them.
    pub(crate) async fn read(
        &mut self,
        voice: &mut Voice,
        trouble: Option<&mut Trouble>,
        others: &str,
    ) -> Result<Progress, LogError> {
        self.end_replay(voice);
        let mut frames = match self.step(&voice.hub, voice.hub.options.slow).await? {
            Step::AtHead if voice.is_silent() => return Ok(Progress::AtHead),
            Step::AtHead | Step::Moved => return Ok(Progress::Moved),
            Step::TooSlow => return Ok(Progress::TooSlow),
            Step::Gone { requested, refused } => {
                voice.cannot_resume(self, Some(&requested), &refused);
                return Ok(Progress::Moved);
            }
            Step::Events(frames) => frames,
        };
        if self.replay.is_some() {
            voice.hub.metrics.replay_events_sent.inc_by(frames.len() as u64);
        }
        if let Some(label) = &self.label {
            let mut id = Vec::new();
            for frame in &mut frames {
                id.clear();
                id.extend_from_slice(label.as_bytes());
                id.extend_from_slice(frame.id());
                id.extend_from_slice(others.as_bytes());
                *frame = frame.under(&id);
            }
        }
        let frames = match trouble {
            Some(trouble) => trouble.bend(frames),
            None => frames,
        };
        voice.events(frames.into_iter().map(|frame| frame.bytes));
        self.end_replay(voice);
        Ok(Progress::Moved)
    }

    /// Goes one page on.
    pub(crate) async fn step(&mut self, hub: &Inner, slow: SlowConsumer) -> Result<Step, LogError> {
        let head = *self.head.borrow_and_update();
        if self.place >= head {
            return Ok(Step::AtHead);
        }
        if self.is_too_slow(slow, head) {
            return Ok(Step::TooSlow);
        }
        let limit = hub.options.page;
        let mut frames = match self.channel.tail(self.place, limit) {
            Some(frames) => frames,
            None => hub.log.page(&self.channel, self.place, limit).await?,
        };
        let (before, nothing) = (self.place, frames.is_empty());
        let follows = frames.first().is_some_and(|first| first.place.follows(self.place));
        if !follows && let Some(place) = self.channel.passes(self.place) {
            self.place = place;
            return Ok(Step::Moved);
        }
        if !follows && let Some(refused) = self.gap(hub, frames.first(), head).await? {
            let requested = self.position(hub);
            self.place = refused.place;
            return Ok(Step::Gone { requested, refused });
        }
        // What lies behind a hole within the page waits until the hole was told of.
        let hole = frames.windows(2).position(|pair| !pair[1].place.follows(pair[0].place));
        frames.truncate(hole.map_or(frames.len(), |at| at + 1));
        if let Some(replay) = &mut self.replay {
            frames.retain(|frame| frame.place <= replay.until);
            replay.sent += frames.len() as u64;
        }
        self.place = frames.last().map_or(self.place, |last| last.place);
        Ok(match () {
            () if !frames.is_empty() => Step::Events(frames),
            // The head is ahead of all that there is to read: to ask again at once would be to ask for ever. Whatever
            // is stored moves the head.
            () if nothing && self.place == before => Step::AtHead,
            () => Step::Moved,
        })
    }

    /// The replay that a client asked for is as long as it is: only what was published since counts.
    fn is_too_slow(&self, slow: SlowConsumer, head: Place) -> bool {
        let SlowConsumer::Close { events_max, bytes_max } = slow else { return false };
        self.replay.is_none()
            && (self.channel.bounds().distance(self.place, head) > events_max
                || self.channel.bytes_after(self.place) > bytes_max)
    }

    /// The next stored event is not the one after our place: either a new epoch began, or what was to come has
    /// expired while this client was reading. It is told so, and goes on behind the gap.
    async fn gap(
        &mut self,
        hub: &Inner,
        first: Option<&Frame>,
        head: Place,
    ) -> Result<Option<Refused>, LogError> {
        let bounds = hub.log.bounds(&self.channel).await?;
        if first.is_none() && bounds.head > head && bounds.is_used() {
            // Something was stored since the page was read: it is there to be read, not missing.
            return Ok(None);
        }
        let missing = match first {
            Some(first) => bounds.distance(self.place, bounds.before(first.place)),
            None => bounds.distance(self.place, bounds.head),
        };
        // What the log has is less than what we read: it lost its end, and what came behind it.
        let beyond = self.place.sequence > bounds.end_of(self.place.generation);
        // The channel was removed below us.
        let forgotten = self.place < bounds.begin;
        if missing == 0 && !beyond && !forgotten {
            // Nothing is left where we stand, though the head has moved on: an epoch that began without an event.
            if first.is_none() {
                self.place = bounds.head;
            }
            return Ok(None);
        }
        let mut refused = resume::gap(self.place, &bounds).unwrap_or(Refused {
            code: resume::EXPIRED,
            place: bounds.head,
            oldest: bounds.oldest,
            newest: bounds.head,
            missing: None,
        });
        if let Some(first) = first {
            refused.place = bounds.before(first.place);
        }
        refused.missing = (missing > 0 && !forgotten).then_some(missing);
        if forgotten {
            refused.code = resume::FORGOTTEN;
        } else if beyond {
            refused.code = resume::NOT_FOUND;
        }
        Ok(Some(refused))
    }

    fn end_replay(&mut self, voice: &mut Voice) {
        if let Some(replay) = self.replay.take_if(|replay| self.place >= replay.until) {
            voice.replay_end(self.channel.name(), replay.sent, replay.truncated);
        }
    }
}
