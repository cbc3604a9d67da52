//! What all simulated processes share: virtual time, the queue of events, random numbers, the store, the log. One world
//! per schedule and thread; code of the product reaches it through the simulated store only.
//!
//! Not here: the processes (`cluster`), the meaning of events.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use tally_proto::JobId;

use crate::dataset::Day;
use crate::event::Event;
use crate::faults::{Fault, PowerAt, Rates};
use crate::files::Files;
use crate::files::fiber::Fibers;
use crate::process::Process;
use crate::rng::Rng;
use crate::scenario::Folders;
use crate::store::Store;
use crate::store::ops::Ops;
use crate::tasks::Owner;

/// Microseconds of virtual time since the begin of the schedule.
pub type Micros = u64;

/// A millisecond.
pub const MILLISECOND: Micros = 1000;
/// A second.
pub const SECOND: Micros = 1_000_000;
/// Virtual time 0 in seconds since 1970. Long ago, so that everything of a schedule is old for `tally gc`.
pub const EPOCH_SECONDS: u64 = 1_488_240_000;
/// Lines of the log that are kept.
const LOG_LINES: usize = 40_000;

/// An event, and when it happens. Events of the same time happen in the order in which they were queued.
struct Queued {
    at: Micros,
    serial: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// The shared state of a schedule.
pub struct World {
    /// The time.
    pub now: Micros,
    /// Random numbers of everything that is not decided in advance.
    pub rng: Rng,
    /// How often requests and tasks fail.
    pub rates: Rates,
    /// The object store.
    pub store: Store,
    /// Requests under way.
    pub ops: Ops,
    /// What is in folders in place of the object store.
    pub folders: Folders,
    /// The file system.
    pub files: Files,
    /// Its disk is full until then.
    pub files_full_until: Micros,
    /// A call on it failed, because the disk failed or was full.
    pub files_failed: bool,
    /// The days that the output had, or has.
    pub seen_days: BTreeSet<String>,
    /// Work on files under way.
    pub fibers: Fibers,
    /// The schedule is over.
    pub over: bool,
    /// The process that runs.
    pub current: Owner,
    /// The processes.
    pub processes: Vec<Process>,
    /// Pairs of processes that cannot reach each other, and until when.
    pub cuts: Vec<(usize, usize, Micros)>,
    /// Processes that die at their n-th request to the store.
    pub crash_at_io: Vec<(usize, u32)>,
    /// The power fails after these calls on files.
    pub power_at_io: Vec<PowerAt>,
    /// Calls on files so far.
    file_calls: u32,
    /// Those that changed the output.
    output_changes: u32,
    /// The longest time of a usual task.
    pub task_time: Micros,
    /// The day of each job.
    pub days: BTreeMap<JobId, Day>,
    queue: BinaryHeap<Queued>,
    serial: u64,
    violation: Option<String>,
    lines: std::collections::VecDeque<String>,
}

thread_local! {
    static WORLD: RefCell<Option<Box<World>>> = const { RefCell::new(None) };
    static LOGS: Cell<bool> = const { Cell::new(false) };
}

impl World {
    /// A world at time 0.
    pub fn new(rng: Rng, rates: Rates, folders: Folders) -> Self {
        World {
            now: 0,
            rng,
            rates,
            store: Store::default(),
            ops: Ops::default(),
            folders,
            files: Files::new(folders.kind, folders.has_root),
            files_full_until: 0,
            files_failed: false,
            seen_days: BTreeSet::new(),
            fibers: Fibers::default(),
            over: false,
            current: Owner { process: usize::MAX, life: 0 },
            processes: vec![],
            cuts: vec![],
            crash_at_io: vec![],
            power_at_io: vec![],
            file_calls: 0,
            output_changes: 0,
            task_time: MILLISECOND,
            days: BTreeMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            violation: None,
            lines: std::collections::VecDeque::new(),
        }
    }

