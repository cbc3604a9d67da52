//! The scheduler decides which task runs where and when. It is a pure state machine, [`Scheduler::step`], from events to
//! commands. It has jobs, stages, tasks, attempts, workers, retries, speculation, drains and the command to publish. It has
//! no clocks, threads, files or sockets: the coordinator's driver carries commands out and answers with events.
//!
//! Invariants:
//! - The same events at the same times give the same commands: ordered collections only.
//! - A task has at most one output at a time; a job is finished exactly once.
//! - A worker never has more attempts than slots; a stopped attempt keeps its slot until the worker reports its end or is
//!   lost.
//! - States only move forward: events that are unknown, late, duplicated or out of order change nothing and result in
//!   [`Command::Warn`]. The end of a stopped attempt is expected and gives no warning.
//! - The cost of a step is proportional to its changes and to the number of live jobs and stages, not to the number of
//!   tasks.

mod command;
mod config;
mod demand;
mod event;
mod explain;
mod job;
mod lanes;
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
mod throttle;
mod time;
mod worker;

pub use command::{Command, JobFailure, Outcome, Warning};
pub use config::{Config, ConfigError, Speculation};
pub use demand::Demand;
pub use event::{Event, FoundTask, TaskPlan};
pub use explain::{Pending, RunningAttempt};
pub use shape::{JobShape, ShapeError, StageShape};
pub use status::{JobState, JobStatus, StagePhase, StageStatus};
pub use step::Scheduler;
pub use time::Millis;
