//! A day of so many small files with long names that a message with all of them would be larger than a worker accepts.
//! The job is exact, no stream breaks, and a second job at the same time ends, too.
//!
//! Not here: the same in one process (`many_files`), and messages that are too large in spite of the limits
//! (the coordinator's `cluster`).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::truth::DAY;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::{Case, DATE};
use tally_tests::many::{TABLES, add, copy_case, day, files};
use tally_tests::output::Place;
use tally_tests::table;

/// Files that are added.
const FILES: usize = 2_500;
/// The bytes of their paths: less than the longest path of a system.
const PATH_BYTES: usize = 2_400;
/// The most that a worker accepts.
const MESSAGE_BYTES: usize = 4 << 20;

#[test]
fn a_map_task_with_many_files_does_not_break_the_streams_of_workers() -> Result<()> {
    let case = Case::new("case-05");
    let place = Place::new()?;
    let root = place.path().join("day");
    copy_case(&case, &root)?;
    // The same rows repeated change nothing.
    let folder = day(&root, TABLES[0]);
    let whole = files(&folder)?.into_iter().next().context("no file")?;
    add(&folder, &whole, FILES, PATH_BYTES)?;
    let names: usize = files(&folder)?.iter().map(|file| file.as_os_str().len()).sum();
    ensure!(names > MESSAGE_BYTES, "{names} bytes fit into a message");
    with_cluster(Setup { workers: 2, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let other = Place::new()?;
        let running = client.submit(&DAY.root, &other, &[])?;
        // By its bytes alone, the table would be one shard.
        let flags = ["--shard-bytes", "1GiB"];
        let summary = client.submit_command(&root, &place, &flags).run()?.summary()?;
        table::compare(&place.read_output(DATE)?, &case.expected_rows()?)?;
        let map = summary.stages.get(1).context("no map stage")?;
        ensure!(map.tasks as usize > names / MESSAGE_BYTES * 2, "{} tasks", map.tasks);
        DAY.check_summary(&other, &running.done()?)?;
        let broken = cluster.coordinators[0].process.said();
        ensure!(!broken.contains("stream broke"), "{broken}");
        Ok(())
    })
}