    /// Queues an event.
    pub fn at(&mut self, at: Micros, event: Event) {
        self.serial += 1;
        self.queue.push(Queued { at: at.max(self.now), serial: self.serial, event });
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Micros> {
        self.queue.peek().map(|next| next.at)
    }

    /// The next event; its time is the present from now on.
    pub fn pop(&mut self) -> Option<Event> {
        let next = self.queue.pop()?;
        self.now = self.now.max(next.at);
        Some(next.event)
    }

    /// Whether two processes cannot reach each other.
    pub fn is_cut(&self, one: usize, other: usize) -> bool {
        let now = self.now;
        let cut =
            |&(a, b, until): &(usize, usize, Micros)| until > now && [(a, b), (b, a)].contains(&(one, other));
        self.cuts.iter().any(cut)
    }

    /// The number of map tasks of a job.
    pub fn job_files(&self, job: &JobId) -> u32 {
        self.days.get(job).map_or(0, |day| day.files.iter().sum())
    }

    /// Counts a request of the process that runs; it may be its last one.
    pub fn count_io(&mut self) {
        let at = self.current.process;
        let Some(process) = self.processes.get_mut(at) else { return };
        process.requests += 1;
        if !self.crash_at_io.contains(&(at, process.requests)) {
            return;
        }
        let after = self.rng.below(12 * MILLISECOND);
        let back = self.rng.between(10 * MILLISECOND, 5 * SECOND);
        self.at(self.now + after, Event::Fault(Fault::Crash { process: at, back, silent: false }));
    }

    /// Counts a call on files, which had its effect; the power may fail before its process goes on.
    pub fn count_file_call(&mut self) {
        self.file_calls += 1;
        self.output_changes += u32::from(self.files.output_changed);
        let fails_after = |at: &PowerAt| match *at {
            PowerAt::Call(number) => number == self.file_calls,
            PowerAt::OutputChange(number) => self.files.output_changed && number == self.output_changes,
        };
        if self.power_at_io.iter().any(fails_after) {
            // Before the next call, or a few calls later.
            let longest = *self.rng.pick(&[1, 300, 3 * MILLISECOND]).unwrap_or(&1);
            let after = self.rng.below(longest);
            let back = self.rng.between(10 * MILLISECOND, 5 * SECOND);
            self.at(self.now + after, Event::Fault(Fault::PowerFailure { back }));
        }
    }

    /// Events that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }
}

/// Makes a world that of this thread; returns the one before.
pub fn enter(world: Option<Box<World>>, log: bool) -> Option<Box<World>> {
    LOGS.set(log);
    WORLD.replace(world)
}

/// Uses the world. Not reentrant.
pub fn with<T>(use_it: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| match world {
        Some(world) => use_it(world),
        None => panic!("a simulated process runs outside of a schedule"),
    })
}

/// The same, unless the schedule is over.
pub fn try_with<T>(use_it: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD.try_with(|world| world.try_borrow_mut().ok()?.as_mut().map(|world| use_it(world))).ok()?
}

/// The time.
pub fn now() -> Micros {
    with(|world| world.now)
}

/// Queues an event.
pub fn after(delay: Micros, event: Event) {
    with(|world| world.at(world.now + delay, event));
}

/// Uses the random numbers.
pub fn draw<T>(draw: impl FnOnce(&mut Rng) -> T) -> T {
    with(|world| draw(&mut world.rng))
}

/// Whether a log is kept.
pub fn logs() -> bool {
    LOGS.get()
}

/// Adds a line to the log.
pub fn add_line(line: &str) {
    with(|world| {
        if world.lines.len() == LOG_LINES {
            world.lines.pop_front();
        }
        let (seconds, micros) = (world.now / SECOND, world.now % SECOND);
        world.lines.push_back(format!("{seconds:4}.{micros:06} {line}"));
    });
}

/// Adds a line to the log, and formats it only if there is one.
macro_rules! say {
    ($($text:tt)*) => {
        if $crate::world::logs() {
            $crate::world::add_line(&format!($($text)*));
        }
    };
}
pub(crate) use say;

/// The lines of the log.
pub fn log() -> Vec<String> {
    with(|world| world.lines.iter().cloned().collect())
}

/// Notes that an invariant does not hold. The first one ends the schedule.
pub fn violated(what: impl FnOnce() -> String) {
    if with(|world| world.violation.is_none()) {
        let what = what();
        say!("VIOLATED: {what}");
        with(|world| world.violation = Some(what));
    }
}

/// The invariant that does not hold.
pub fn violation() -> Option<String> {
    with(|world| world.violation.clone())
}
