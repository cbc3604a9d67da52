//! The options of commands that read published days: memory, threads, the folder for temporary files.
//!
//! Not here: which days are read.

use std::path::PathBuf;

use clap::Args;
use tally_common::counts::counted;
use tally_common::local_dir;
use tally_coordinator::audit::{AuditError, AuditLimits};
use tally_shuffle::spill;

use crate::{Stop, size};

/// Minimum memory limit, and what each thread needs to decode a file.
const MIN_MEMORY: u64 = 128 << 20;
const THREAD_MEMORY: u64 = 64 << 20;

/// What the command may use.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Memory limit; what does not fit is stored in a temporary file
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size::parse)]
    memory_limit: u64,
    /// Number of part files that are read at a time [default: all cores, or fewer if the memory limit is too small]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Folder for temporary files: rows that do not fit into memory, and copies of part files of an object store
    #[arg(long, value_name = "DIR", default_value_os_t = spill::default_dir(), value_parser = local_dir::parser())]
    spill_dir: PathBuf,
}

impl AuditArgs {
    /// The limits, checked.
    ///
    /// # Errors
    /// [`Stop::Usage`]: the memory limit is too small.
    pub(crate) fn limits(&self) -> Result<AuditLimits, Stop> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let half = usize::try_from(self.memory_limit / 2 / THREAD_MEMORY).unwrap_or(usize::MAX);
        let threads = self.threads.map_or_else(|| cores.min(half).max(1), usize::from);
        let least = MIN_MEMORY.max(2 * THREAD_MEMORY * threads as u64);
        if self.memory_limit < least {
            let least = size::option_above(least);
            let fewer = if threads == 1 { "" } else { ", or use fewer --threads" };
            let threads = counted(threads, "thread");
            return Err(Stop::Usage(format!(
                "--memory-limit is too little for {threads}: set it to {least} or more{fewer}"
            )));
        }
        Ok(AuditLimits { memory: self.memory_limit, threads, spill_dir: self.spill_dir.clone() })
    }
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::SeveralDays { .. } => Stop::Usage(error.to_string()),
            other => Stop::Unreadable(other.to_string()),
        }
    }
}
