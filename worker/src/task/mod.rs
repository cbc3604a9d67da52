//! The tasks of a job: `map` makes partials of a shard, `reduce` makes rows of a partition, `write` makes part files
//! (`part_file`). `context` is the context of a running task.
//!
//! Not here: the threads that tasks run on (`runner`), the encoding of rows (`encode`).

pub mod context;
pub mod map;
mod part_file;
pub mod reduce;
pub mod write;
