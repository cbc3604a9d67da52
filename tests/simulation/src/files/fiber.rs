//! Coroutines for code that blocks on files: it stops inside of each call, and continues when the event of the call
//! happens. So one thread interleaves the calls of all processes, and a process can die between any two of them.
//!
//! A process that died gets an error from every further call, without effect, until its code ends. What it drops meanwhile
//! changes nothing. Not here: the calls (`mount`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use generator::{Generator, Gn};

use crate::event::Event;
use crate::tasks::Owner;
use crate::world::{self, Micros};

/// The stack of a coroutine in words.
const STACK: usize = 32 << 10;

/// Work of a process.
pub type Work = Box<dyn FnOnce() + Send>;

/// Why a coroutine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It waits for an event.
    Waits,
    /// Its work is done: it can do other work.
    Idle,
}

type Coroutine = ManuallyDrop<Generator<'static, (), Stop>>;

/// The coroutines that wait.
#[derive(Default)]
pub struct Fibers {
    waiting: BTreeMap<u64, (Owner, Option<Coroutine>, Option<Work>)>,
    serial: u64,
}

thread_local! {
    /// Coroutines without work. They are never dropped: that would unwind them.
    static IDLE: RefCell<Vec<Coroutine>> = const { RefCell::new(vec![]) };
    static NEXT: Cell<Option<Work>> = const { Cell::new(None) };
    static RUNNING: Cell<Option<(u64, Owner)>> = const { Cell::new(None) };
}

impl Fibers {
    /// Coroutines whose work is not done.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    fn of(&self, owner: Option<Owner>) -> Vec<u64> {
        let of = self.waiting.iter().filter(|(_, (of, ..))| owner.is_none_or(|owner| owner == *of));
        of.map(|(id, _)| *id).collect()
    }
}

/// Runs work of a process from the next event on.
pub fn spawn(owner: Owner, work: Work) {
    world::with(|world| {
        world.fibers.serial += 1;
        let id = world.fibers.serial;
        world.fibers.waiting.insert(id, (owner, None, Some(work)));
        world.at(world.now, Event::File(owner, id));
    });
}

/// The event of a coroutine's call happens.
pub fn resume(id: u64) {
    let Some((owner, coroutine, work)) = world::with(|world| world.fibers.waiting.remove(&id)) else {
        return;
    };
    let mut coroutine = coroutine.or_else(|| IDLE.with_borrow_mut(Vec::pop)).unwrap_or_else(create);
    NEXT.set(work);
    RUNNING.set(Some((id, owner)));
    world::with(|world| world.current = owner);
    let stopped = coroutine.resume();
    RUNNING.set(None);
    match stopped {
        Some(Stop::Waits) => {
            world::with(|world| world.fibers.waiting.insert(id, (owner, Some(coroutine), None)));
        }
        Some(Stop::Idle) => IDLE.with_borrow_mut(|idle| idle.push(coroutine)),
        None => {}
    }
}

/// Ends the work of a process that died; of all processes at the end of a schedule. Its calls fail from now on.
pub fn end(owner: Option<Owner>) {
    for id in world::with(|world| world.fibers.of(owner)) {
        let not_begun = world::with(|world| match world.fibers.waiting.get(&id) {
            Some((_, None, _)) => world.fibers.waiting.remove(&id),
            _ => None,
        });
        if not_begun.is_none() {
            resume(id);
        }
    }
}

/// Whether the code that runs is in a coroutine.
pub fn is_inside() -> bool {
    RUNNING.get().is_some()
}

/// Waits for a time.
pub fn wait(time: Micros) {
    let Some((id, owner)) = RUNNING.get() else { return };
    world::after(time, Event::File(owner, id));
    stop(Stop::Waits);
}

#[allow(deprecated)] // Its replacement needs an argument in every function between here and the coroutine's first one.
fn stop(stop: Stop) {
    generator::yield_with(stop);
}

fn create() -> Coroutine {
    let run = || loop {
        if let Some(work) = NEXT.take()
            && catch_unwind(AssertUnwindSafe(work)).is_err()
        {
            world::violated(|| "a panic in work on files".into());
        }
        stop(Stop::Idle);
    };
    ManuallyDrop::new(Gn::new_opt(STACK, run))
}
