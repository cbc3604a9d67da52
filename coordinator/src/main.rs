//! The `tally` binary; everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    keep_freed_memory();
    tally_coordinator::cli::main()
}

/// Pages and tables are buffers of megabytes that come and go thousands of times. By default each
/// would be mapped and unmapped, and every page of it faulted in anew: measured at 10 M clients,
/// that is 1 s of system time and 1 s of user time out of 15 s.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn keep_freed_memory() {
    // SAFETY: called before any other thread exists; mallopt has no other precondition.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_freed_memory() {}
