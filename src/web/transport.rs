//! What the two ways to receive a stream have in common: a request under way, and the address that it goes to.

use std::rc::{Rc, Weak};

use js_sys::Reflect;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::driver::Driver;
use super::options::{TransportKind, Url, parse_url};
use super::{event_source, fetch};
use crate::client::{Code, Input, Request, RequestId, TransportError};

/// A request under way. What comes of it reaches the driver as inputs, until it is given up.
pub(crate) trait Transport {
    fn id(&self) -> RequestId;

    /// Gives it up. Nothing of it is read any more, also where its source does not heed that.
    fn abort(&self);

    /// More may be read: the app has caught up.
    fn go_on(&self);
}

/// Starts a request.
pub(crate) fn start(driver: &Rc<Driver>, request: Request) -> Rc<dyn Transport> {
    match &driver.options.transport {
        TransportKind::Fetch => fetch::start(driver, request),
        TransportKind::EventSource(names) => event_source::start(driver, request, names.clone()),
    }
}

/// Why an exchange ended before its body did.
pub(crate) enum Stop {
    Error(TransportError),
    /// The request was given up meanwhile.
    NotWanted,
}

impl Stop {
    pub(crate) fn network(message: String) -> Self {
        Self::Error(TransportError { code: Code::NetworkError, message, retry: true })
    }

    pub(crate) fn final_(code: Code, message: String) -> Self {
        Self::Error(TransportError { code, message, retry: false })
    }

    /// Tells the machine, if there still is one that listens.
    pub(crate) fn tell(self, driver: &Weak<Driver>, id: RequestId) {
        if let (Self::Error(error), Some(driver)) = (self, driver.upgrade()) {
            driver.input(Input::Failed(id, error));
        }
    }
}

/// The driver, while it waits for this request. It is never held over an await: a connector that is dropped takes
/// its transport with it.
pub(crate) fn wanted(driver: &Weak<Driver>, id: RequestId) -> Result<Rc<Driver>, Stop> {
    driver.upgrade().filter(|driver| driver.is_current(id)).ok_or(Stop::NotWanted)
}

/// Where the request goes, the cursor in it where it belongs there.
pub(crate) async fn address(driver: &Weak<Driver>, request: &Request) -> Result<web_sys::Url, Stop> {
    let asked = match &wanted(driver, request.id)?.options.url {
        Url::Known(text) => Err(text.clone()),
        Url::Asked => Ok(()),
    };
    let text = match asked {
        Err(text) => text,
        Ok(()) => {
            let url = ask(driver, request.id, "url").await?;
            let text = url.as_string().or_else(|| url.dyn_ref::<web_sys::Url>().map(web_sys::Url::href));
            let message = "the url function did not answer with a string or a URL";
            text.ok_or_else(|| Stop::final_(Code::InvalidUrl, message.to_owned()))?
        }
    };
    let url = parse_url(&text).map_err(|message| Stop::final_(Code::InvalidUrl, message))?;
    if let Some(param) = &wanted(driver, request.id)?.options.last_event_id_param
        && !request.last_event_id.is_empty()
    {
        url.search_params().set(param, &request.last_event_id);
    }
    Ok(url)
}

/// Asks the app anew for the value of an option that may be a function. The host asks, which the core holds weakly: a
/// function that knows its connector does not keep it alive by that.
pub(crate) async fn ask(driver: &Weak<Driver>, id: RequestId, name: &str) -> Result<JsValue, Stop> {
    let promise = wanted(driver, id)?.host.ask(name);
    JsFuture::from(promise)
        .await
        .map_err(|error| Stop::network(format!("the {name} function failed: {}", message_of(&error))))
}

pub(crate) fn message_of(error: &JsValue) -> String {
    get(error, "message")
        .as_string()
        .or_else(|| error.as_string())
        .unwrap_or_else(|| "unknown error".to_owned())
}

pub(crate) fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}
