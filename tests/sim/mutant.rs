//! Clients with one defect each, by which every checker is seen to fail. The page has its core through here: the true
//! one, or one that is set, told or believed wrongly in one respect.

use std::ops::Deref;

use holdfast_sse::client::{Client, Config, DedupeConfig, Input, Notice, Output, RetryPolicy, WhenHidden};

use super::page::{Item, What};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    DropsAnEvent,
    DeliversTwice,
    SwapsTwo,
    BendsData,
    CommitsEarly,
    StoresUnfinishedIds,
    ForgetsDoneIds,
    IgnoresDoneIds,
    NeverStores,
    IgnoresFlush,
    SwallowsGaps,
    SwallowsCannotResume,
    InventsAGap,
    MiscountsGaps,
    GivesBackTooLittle,
    GivesBackTooMuch,
    AsksWithoutCursor,
    KeepsTheClearedCursor,
    IgnoresTheBackoff,
    ResetsTheBackoffAtOpen,
    IgnoresRetryAfter,
    NeverGivesUp,
    RefreshesUnasked,
    AsksWhileOffline,
    AsksWhileStopped,
    AsksWhileHidden,
    RepeatsRequests,
    NeverReconnects,
    NeverTimesOut,
    IgnoresSilence,
    HoldsTooMuch,
    RemembersTooMuch,
    ReadsWhileBusy,
    RecognisesNothing,
    OrdersNothing,
    KeepsItsConnection,
    AsksWhileAside,
    SleepsOn,
    AsksBeforeRestored,
    ReadsEndlessEvents,
    MovesAllChannels,
}

/// The client of a page.
pub(crate) struct Core {
    client: Client,
    mutant: Option<Mutant>,
    /// What the defect counts.
    count: u64,
}

impl Deref for Core {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Core {
    pub(crate) fn new(config: &Config, mutant: Option<Mutant>) -> Self {
        Self { client: Client::new(misread(config, mutant)), mutant, count: 0 }
    }

    pub(crate) fn handle_input(&mut self, now_ms: u64, input: Input<'_>) {
        let input = match (self.mutant, input) {
            (Some(Mutant::AsksWhileOffline), Input::Offline)
            | (Some(Mutant::AsksWhileStopped), Input::Stop { .. })
            | (Some(Mutant::KeepsTheClearedCursor), Input::ClearCursor)
            | (Some(Mutant::KeepsItsConnection), Input::PutAside)
            | (Some(Mutant::SleepsOn), Input::Awake)
            | (Some(Mutant::IgnoresFlush), Input::Flush) => return,
            (Some(Mutant::AsksBeforeRestored), Input::Connect) => {
                self.client.handle_input(now_ms, Input::Connect);
                Input::Restored(None)
            }
            (Some(Mutant::AsksWhileAside), Input::PutAside) => {
                self.client.handle_input(now_ms, Input::PutAside);
                Input::Awake
            }
            (Some(Mutant::GivesBackTooLittle), Input::Stop { .. }) => Input::Stop { started: u64::MAX },
            (Some(Mutant::GivesBackTooLittle), Input::Reconnect { .. }) => {
                Input::Reconnect { started: u64::MAX }
            }
            (Some(Mutant::GivesBackTooMuch), Input::Stop { started }) => {
                Input::Stop { started: started.saturating_sub(2) }
            }
            (Some(Mutant::GivesBackTooMuch), Input::Reconnect { started }) => {
                Input::Reconnect { started: started.saturating_sub(2) }
            }
            (Some(Mutant::IgnoresRetryAfter), Input::Head(id, mut head)) => {
                head.retry_after_ms = None;
                Input::Head(id, head)
            }
            (Some(Mutant::IgnoresDoneIds), Input::Restored(Some(mut record))) => {
                record.done.clear();
                Input::Restored(Some(record))
            }
            (_, input) => input,
        };
        self.client.handle_input(now_ms, input);
    }

    pub(crate) fn poll_output(&mut self) -> Output {
        loop {
            let output = self.client.poll_output();
            let swallowed = match (self.mutant, &output) {
                (Some(Mutant::NeverStores), Output::Commit(_)) => true,
                (Some(Mutant::NeverReconnects), Output::Request(_)) => {
                    self.count += 1;
                    self.count > 2
                }
                _ => false,
            };
            if !swallowed {
                return self.bend(output);
            }
        }
    }

