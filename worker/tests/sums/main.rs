//! Outputs that are spoilt where they lie: whoever reads them finds out and says whose they are, so that they are made
//! again. What it makes of an output that it takes is what it would have made of the whole one.

mod rig;

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tally_proto::{Failure, TaskId, v1};

use rig::{Rig, Way};

/// Changes some bits of one byte of a file, and changes them back when dropped.
struct Spoilt<'a> {
    file: &'a Path,
    at: u64,
    bits: u8,
}

impl<'a> Spoilt<'a> {
    fn new(file: &'a Path, at: u64, bits: u8) -> Result<Self> {
        let spoilt = Spoilt { file, at, bits };
        spoilt.change()?;
        Ok(spoilt)
    }

    fn change(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        Ok(file.write_all_at(&[byte[0] ^ self.bits], self.at)?)
    }
}

impl Drop for Spoilt<'_> {
    fn drop(&mut self) {
        self.change().expect("the byte is as it was");
    }
}

/// The task whose output is lost, with what was seen.
fn lost<T: std::fmt::Debug>(outcome: Result<T, Failure>, holder: &str) -> Result<(TaskId, String)> {
    match outcome {
        Err(Failure::FetchLost { worker, task, reason }) if worker.as_str() == holder => Ok((task, reason)),
        other => anyhow::bail!("{other:?} instead of a lost output of {holder}"),
    }
}

/// Spoils each byte of the map outputs in turn, and reads them.
fn spoil_maps(way: Way, every: usize) -> Result<()> {
    let mut rig = Rig::new(way)?;
    let maps = rig.map()?;
    let files = rig.spilled()?;
    ensure!(files.len() == maps.len(), "not a file an output: {files:?}");
    let whole = rig.reduce(&maps, rig.expected(&maps))?.expect("what nobody spoilt is read");
    let mut reasons: HashSet<&str> = HashSet::new();
    for (index, file) in (0..).zip(&files) {
        let (bytes, mut seen) = (file.metadata()?.len(), 0);
        for at in (0..bytes).step_by(every) {
            let spoilt = Spoilt::new(file, at, 1 << (at % 8))?;
            let outcome = rig.reduce(&maps, rig.expected(&maps))?;
            drop(spoilt);
            match outcome {
                Ok(read) => ensure!(read == whole, "byte {at} of {bytes}: {read:?} instead of {whole:?}"),
                outcome => {
                    let (task, reason) =
                        lost(outcome, "holder").with_context(|| format!("byte {at} of {bytes}"))?;
                    ensure!((task.stage.0, task.index) == (0, index), "{task} instead of {index}");
                    let kinds = ["a dictionary was read with", "rows were read with"];
                    reasons.extend(kinds.iter().filter(|kind| reason.contains(*kind)));
                    seen += 1;
                }
            }
        }
        // The rest are padding, and schemas that say more than is needed.
        ensure!(seen * every as u64 * 4 > bytes, "{seen} of {bytes} bytes matter");
    }
    ensure!(reasons.len() == 2, "only {reasons:?}");
    Ok(())
}

#[test]
fn spoilt_map_outputs_in_this_process_are_found() -> Result<()> {
    spoil_maps(Way::InProcess, 1)
}

#[test]
fn spoilt_map_outputs_of_another_process_are_found() -> Result<()> {
    spoil_maps(Way::Flight, 5)
}

/// Spoils each byte of a reduce output in turn, and copies it into a part file.
fn spoil_file(way: Way, every: usize) -> Result<()> {
    let mut rig = Rig::new(way)?;
    let maps = rig.map()?;
    let reduced = rig.reduce_and_keep(&maps)?;
    let file = rig.spilled()?.into_iter().next_back().context("nothing was spilled")?;
    let (whole, part) = rig.write(&reduced)?;
    let whole = whole.expect("what nobody spoilt is copied");
    let part = part.context("no part file")?;
    let sum = reduced.checksums.iter().fold(0u64, |sum, one| sum.wrapping_add(*one));
    ensure!(whole.checksum == Some(sum), "{whole:?} of {reduced:?}");
    let mut seen = 0;
    let bytes = file.metadata()?.len();
    ensure!(bytes == reduced.bytes, "another file is spoilt: {bytes} bytes instead of {}", reduced.bytes);
    for at in (0..bytes).step_by(every) {
        let spoilt = Spoilt::new(&file, at, 1 << (at % 8))?;
        let (outcome, copy) = rig.write(&reduced)?;
        drop(spoilt);
        match outcome {
            Ok(written) => {
                ensure!(written == whole && copy.as_ref() == Some(&part), "byte {at}: {written:?}");
                // The mark at the beginning: nobody looks at it.
                ensure!(at < 4, "byte {at} of {bytes} does not matter");
            }
            outcome => {
                let (task, _) = lost(outcome, "holder").with_context(|| format!("byte {at} of {bytes}"))?;
                ensure!((task.stage.0, task.index) == (1, 0), "{task}");
                seen += 1;
            }
        }
    }
    ensure!(seen > 0);
    Ok(())
}

#[test]
fn spoilt_reduce_outputs_in_this_process_are_found() -> Result<()> {
    spoil_file(Way::InProcess, 1)
}

#[test]
fn spoilt_reduce_outputs_of_another_process_are_found() -> Result<()> {
    spoil_file(Way::Flight, 7)
}

/// Each output is what it should be, but they are not all, or others than the order speaks of.
#[test]
fn what_is_read_as_a_whole_is_compared_with_the_order() -> Result<()> {
    let mut rig = Rig::new(Way::InProcess)?;
    let maps = rig.map()?;
    let right = rig.expected(&maps).context("sums of all map tasks")?;
    assert!(rig.reduce(&maps, Some(right))?.is_ok());
    assert!(rig.reduce(&maps, None)?.is_ok(), "where nothing is known, nothing is compared");
    let wrong = [
        v1::Sums { rows: right.rows + 1, ..right },
        v1::Sums { checksum: right.checksum.wrapping_add(1), ..right },
    ];
    for wrong in wrong {
        check_refused(&rig.reduce(&maps, Some(wrong))?, "partition 0 was read as")?;
    }
    check_refused(&rig.reduce(&maps[1..], Some(right))?, "but the map tasks made")?;
    let twice = [&maps[..], &maps[..1]].concat();
    check_refused(&rig.reduce(&twice, Some(right))?, "but the map tasks made")
}

fn check_refused<T: std::fmt::Debug>(outcome: &Result<T, Failure>, part: &str) -> Result<()> {
    match outcome {
        Err(Failure::Retryable { reason }) if reason.contains(part) => Ok(()),
        other => anyhow::bail!("{other:?} instead of {part:?}"),
    }
}

/// A map task lists its partitions' sums only as far as the order allows.
#[test]
fn sums_of_partitions_are_listed_up_to_a_limit() -> Result<()> {
    let mut rig = Rig::new(Way::InProcess)?;
    let partitions = 40;
    for (most, listed) in [(partitions, true), (1, false), (0, false)] {
        let result = rig.map_table(0, partitions, most)?;
        ensure!(result.sums.is_some() == listed, "{most}: {result:?}");
        if let Some(sums) = result.sums {
            ensure!(sums.rows.iter().sum::<u64>() == result.partials, "{sums:?}");
            ensure!(sums.rows.len() > 1 && sums.rows.len() == sums.checksums.len());
        }
    }
    Ok(())
}
