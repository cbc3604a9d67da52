//! Waiting in virtual time: a signal that one future waits for, set by the loop or by another part of its process.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::event::Event;
use crate::world::{self, Micros};

/// Something that happens once.
#[derive(Debug, Default)]
pub struct Signal {
    set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// It happens.
    pub fn set(&self) {
        self.set.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether it happened.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    fn poll(&self, cx: &mut Context<'_>) -> bool {
        if !self.set.get() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        self.set.get()
    }
}

/// Waits.
pub async fn sleep(time: Micros) {
    let over = Rc::new(Signal::default());
    world::after(time, Event::Wake(over.clone()));
    poll_fn(|cx| if over.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Waits, unless `other` happens first; false if it did.
pub async fn sleep_unless(time: Micros, other: &Signal) -> bool {
    if other.is_set() {
        return false;
    }
    let over = Rc::new(Signal::default());
    world::after(time, Event::Wake(over.clone()));
    poll_fn(|cx| match (other.poll(cx), over.poll(cx)) {
        (true, _) => Poll::Ready(false),
        (false, true) => Poll::Ready(true),
        (false, false) => Poll::Pending,
    })
    .await
}
