//! A host that records what the core tells it, and ways to wait for it.

use std::cell::RefCell;
use std::rc::Rc;

use holdfast_sse::web::{Connector, Host};
use js_sys::{Array, Function, JSON, Object, Reflect, Uint8Array, Uint32Array, WebAssembly};
use wasm_bindgen::prelude::*;

/// The address of the server that `cargo xtask test` starts beside these tests.
pub(crate) const SERVER: Option<&str> = option_env!("HOLDFAST_TEST_SERVER");

const RECORD_WORDS: u32 = 6;
const PIECE_WORDS: u32 = 3;
const NO_NAME_INDEX: u32 = u32::MAX;

/// An event, read out of the tables as JavaScript would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: u32,
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) events: Vec<Seen>,
    pub(crate) notices: Vec<(String, JsValue)>,
    pub(crate) cursors: Vec<String>,
    names: Vec<String>,
}

/// One connector with its recording host.
pub(crate) struct Bench {
    pub(crate) connector: Connector,
    pub(crate) recorded: Rc<RefCell<Recorded>>,
}

impl Bench {
    /// Makes a connector; `options` is JSON, `fetch` an own one in place of the browser's.
    pub(crate) fn new(url: &str, options: &str, fetch: Option<&Function>) -> Self {
        let recorded = Rc::new(RefCell::new(Recorded::default()));
        let options: Object = JSON::parse(options).expect("JSON").unchecked_into();
        if let Some(fetch) = fetch {
            Reflect::set(&options, &"fetch".into(), fetch).expect("an object");
        }
        let connector = Connector::new(url.into(), &options, host(&recorded, fetch)).expect("valid options");
        Self { connector, recorded }
    }

    /// The values of `field` in all notices of this kind.
    pub(crate) fn told(&self, kind: &str, field: &str) -> Vec<JsValue> {
        let recorded = self.recorded.borrow();
        let of_kind = recorded.notices.iter().filter(|(told, _)| told == kind);
        of_kind.map(|(_, notice)| Reflect::get(notice, &field.into()).expect("an object")).collect()
    }

    pub(crate) fn told_text(&self, kind: &str, field: &str) -> Vec<String> {
        self.told(kind, field).iter().filter_map(JsValue::as_string).collect()
    }

    /// Names and data of the events for the app.
    pub(crate) fn events(&self) -> Vec<Seen> {
        self.recorded.borrow().events.iter().filter(|event| event.kind == 0).cloned().collect()
    }

    /// Waits until `condition` holds; panics with what was told where it never does.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if condition(self) {
                return;
            }
            gloo_timers::future::TimeoutFuture::new(5).await;
        }
        let recorded = self.recorded.borrow();
        let told: Vec<String> = recorded
            .notices
            .iter()
            .filter_map(|(_, notice)| JSON::stringify(notice).ok().and_then(|text| text.as_string()))
            .collect();
        panic!("waited in vain for {what}; events {:?}; told {told:?}", recorded.events);
    }
}

fn host(recorded: &Rc<RefCell<Recorded>>, fetch: Option<&Function>) -> Host {
    let host = Object::new();
    let set = |name: &str, closure: JsValue| {
        Reflect::set(&host, &name.into(), &closure).expect("an object");
    };
    let on_deliver = Rc::clone(recorded);
    // Nine arguments are more than a closure takes: they come as an array, by way of a wrapper in JavaScript.
    let deliver = Closure::<dyn FnMut(Array) -> f64>::new(move |arguments: Array| {
        let number = |index: u32| arguments.get(index).as_f64().expect("a number") as u32;
        let recorded = &mut *on_deliver.borrow_mut();
        if let Ok(names) = arguments.get(7).dyn_into::<Array>() {
            recorded.names.extend(names.iter().filter_map(|name| name.as_string()));
        }
        if let Ok(notices) = arguments.get(8).dyn_into::<Array>() {
            recorded.notices.extend(notices.iter().map(with_kind));
        }
        let records = number(1) / RECORD_WORDS;
        let events =
            read_tables(number(0), records, number(2), number(3) / PIECE_WORDS, number(4), &recorded.names);
        recorded.events.extend(events);
        f64::from(records)
    });
    let variadic = Function::new_with_args("deliver", "return (...args) => deliver(args)");
    set("deliver", variadic.call1(&JsValue::UNDEFINED, &deliver.into_js_value()).expect("a function"));
    let on_notify = Rc::clone(recorded);
    let notify = Closure::<dyn FnMut(JsValue)>::new(move |notice: JsValue| {
        on_notify.borrow_mut().notices.push(with_kind(notice));
    });
    set("notify", notify.into_js_value());
    for name in ["enter", "leave", "lockHeld"] {
        set(name, Function::new_no_args("").into());
    }
    let on_committed = Rc::clone(recorded);
    let committed = Closure::<dyn FnMut(String)>::new(move |cursor: String| {
        on_committed.borrow_mut().cursors.push(cursor);
    });
    set("committed", committed.into_js_value());
    let request = Function::new_with_args("own", "return async (url, init) => (own ?? fetch)(url, init)");
    let own = fetch.map_or(JsValue::UNDEFINED, JsValue::from);
    set("connected", Function::new_no_args("").into());
    set("request", request.call1(&JsValue::UNDEFINED, &own).expect("a function"));
    host.unchecked_into()
}

