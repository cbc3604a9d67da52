//! Memory as the system sees it: how much this process may have, and how freed memory is kept.
//!
//! Not here: how a worker shares its limit out (`runner::Shares`).

use std::path::{Path, PathBuf};

/// Pages and tables are buffers of megabytes that come and go thousands of times. By default each
/// would be mapped and unmapped, and every page of it faulted in anew: measured at 10 M clients,
/// that is 1 s of system time and 1 s of user time out of 15 s. To be called first in `main`.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    // SAFETY: mallopt has no precondition but that no other thread allocates meanwhile; none exists.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

/// Gives freed memory back to the system: takes about as long as the kernel needs to take it back from a process that
/// ends, so it is for a thread that has nothing else to do.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn give_back_freed_memory() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Only the allocator of glibc needs it.
#[cfg(not(target_env = "gnu"))]
pub fn keep_freed_memory() {}

/// Only the allocator of glibc needs it.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_freed_memory() {}

/// Bytes that this process may have: the lowest limit of its cgroups (v1 or v2) and of the machine.
/// `None` where the system does not tell.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = machine(&read("/proc/meminfo"));
    machine.into_iter().chain(cgroup_limits(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))).min()
}

fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The limits of the groups that a process is in, and of all above them.
fn cgroup_limits(membership: &str, root: &Path) -> Vec<u64> {
    let mut limits = vec![];
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (roots, file) = match controllers {
            "" => ([root.to_path_buf(), root.join("unified")], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ([root.join("memory"), root.join(controllers)], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = PathBuf::from(group.trim_start_matches('/'));
        // In a container the group's path is often that of the host, and only the root is seen.
        for above in group.ancestors() {
            let files = roots.iter().map(|root| root.join(above).join(file));
            // A file that is missing, and the word "max", are no limit.
            limits.extend(
                files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()),
            );
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(membership: &str, files: &[(&str, &str)], limit: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(cgroup_limits(membership, root.path()).into_iter().min(), limit, "{membership}");
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_those_above_counts() {
        let v2 = [("a/memory.max", "2000\n"), ("a/b/memory.max", "max\n")];
        check("0::/a/b\n", &v2, Some(2000));
        check("0::/elsewhere\n", &v2, None);
        check("0::/\n", &[("memory.max", "500\n")], Some(500));
        check("0::/not/seen/here\n", &[("memory.max", "500\n")], Some(500));
        let v1 = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "700\n"),
            ("unified/memory.max", "max\n"),
        ];
        check("9:name=systemd:/\n4:memory:/a\n0::/\n", &v1, Some(700));
        check("4:cpu,memory:/a\n", &[("cpu,memory/a/memory.limit_in_bytes", "7\n")], Some(7));
        check("nonsense\n", &v1, None);
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(machine("MemTotal:       24689152 kB\nMemFree: 1 kB\n"), Some(24_689_152 << 10));
        assert_eq!(machine(""), None);
        assert!(available().is_some_and(|bytes| bytes > 64 << 20));
    }
}
