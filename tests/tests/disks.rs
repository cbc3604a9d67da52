//! Days that need the disk, disks that are full or not writable, and file systems in memory: small mounts in a mount namespace
//! of the job, so that nothing outlives the test. That needs the permission to mount (root, or user namespaces).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::truth::Truth;
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::mounts::{job_in, namespace, publish_and_replace};
use tally_tests::output::{Place, check_no_spill, check_unchanged, snapshot};
use tally_tests::process::{Tally, job_args};

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

/// The first publish of a day and the replacement of a day give different errors on different file systems. Those on an
/// image of a disk: `file_systems`.
fn a_day_is_published_and_replaced_on_a_tmpfs() -> Result<()> {
    let day = Truth::new(&["--clients", "1000", "--narrow"])?;
    publish_and_replace(&day, "tmpfs", "mount -t tmpfs none \"$disk\"")
}

fn a_day_is_published_and_replaced_on_an_overlay() -> Result<()> {
    let day = Truth::new(&["--clients", "1000", "--narrow"])?;
    let overlay = "mount -t tmpfs none \"$image\"; mkdir \"$image/lower\" \"$image/upper\" \"$image/work\"; cd \"$image\"; \
                   mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none \"$disk\"; cd /";
    publish_and_replace(&day, "overlay", overlay)
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
    a_day_is_published_and_replaced_on_a_tmpfs,
    a_day_is_published_and_replaced_on_an_overlay,
    a_day_that_is_a_mount_is_refused_before_any_work,
    a_full_disk_under_the_output_leaves_the_old_day,
    a_day_larger_than_the_limit_spills,
    a_read_only_output_is_named,
];
