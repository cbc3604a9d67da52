//! Days that need the disk, disks that are full or not writable, and other file systems: small mounts in a mount namespace
//! of the job, so that nothing outlives the test. That needs the permission to mount (root, or user namespaces).

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
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
    // There is room for the old day and the first bytes of the new one, not for more.
    let before = "cp -a \"$disk\" \"$disk/../kept\"; mount -t tmpfs -o size=400k none \"$disk\"; \
                  cp -a \"$disk/../kept/.\" \"$disk\"";
    let after = "mkdir \"$disk/../after\"; cp -a \"$disk/.\" \"$disk/../after\"";
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date".into(), DATE.into()]);
    let outcome = job_in(&namespace, (before, after), &place.published(), args)?;
    let outcome = outcome.expect_failure(1, &["space", "agg", "--output"])?;
    let after = snapshot(&place.path().join("after"))?;
    check_unchanged(&old, &after).with_context(|| outcome.to_string())?;
    check_no_spill(&place.spill())
}

/// Grows a full disk as soon as an attempt fails on it, according to the log; ends on its own.
fn growing(size: u64) -> (String, &'static str) {
    let before = format!(
        "exec 2>\"$disk/../said\"; mount -t tmpfs -o size={size} none \"$disk\"; \
         (tries=0; until grep -q 'space left' \"$disk/../said\" || [ $tries = 1200 ]; do tries=$((tries+1)); sleep 0.1; done; \
         mount -o remount,size=1g none \"$disk\") & grows=$!"
    );
    (before, "kill $grows 2>/dev/null || true; wait $grows || true")
}

/// A shuffled day whose partials exceed a small memory limit: with a disk for spills the output is right; with a disk
/// that is full for a while, in the map stage or in the reduce stage, the job waits and the output is right; with a
/// disk that stays full the job fails with that reason. One test, because generating the day takes most of the time.
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
    // When memory is full of map outputs, all outputs of reduce tasks are spilled: the last of them have no room.
    let encoded = summary.stages.iter().find(|stage| stage.name == "reduce").context("a reduce stage")?.bytes;
    ensure!(
        encoded > 8 << 20 && summary.spilled_bytes > encoded,
        "{encoded} of {} bytes",
        summary.spilled_bytes
    );
    for (size, stage) in [(256 << 10, "s0"), (summary.spilled_bytes - encoded / 2, "s1")] {
        let (before, after) = growing(size);
        let outcome = job_in(&namespace, (&before, after), &place.spill(), args.clone())?;
        let said = std::fs::read_to_string(place.path().join("said"))?;
        day.check_summary(&place, &outcome.summary().with_context(|| said.clone())?)?;
        let met = |line: &str| line.contains("space left") && line.contains(&format!("-{stage}-"));
        ensure!(said.lines().any(met), "no attempt of stage {stage} met a full disk:\n{said}");
    }

    let old = snapshot(&place.published())?;
    let before = "mount -t tmpfs -o size=256k none \"$disk\"";
    let after = "test -z \"$(find \"$disk\" -type f)\" || { echo spilled files were left >&2; code=99; }";
    // The default is to wait for half a minute.
    args.extend(["--no-room-timeout", "3000"].map(Into::into));
    let outcome = job_in(&namespace, (before, after), &place.spill(), args.clone())?;
    let outcome = outcome.expect_failure(1, &["no worker had room", "for 3 s", "space", "--spill-dir"])?;
    // All of it is JSON, and the tries do not fill the screen.
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    ensure!(lines.len() < 20 && lines.iter().all(|line| line.starts_with('{')), "{outcome}");
    // Without `--output-format json`, all of it is text.
    let json = args.iter().position(|arg| arg == "--output-format").context("the format")?;
    args.drain(json..json + 2);
    let outcome = job_in(&namespace, (before, after), &place.spill(), args)?;
    let outcome = outcome.expect_failure(1, &["error: no worker had room"])?;
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    ensure!(lines.len() < 20 && !lines.iter().any(|line| line.starts_with('{')), "{outcome}");
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

