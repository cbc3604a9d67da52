//! Data that is corrupted between the maps and the published day is detected and computed again, in the real program;
//! and readers can verify what part files state about their rows.
//!
//! Not here: that every output's footers are right (the testkit verifies them whenever it reads an output).

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::truth::Truth;
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{Place, part_files};
use tally_tests::process::Tally;
use tally_tests::{checksum, table};

/// Files of a spill folder, at any depth.
fn spilled(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { spilled(&entry.path()) } else { vec![entry.path()] })
        .filter(|path| path.file_name().is_some_and(|name| name != ".lock"))
        .collect()
}

/// Corrupts a byte of each of the first spill files that have so many, until `over`.
fn corrupt(folder: &Path, bytes: u64, most: usize, over: &dyn Fn() -> bool) -> Result<usize> {
    let mut corrupted = HashSet::new();
    while !over() {
        for path in spilled(folder) {
            // It may already be removed.
            let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
            let at = bytes / 2;
            if file.metadata()?.len() >= bytes && corrupted.len() < most && corrupted.insert(path) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 0x10], at)?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(corrupted.len())
}

/// A day that does not fit in memory, whose outputs are corrupted on disk.
#[test]
fn outputs_that_are_corrupted_on_disk_are_computed_again() -> Result<()> {
    let place = Place::new()?;
    let truth = Truth::new(&["--clients", "1200000", "--narrow", "--shuffle"])?;
    let running = Tally::job(&truth.root, &place)
        .date(DATE)
        .args(["--threads", "2", "--memory-limit", "256MiB", "--target-file-size", "1MB"])
        .spawn()?;
    let spill = place.spill();
    let over = std::sync::atomic::AtomicBool::new(false);
    let (outcome, corrupted) = std::thread::scope(|scope| {
        let over = &over;
        let corrupter = scope
            .spawn(move || corrupt(&spill, 200_000, 4, &|| over.load(std::sync::atomic::Ordering::Relaxed)));
        let outcome = running.wait();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        (outcome, corrupter.join())
    });
    let outcome = outcome?;
    let corrupted = corrupted.map_err(|_| anyhow::anyhow!("the corrupting thread panicked"))??;
    ensure!(corrupted > 0, "no file was corrupted: {outcome}");
    let said = outcome.to_string();
    let found = ["were read with the checksum", "could not be fetched"];
    ensure!(found.iter().any(|found| said.contains(found)), "nothing was found: {said}");
    truth.check_summary(&place, &outcome.summary()?)
}

/// The check itself: a part file that lost a row, or took another file's, does not pass.
#[test]
fn a_published_day_can_be_verified_later() -> Result<()> {
    let place = Place::new()?;
    let case = Case::new("case-05");
    Tally::job(&case.dir, &place).date(DATE).args(["--target-file-size", "2KB"]).run()?.expect_code(0)?;
    let partition = place.partition(DATE);
    let files = part_files(&partition)?;
    ensure!(files.len() > 2, "{files:?}");
    let all = checksum::verify(&partition)?;
    let rows = table::read_aggregates(&partition)?;
    ensure!(all == checksum::of(&rows));
    let mut other = rows.clone();
    other[0].count += 1;
    ensure!(checksum::of(&other) != all);
    std::fs::copy(&files[0], &files[1])?;
    let said = checksum::verify(&partition).err().context("a file instead of another passes")?.to_string();
    ensure!(said.contains("the files say"), "{said}");
    std::fs::remove_file(&files[1])?;
    checksum::verify(&partition).err().context("a day that lost a file passes")?;
    Ok(())
}
