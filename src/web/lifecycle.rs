//! The page's life: the network comes and goes, tabs are hidden, frozen, cached and ended.

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
    /// It was frozen or cached: sockets may be dead.
    Back,
}

/// Event names, where they are heard, and what they mean.
const LISTENED: [(&str, bool, PageEvent); 7] = [
    ("online", false, PageEvent::Online),
    ("offline", false, PageEvent::Offline),
    ("pagehide", false, PageEvent::Leaving),
    ("visibilitychange", true, PageEvent::Leaving),
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
        for (name, of_document, event) in LISTENED {
            let target = if of_document {
                global("document")
            } else {
                Some(js_sys::global().unchecked_into::<JsValue>())
            };
            let Some(target) = target.and_then(|target| target.dyn_into::<EventTarget>().ok()) else {
                continue;
            };
            let tell = tell.clone();
            let closure = Listener::new(move |dom_event: JsValue| {
                if is_meant(name, &dom_event) {
                    tell(event);
                }
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

/// A `pageshow` of a page that was not cached, and a tab that comes into view, mean nothing here.
fn is_meant(name: &str, dom_event: &JsValue) -> bool {
    let flag =
        |object: &JsValue, key: &str| js_sys::Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED);
    match name {
        "pageshow" => flag(dom_event, "persisted").is_truthy(),
        "visibilitychange" => global("document").is_some_and(|document| {
            flag(&document, "visibilityState").as_string().as_deref() == Some("hidden")
        }),
        _ => true,
    }
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
