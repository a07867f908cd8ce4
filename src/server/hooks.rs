//! Where an app has its say about streams: who may open one, what a newcomer hears first, what follows an end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::auth::Authorize;
use super::publisher::Message;
use super::reason::CloseReason;
use super::registry::StreamInfo;

type Validate = dyn Fn(&Parts, &[String]) -> Result<(), String> + Send + Sync;
type Initial = dyn Fn(StreamInfo) -> BoxFuture<'static, Vec<Message>> + Send + Sync;
type OnDisconnect = dyn Fn(&StreamInfo, CloseReason) + Send + Sync;

/// What an app decides about the streams of a [`Hub`](super::Hub); see [`Hub::with_hooks`](super::Hub::with_hooks). All
/// are optional.
#[derive(Clone, Default)]
pub struct Hooks {
    pub(crate) authorize: Option<Arc<dyn Authorize>>,
    pub(crate) validate: Option<Arc<Validate>>,
    pub(crate) initial: Option<Arc<Initial>>,
    pub(crate) on_disconnect: Option<Arc<OnDisconnect>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("authorize", &self.authorize.is_some())
            .field("validate", &self.validate.is_some())
            .field("initial", &self.initial.is_some())
            .field("on_disconnect", &self.on_disconnect.is_some())
            .finish()
    }
}

impl Hooks {
    /// Asked before the first byte of every stream; without it anybody may open any. It takes the place of
    /// [`StreamOptions::stream_token`](super::StreamOptions::stream_token).
    #[must_use]
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.authorize = Some(Arc::new(authorize));
        self
    }

    /// Checks what a request asks for, before anybody is asked who it is: an error is answered with 400 and its text.
    #[must_use]
    pub fn validate(
        mut self,
        validate: impl Fn(&Parts, &[String]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.validate = Some(Arc::new(validate));
        self
    }

    /// Gives what only this newcomer hears, right after the handshake: events without an id, in no log. The stream is
    /// subscribed already: whatever is published from the call on follows.
    #[must_use]
    pub fn initial<Answer>(mut self, initial: impl Fn(StreamInfo) -> Answer + Send + Sync + 'static) -> Self
    where
        Answer: Future<Output = Vec<Message>> + Send + 'static,
    {
        self.initial = Some(Arc::new(move |info| initial(info).boxed()));
        self
    }

    /// Told of every stream that ended, once, when its place is free again. It must not block.
    #[must_use]
    pub fn on_disconnect(
        mut self,
        on_disconnect: impl Fn(&StreamInfo, CloseReason) + Send + Sync + 'static,
    ) -> Self {
        self.on_disconnect = Some(Arc::new(on_disconnect));
        self
    }
}
