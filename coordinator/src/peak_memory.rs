//! The resident memory of this process, by the kernel's count.

use tally_common::procfs::resident_bytes;

/// Resident bytes now, and their maximum so far; zeros if the kernel does not report them.
pub fn resident() -> (u64, u64) {
    resident_bytes().unwrap_or_default()
}

/// The peak of the resident size since the last call of [`PeakMeter::take`].
#[derive(Debug)]
pub struct PeakMeter {
    resident: fn() -> (u64, u64),
    sampled: u64,
    highest_before: u64,
}

impl PeakMeter {
    /// A meter that reads memory as [`resident`] does.
    pub fn new(resident: fn() -> (u64, u64)) -> Self {
        PeakMeter { resident, sampled: 0, highest_before: 0 }
    }

    /// Takes a sample.
    pub fn sample(&mut self) {
        self.sampled = self.sampled.max((self.resident)().0);
    }

    /// The peak since the last call: exact if it is the process's maximum so far, otherwise the highest sample.
    pub fn take(&mut self) -> u64 {
        let (now, highest) = (self.resident)();
        let sampled = std::mem::take(&mut self.sampled).max(now);
        let exact = highest > std::mem::replace(&mut self.highest_before, highest);
        if exact { highest } else { sampled }
    }
}
