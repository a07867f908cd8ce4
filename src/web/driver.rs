//! Does what the machine decides: one machine, one host, one transport, one timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::host::{BatchCall, Host};
use super::lifecycle::{PageEvent, PageWatch, is_hidden, is_offline};
use super::options::WebOptions;
use super::storage::CursorStore;
use super::timer::{WakeUp, now_ms};
use super::transport::{self, Transport};
use crate::client::{Client, Input, Notice, Output, RequestId, State, StoredRecord};

pub(crate) struct Driver {
    pub(crate) options: WebOptions,
    pub(crate) host: Host,
    client: RefCell<Client>,
    store: RefCell<CursorStore>,
    wake_up: RefCell<WakeUp>,
    transport: RefCell<Option<Rc<dyn Transport>>>,
    page_watch: RefCell<Option<PageWatch>>,
    /// Reused for every chunk of every response.
    buffer: RefCell<Vec<u8>>,
    /// Outputs are being carried out further up the stack; they will see to new ones, too.
    draining: Cell<bool>,
    /// What to begin with, in place of what is stored.
    first_record: RefCell<Option<StoredRecord>>,
}

impl Driver {
    pub(crate) fn new(options: WebOptions, host: Host) -> Rc<Self> {
        Rc::new(Self {
            client: RefCell::new(Client::new(options.config.clone())),
            store: RefCell::new(CursorStore::new(options.persist_key.as_deref())),
            wake_up: RefCell::default(),
            transport: RefCell::default(),
            page_watch: RefCell::default(),
            buffer: RefCell::default(),
            draining: Cell::new(false),
            first_record: RefCell::default(),
            options,
            host,
        })
    }

