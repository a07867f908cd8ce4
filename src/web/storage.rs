//! The stored cursor in a browser: one record a stream, `{v, cursor, done, at}`.
//!
//! Each tab keeps its own record in sessionStorage, which wins on reload: it is what this tab has processed. In
//! localStorage stands what a new tab begins with; of several tabs only the holder of a Web Lock writes it, so that
//! they do not take turns with cursors of different age.
//!
//! Storage may be full, denied or corrupt. Then the stream goes on from memory, and the app is told once. Where there is
//! no page (a worker, Node) none is looked for. Stores that an app brings along are driven in TypeScript.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use gloo_storage::{LocalStorage, SessionStorage, Storage};
use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};

use super::host::{as_function, global};
use crate::client::StoredRecord;
use crate::wire::json;

/// The format's version; any other is treated as absent.
const VERSION: f64 = 1.0;
const PREFIX: &str = "holdfast:1:";

pub(crate) struct CursorStore {
    key: Option<String>,
    shared: Rc<Shared>,
    lock: Option<TabLock>,
}

/// What the lock's callback needs of the store.
#[derive(Default)]
struct Shared {
    /// This tab writes localStorage. Stays after the lock was given back: what handlers finish late belongs there, too.
    is_writer: Cell<bool>,
    /// The lock was given back, with this in localStorage: where that has changed, another tab writes.
    left: RefCell<Option<Option<String>>>,
    /// Written as soon as this tab may.
    latest: RefCell<Option<String>>,
    told: Cell<bool>,
}

impl CursorStore {
    /// A store under `persist_key`, or none.
    pub(crate) fn new(persist_key: Option<&str>) -> Self {
        let key = persist_key.map(|key| format!("{PREFIX}{key}"));
        Self { key, shared: Rc::default(), lock: None }
    }

    /// The stream begins: this tab wants to be the one that writes localStorage. `tell` hears of what fails then, `held` how
    /// the lock is released by others than us.
    pub(crate) fn hold(&mut self, tell: impl Fn(String) + 'static, held: impl Fn(&Function) + 'static) {
        if self.lock.as_ref().is_some_and(|lock| !lock.ends_at_once.get()) {
            return;
        }
        let Some(key) = self.key.clone() else { return };
        let (shared, name) = (Rc::clone(&self.shared), key.clone());
        self.shared.left.take();
        // Until it is known that another tab writes, this one does: the answer takes a while, and the page may end.
        self.shared.is_writer.set(true);
        let taken = Rc::clone(&self.shared);
        self.lock = TabLock::request(
            &name,
            move || taken.is_writer.set(false),
            move || {
                shared.is_writer.set(true);
                if let Some(text) = shared.latest.take()
                    && !is_newer(&key, &text)
                    && LocalStorage::raw().set_item(&key, &text).is_err()
                    && let Some(message) = shared.tell(FULL)
                {
                    tell(message);
                }
                let left = &mut *shared.left.borrow_mut();
                if left.is_some() {
                    *left = Some(present(&key));
                }
            },
            held,
        );
    }

    /// The stream has ended: another tab may write, once what waits for the lock is written.
    pub(crate) fn let_go(&mut self) {
        self.note_left();
        match &self.lock {
            Some(lock) if !self.shared.is_writer.get() && self.shared.latest.borrow().is_some() => {
                lock.ends_at_once.set(true);
            }
            _ => self.lock = None,
        }
    }

    /// Gives the lock back, or the wish for it, whatever waits for it.
    pub(crate) fn let_go_now(&mut self) {
        self.note_left();
        self.lock = None;
    }

    fn note_left(&self) {
        if let Some(key) = &self.key
            && self.shared.left.borrow().is_none()
            && is_available()
        {
            self.shared.left.replace(Some(present(key)));
        }
    }

    /// What an earlier page stored, or why it cannot be had.
    pub(crate) fn load(&mut self) -> (Option<StoredRecord>, Option<String>) {
        let Some(key) = &self.key else { return (None, None) };
        if !is_available() {
            return (None, self.tell(UNAVAILABLE));
        }
        let own =
            SessionStorage::raw().get_item(key).ok().flatten().and_then(|text| read(&text).ok().flatten());
        if own.is_some() {
            return (own, None);
        }
        match LocalStorage::raw().get_item(key) {
            Ok(None) => (None, None),
            Ok(Some(text)) => match read(&text) {
                Ok(record) => (record, None),
                Err(Unreadable) => (None, self.tell("what is stored there cannot be read")),
            },
            Err(_) => (None, self.tell("reading from localStorage failed")),
        }
    }

    /// Stores `record`; answers what the app must be told, once.
    pub(crate) fn save(&mut self, record: &StoredRecord) -> Option<String> {
        let key = self.key.as_ref()?;
        if !is_available() {
            return self.tell(UNAVAILABLE);
        }
        let saved = if record.cursor.is_empty() && record.done.is_empty() {
            self.shared.latest.take();
            let cleared = SessionStorage::raw().remove_item(key).is_ok();
            cleared && (!self.shared.may_write(key) || LocalStorage::raw().remove_item(key).is_ok())
        } else {
            let text = write(record);
            let own = SessionStorage::raw().set_item(key, &text).is_ok();
            if self.shared.may_write(key) {
                let written = LocalStorage::raw().set_item(key, &text).is_ok();
                if let Some(left) = &mut *self.shared.left.borrow_mut() {
                    *left = Some(text);
                }
                own && written
            } else {
                *self.shared.latest.borrow_mut() = Some(text);
                own
            }
        };
        if saved { None } else { self.tell(FULL) }
    }

