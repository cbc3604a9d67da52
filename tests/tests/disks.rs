//! Days that need the disk, and disks that are full or can't be written: small tmpfs mounts in a mount namespace of the
//! job's own, so that nothing outlives the test. That needs the right to mount (root, or user namespaces).

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tally_tests::cluster::truth::Truth;
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::harness::Missing;
use tally_tests::output::{Place, check_no_spill, check_unchanged, snapshot};
use tally_tests::process::{Tally, job_args, tally_bin};

/// The flags of `unshare` under which a mount works here.
fn namespace() -> Result<Vec<&'static str>> {
    let works = |flags: &[&str]| {
        let script = ["sh", "-c", "mount -t tmpfs -o size=64k none /mnt"];
        Command::new("unshare").args(flags).args(script).output().is_ok_and(|output| output.status.success())
    };
    let found = [vec!["--mount"], vec!["--mount", "--map-root-user"]].into_iter().find(|flags| works(flags));
    Ok(found.ok_or_else(|| Missing("no right to mount a tmpfs".into()))?)
}

/// Runs `tally run FLAGS` after `before` and followed by `after` in a shell where `$disk` is `disk`.
fn job_in(
    namespace: &[&str],
    (before, after): (&str, &str),
    disk: &Path,
    args: Vec<OsString>,
) -> Result<tally_tests::process::Outcome> {
    let script = format!("set -e; disk=$1; shift; {before}; code=0; \"$@\" || code=$?; {after}; exit $code");
    let mut line: Vec<OsString> = namespace.iter().map(Into::into).collect();
    line.extend(["sh", "-c", &script, "sh"].map(Into::into));
    line.extend([disk.into(), tally_bin().into(), "run".into()]);
    line.extend(args);
    Tally::wrapped(Path::new("unshare"), line).run()
}

fn a_full_disk_under_the_output_leaves_the_old_day() -> Result<()> {
    let namespace = namespace()?;
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000", "--narrow"])?;
    place.put_old_output(DATE)?;
    let old = snapshot(&place.published())?;
    // The old day and the first bytes of the new one fit, not more.
    let before = "cp -a \"$disk\" \"$disk/../kept\"; mount -t tmpfs -o size=400k none \"$disk\"; \
                  cp -a \"$disk/../kept/.\" \"$disk\"";
    let after = "mkdir \"$disk/../after\"; cp -a \"$disk/.\" \"$disk/../after\"";
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date".into(), DATE.into()]);
    let outcome = job_in(&namespace, (before, after), &place.published(), args)?;
    let outcome = outcome.expect_failure(1, &["space", "agg"])?;
    let after = snapshot(&place.path().join("after"))?;
    check_unchanged(&old, &after).with_context(|| outcome.to_string())?;
    check_no_spill(&place.spill())
}

/// A shuffled day whose partials have no room in a small limit: with a disk to spill to it is right, with a full one it
/// fails and says so. One test, as the day takes the most time of all.
fn a_day_larger_than_the_limit_spills() -> Result<()> {
    let place = Place::new()?;
    let day = Truth::new(&["--clients", "1200000", "--narrow", "--shuffle"])?;
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date", DATE, "--memory-limit", "256MiB", "--threads", "2"].map(Into::into));
    let summary = Tally::new("run").args(&args).run()?.summary()?;
    assert!(summary.spilled_bytes > 1 << 20, "{summary:?}");
    // A tenth over the limit and 128 MiB for the program itself.
    let bound = (256 + 25 + 128) << 20;
    assert!(summary.peak_memory_bytes < bound, "{} bytes at the peak", summary.peak_memory_bytes);
    day.check_summary(&place, &summary)?;

    let namespace = namespace()?;
    let old = snapshot(&place.published())?;
    let before = "mount -t tmpfs -o size=256k none \"$disk\"";
    let after = "test -z \"$(find \"$disk\" -type f)\" || { echo spilled files were left >&2; code=99; }";
    let outcome = job_in(&namespace, (before, after), &place.spill(), args)?;
    outcome.expect_failure(1, &["space", "spill"])?;
    check_unchanged(&old, &snapshot(&place.published())?)
}

fn a_read_only_output_is_named() -> Result<()> {
    let namespace = namespace()?;
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "1000", "--narrow"])?;
    place.put_old_output(DATE)?;
    let old = snapshot(&place.published())?;
    let before = "mount --bind \"$disk\" \"$disk\"; mount -o remount,bind,ro \"$disk\"";
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date".into(), DATE.into()]);
    let outcome = job_in(&namespace, (before, ":"), &place.published(), args)?;
    outcome.expect_failure(1, &["read-only", "agg"])?;
    check_unchanged(&old, &snapshot(&place.published())?)?;
    check_no_spill(&place.spill())
}

tally_tests::tests![
    a_full_disk_under_the_output_leaves_the_old_day,
    a_day_larger_than_the_limit_spills,
    a_read_only_output_is_named,
];
