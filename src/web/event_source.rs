//! The browser's own EventSource as transport, for where a stream must be one: its connections have a panel of their own
//! in the browsers' tools, and some proxies and extensions treat them in their own way.
//!
//! Each of its events becomes the bytes that it was made of, so that parser, dedupe and order see what they always see.
//! What it does not tell cannot be kept: status, headers, comments, `retry:` and events of names that nobody listens
//! to. It reconnects by itself, without a growing delay and without a fresh URL; so it is closed at its first error, and
//! the machine decides what follows.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{EventSource, EventSourceInit};

use super::driver::Driver;
use super::transport::{Stop, Transport, address, get, message_of, wanted};
use crate::client::{Code, Head, Input, Request, RequestId};
use crate::wire::{control, encode};

/// Events that the app may be behind, or more where it may have more in hand. EventSource cannot be paused: at so many
/// it is closed until the app has caught up.
const BEHIND_MAX: usize = 1_000;

type Listener = Closure<dyn FnMut(JsValue)>;

/// One EventSource, from its making to its first error.
struct Source {
    id: RequestId,
    driver: Weak<Driver>,
    names: Rc<[String]>,
    source: RefCell<Option<(EventSource, Listener)>>,
    opened: Cell<bool>,
    /// Closed since the app is so many events behind.
    overrun: Cell<Option<usize>>,
    /// That of the latest event: one that has the same has inherited it.
    last_event_id: RefCell<String>,
}

/// Opens an EventSource that listens to events of these `names`.
pub(crate) fn start(driver: &Rc<Driver>, request: Request, names: Rc<[String]>) -> Rc<dyn Transport> {
    let source = Rc::new(Source {
        id: request.id,
        driver: Rc::downgrade(driver),
        names,
        source: RefCell::default(),
        opened: Cell::new(false),
        overrun: Cell::new(None),
        last_event_id: RefCell::default(),
    });
    let opening = Rc::clone(&source);
    spawn_local(async move {
        if let Err(stop) = opening.open(&request).await {
            stop.tell(&opening.driver, request.id);
        }
    });
    source
}

impl Source {
    async fn open(self: &Rc<Self>, request: &Request) -> Result<(), Stop> {
        let url = address(&self.driver, request).await?;
        let with_credentials =
            wanted(&self.driver, self.id)?.options.credentials.as_deref() == Some("include");
        let init = EventSourceInit::new();
        init.set_with_credentials(with_credentials);
        let source = EventSource::new_with_event_source_init_dict(&url.href(), &init)
            .map_err(|error| Stop::final_(Code::InvalidUrl, message_of(&error)))?;
        wanted(&self.driver, self.id)?.host.tell_connected(&source, "close");
        let weak = Rc::downgrade(self);
        let listener = Listener::new(move |event: JsValue| {
            if let Some(this) = weak.upgrade() {
                this.heard(&event);
            }
        });
        let own_names = ["open", "error", "message"].into_iter().chain(control::SERVER);
        for name in own_names.chain(self.names.iter().map(String::as_str)) {
            // The same listener for the same name counts once.
            let _ = source.add_event_listener_with_callback(name, listener.as_ref().unchecked_ref());
        }
        *self.source.borrow_mut() = Some((source, listener));
        Ok(())
    }

    fn heard(&self, event: &JsValue) {
        let Ok(driver) = wanted(&self.driver, self.id) else { return };
        let text = |key| get(event, key).as_string();
        let Some(name) = text("type") else { return };
        match (text("data"), name.as_str()) {
            (Some(data), _) => self.event(&driver, &name, &data, text("lastEventId").unwrap_or_default()),
            (None, "open") => {
                self.opened.set(true);
                driver.input(Input::Head(self.id, Head::event_stream()));
            }
            (None, "error") => self.failed(&driver),
            (None, _) => {}
        }
    }

    fn event(&self, driver: &Rc<Driver>, name: &str, data: &str, last_event_id: String) {
        let listened = name == "message" || control::is_reserved(name);
        if !listened && !self.names.iter().any(|known| known == name) {
            // `open` and `error` are also heard where they are events of the server's.
            return;
        }
        // Whether an id is the event's own or inherited is not told. The same id again counts as inherited, since events
        // without an id of their own are common and must not be taken for repeats. On our server each event has one.
        let is_new = *self.last_event_id.borrow() != last_event_id;
        let is_own = is_new || (!last_event_id.is_empty() && driver.client().is_numbered());
        driver.bytes(self.id, |buffer| {
            buffer.clear();
            // Neither a name that can be listened to nor an id that was parsed holds what cannot be written.
            let _ = encode::event(buffer, Some(name), is_own.then_some(&last_event_id), data);
        });
        *self.last_event_id.borrow_mut() = last_event_id;
        let client = driver.client();
        if client.is_behind(BEHIND_MAX) {
            self.overrun.set(Some(client.unfinished()));
            self.close();
        }
    }

    fn failed(&self, driver: &Rc<Driver>) {
        self.close();
        let message = if self.opened.get() {
            "the stream ended or broke off (EventSource does not tell which)"
        } else {
            "the request failed, or its answer is no event stream (EventSource does not tell which, nor the status): is \
             the server there, and does it allow this page's origin?"
        };
        if let Stop::Error(error) = Stop::network(message.to_owned()) {
            driver.input(Input::Failed(self.id, error));
        }
    }

    fn close(&self) {
        if let Some((source, _)) = self.source.take() {
            source.close();
        }
    }
}

impl Transport for Source {
    fn id(&self) -> RequestId {
        self.id
    }

    fn abort(&self) {
        self.overrun.set(None);
        self.close();
    }

    fn go_on(&self) {
        if let Some(behind) = self.overrun.take() {
            let (driver, id) = (self.driver.clone(), self.id);
            let message = format!(
                "the app was {behind} events behind; EventSource cannot be paused, so that it was closed meanwhile"
            );
            // The driver is at work; this is for when it has come to its end.
            spawn_local(async move { Stop::network(message).tell(&driver, id) });
        }
    }
}
