//! How much memory this process has in use, as the kernel counts it.

/// Bytes resident now and at the highest so far; zeros where the kernel does not tell.
pub fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

/// The highest resident size since it was last asked.
#[derive(Debug, Default)]
pub struct PeakMeter {
    sampled: u64,
    highest_before: u64,
}

impl PeakMeter {
    /// Looks; to be called every few milliseconds.
    pub fn sample(&mut self) {
        self.sampled = self.sampled.max(resident().0);
    }

    /// The peak since the last call: exact where it was the highest ever, else as sampled.
    pub fn take(&mut self) -> u64 {
        let (now, highest) = resident();
        let sampled = std::mem::take(&mut self.sampled).max(now);
        let exact = highest > std::mem::replace(&mut self.highest_before, highest);
        if exact { highest } else { sampled }
    }
}
