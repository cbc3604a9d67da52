//! Outputs that are corrupted where they are stored: each reader detects it and names the task, so that the output is
//! made again. If a reader accepts a corrupted output, its result equals that of the intact one.

mod rig;

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_proto::{Failure, TaskId, v1};

use rig::{PeerCarrier, Rig};

/// Flips some bits of one byte of a file, and flips them back when dropped.
struct Corrupted<'a> {
    file: &'a Path,
    at: u64,
    bits: u8,
}

impl<'a> Corrupted<'a> {
    fn new(file: &'a Path, at: u64, bits: u8) -> Result<Self> {
        let corrupted = Corrupted { file, at, bits };
        corrupted.change()?;
        Ok(corrupted)
    }

    fn change(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        Ok(file.write_all_at(&[byte[0] ^ self.bits], self.at)?)
    }
}

impl Drop for Corrupted<'_> {
    fn drop(&mut self) {
        self.change().expect("the byte is as it was");
    }
}

/// The task whose output is lost, and the reason.
fn lost<T: std::fmt::Debug>(outcome: Result<T, Failure>, holder: &str) -> Result<(TaskId, String)> {
    match outcome {
        Err(Failure::FetchLost { worker, task, reason }) if worker.as_str() == holder => Ok((task, reason)),
        other => anyhow::bail!("{other:?} instead of a lost output of {holder}"),
    }
}

/// Corrupts each byte of the map outputs in turn, and reads them.
fn corrupt_maps(carrier: PeerCarrier, every: usize) -> Result<()> {
    let mut rig = Rig::new(carrier)?;
    let maps = rig.map()?;
    let files = rig.spilled()?;
    ensure!(files.len() == maps.len(), "not one file per output: {files:?}");
    let whole = rig.reduce(&maps, rig.expected(&maps))?.expect("intact outputs are read");
    let mut reasons: HashSet<&str> = HashSet::new();
    for (index, file) in (0..).zip(&files) {
        let (bytes, mut seen) = (file.metadata()?.len(), 0);
        for at in (0..bytes).step_by(every) {
            let corrupted = Corrupted::new(file, at, 1 << (at % 8))?;
            let outcome = rig.reduce(&maps, rig.expected(&maps))?;
            drop(corrupted);
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
        // The rest are padding, and redundant parts of schemas.
        ensure!(seen * every as u64 * 4 > bytes, "{seen} of {bytes} bytes matter");
    }
    ensure!(reasons.len() == 2, "only {reasons:?}");
    Ok(())
}

#[test]
fn corrupted_map_outputs_in_this_process_are_found() -> Result<()> {
    corrupt_maps(PeerCarrier::InProcess, 1)
}

#[test]
fn corrupted_map_outputs_of_another_process_are_found() -> Result<()> {
    corrupt_maps(PeerCarrier::Flight, 5)
}

/// Corrupts each byte of a reduce output in turn, and copies it into a part file.
fn corrupt_file(carrier: PeerCarrier, every: usize) -> Result<()> {
    let mut rig = Rig::new(carrier)?;
    let maps = rig.map()?;
    let reduced = rig.reduce_and_keep(&maps)?;
    let file = rig.spilled()?.into_iter().next_back().context("nothing was spilled")?;
    let (whole, part) = rig.write(&reduced)?;
    let whole = whole.expect("an intact output is copied");
    let part = part.context("no part file")?;
    let sum = reduced.checksums.iter().fold(0u64, |sum, one| sum.wrapping_add(*one));
    ensure!(whole.checksum == Some(sum), "{whole:?} of {reduced:?}");
    let mut seen = 0;
    let bytes = file.metadata()?.len();
    ensure!(bytes == reduced.bytes, "another file is corrupted: {bytes} bytes instead of {}", reduced.bytes);
    for at in (0..bytes).step_by(every) {
        let corrupted = Corrupted::new(&file, at, 1 << (at % 8))?;
        let (outcome, copy) = rig.write(&reduced)?;
        drop(corrupted);
        match outcome {
            Ok(written) => {
                ensure!(written == whole && copy.as_ref() == Some(&part), "byte {at}: {written:?}");
                // The magic bytes at the start are not read.
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
fn corrupted_reduce_outputs_in_this_process_are_found() -> Result<()> {
    corrupt_file(PeerCarrier::InProcess, 1)
}

#[test]
fn corrupted_reduce_outputs_of_another_process_are_found() -> Result<()> {
    corrupt_file(PeerCarrier::Flight, 7)
}

/// Each output is intact, but they are incomplete, or other ones than the task message describes.
#[test]
fn the_sums_of_all_inputs_are_compared_with_the_task_message() -> Result<()> {
    let mut rig = Rig::new(PeerCarrier::InProcess)?;
    let maps = rig.map()?;
    let right = rig.expected(&maps).context("sums of all map tasks")?;
    assert!(rig.reduce(&maps, Some(right))?.is_ok());
    assert!(rig.reduce(&maps, None)?.is_ok(), "without expected sums nothing is compared");
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

/// The encoder of rows, the Parquet crate's writer and `Write` are between the disk and the task. An error of the disk
/// keeps its type, wherever in the output it occurs.
#[test]
fn a_reduce_task_without_room_to_spill_is_tried_again_after_waiting() -> Result<()> {
    let mut rig = Rig::new(PeerCarrier::InProcess)?;
    let maps = rig.map()?;
    let mapped = rig.spilled_bytes();
    rig.reduce_and_keep(&maps)?;
    let all = rig.spilled_bytes();
    ensure!(all > mapped, "{mapped} bytes of {all} are map outputs");
    // The last bytes are the footer's.
    for limit in [mapped, mapped + (all - mapped) / 2, all - 1] {
        let mut rig = Rig::limited(PeerCarrier::InProcess, limit)?;
        let maps = rig.map()?;
        ensure!(rig.spilled_bytes() == mapped, "map outputs have another size");
        match rig.reduce_there(&maps)? {
            Err(Failure::Refused { reason }) if reason.contains("--spill-limit") => {}
            other => anyhow::bail!("{limit} of {all}: {other:?}"),
        }
        // Files are removed on another thread.
        let since = Instant::now();
        while rig.spilled_bytes() != mapped {
            ensure!(since.elapsed() < Duration::from_secs(60), "spilled bytes remain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// A map task with more partitions than its message allows fails, because they could not be checked.
#[test]
fn a_map_task_with_more_partitions_than_can_be_checked_fails() -> Result<()> {
    let mut rig = Rig::new(PeerCarrier::InProcess)?;
    let partitions = 40;
    for most in [1, 2] {
        let refused = format!("{:#}", rig.map_table(0, partitions, most).expect_err("too many"));
        let said = format!("more than {most} of 40 partitions");
        for part in ["Fatal", &said, "set a larger --shard-bytes, or fewer --partitions"] {
            ensure!(refused.contains(part), "{refused}");
        }
    }
    for (most, listed) in [(partitions, true), (0, false)] {
        let result = rig.map_table(0, partitions, most)?;
        ensure!(result.sums.is_some() == listed, "{most}: {result:?}");
        if let Some(sums) = result.sums {
            ensure!(sums.rows.iter().sum::<u64>() == result.partials, "{sums:?}");
            ensure!(sums.rows.len() > 1 && sums.rows.len() == sums.checksums.len());
        }
    }
    Ok(())
}
