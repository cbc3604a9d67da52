//! The configuration of a worker, and the division of its memory.
//!
//! Not here: the order in which tasks get memory (`tally_common::budget`), the memory limit of a process
//! (`tally_common::memory`).

use std::path::PathBuf;

use tally_common::size;
use tally_proto::WorkerId;

/// The configuration of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its id, which is never used again.
    pub id: WorkerId,
    /// Number of concurrent tasks, each on its own thread.
    pub slots: usize,
    /// Bytes of memory for everything large; see [`WorkerConfig::min_memory`].
    pub memory_limit: u64,
    /// The value of `--memory-limit` that `memory_limit` is a part of. Error messages name the value that would be
    /// enough.
    pub memory_option: u64,
    /// The spill directory, for outputs that do not fit into memory.
    pub spill_dir: PathBuf,
    /// Maximum bytes in the spill directory.
    pub spill_limit: u64,
}

impl WorkerConfig {
    /// The minimum `memory_limit` for a number of slots, in bytes.
    pub fn min_memory(slots: usize) -> u64 {
        (slots as u64).max(1) * (96 << 20)
    }
}

/// The division of the memory limit, in bytes: a quarter for the tables of map tasks, the same quarter for those of
/// reduce tasks (a slot never has both at once), half for outputs in memory, and the rest for pages, dictionaries and
/// encoders.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Tables of one map task.
    pub map_table: usize,
    /// Tables of one reduce task.
    pub reduce: usize,
    /// Outputs in memory, of all tasks.
    pub store: u64,
    /// Everything else that is large: pages, dictionaries. Tables never wait for it.
    pub rest: u64,
    /// Bytes of a column chunk that are fetched at a time.
    pub window: u64,
    /// Row groups of an object store up to this size are fetched whole, and as many bytes are fetched ahead of them.
    pub whole: u64,
    /// The value of `--memory-limit` that the shares are derived from.
    option: u64,
}

impl Shares {
    /// The shares of a worker.
    pub fn new(config: &WorkerConfig) -> Self {
        let WorkerConfig { memory_limit, memory_option, .. } = *config;
        let slots = (config.slots as u64).max(1);
        Shares {
            map_table: (memory_limit / 4 / slots) as usize,
            reduce: (memory_limit / 4 / slots) as usize,
            store: memory_limit / 2,
            rest: memory_limit / 4,
            window: (memory_limit / slots / 512).clamp(64 << 10, 1 << 20),
            // With the bytes that are fetched ahead this is half of `rest`, so that pages find room.
            whole: memory_limit / 24 / slots,
            option: memory_option,
        }
    }

    /// The `--memory-limit` that is large enough for reduce tables of this many bytes, formatted as an option.
    pub fn option_for_reduce(&self, bytes: u64) -> String {
        option_for(bytes, self.option, self.reduce as u64)
    }
}

/// The value of an option for which `needed` bytes are the same fraction as `part` is of `option`.
pub(crate) fn option_for(needed: u64, option: u64, part: u64) -> String {
    let value = u128::from(needed) * u128::from(option) / u128::from(part.max(1)) + 1;
    size::option_above(u64::try_from(value).unwrap_or(u64::MAX))
}
