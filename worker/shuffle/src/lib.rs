//! Outputs of tasks, and how other tasks read them.
//!
//! `store` keeps outputs readable, in memory and then on disk (`spill`); `reclaim` frees them. `peers` is how tasks read them, in process or
//! through `flight`. `string_dictionary` assigns codes to the strings of a job. `error` has the errors of a task and
//! their classes, which readers of outputs and tasks share. Not here: the meaning of rows (`tally-dataset`), the tasks
//! (`tally-worker`), which output a task reads (the task message).

pub mod error;
pub mod flight;
pub mod peers;
pub mod reclaim;
pub mod spill;
pub mod store;
pub mod string_dictionary;