fn with_kind(notice: JsValue) -> (String, JsValue) {
    let kind = Reflect::get(&notice, &"kind".into()).ok().and_then(|kind| kind.as_string());
    (kind.expect("each notice names its kind"), notice)
}

fn read_tables(
    records: u32,
    count: u32,
    pieces: u32,
    piece_count: u32,
    text: u32,
    names: &[String],
) -> Vec<Seen> {
    // Taken anew each time: what is copied here may make the memory grow, which detaches the old buffer.
    let buffer = || wasm_bindgen::memory().unchecked_into::<WebAssembly::Memory>().buffer();
    let words = |at: u32, length: u32| {
        let mut copy = vec![0_u32; length as usize];
        Uint32Array::new_with_byte_offset_and_length(&buffer(), at, length).copy_to(&mut copy);
        copy
    };
    let records = words(records, count * RECORD_WORDS);
    let mut records = records.chunks_exact(RECORD_WORDS as usize);
    let mut events = Vec::new();
    for piece in words(pieces, piece_count * PIECE_WORDS).chunks_exact(PIECE_WORDS as usize) {
        let mut bytes = vec![0_u8; piece[1] as usize];
        Uint8Array::new_with_byte_offset_and_length(&buffer(), text + piece[0], piece[1]).copy_to(&mut bytes);
        let units: Vec<u16> = String::from_utf8(bytes).expect("valid UTF-8").encode_utf16().collect();
        for record in records.by_ref().take(piece[2] as usize) {
            let slice = |start: u32, length: u32| {
                String::from_utf16_lossy(&units[start as usize..(start + length) as usize])
            };
            let kind = record[5] & 0b111;
            let name = match (kind, record[0]) {
                (3 | 4, _) | (_, NO_NAME_INDEX) => String::new(),
                (_, index) => names[index as usize].clone(),
            };
            events.push(Seen {
                kind,
                name,
                data: slice(record[1], record[2]),
                id: slice(record[3], record[4]),
            });
        }
    }
    events
}

/// A fetch that answers with an event stream of these chunks, which then ends; counts its calls.
pub(crate) fn fetch_of(chunks: &[&str]) -> Function {
    let body = format!(
        "const chunks = {chunks:?}; self.fetchCalls = (self.fetchCalls ?? 0) + 1;
         const body = new ReadableStream({{ start(controller) {{
           for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
           controller.close();
         }} }});
         return Promise.resolve(new Response(body, {{ headers: {{ 'content-type': 'text/event-stream' }} }}));"
    );
    Function::new_with_args("url, init", &body)
}

/// An item of localStorage.
pub(crate) fn stored(key: &str) -> Option<String> {
    storage().get_item(key).expect("storage can be read")
}

/// Sets an item of localStorage, as another page may have left it: what this tab remembers by itself is forgotten.
pub(crate) fn store(key: &str, value: Option<&str>) {
    let own = web_sys::window().expect("a page").session_storage().expect("allowed").expect("there");
    own.remove_item(key).expect("storage can be written");
    match value {
        Some(value) => storage().set_item(key, value).expect("storage can be written"),
        None => storage().remove_item(key).expect("storage can be written"),
    }
}

fn storage() -> web_sys::Storage {
    web_sys::window().expect("a page").local_storage().expect("allowed").expect("there")
}