    fn bend(&self, output: Output) -> Output {
        let last_id = || {
            let events = self.client.batch().events();
            events.filter_map(|event| event.id.map(str::to_owned)).last()
        };
        match (self.mutant, output) {
            (Some(Mutant::CommitsEarly), Output::Commit(mut record)) => {
                record.cursor = last_id().unwrap_or(record.cursor);
                Output::Commit(record)
            }
            (Some(Mutant::StoresUnfinishedIds), Output::Commit(mut record)) => {
                record.done.extend(last_id());
                Output::Commit(record)
            }
            (Some(Mutant::ForgetsDoneIds), Output::Commit(mut record)) => {
                record.done.clear();
                Output::Commit(record)
            }
            (Some(Mutant::MovesAllChannels), Output::Commit(mut record)) => {
                // As if one channel's number were the place of all.
                let number = |part: &str| part.rsplit_once('-')?.1.parse::<u64>().ok();
                let last = record.cursor.split(',').filter_map(number).max().unwrap_or(0);
                let parts = record.cursor.split(',').filter_map(|part| part.rsplit_once('-'));
                let parts: Vec<_> = parts.map(|(channel, _)| format!("{channel}-{last}")).collect();
                record.cursor = parts.join(",");
                Output::Commit(record)
            }
            (Some(Mutant::AsksWithoutCursor), Output::Request(mut request)) => {
                request.last_event_id.clear();
                Output::Request(request)
            }
            (_, output) => output,
        }
    }

    /// Whether more may be read, as the driver sees it.
    pub(crate) fn is_drained(&self) -> bool {
        self.mutant == Some(Mutant::ReadsWhileBusy) || self.client.is_drained()
    }

    /// The records of a batch, on their way to the app.
    pub(crate) fn pass(&mut self, items: &mut Vec<Item>) {
        let Some(mutant) = self.mutant else { return };
        let is_event = |item: &Item| matches!(item.what, What::Event { .. });
        for at in 0..items.len() {
            let is_tenth = is_event(&items[at]) && {
                self.count += 1;
                self.count.is_multiple_of(10)
            };
            if mutant == Mutant::SwapsTwo && at > 0 && is_event(&items[at]) && is_event(&items[at - 1]) {
                let [.., first, second] = &mut items[..=at] else { return };
                std::mem::swap(&mut first.what, &mut second.what);
                return;
            }
            match (mutant, &mut items[at].what) {
                (Mutant::DropsAnEvent, what) if is_tenth => *what = What::Other,
                (Mutant::BendsData, What::Event { data, .. }) if is_tenth => data.push('!'),
                (Mutant::DeliversTwice, What::Event { .. }) if is_tenth => {
                    let again = items[at].clone();
                    items.insert(at, again);
                    return;
                }
                (Mutant::SwallowsGaps, what @ What::Notice(Notice::Gap { .. }))
                | (Mutant::SwallowsCannotResume, what @ What::Notice(Notice::CannotResume { .. })) => {
                    *what = What::Other;
                }
                (Mutant::MiscountsGaps, What::Notice(Notice::Gap { count, .. })) => *count += 1,
                (Mutant::InventsAGap, what @ What::Event { .. }) if is_tenth => {
                    let What::Event { id: Some(id), data, .. } = what else { continue };
                    let number =
                        data.split_once(r#""sequence":"#).and_then(|(_, rest)| rest.split(',').next());
                    let missing = number.unwrap_or(id).to_owned();
                    *what = What::Notice(Notice::Gap {
                        first_missing: missing.clone(),
                        last_missing: missing,
                        count: 1,
                        stream_id: None,
                    });
                }
                _ => {}
            }
        }
    }
}

/// The configuration as a client with this defect understands it.
fn misread(config: &Config, mutant: Option<Mutant>) -> Config {
    let mut config = config.clone();
    match mutant {
        Some(Mutant::IgnoresTheBackoff) => {
            config.retry = RetryPolicy { base_delay_ms: 0, max_delay_ms: 0, ..config.retry };
        }
        Some(Mutant::ResetsTheBackoffAtOpen) => config.stable_after_ms = 0,
        Some(Mutant::NeverGivesUp) => config.retry.max_attempts = None,
        Some(Mutant::RefreshesUnasked) => config.can_refresh_credentials = true,
        Some(Mutant::AsksWhileHidden) => config.when_hidden = WhenHidden::Stay,
        Some(Mutant::RepeatsRequests) => (config.repeatable, config.auto_reconnect) = (true, true),
        Some(Mutant::NeverTimesOut) => config.connect_timeout_ms = 1 << 40,
        Some(Mutant::IgnoresSilence) => config.liveness = None,
        Some(Mutant::HoldsTooMuch) => {
            config.ordering.held_events_max = config.ordering.held_events_max.saturating_mul(4);
            config.ordering.held_bytes_max = config.ordering.held_bytes_max.saturating_mul(4);
        }
        Some(Mutant::RemembersTooMuch) => {
            config.dedupe = config
                .dedupe
                .map(|dedupe| DedupeConfig { size_max: dedupe.size_max.saturating_mul(2), ..dedupe });
        }
        Some(Mutant::ReadsEndlessEvents) => {
            config.limits.line_bytes_max *= 1_000;
            config.limits.event_bytes_max *= 1_000;
        }
        Some(Mutant::RecognisesNothing) => config.dedupe = None,
        Some(Mutant::OrdersNothing) => {
            config.ordering.rule = holdfast_sse::client::OrderingRule::None;
        }
        _ => {}
    }
    config
}
