//! The fetch-stream transport: one request, its headers asked anew, its body read as fast as the app keeps up.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AbortController, AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use super::driver::Driver;
use super::transport::{Stop, Transport, address, ask, get, message_of, wanted};
use crate::client::{Code, Decision, Head, Input, Request, RequestId, retry_after_ms};

/// Bytes that are parsed at once: bounds what one delivery holds, however large the browser's chunks are.
const SLICE_BYTES_MAX: u32 = 64 << 10;

/// A fetch under way.
struct Fetching {
    id: RequestId,
    controller: Option<AbortController>,
    /// Resolves the promise that the reader waits on while the app is busy.
    resume: RefCell<Option<Function>>,
    /// Reads the body; cancelled by hand, since a fetch of the app's own need not heed the signal.
    reader: RefCell<Option<ReadableStreamDefaultReader>>,
}

impl Fetching {
    /// A promise for when the app has caught up, or the request is given up.
    fn wait_for_app(&self) -> Promise {
        Promise::new(&mut |resolve, _| {
            *self.resume.borrow_mut() = Some(resolve);
        })
    }
}

impl Transport for Fetching {
    fn id(&self) -> RequestId {
        self.id
    }

    fn abort(&self) {
        if let Some(controller) = &self.controller {
            controller.abort();
        }
        if let Some(reader) = self.reader.take() {
            ignore(reader.cancel());
        }
        self.go_on();
    }

    fn go_on(&self) {
        if let Some(resume) = self.resume.take() {
            let _ = resume.call0(&JsValue::UNDEFINED);
        }
    }
}

/// Starts a request; what comes of it reaches the driver as inputs.
pub(crate) fn start(driver: &Rc<Driver>, request: Request) -> Rc<dyn Transport> {
    let controller = AbortController::new().ok();
    if let Some(controller) = &controller {
        driver.host.tell_connected(controller, "abort");
    }
    let id = request.id;
    let weak = Rc::downgrade(driver);
    let fetching =
        Rc::new(Fetching { id, controller, resume: RefCell::default(), reader: RefCell::default() });
    let reading = Rc::clone(&fetching);
    spawn_local(async move {
        match exchange(&weak, &reading, &request).await {
            Ok(()) => {
                if let Some(driver) = weak.upgrade() {
                    driver.input(Input::End(id));
                }
            }
            Err(stop) => stop.tell(&weak, id),
        }
    });
    fetching
}

async fn exchange(weak: &Weak<Driver>, fetching: &Fetching, request: &Request) -> Result<(), Stop> {
    let driver = || wanted(weak, request.id);
    let url = address(weak, request).await?;
    let has_headers = driver()?.options.has_headers;
    let headers = if has_headers { ask(weak, request.id, "headers").await? } else { JsValue::UNDEFINED };
    let signal = fetching.controller.as_ref().map(AbortController::signal);
    let init = build(&*driver()?, request, &headers, signal)?;
    let crosses_origins = is_cross_origin(&url);
    let has_cursor_header =
        !request.last_event_id.is_empty() && driver()?.options.last_event_id_param.is_none();
    let promise = driver()?.host.request(&url.href(), &init, &request.last_event_id);
    let (response, decision) = match JsFuture::from(promise).await {
        Ok(answer) => read_answer(answer)?,
        Err(error) => {
            return Err(Stop::network(describe_failure(&error, crosses_origins, has_cursor_header)));
        }
    };
    let head = head_of(&response);
    let told = driver().map(|driver| {
        driver.input(match decision {
            None => Input::Head(request.id, head),
            Some(decision) => Input::Decided(request.id, head, decision),
        });
    });
    if let Err(stop) = told.and_then(|()| driver()) {
        // A fetch of the app's own need not heed the signal.
        if let Some(body) = response.body().filter(|body| !body.locked()) {
            ignore(body.cancel());
        }
        return Err(stop);
    }
    let Some(body) = response.body() else { return Ok(()) };
    if response.body_used() || body.locked() {
        let message =
            "the body of the response was read already: onResponse and fetch may read a clone() of it";
        return Err(Stop::final_(Code::InvalidOption, message.to_owned()));
    }
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    driver()?;
    *fetching.reader.borrow_mut() = Some(reader.clone());
    loop {
        // Not reading is the backpressure: the browser's buffers fill, then TCP's, then the server's.
        caught_up(weak, fetching).await?;
        let chunk = JsFuture::from(reader.read()).await.map_err(|error| Stop::network(broke_off(&error)))?;
        if get(&chunk, "done").is_truthy() {
            return Ok(());
        }
        let chunk = get(&chunk, "value");
        if !js_sys::ArrayBuffer::is_view(&chunk) || get(&chunk, "BYTES_PER_ELEMENT").as_f64() != Some(1.0) {
            let message = "the response of the fetch option is not a stream of bytes";
            return Err(Stop::final_(Code::InvalidOption, message.to_owned()));
        }
        let chunk: Uint8Array = chunk.unchecked_into();
        let mut start = 0;
        while start < chunk.length() {
            if start > 0 {
                caught_up(weak, fetching).await?;
            }
            let end = chunk.length().min(start + SLICE_BYTES_MAX);
            let slice =
                if start == 0 && end == chunk.length() { chunk.clone() } else { chunk.subarray(start, end) };
            let wanted = driver()?.bytes(request.id, |buffer| {
                buffer.resize(slice.length() as usize, 0);
                slice.copy_to(buffer);
            });
            if !wanted {
                return Err(Stop::NotWanted);
            }
            start = end;
        }
    }
}

