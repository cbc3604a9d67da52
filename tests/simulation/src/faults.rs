//! The kinds of faults, how often requests and tasks fail, and the faults that happen at certain times.
//!
//! Not here: which of them a seed chooses (`scenario`), what they do (`cluster`).

use crate::world::Micros;

/// A kind of fault, which can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages between workers and coordinators take long.
    Delay,
    /// Streams break, and lose what is under way.
    Break,
    /// Streams break, and one end or none of them learns it.
    HalfOpen,
    /// Processes do nothing for a while.
    Pause,
    /// Workers die and start again.
    WorkerCrash,
    /// Coordinators die and start again.
    CoordinatorCrash,
    /// Processes die between two steps of I/O.
    CrashAtIo,
    /// Sessions of the election end under a healthy leader.
    Session,
    /// Coordinators cannot reach Consul.
    ConsulAway,
    /// The store answers 503.
    StoreUnavailable,
    /// Answers of the store are lost, or requests are sent twice.
    StoreLost,
    /// Requests are applied after the client gave up.
    StoreLate,
    /// Completions of uploads answer 200 with an error inside.
    StoreErrorInside,
    /// The store is slow.
    StoreSlow,
    /// Another program drops an open upload.
    UploadExpires,
    /// Disks of workers are full for a while.
    DiskFull,
    /// Tasks fail.
    TaskFailure,
    /// Tasks are slow.
    SlowTask,
    /// Workers drain.
    Drain,
    /// Reads between workers fail.
    PeerFailure,
    /// Workers are cut off from each other.
    PeerCut,
    /// Clocks jump.
    Clock,
    /// Jobs are cancelled.
    Cancel,
    /// The same day is submitted again.
    Again,
    /// Attempts of a reduce task return the same rows in another order.
    OtherOrder,
    /// Workers report results of attempts that no coordinator sent them.
    Unsolicited,
    /// Calls on files fail.
    FileError,
    /// The disk of outputs and journals is full for a while.
    FileFull,
    /// Calls on files take long before they have an effect.
    FileSlow,
    /// The answers to calls on files come late.
    FileLate,
    /// The machine of all processes loses its power, and what was not synced.
    PowerFailure,
    /// The same shortly after a call on files, often one that changes a day.
    PowerAtIo,
}

/// All kinds with their names.
pub const KINDS: [(Kind, &str); 32] = [
    (Kind::Delay, "delay"),
    (Kind::Break, "break"),
    (Kind::HalfOpen, "half-open"),
    (Kind::Pause, "pause"),
    (Kind::WorkerCrash, "worker-crash"),
    (Kind::CoordinatorCrash, "coordinator-crash"),
    (Kind::CrashAtIo, "crash-at-io"),
    (Kind::Session, "session"),
    (Kind::ConsulAway, "consul-away"),
    (Kind::StoreUnavailable, "store-503"),
    (Kind::StoreLost, "store-lost"),
    (Kind::StoreLate, "store-late"),
    (Kind::StoreErrorInside, "store-error-inside"),
    (Kind::StoreSlow, "store-slow"),
    (Kind::UploadExpires, "upload-expires"),
    (Kind::DiskFull, "disk-full"),
    (Kind::TaskFailure, "task-failure"),
    (Kind::SlowTask, "slow-task"),
    (Kind::Drain, "drain"),
    (Kind::PeerFailure, "peer-failure"),
    (Kind::PeerCut, "peer-cut"),
    (Kind::Clock, "clock"),
    (Kind::Cancel, "cancel"),
    (Kind::Again, "again"),
    (Kind::OtherOrder, "other-order"),
    (Kind::Unsolicited, "unsolicited"),
    (Kind::FileError, "file-error"),
    (Kind::FileFull, "file-full"),
    (Kind::FileSlow, "file-slow"),
    (Kind::FileLate, "file-late"),
    (Kind::PowerFailure, "power-failure"),
    (Kind::PowerAtIo, "power-at-io"),
];

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// Every kind.
    pub const ALL: Kinds = Kinds(u32::MAX);
    /// No kind.
    pub const NONE: Kinds = Kinds(0);

    /// Whether the set has a kind.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// The set with a kind.
    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        Kinds(self.0 | 1 << kind as u32)
    }

    /// The set without a kind.
    #[must_use]
    pub fn without(self, kind: Kind) -> Self {
        Kinds(self.0 & !(1 << kind as u32))
    }

    /// The names of its kinds.
    pub fn names(self) -> Vec<&'static str> {
        KINDS.iter().filter(|(kind, _)| self.has(*kind)).map(|(_, name)| *name).collect()
    }
}

/// How often requests, tasks and messages fail, in 1,000.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Messages that are late.
    pub message_late: u32,
    /// Requests that the store refuses.
    pub store_unavailable: u32,
    /// Requests whose answer is lost.
    pub store_lost: u32,
    /// Requests that are applied late.
    pub store_late: u32,
    /// Completions that fail inside of their answer.
    pub store_error_inside: u32,
    /// Slow requests.
    pub store_slow: u32,
    /// Tasks that fail.
    pub task_failure: u32,
    /// Slow tasks.
    pub slow_task: u32,
    /// Failed reads between workers.
    pub peer_failure: u32,
    /// Reduce attempts with another order.
    pub other_order: u32,
    /// Calls on files that fail.
    pub file_error: u32,
    /// Calls on files that take long.
    pub file_slow: u32,
    /// Answers of calls on files that are late.
    pub file_late: u32,
}

/// The call on files after which the power fails. The first is number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAt {
    /// A call of any kind.
    Call(u32),
    /// A call that changes the output.
    OutputChange(u32),
}

/// A fault at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The stream of a worker breaks. The times after which its ends learn it, if they do.
    Break { worker: usize, worker_learns: Option<Micros>, coordinator_learns: Option<Micros> },
    /// A process does nothing.
    Pause { process: usize, time: Micros },
    /// A process dies, and starts again. Its peers learn it at once, or not at all.
    Crash { process: usize, back: Micros, silent: bool },
    /// The session of the election's leader ends.
    Session,
    /// A coordinator cannot reach Consul.
    ConsulAway { process: usize, time: Micros },
    /// An upload is dropped.
    UploadExpires { number: u64 },
    /// A worker's disk is full.
    DiskFull { process: usize, time: Micros },
    /// A worker is asked to drain, or to leave at once.
    Drain { process: usize, at_once: bool },
    /// Two processes cannot reach each other.
    Cut { one: usize, other: usize, time: Micros },
    /// A worker reports the result of a task that it did not run.
    Unsolicited { process: usize },
    /// The disk of outputs and journals is full.
    FilesFull { time: Micros },
    /// All processes die, and what was not synced is lost.
    PowerFailure { back: Micros },
    /// A clock jumps by that many milliseconds.
    Clock { process: usize, by: i64 },
}