    pub(crate) fn client(&self) -> std::cell::Ref<'_, Client> {
        self.client.borrow()
    }

    /// Begins with `record` instead of the stored one: what a driver that replaces a broken one knows.
    pub(crate) fn begin_at(&self, record: StoredRecord) {
        *self.first_record.borrow_mut() = Some(record);
    }

    /// Connects or reconnects. Nobody listened to the page while the stream was down, so its state is told first.
    pub(crate) fn begin(self: &Rc<Self>, input: Input<'_>) {
        let state = self.client.borrow().state();
        if matches!(state, State::Idle | State::Closed) {
            let mut client = self.client.borrow_mut();
            client.handle_input(now_ms(), self.network());
            client.handle_input(now_ms(), if is_hidden() { Input::Hidden } else { Input::Visible });
        }
        self.input(input);
        if self.client.borrow().state() != State::Closed && self.page_watch.borrow().is_none() {
            let driver = Rc::downgrade(self);
            *self.page_watch.borrow_mut() = Some(PageWatch::new(move |event| {
                if let Some(driver) = driver.upgrade() {
                    driver.page_event(event);
                }
            }));
        }
    }

    /// Nobody holds the connector any more: nothing is told, nothing goes on.
    pub(crate) fn abandon(&self) {
        if let Some(transport) = self.transport.take() {
            transport.abort();
        }
        self.page_watch.take();
        self.store.borrow_mut().let_go_now();
        self.wake_up.borrow_mut().set(0, None, |_| {});
    }

    /// Forgets the cursor, the stored one too.
    pub(crate) fn clear_cursor(self: &Rc<Self>) {
        self.store.borrow().clear();
        self.input(Input::ClearCursor);
    }

    fn page_event(self: &Rc<Self>, event: PageEvent) {
        match event {
            PageEvent::Leaving => self.input(Input::Flush),
            PageEvent::PutAside => {
                self.input(Input::PutAside);
                // Nor may it hold a lock, or wait for one. The next request takes it again.
                if self.client.borrow().state() == State::Retrying {
                    self.store.borrow_mut().let_go_now();
                }
            }
            PageEvent::Hidden => {
                self.input(Input::Flush);
                self.input(Input::Hidden);
            }
            PageEvent::Visible => self.input(Input::Visible),
            // Perhaps nobody heard of the network meanwhile. Where there is one, sockets may be dead all the same.
            PageEvent::Back | PageEvent::Online => self.input(self.network()),
            PageEvent::Offline if is_offline(self.options.host.as_deref()) => self.input(Input::Offline),
            PageEvent::Offline => {}
        }
    }

    /// What the browser believes of the network now.
    fn network(&self) -> Input<'static> {
        if is_offline(self.options.host.as_deref()) { Input::Offline } else { Input::Online }
    }

    /// Tells the machine what happened and does what it wants done.
    pub(crate) fn input(self: &Rc<Self>, input: Input<'_>) {
        self.host.enter();
        self.client.borrow_mut().handle_input(now_ms(), input);
        self.drain();
        self.host.leave();
    }

    /// Hands a piece of a response body over. False where nobody waits for it any more.
    pub(crate) fn bytes(self: &Rc<Self>, id: RequestId, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.host.enter();
        let mut buffer = self.buffer.take();
        fill(&mut buffer);
        self.client.borrow_mut().handle_input(now_ms(), Input::Bytes(id, &buffer));
        *self.buffer.borrow_mut() = buffer;
        self.drain();
        self.host.leave();
        self.is_current(id)
    }

    /// Whether answers to this request are still wanted.
    pub(crate) fn is_current(&self, id: RequestId) -> bool {
        self.transport.borrow().as_ref().is_some_and(|transport| transport.id() == id)
    }

    fn drain(self: &Rc<Self>) {
        if self.draining.replace(true) {
            return;
        }
        loop {
            let output = self.client.borrow_mut().poll_output();
            match output {
                Output::Wait(at_ms) => {
                    self.wait(at_ms);
                    break;
                }
                output => self.perform(output),
            }
        }
        self.draining.set(false);
        let client = self.client.borrow();
        if client.is_drained()
            && let Some(transport) = self.transport.borrow().as_ref()
        {
            transport.go_on();
        }
        if client.state() == State::Closed {
            self.page_watch.take();
            self.store.borrow_mut().let_go();
        }
    }

    fn perform(self: &Rc<Self>, output: Output) {
        match output {
            Output::Restore => {
                let first = self.first_record.take();
                if first.is_none() && self.options.app_keeps_cursor {
                    return self.host.restore();
                }
                let (record, problem) = match first {
                    Some(record) => (Some(record), None),
                    None => self.store.borrow_mut().load(),
                };
                self.storage_problem(problem);
                self.client.borrow_mut().handle_input(now_ms(), Input::Restored(record));
            }
            Output::Request(request) => {
                let (driver, holder) = (Rc::downgrade(self), Rc::downgrade(self));
                self.store.borrow_mut().hold(
                    move |message| {
                        if let Some(driver) = driver.upgrade() {
                            driver.storage_problem(Some(message));
                        }
                    },
                    move |release| {
                        if let Some(driver) = holder.upgrade() {
                            driver.host.lock_held(release);
                        }
                    },
                );
                *self.transport.borrow_mut() = Some(transport::start(self, request));
            }
            Output::Abort(id) => {
                if self.is_current(id)
                    && let Some(transport) = self.transport.take()
                {
                    transport.abort();
                }
            }
            Output::Deliver => self.deliver(),
            Output::Commit(record) => {
                self.host.tell_committed(&record);
                let problem = self.store.borrow_mut().save(&record);
                self.storage_problem(problem);
            }
            Output::Notify(notice) => self.host.notify_app(&notice),
            Output::Wait(_) => {}
        }
    }

    fn deliver(&self) {
        let call = BatchCall::describe(self.client.borrow().batch());
        // JavaScript copies the tables before it runs app code; no borrow is held meanwhile.
        let finished = self.host.deliver_batch(&call);
        if finished > 0 {
            let last = call.first_token + finished - 1;
            self.client.borrow_mut().handle_input(now_ms(), Input::Processed(last));
        }
    }

    fn storage_problem(&self, problem: Option<String>) {
        if let Some(message) = problem {
            self.host.notify_app(&Notice::Error {
                code: crate::client::Code::StorageUnavailable,
                message,
                status: None,
                will_retry: true,
            });
        }
    }

    fn wait(self: &Rc<Self>, at_ms: Option<u64>) {
        let driver = Rc::downgrade(self);
        self.wake_up.borrow_mut().set(now_ms(), at_ms, move |slept| {
            if let Some(driver) = driver.upgrade() {
                driver.wake_up.borrow_mut().fired();
                if slept {
                    driver.page_event(PageEvent::Back);
                }
                driver.input(Input::Timer);
            }
        });
    }
}