/// How a file system is mounted at `$disk`. Those on an image need root, and their `mkfs`.
const FILE_SYSTEMS: [(&str, &str); 5] = [
    ("tmpfs", "mount -t tmpfs none \"$disk\""),
    (
        "overlay",
        "mount -t tmpfs none \"$image\"; mkdir \"$image/lower\" \"$image/upper\" \"$image/work\"; cd \"$image\"; \
         mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none \"$disk\"; cd /",
    ),
    (
        "ext4",
        "mkfs.ext4 -q \"$image/ext4\" 400M; mount -o loop \"$image/ext4\" \"$disk\"; rmdir \"$disk/lost+found\"",
    ),
    (
        "xfs",
        "truncate -s 400M \"$image/xfs\"; mkfs.xfs -q \"$image/xfs\"; mount -o loop \"$image/xfs\" \"$disk\"",
    ),
    (
        "btrfs",
        "truncate -s 400M \"$image/btrfs\"; mkfs.btrfs -q \"$image/btrfs\"; mount -o loop \"$image/btrfs\" \"$disk\"",
    ),
];

/// Whether this machine can mount a file system of [`FILE_SYSTEMS`].
fn mounts(namespace: &[&str], mount: &str) -> Result<bool> {
    let place = Place::new()?;
    let script = format!("set -e; disk=$1; image=$2; mkdir \"$image\"; {mount}");
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", &script, "sh"]);
    command.args([place.published(), place.path().join("image")]);
    Ok(command.output()?.status.success())
}

/// The first publish of a day and the replacement of a day give different errors on different file systems.
fn days_are_published_and_replaced_on_real_file_systems() -> Result<()> {
    let namespace = namespace()?;
    let day = Truth::new(&["--clients", "1000", "--narrow"])?;
    let mut tried = vec![];
    for (name, mount) in FILE_SYSTEMS {
        if !mounts(&namespace, mount)? {
            eprintln!("skipped: this machine cannot make and mount {name}");
            continue;
        }
        let place = Place::new()?;
        let before = format!("image=\"$disk/../image\"; mkdir \"$image\"; {{ {mount}; }} >&2; \"$@\" >&2");
        let after = "mkdir \"$disk/../after\"; cp -a \"$disk/.\" \"$disk/../after\"";
        let mut args = job_args(&day.root, &place.output(), &place.spill());
        args.extend(["--date".into(), DATE.into()]);
        let outcome = job_in(&namespace, (&before, after), &place.published(), args)?;
        let summary = outcome.summary().with_context(|| name.to_string())?;
        std::fs::remove_dir(place.published())?;
        std::fs::rename(place.path().join("after"), place.published())?;
        day.check_summary(&place, &summary).with_context(|| name.to_string())?;
        tried.push(name);
    }
    ensure!(tried.contains(&"tmpfs"), "only {tried:?}");
    Ok(())
}

/// A bind mount has the device number of its parent, but cannot be exchanged.
fn a_day_that_is_a_mount_is_refused_before_any_work() -> Result<()> {
    let namespace = namespace()?;
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "1000", "--narrow"])?;
    place.put_old_output(DATE)?;
    let old = snapshot(&place.published())?;
    let before = "mount --bind \"$disk\" \"$disk\"";
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date".into(), DATE.into()]);
    let outcome = job_in(&namespace, (before, ":"), &place.partition(DATE), args)?;
    outcome.expect_failure(1, &["another file system begins here", "submission_date_s3"])?;
    check_unchanged(&old, &snapshot(&place.published())?)?;
    check_no_spill(&place.spill())
}

tally_tests::tests![
    days_are_published_and_replaced_on_real_file_systems,
    a_day_that_is_a_mount_is_refused_before_any_work,
    a_full_disk_under_the_output_leaves_the_old_day,
    a_day_larger_than_the_limit_spills,
    a_read_only_output_is_named,
];
