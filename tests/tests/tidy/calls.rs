//! What some files must not call: clocks and chance in state machines, and waiting for file systems. Not here: crates.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;

use crate::tree::sources;

/// State machines that the simulation runs in virtual time, and the shells in them, which do the I/O.
const PURE: [&str; 2] = ["coordinator/src/driver", "coordinator/src/cluster"];
const SHELLS: [&str; 1] = ["coordinator/src/driver/shell.rs"];

#[test]
fn state_machines_read_no_clock_and_start_no_task() -> Result<()> {
    let words = ["Instant::now", "SystemTime::now", "rand::", "tokio::spawn", "spawn_blocking", "thread::"];
    let mut found = Vec::new();
    let mut seen = 0;
    for (file, text) in sources()? {
        if !PURE.iter().any(|folder| file.starts_with(folder))
            || SHELLS.iter().any(|shell| file.ends_with(shell))
        {
            continue;
        }
        seen += 1;
        found.extend(
            words
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{}: {word}", file.display())),
        );
    }
    assert!(found.is_empty() && seen > 20, "{seen} files; time and chance are arguments there: {found:?}");
    Ok(())
}

/// Files of the coordinator that wait for a file system. They are called only on threads outside of its runtime: on a
/// slow file system no heartbeat would be sent, and all workers would be lost.
const WAITING: [&str; 7] = [
    "audit/buckets.rs",
    "audit/local_copy.rs",
    "audit/part_rows.rs",
    "journal/state_dir.rs",
    "objectives/table.rs",
    "plan/local_files.rs",
    "publish/file_system.rs",
];

#[test]
fn the_coordinator_waits_for_file_systems_only_outside_of_its_runtime() -> Result<()> {
    let calls = ["std::fs", "fs::read_dir", "fs::metadata", "File::open", ".canonicalize()", "rustix::fs"];
    let waits = |text: &str| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        calls.iter().any(|call| code.contains(call))
    };
    let is_tests = |file: &str| {
        file.contains("/tests/") || ["tests.rs", "schedules.rs"].iter().any(|end| file.ends_with(end))
    };
    let inside = |(file, text): (PathBuf, String)| {
        let file = file.strip_prefix("coordinator/src").ok()?.display().to_string();
        (!is_tests(&file) && waits(&text)).then_some(file)
    };
    let found: BTreeSet<String> = sources()?.into_iter().filter_map(inside).collect();
    assert_eq!(found, WAITING.map(String::from).into());
    Ok(())
}