    /// Removes what is stored for new tabs, too, whoever writes it: a logout.
    pub(crate) fn clear(&self) {
        if let Some(key) = &self.key
            && is_available()
        {
            self.shared.latest.take();
            LocalStorage::delete(key);
            SessionStorage::delete(key);
        }
    }

    fn tell(&self, what: &str) -> Option<String> {
        self.shared.tell(what)
    }
}

impl Shared {
    /// Whether localStorage is this tab's to write.
    fn may_write(&self, key: &str) -> bool {
        self.is_writer.get() && self.left.borrow().as_ref().is_none_or(|left| *left == present(key))
    }

    /// What the app is told, once.
    fn tell(&self, what: &str) -> Option<String> {
        let first = !self.told.replace(true);
        first.then(|| format!("{what}: the cursor is kept in memory, so that a reload starts without it"))
    }
}

const FULL: &str = "writing to localStorage failed (full?)";
const UNAVAILABLE: &str =
    "there is no localStorage here, or the browser denies it (the option eventIdStorage takes another store)";

/// gloo-storage panics where there is no storage; browsers throw at the mere mention of a denied one.
fn is_available() -> bool {
    global("localStorage").is_some()
        && web_sys::window().is_some_and(|window| {
            matches!(window.local_storage(), Ok(Some(_))) && matches!(window.session_storage(), Ok(Some(_)))
        })
}

/// By hand: a serialiser for this one object would be a tenth of the whole module.
fn write(record: &StoredRecord) -> String {
    let mut text = String::from("{\"v\":1,\"cursor\":");
    json::write_string(&mut text, &record.cursor);
    text.push_str(",\"done\":[");
    for (index, id) in record.done.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        json::write_string(&mut text, id);
    }
    // When it was written, in milliseconds since 1970: for people who look at it.
    text.push_str("],\"at\":");
    text.push_str(&(js_sys::Date::now() as u64).to_string());
    text.push('}');
    text
}

/// What localStorage holds now.
fn present(key: &str) -> Option<String> {
    LocalStorage::raw().get_item(key).ok().flatten()
}

/// Whether what is stored under `key` is younger than `text`: another tab wrote it while this one waited.
fn is_newer(key: &str, text: &str) -> bool {
    let at = |text: &str| {
        let value = js_sys::JSON::parse(text).ok()?;
        Reflect::get(&value, &"at".into()).ok()?.as_f64()
    };
    present(key).and_then(|stored| at(&stored)) > at(text)
}

struct Unreadable;

/// Another version counts as absent, whatever else it holds: it is not ours to judge.
fn read(text: &str) -> Result<Option<StoredRecord>, Unreadable> {
    let value = js_sys::JSON::parse(text).map_err(|_| Unreadable)?;
    let version = Reflect::get(&value, &"v".into()).ok().and_then(|v| v.as_f64()).ok_or(Unreadable)?;
    if version != VERSION {
        return Ok(None);
    }
    serde_wasm_bindgen::from_value(value).map(Some).map_err(|_| Unreadable)
}

/// A Web Lock, or the wish for one; given back when it is dropped.
struct TabLock {
    controller: web_sys::AbortController,
    release: Rc<RefCell<Option<Function>>>,
    /// Should it be granted from now on, it is given back at once.
    ends_at_once: Rc<Cell<bool>>,
    /// The browser calls it when the lock is ours.
    _granted: Closure<dyn FnMut(JsValue) -> JsValue>,
    _probed: Closure<dyn FnMut(JsValue)>,
}

impl TabLock {
    /// `None` where there are no locks (an old browser, or a page that is not secure): then every tab writes.
    fn request(
        name: &str,
        on_taken: impl Fn() + 'static,
        on_granted: impl Fn() + 'static,
        held: impl Fn(&Function) + 'static,
    ) -> Option<Self> {
        let locks = Reflect::get(&global("navigator")?, &"locks".into()).ok()?;
        let request = as_function(&Reflect::get(&locks, &"request".into()).ok()?)?;
        let controller = web_sys::AbortController::new().ok()?;
        let options = js_sys::Object::new();
        Reflect::set(&options, &"signal".into(), &controller.signal()).ok()?;
        let release: Rc<RefCell<Option<Function>>> = Rc::default();
        let resolver = Rc::clone(&release);
        let ends_at_once: Rc<Cell<bool>> = Rc::default();
        let is_over = Rc::clone(&ends_at_once);
        let granted = Closure::new(move |_| {
            on_granted();
            if is_over.get() {
                return JsValue::UNDEFINED;
            }
            Promise::new(&mut |resolve, _| {
                held(&resolve);
                *resolver.borrow_mut() = Some(resolve);
            })
            .into()
        });
        // Asks without waiting whether another tab has it.
        let probe = js_sys::Object::new();
        Reflect::set(&probe, &"ifAvailable".into(), &JsValue::TRUE).ok()?;
        let probed = Closure::new(move |lock: JsValue| {
            if lock.is_null() {
                on_taken();
            }
        });
        let asked = request.call3(&locks, &name.into(), &probe, probed.as_ref()).ok()?;
        let wanted = request.call3(&locks, &name.into(), &options, granted.as_ref()).ok()?;
        // They end with an error where nobody waits for the answer any more.
        for promise in [asked, wanted] {
            spawn_local(async move {
                let _ = JsFuture::from(promise.unchecked_into::<Promise>()).await;
            });
        }
        Some(Self { controller, release, ends_at_once, _granted: granted, _probed: probed })
    }
}

impl Drop for TabLock {
    fn drop(&mut self) {
        self.controller.abort();
        if let Some(release) = self.release.take() {
            let _ = release.call0(&JsValue::UNDEFINED);
        }
    }
}
