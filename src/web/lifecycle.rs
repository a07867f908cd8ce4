//! The page's life: the network comes and goes, tabs are hidden, frozen, cached and ended.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::EventTarget;

use super::host::global;

/// What the page went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageEvent {
    Online,
    Offline,
    /// It may end, or be frozen, without another word.
    Leaving,
    /// The same, and it may come back out of a cache, in which case `Back` follows.
    PutAside,
    /// Nobody sees it any more; it may end, too.
    Hidden,
    Visible,
    /// It was frozen or cached: sockets may be dead.
    Back,
}

/// Event names, where they are heard, and what they mean.
const LISTENED: [(&str, bool, PageEvent); 7] = [
    ("online", false, PageEvent::Online),
    ("offline", false, PageEvent::Offline),
    ("pagehide", false, PageEvent::Leaving),
    // Which of the two is asked when it comes.
    ("visibilitychange", true, PageEvent::Hidden),
    ("freeze", true, PageEvent::Leaving),
    ("pageshow", false, PageEvent::Back),
    ("resume", true, PageEvent::Back),
];

type Listener = Closure<dyn FnMut(JsValue)>;

/// Listens until it is dropped.
pub(crate) struct PageWatch {
    listeners: Vec<(EventTarget, &'static str, Listener)>,
}

impl PageWatch {
    pub(crate) fn new(tell: impl Fn(PageEvent) + Clone + 'static) -> Self {
        let mut listeners = Vec::new();
        let aside = Rc::new(Cell::new(false));
        for (name, of_document, event) in LISTENED {
            let target = if of_document {
                global("document")
            } else {
                Some(js_sys::global().unchecked_into::<JsValue>())
            };
            let Some(target) = target.and_then(|target| target.dyn_into::<EventTarget>().ok()) else {
                continue;
            };
            let (tell, aside) = (tell.clone(), Rc::clone(&aside));
            let closure = Listener::new(move |dom_event: JsValue| {
                let cached = flag(&dom_event, "persisted").is_truthy();
                match name {
                    "pagehide" if cached => {
                        aside.set(true);
                        return tell(PageEvent::PutAside);
                    }
                    // Not back from the cache: a load like any other.
                    "pageshow" if !cached => return,
                    "pageshow" => aside.set(false),
                    // Chromium freezes and resumes what it caches, too: one return is not two.
                    "freeze" | "resume" if aside.get() => return,
                    _ => {}
                }
                let seen = event == PageEvent::Hidden && !is_hidden();
                tell(if seen { PageEvent::Visible } else { event });
            });
            if target.add_event_listener_with_callback(name, closure.as_ref().unchecked_ref()).is_ok() {
                listeners.push((target, name, closure));
            }
        }
        Self { listeners }
    }
}

impl Drop for PageWatch {
    fn drop(&mut self) {
        for (target, name, closure) in &self.listeners {
            let _ = target.remove_event_listener_with_callback(name, closure.as_ref().unchecked_ref());
        }
    }
}

/// Whether there is a page, and nobody sees it.
pub(crate) fn is_hidden() -> bool {
    global("document").is_some_and(|document| flag(&document, "visibilityState") == "hidden")
}

fn flag(object: &JsValue, key: &str) -> JsValue {
    js_sys::Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

/// Whether the browser believes itself offline. Loopback needs no network, so `host` decides as well.
pub(crate) fn is_offline(host: Option<&str>) -> bool {
    let loopback = host.is_some_and(|host| {
        matches!(host, "localhost" | "[::1]") || host.starts_with("127.") || host.ends_with(".localhost")
    });
    !loopback
        && global("navigator").is_some_and(|navigator| {
            js_sys::Reflect::get(&navigator, &"onLine".into()).is_ok_and(|on_line| on_line == JsValue::FALSE)
        })
}