/// Waits until the app has caught up.
async fn caught_up(weak: &Weak<Driver>, fetching: &Fetching) -> Result<(), Stop> {
    while !wanted(weak, fetching.id)?.client().is_drained() {
        let _ = JsFuture::from(fetching.wait_for_app()).await;
    }
    Ok(())
}

/// Lets a promise end as it likes: nobody waits for it, and its failure is no news.
fn ignore(promise: Promise) {
    spawn_local(async {
        let _ = JsFuture::from(promise).await;
    });
}

fn build(
    driver: &Driver,
    request: &Request,
    headers: &JsValue,
    signal: Option<AbortSignal>,
) -> Result<RequestInit, Stop> {
    let headers = own_headers(headers)?;
    let set = |name: &str, value: &str| {
        headers.set(name, value).map_err(|_| {
            Stop::final_(Code::InvalidOption, format!("cannot send the header {name}: {value:?}"))
        })
    };
    if !headers.has("accept").unwrap_or(false) {
        set("Accept", "text/event-stream")?;
    }
    if let Some(trace_id) = &driver.options.trace_id {
        set("X-Trace-ID", trace_id)?;
    }
    if !request.last_event_id.is_empty() && driver.options.last_event_id_param.is_none() {
        set("Last-Event-ID", &as_byte_string(&request.last_event_id))?;
    }
    let init = RequestInit::new();
    init.set_headers(&headers);
    init.set_signal(signal.as_ref());
    // By name, since these are few: the enums of web-sys would each bring their table of strings.
    let options: &Object = init.unchecked_ref();
    let _ = Reflect::set(options, &"cache".into(), &"no-store".into());
    if let Some(credentials) = &driver.options.credentials {
        let _ = Reflect::set(options, &"credentials".into(), &credentials.as_str().into());
    }
    Ok(init)
}

fn own_headers(headers: &JsValue) -> Result<Headers, Stop> {
    let made = if headers.is_undefined() || headers.is_null() {
        Headers::new()
    } else {
        Headers::new_with_headers(headers.unchecked_ref())
            .or_else(|_| Headers::new_with_record_from_str_to_str(headers.unchecked_ref()))
    };
    made.map_err(|error| {
        Stop::final_(Code::InvalidOption, format!("option headers cannot be sent: {}", message_of(&error)))
    })
}

/// Header values are bytes; ids travel as UTF-8, which `fetch` wants as one character a byte.
fn as_byte_string(text: &str) -> String {
    if text.is_ascii() { text.to_owned() } else { text.bytes().map(char::from).collect() }
}

/// A response, or one with the app's decision behind it.
fn read_answer(answer: JsValue) -> Result<(Response, Option<Decision>), Stop> {
    let (response, decision) = match answer.dyn_ref::<Array>() {
        Some(pair) => (pair.get(0), pair.get(1).as_string()),
        None => (answer, None),
    };
    // By its shape, not its class: a fetch of the app's own may bring a Response of another library or frame.
    if get(&response, "status").as_f64().is_none() || !get(&response, "headers").is_object() {
        let message = "the fetch option did not answer with a Response";
        return Err(Stop::final_(Code::InvalidOption, message.to_owned()));
    }
    let response: Response = response.unchecked_into();
    let decision = match decision.as_deref() {
        Some("accept") => Some(Decision::Accept),
        Some("retry") => Some(Decision::Retry),
        Some("stop") => Some(Decision::Stop),
        _ => None,
    };
    Ok((response, decision))
}

fn head_of(response: &Response) -> Head {
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let wall_clock_wait = |date: &str| {
        let wait = js_sys::Date::parse(date) - js_sys::Date::now();
        wait.is_finite().then_some(wait.max(0.0) as u64)
    };
    Head {
        status: response.status(),
        content_type: header("content-type"),
        retry_after_ms: header("retry-after")
            .and_then(|text| retry_after_ms(&text).or_else(|| wall_clock_wait(&text))),
    }
}

fn is_cross_origin(url: &web_sys::Url) -> bool {
    super::host::global("location")
        .is_some_and(|location| get(&location, "origin").as_string() != Some(url.origin()))
}

/// What browsers say of a lost connection ("network error", "terminated") tells a person nothing.
fn broke_off(error: &JsValue) -> String {
    format!("the connection broke off in the middle of the stream ({})", message_of(error))
}

/// Browsers tell a refused connection and a failed preflight apart only on their console.
fn describe_failure(error: &JsValue, crosses_origins: bool, has_cursor_header: bool) -> String {
    let message = message_of(error);
    match (crosses_origins, has_cursor_header) {
        (false, _) => format!("the request failed ({message}): is the server there?"),
        (true, false) => format!(
            "the request failed ({message}): is the server there, and does it allow this page's origin \
             (Access-Control-Allow-Origin)?"
        ),
        (true, true) => format!(
            "the request failed ({message}): is the server there, and does its answer to the preflight allow the \
             header Last-Event-ID (Access-Control-Allow-Headers)? The option lastEventIdParam puts the cursor into \
             the query instead, which needs no preflight"
        ),
    }
}
