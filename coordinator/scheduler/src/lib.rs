//! Which task runs where and when: a pure state machine, [`Scheduler::step`], from events to
//! commands. Jobs, stages, tasks, attempts, workers, retry, speculation, drain and the order
//! to publish live here; carrying commands out, and every clock, thread, file and socket, does
//! not: the coordinator's driver does that and answers with events.
//!
//! Invariants:
//! - The same events at the same times give the same commands: ordered collections only.
//! - A task has at most one output at a time; a job is finished exactly once.
//! - A worker never has more attempts than slots; a stopped attempt keeps its slot until the
//!   worker says that it ended, or is lost.
//! - States only move forward: what is unknown, late, duplicated or out of order changes
//!   nothing and comes back as [`Command::Warn`]. The late end of an attempt that was told to
//!   stop is expected and silent.
//! - A step costs in proportion to what it changes, the live jobs and their stages, never to
//!   the number of tasks.

mod command;
mod config;
mod demand;
mod event;
mod job;
mod median;
mod membership;
mod placement;
mod recover;
mod report;
mod settle;
mod shape;
mod speculate;
mod stage;
mod status;
mod step;
mod task;
mod time;
mod worker;

pub use command::{Command, JobFailure, Outcome, Warning};
pub use config::{Config, ConfigError, Speculation};
pub use demand::Demand;
pub use event::{Event, Found, TaskPlan};
pub use shape::{JobShape, ShapeError, StageShape};
pub use status::{JobState, JobStatus, StagePhase, StageStatus};
pub use step::Scheduler;
pub use time::Millis;
