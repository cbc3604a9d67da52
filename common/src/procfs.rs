//! What Linux tells in `/proc` about the machine and this process. The one reader of `/proc`.
//!
//! Not here: what the figures are used for (`memory`, `metrics`, the coordinator's `peak_memory`).

use std::fs::read_to_string;

/// The bytes in a field of `/proc/self/status`, for example `VmRSS`; `None` where the kernel does not have it.
pub fn status_bytes(field: &str) -> Option<u64> {
    bytes(&read_to_string("/proc/self/status").ok()?, field)
}

/// The memory of the machine in bytes.
pub fn machine_memory() -> Option<u64> {
    bytes(&read_to_string("/proc/meminfo").ok()?, "MemTotal")
}

/// The text of `/proc/self/cgroup`; empty where there is none.
pub(crate) fn cgroups() -> String {
    read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The value of a line such as `MemTotal:       24689152 kB`.
fn bytes(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:       24689152 kB\nMemFree: 1 kB\nThreads:\t7\n";
        assert_eq!(bytes(text, "MemTotal"), Some(24_689_152 << 10));
        for missing in ["Mem", "Threads", "Swap"] {
            assert_eq!(bytes(text, missing), None, "{missing}");
        }
    }
}
