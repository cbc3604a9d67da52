//! The memory limit of this process, and how the allocator keeps freed memory.
//!
//! Not here: how a worker divides its limit (`tally-worker`'s `Shares`), how tasks share memory (`budget`).

use std::path::{Path, PathBuf};

use crate::procfs;

/// Makes the allocator keep freed memory. Pages and tables are buffers of megabytes that are allocated and freed
/// thousands of times. By default each allocation maps memory again and faults in every page, which takes 2 s of 15 s of
/// processor time at 10 M clients. Call this first in `main`.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    // SAFETY: mallopt requires only that no other thread allocates at the same time; there is none.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

/// Returns freed memory to the system. This takes about as long as the kernel needs to free the memory of a process that
/// exits, so only an idle thread should call it.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn give_back_freed_memory() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Only the allocator of glibc needs this.
#[cfg(not(target_env = "gnu"))]
pub fn keep_freed_memory() {}

/// Only the allocator of glibc needs this.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_freed_memory() {}

/// The memory limit of this process in bytes: the lowest limit of its cgroups (v1 or v2) and of the machine. `None` if
/// the system does not report it.
pub fn available() -> Option<u64> {
    let groups = cgroup_limits(&procfs::cgroups(), Path::new("/sys/fs/cgroup"));
    procfs::machine_memory().into_iter().chain(groups).min()
}

/// The limits of the cgroups of a process and of all their ancestors.
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
        // In a container the path is often that of the host, and only the root is visible.
        for above in group.ancestors() {
            let files = roots.iter().map(|root| root.join(above).join(file));
            // A missing file and the word "max" mean that there is no limit.
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
    fn the_lowest_limit_of_a_group_and_its_ancestors_counts() {
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
    fn the_machine_has_a_limit() {
        assert!(available().is_some_and(|bytes| bytes > 64 << 20));
    }
}
