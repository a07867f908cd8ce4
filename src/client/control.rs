//! The control events of our server: what `control.open` announces, what cannot be resumed, and what follows from it.

use super::batch::Kind;
use super::config::CannotResumeFallback;
use super::intake::Intake;
use super::notice::Notice;
use crate::wire::{Cursor, EventRef, control, envelope, json};

/// What `control.open` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The server speaks our protocol: its ids are positions.
    pub(crate) ours: bool,
    pub(crate) heartbeat_interval_ms: Option<u64>,
    /// The id after which this stream begins.
    pub(crate) position: Option<Cursor>,
    /// Whether a hole can be fetched by resuming from before it.
    pub(crate) replayable: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ControlEvent {
    Open(Announcement),
    Heartbeat {
        interval_ms: Option<u64>,
    },
    CannotResume {
        notice: Notice,
        position: Option<Cursor>,
        newest: Option<Cursor>,
        missing: Option<u64>,
    },
    /// One more channel, behind this position.
    Listen {
        position: Cursor,
        replayable: bool,
    },
    /// One channel less.
    Unlisten {
        channel: String,
    },
    Close {
        reason: String,
    },
    Other,
}

/// Reads a control event; what is missing or ill-formed in it is left out, never an error.
pub(crate) fn read(name: &str, data: &str) -> ControlEvent {
    let payload = envelope::scan(data).and_then(|envelope| envelope.payload).unwrap_or("");
    match name {
        control::OPEN => ControlEvent::Open(announcement(payload)),
        control::HEARTBEAT => ControlEvent::Heartbeat { interval_ms: interval(payload, "interval_ms") },
        control::CANNOT_RESUME => cannot_resume(payload),
        control::LISTEN => position(payload, "position").map_or(ControlEvent::Other, |position| {
            ControlEvent::Listen { position, replayable: field(payload, "replayable") == Some("true") }
        }),
        control::UNLISTEN => {
            text(payload, "channel").map_or(ControlEvent::Other, |channel| ControlEvent::Unlisten { channel })
        }
        control::CLOSE => ControlEvent::Close { reason: text(payload, "reason").unwrap_or_default() },
        _ => ControlEvent::Other,
    }
}

fn announcement(payload: &str) -> Announcement {
    Announcement {
        ours: text(payload, "protocol").as_deref() == Some(control::PROTOCOL),
        heartbeat_interval_ms: interval(payload, "heartbeat_interval"),
        position: position(payload, "position"),
        replayable: field(payload, "replayable") == Some("true"),
    }
}

fn cannot_resume(payload: &str) -> ControlEvent {
    let missing = field(payload, "missing").and_then(json::unsigned);
    ControlEvent::CannotResume {
        notice: Notice::CannotResume {
            code: text(payload, "code").unwrap_or_else(|| "event_not_found".to_owned()),
            reason: text(payload, "reason").unwrap_or_else(|| "events_expired".to_owned()),
            message: text(payload, "message")
                .unwrap_or_else(|| "the server can no longer replay from this id".to_owned()),
            requested_id: text(payload, "requestedId"),
            oldest_available: text(payload, "oldestAvailable"),
            newest_available: text(payload, "newestAvailable"),
            missing,
        },
        position: position(payload, "position"),
        newest: position(payload, "newestAvailable"),
        missing,
    }
}

fn position(payload: &str, key: &str) -> Option<Cursor> {
    text(payload, key)?.parse().ok()
}

/// No interval of a day or more is believed: it would switch the watch over the stream off.
fn interval(payload: &str, key: &str) -> Option<u64> {
    field(payload, key).and_then(json::unsigned).filter(|ms| (1..86_400_000).contains(ms))
}

fn text(payload: &str, key: &str) -> Option<String> {
    field(payload, key).and_then(json::plain_string).map(str::to_owned)
}

fn field<'a>(payload: &'a str, key: &str) -> Option<&'a str> {
    let mut found = None;
    json::object_fields(payload, |name, value| {
        if name == key {
            found = Some(value);
        }
    });
    found
}

impl Intake {
    /// Hands a control event on to the app, and does what it says.
    pub(super) fn control(&mut self, event: EventRef<'_>) {
        let kind = if event.name == control::HEARTBEAT { Kind::Heartbeat } else { Kind::Control };
        // Whatever id it may carry is not one that can be resumed from.
        self.batch.push(kind, event.name, event.data, None);
        self.ledger.accept_told();
        match read(event.name, event.data) {
            ControlEvent::Open(announcement) => self.announce(announcement),
            ControlEvent::Heartbeat { interval_ms } => {
                self.stats.heartbeats += 1;
                self.liveness.beat(interval_ms);
            }
            ControlEvent::CannotResume { notice, position, newest, missing } => {
                self.stats.events_missing = self.stats.events_missing.saturating_add(missing.unwrap_or(0));
                self.notice(notice);
                self.give_up_all_reordered();
                if !self.announced {
                    // No replay brings them any more, and their ids may come to name other events. Those of our protocol
                    // name one event for ever.
                    self.ledger.done_before.clear();
                }
                if self.fallback == CannotResumeFallback::Close {
                    self.effects.close = true;
                    return;
                }
                // The app has been told: from here on the old cursor would only be refused again.
                if let (true, Some(position)) = (self.tracks.is_several(), &position) {
                    newest.iter().for_each(|newest| self.tracks.end_at(newest));
                    self.tracks.move_to(position, self.ledger.accepted());
                    self.move_parts();
                    self.forget_passed();
                    return;
                }
                self.move_cursor(&position.as_ref().map(Cursor::to_string).unwrap_or_default());
                newest.iter().for_each(|newest| self.tracks.end_at(newest));
                self.place_at(position);
                self.forget_passed();
            }
            ControlEvent::Listen { position, replayable } => {
                self.announced = true;
                self.replayable = replayable;
                if self.tracks.listen(&position, self.ledger.accepted()) {
                    self.move_parts();
                }
            }
            ControlEvent::Unlisten { channel } => {
                self.tracks.unlisten(&channel);
                if self.tracks.is_several() {
                    self.move_parts();
                }
            }
            ControlEvent::Close { reason } => self.effects.close_reason = Some(reason),
            ControlEvent::Other => {}
        }
    }

    /// What lies before the new place comes no more, or as a repeat: it must not take the places of others.
    fn forget_passed(&mut self) {
        let tracks = &mut self.tracks;
        self.ledger.done_before.retain(|id| {
            tracks
                .locate(id)
                .is_none_or(|(track, epoch, number)| !track.sequencer.has_accepted(epoch, number))
        });
    }

    fn announce(&mut self, announcement: Announcement) {
        self.liveness.beat(announcement.heartbeat_interval_ms);
        if !announcement.ours {
            return;
        }
        self.give_up_all_reordered();
        self.replayable = announcement.replayable;
        if let Some(position) = &announcement.position
            && self.ledger.accepted().is_empty()
        {
            // A fresh client resumes from where its stream began, even if no event came before a cut.
            self.move_cursor(&position.to_string());
        }
        self.announced = announcement.position.is_some();
        match announcement.position {
            Some(position) => {
                if self.tracks.announce(&position, self.ledger.accepted()) {
                    self.move_parts();
                }
            }
            None => self.tracks.clear(),
        }
    }

    pub(super) fn place_at(&mut self, position: Option<Cursor>) {
        match position {
            None => self.tracks.clear(),
            Some(position) => self.tracks.move_to(&position, self.ledger.accepted()),
        }
    }
}
