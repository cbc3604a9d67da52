//! Requests under way: sent by a process, applied by the store a little later, answered after that. Either step can be
//! slow, fail or be lost, and the process can die in between.
//!
//! Not here: what a request does (`store`), the interfaces of the product (`client`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Answer, Fail, Request};
use crate::event::Event;
use crate::rng::Rng;
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, World, say};

/// A request's place, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpId {
    slot: u32,
    serial: u32,
}

/// What the store and the network do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is applied, and answered.
    Fine,
    /// It is not applied.
    Unavailable,
    /// It is applied, or only in part, and the answer says that it failed.
    AnswerLost,
    /// It is applied, and the client, whose request was sent twice, gets the answer to the second one.
    SentTwice,
    /// The client gives up before it is applied.
    Late,
    /// The answer to a completion begins well, and then says that it failed.
    ErrorInside,
}

struct Op {
    serial: u32,
    owner: Owner,
    request: Option<Request>,
    fate: Fate,
    result: Option<Result<Answer, Fail>>,
    /// The process may see the result.
    arrived: bool,
    waker: Option<Waker>,
    /// Queued events that name it.
    events: u8,
    /// The process has its result, or no longer waits.
    settled: bool,
    /// The time from the application to the answer.
    back: Micros,
}

/// All requests under way.
#[derive(Default)]
pub struct Ops {
    slots: Vec<Option<Op>>,
    free: Vec<u32>,
    serial: u32,
}

impl Ops {
    fn add(&mut self, mut op: Op) -> OpId {
        self.serial += 1;
        op.serial = self.serial;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(op);
        OpId { slot, serial: self.serial }
    }

    fn get(&mut self, id: OpId) -> Option<&mut Op> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|op| op.serial == id.serial)
    }

    /// Requests that the store or the network still has.
    pub fn under_way(&self) -> usize {
        self.slots.iter().flatten().filter(|op| op.events > 0).count()
    }

    /// Frees a request that neither an event nor a process needs.
    fn tidy(&mut self, id: OpId) {
        if self.get(id).is_some_and(|op| op.settled && op.events == 0) {
            self.slots[id.slot as usize] = None;
            self.free.push(id.slot);
        }
    }
}

fn fate(request: &Request, world: &mut World) -> Fate {
    let World { rates, rng, .. } = world;
    if rng.chance(rates.store_unavailable) {
        return Fate::Unavailable;
    }
    if rng.chance(rates.store_lost) {
        return if rng.chance(500) { Fate::SentTwice } else { Fate::AnswerLost };
    }
    if rng.chance(rates.store_late) {
        return Fate::Late;
    }
    if matches!(request, Request::Complete { .. }) && rng.chance(rates.store_error_inside) {
        return Fate::ErrorInside;
    }
    Fate::Fine
}

fn latency(rng: &mut Rng, slow: u32) -> Micros {
    match rng.chance(slow) {
        true => rng.between(SECOND, 20 * SECOND),
        false => rng.between(MILLISECOND, 8 * MILLISECOND),
    }
}

/// Sends a request of the process that runs.
fn submit(world: &mut World, request: Request) -> OpId {
    world.count_io();
    let fate = fate(&request, world);
    let slow = world.rates.store_slow;
    let (there, mut back) = (latency(&mut world.rng, slow), latency(&mut world.rng, slow));
    let lost = matches!(fate, Fate::AnswerLost | Fate::SentTwice | Fate::Late);
    let timeout = if lost { world.rng.between(SECOND, 5 * SECOND) } else { 0 };
    if lost && fate != Fate::Late {
        back = timeout;
    }
    let id = world.ops.add(Op {
        serial: 0,
        owner: world.current,
        request: Some(request),
        fate,
        result: None,
        arrived: false,
        waker: None,
        events: if fate == Fate::Late { 2 } else { 1 },
        settled: false,
        back,
    });
    match fate {
        Fate::Unavailable => world.at(world.now + there + back, Event::Answer(id)),
        Fate::Late => {
            world.at(world.now + timeout, Event::Answer(id));
            world.at(world.now + timeout + there, Event::Apply(id));
        }
        _ => world.at(world.now + there, Event::Apply(id)),
    }
    id
}

/// The store applies a request.
pub fn apply(id: OpId) {
    let applied = world::with(|world| {
        let now = world.now;
        let op = world.ops.get(id)?;
        op.events -= 1;
        let (request, fate, back, owner) = (op.request.take()?, op.fate, op.back, op.owner);
        let text = if world::logs() { format!("{request:?}") } else { String::new() };
        let half = matches!(fate, Fate::ErrorInside | Fate::AnswerLost) && world.rng.chance(400);
        let World { store, .. } = world;
        let result = match fate {
            Fate::ErrorInside => {
                let _ = half.then(|| store.apply(now, request));
                Err(Fail::Internal)
            }
            Fate::AnswerLost => {
                let _ = store.apply(now, if half { request.partly() } else { request });
                Err(Fail::Timeout)
            }
            Fate::SentTwice => {
                let _ = store.apply(now, request.clone());
                store.apply(now, request)
            }
            Fate::Fine | Fate::Unavailable | Fate::Late => store.apply(now, request),
        };
        let shown = if world::logs() { result_text(&result) } else { String::new() };
        if fate != Fate::Late {
            world.at(now + back, Event::Answer(id));
            if let Some(op) = world.ops.get(id) {
                op.events += 1;
                op.result = Some(result);
            }
        }
        world.ops.tidy(id);
        Some((owner, fate, text, shown))
    });
    if let Some((owner, fate, text, shown)) = applied {
        let fate = if fate == Fate::Fine { String::new() } else { format!(" ({fate:?})") };
        say!("store {} {text} -> {shown}{fate}", owner.process);
    }
}

fn result_text(result: &Result<Answer, Fail>) -> String {
    match result {
        Ok(Answer::Listed { objects, folders }) => {
            format!("{} objects, {} folders", objects.len(), folders.len())
        }
        Ok(Answer::Object(object)) => format!("version {}", object.tag),
        Ok(Answer::Done) => "done".into(),
        other => format!("{other:?}"),
    }
}

/// A request's answer arrives.
pub fn answer(id: OpId) {
    world::with(|world| {
        let Some(op) = world.ops.get(id) else { return };
        op.events -= 1;
        op.arrived = true;
        match op.fate {
            Fate::Unavailable => op.result = Some(Err(Fail::Unavailable)),
            Fate::Late => op.result = Some(Err(Fail::Timeout)),
            _ => {}
        }
        if let Some(waker) = op.waker.take() {
            waker.wake();
        }
        world.ops.tidy(id);
    });
}

/// The answer to a request, which is sent at the first poll.
pub struct Call {
    request: Option<Request>,
    op: Option<OpId>,
}

impl Call {
    /// A request.
    pub fn new(request: Request) -> Self {
        Call { request: Some(request), op: None }
    }
}

impl Future for Call {
    type Output = Result<Answer, Fail>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        world::with(|world| {
            if let Some(request) = self.request.take() {
                self.op = Some(submit(world, request));
            }
            let Some((id, op)) = self.op.and_then(|id| Some((id, world.ops.get(id)?))) else {
                return Poll::Pending;
            };
            if !op.arrived {
                op.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let result = op.result.take();
            op.settled = true;
            world.ops.tidy(id);
            self.op = None;
            result.map_or(Poll::Pending, Poll::Ready)
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(id) = self.op {
            world::try_with(|world| {
                if let Some(op) = world.ops.get(id) {
                    op.settled = true;
                    op.waker = None;
                }
                world.ops.tidy(id);
            });
        }
    }
}
