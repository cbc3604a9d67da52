//! A generated day of 50,000 clients gives the totals that its generator stated, in every layout; the number of files
//! follows the target size; only needed bytes are read; and readers never see half a day.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, is_part_name, part_files};
use tally_tests::process::{Summary, Tally};
use tally_tests::reference::Reference;
use tally_tests::table;

fn check(day: &Generated, place: &Place, flags: &[&str]) -> Result<Summary> {
    let summary = Tally::job(&day.root, place).date(DATE).args(flags).run()?.summary()?;
    let rows = place.read_output(DATE)?;
    let context = format!("{flags:?}");
    assert_eq!(summary.rows, day.totals.rows, "{context}");
    assert_eq!(rows.len() as u64, day.totals.rows, "{context}");
    table::compare(&rows, &Reference::of_day(&day.root, DATE)?.rows).with_context(|| context.clone())?;
    assert_eq!(rows.iter().map(|row| row.count as u64).sum::<u64>(), day.totals.sum_of_count, "{context}");
    for row in &rows {
        assert_eq!(row.n_clients as u64, day.totals.n_clients, "{context}");
        assert_eq!(row.n_custom_theme_clients as u64, day.totals.n_custom_theme_clients, "{context}");
    }
    assert_eq!(summary.n_clients, day.totals.n_clients, "{context}");
    assert_eq!(summary.n_custom_theme_clients, day.totals.n_custom_theme_clients, "{context}");
    assert_eq!(summary.files, part_files(&place.partition(DATE))?.len() as u64, "{context}");
    Ok(summary)
}

#[test]
fn a_co_partitioned_day_gives_its_totals() -> Result<()> {
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000"])?;
    assert!(day.totals.rows > 10_000 && day.totals.n_clients >= 50_000, "{:?}", day.totals);
    check(&day, &place, &[])?;
    check(&day, &place, &["--workers", "2", "--threads", "2", "--memory-limit", "256MiB"])?;
    Ok(())
}

#[test]
fn a_shuffled_day_gives_its_totals() -> Result<()> {
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000", "--shuffle", "--seed", "7"])?;
    check(&day, &place, &[])?;
    check(
        &day,
        &place,
        &["--workers", "3", "--threads", "3", "--shard-bytes", "300KB", "--partitions", "13"],
    )?;
    Ok(())
}

/// The generator is deterministic: the same flags give the same day.
#[test]
fn the_same_seed_makes_the_same_day() -> Result<()> {
    let place = Place::new()?;
    let day = |name: &str, seed: &str| -> Result<_> {
        let folder = place.path().join(name);
        std::fs::create_dir(&folder)?;
        let day = Generated::new(&folder, &["--clients", "1000", "--narrow", "--seed", seed])?;
        Ok((day.totals, tally_tests::output::snapshot(&day.root)?))
    };
    let (first, again, other) = (day("a", "1")?, day("b", "1")?, day("c", "2")?);
    assert!(first == again, "two runs with one seed differ");
    assert!(first.1 != other.1, "two seeds make one day");
    Ok(())
}

/// `ceil(rows * 38 / target)` files for one worker, and up to one more per worker for several.
#[test]
fn the_number_of_files_follows_the_target_size() -> Result<()> {
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000", "--narrow"])?;
    for (target, bytes) in
        [("280MB", 280_000_000u64), ("1MB", 1_000_000), ("300KB", 300_000), ("99999", 99_999)]
    {
        let wanted = (day.totals.rows * 38).div_ceil(bytes).max(1);
        let one = check(&day, &place, &["--workers", "1", "--target-file-size", target])?;
        assert_eq!(one.files, wanted, "{target}");
        let three = check(&day, &place, &["--workers", "3", "--threads", "3", "--target-file-size", target])?;
        assert!((wanted..=wanted + 3).contains(&three.files), "{target}: {} files", three.files);
    }
    Ok(())
}

/// The compressed bytes of the leaves that the job needs, over all files of a table.
fn needed_bytes(table: &Path, leaves: &[&str]) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    for file in table::data_files(table)? {
        let reader = SerializedFileReader::new(File::open(file)?)?;
        files += 1;
        for chunk in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let path = chunk.column_path().parts();
            let ends: [&str; 2] = [&path[0], &path[path.len() - 1]];
            if leaves.iter().any(|leaf| leaf.split('.').eq(ends) || (path.len() == 1 && *leaf == path[0])) {
                bytes += chunk.compressed_size() as u64;
            }
        }
    }
    Ok((bytes, files))
}

#[test]
fn only_the_needed_columns_are_read() -> Result<()> {
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000"])?;
    let summary = check(&day, &place, &[])?;
    let main = ["client_id", "profile_creation_date", "active_addons.install_day", "active_theme.addon_id"];
    let addons = ["client_id", "addon_id", "foreign_install", "is_system", "user_disabled", "app_disabled"];
    let (main_bytes, main_files) = needed_bytes(&day.root.join("main_summary/v3"), &main)?;
    let (addon_bytes, addon_files) = needed_bytes(&day.root.join("addons/v2"), &addons)?;
    // A quarter for merged ranges, and 64 KiB per file for footers.
    let bound = (main_bytes + addon_bytes) * 5 / 4 + (main_files + addon_files) * 65_536;
    assert!(main_bytes > 0 && addon_bytes > 0);
    assert!(summary.bytes_read <= bound, "{} bytes read, {bound} needed", summary.bytes_read);
    Ok(())
}

/// The names in a partition and the folder's inode, if no exchange happened between the two reads.
fn listing(partition: &Path) -> Result<Option<BTreeSet<PathBuf>>> {
    let inode = || std::fs::metadata(partition).map(|meta| meta.ino()).ok();
    let before = inode();
    let Ok(entries) = std::fs::read_dir(partition) else { return Ok(None) };
    let names: BTreeSet<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    Ok((before.is_some() && before == inode()).then_some(names))
}

#[test]
fn readers_see_the_old_day_or_the_new_day() -> Result<()> {
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000", "--narrow"])?;
    place.put_old_output(DATE)?;
    let partition = place.partition(DATE);
    let mut seen = BTreeSet::new();
    let flags = ["--target-file-size", "100KB"];
    let mut running = Tally::job(&day.root, &place).date(DATE).args(flags).spawn()?;
    let mut looks = 0u64;
    while !running.ended()? {
        seen.extend(listing(&partition)?);
        let under_output = std::fs::read_dir(place.output())?.filter_map(|entry| Some(entry.ok()?.path()));
        for path in under_output {
            ensure!(path == partition, "{} is in the output while a job runs", path.display());
        }
        looks += 1;
    }
    running.wait()?.summary()?;
    seen.extend(listing(&partition)?);
    assert!(looks > 10, "looked {looks} times");
    assert_eq!(seen.len(), 2, "readers saw {seen:?}");
    assert!(seen.iter().flatten().all(|path| is_part_name(path)));
    Ok(())
}

/// The demo generates a day in the given folder, and shows the totals of the result.
#[test]
fn the_demo_runs() -> Result<()> {
    let place = Place::new()?;
    let folder = place.path().join("demo");
    let outcome =
        Tally::new("demo").args(["--clients", "2000", "--dir"]).args([&folder]).run()?.expect_code(0)?;
    assert!(outcome.stdout.contains("n_custom_theme_clients"), "{outcome}");
    assert!(table::data_files(&folder)?.iter().any(|path| is_part_name(path)));
    Ok(())
}
