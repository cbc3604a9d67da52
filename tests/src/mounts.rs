//! Mounts in a mount namespace of a job, so that nothing outlives the test.
//!
//! Not here: the tests (`tests/disks.rs`, `tests/file_systems.rs`).

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::truth::Truth;
use crate::golden::DATE;
use crate::harness::Missing;
use crate::output::Place;
use crate::process::{Outcome, Tally, job_args, tally_bin};

/// The flags of `unshare` under which a mount works here.
///
/// # Errors
/// [`Missing`]: there are none.
pub fn namespace() -> Result<Vec<&'static str>> {
    let works = |flags: &[&str]| {
        let script = ["sh", "-c", "mount -t tmpfs -o size=64k none /mnt"];
        Command::new("unshare").args(flags).args(script).output().is_ok_and(|output| output.status.success())
    };
    let found = [vec!["--mount"], vec!["--mount", "--map-root-user"]].into_iter().find(|flags| works(flags));
    Ok(found.ok_or_else(|| Missing("no right to mount a tmpfs".into()))?)
}

/// Runs `tally run ARGS` after `before` and followed by `after` in a shell where `$disk` is `disk`.
///
/// # Errors
/// The shell cannot be started.
pub fn job_in(
    namespace: &[&str],
    (before, after): (&str, &str),
    disk: &Path,
    args: Vec<OsString>,
) -> Result<Outcome> {
    let script = format!("set -e; disk=$1; shift; {before}; code=0; \"$@\" || code=$?; {after}; exit $code");
    let mut line: Vec<OsString> = namespace.iter().map(Into::into).collect();
    line.extend(["sh", "-c", &script, "sh"].map(Into::into));
    line.extend([disk.into(), tally_bin().into(), "run".into()]);
    line.extend(args);
    Tally::wrapped(Path::new("unshare"), line).run()
}

/// Checks that a file system can be mounted here. The shell code `mount` mounts it at `$disk`, and may use the folder `$image`.
fn check_mount(namespace: &[&str], name: &str, mount: &str) -> Result<()> {
    let place = Place::new()?;
    let script = format!("set -e; disk=$1; image=$2; mkdir \"$image\"; {mount}");
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", &script, "sh"]);
    let output = command.args([place.published(), place.path().join("image")]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Missing(format!("no {name} that can be made and mounted: {}", said.trim())).into())
}

/// Publishes a day on a file system, and replaces it there by the same day. The shell code `mount` mounts it at `$disk`, and may
/// use the folder `$image`.
///
/// # Errors
/// [`Missing`]: the file system cannot be mounted here. Otherwise the job failed, or the day is wrong.
pub fn publish_and_replace(day: &Truth, name: &str, mount: &str) -> Result<()> {
    let namespace = namespace()?;
    check_mount(&namespace, name, mount)?;
    let place = Place::new()?;
    let before = format!("image=\"$disk/../image\"; mkdir \"$image\"; {{ {mount}; }} >&2; \"$@\" >&2");
    let after = "mkdir \"$disk/../after\"; cp -a \"$disk/.\" \"$disk/../after\"";
    let mut args = job_args(&day.root, &place.output(), &place.spill());
    args.extend(["--date".into(), DATE.into()]);
    let outcome = job_in(&namespace, (&before, after), &place.published(), args)?;
    let summary = outcome.summary().with_context(|| name.to_string())?;
    std::fs::remove_dir(place.published())?;
    std::fs::rename(place.path().join("after"), place.published())?;
    day.check_summary(&place, &summary).with_context(|| name.to_string())
}
