//! What Linux tells in `/proc` about the machine and this process. The one reader of `/proc`.
//!
//! Not here: what the figures are used for (`memory`, `metrics`, the coordinator's `peak_memory`).

use std::fs::{File, read_to_string};
use std::io::Read;

/// More than the kernel writes into `/proc/self/status`.
const STATUS_BYTES: usize = 8 << 10;

/// The resident bytes of this process, now and at most so far; `None` where the kernel does not have them.
pub fn resident_bytes() -> Option<(u64, u64)> {
    // Not `read_to_string`: the size of the file is unknown, and the kernel writes all of it again for each read.
    let mut status = [0; STATUS_BYTES];
    let length = File::open("/proc/self/status").and_then(|mut file| file.read(&mut status)).ok()?;
    let status = str::from_utf8(&status[..length]).ok()?;
    Some((bytes(status, "VmRSS")?, bytes(status, "VmHWM")?))
}

/// Whether this process ignores a signal; `false` where the kernel does not tell.
pub(crate) fn ignores_signal(number: i32) -> bool {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    has_signal(&status, "SigIgn", number)
}

/// Whether a set of signals, such as `SigIgn:\t0000000000000001`, has that signal. The first one is number 1.
fn has_signal(text: &str, field: &str, number: i32) -> bool {
    let set = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(number - 1).is_ok_and(|bit| set.checked_shr(bit).is_some_and(|set| set & 1 == 1))
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
    fn the_resident_bytes_are_those_of_the_file() {
        let (now, most) = resident_bytes().unwrap();
        let text = read_to_string("/proc/self/status").unwrap();
        assert!(now > 0 && now <= most && text.len() < STATUS_BYTES, "{now}, {most}: {text}");
        assert!(Some(most) <= bytes(&text, "VmHWM"));
    }

    #[test]
    fn a_signal_is_a_bit_of_a_set() {
        let text = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(has_signal(text, "SigIgn", 1) && has_signal(text, "SigIgn", 13));
        assert!(!has_signal(text, "SigIgn", 2) && !has_signal(text, "SigBlk", 1));
        assert!(!has_signal(text, "SigCgt", 1) && !has_signal(text, "SigIgn", 0));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:       24689152 kB\nMemFree: 1 kB\nThreads:\t7\n";
        assert_eq!(bytes(text, "MemTotal"), Some(24_689_152 << 10));
        for missing in ["Mem", "Threads", "Swap"] {
            assert_eq!(bytes(text, missing), None, "{missing}");
        }
    }
}
