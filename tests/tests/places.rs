//! Where inputs and outputs lie: outputs that would replace what is read, files that the store does not name, links
//! and relative paths, an output that nobody reads. What lies in the files is in `errors` and `layouts`.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tally_tests::golden::DATE;
use tally_tests::output::{check_unchanged, snapshot};
use tally_tests::process::{Tally, job_args, tally_bin};
use tally_tests::scene::{GROUP_ROWS, Scene};

#[test]
fn an_output_over_an_input_is_refused_and_the_input_stays() -> Result<()> {
    let scene = Scene::new()?;
    let before = snapshot(&scene.root)?;
    let inside = scene.root.join("addons/v2").join(format!("submission_date_s3={DATE}/agg"));
    for output in [scene.root.join("addons/v2"), scene.root.join("main_summary/v3/../v3"), inside] {
        let args = job_args(&scene.root, &output, &scene.place.spill());
        Tally::new("run").args(args).date(DATE).run()?.expect_failure(2, &["overlap"])?;
        check_unchanged(&before, &snapshot(&scene.root)?)?;
    }
    Ok(())
}

#[test]
fn a_file_that_the_store_cannot_name_is_an_error() -> Result<()> {
    let spoil: [fn(&std::path::Path) -> std::io::Result<()>; 2] = [
        |day| std::fs::copy(day.join("part-00000.snappy.parquet"), day.join("more#1")).map(drop),
        |day| symlink(day.join("nothing"), day.join("more#1")),
    ];
    for spoil in spoil {
        let scene = Scene::new()?;
        spoil(&scene.root.join("addons/v2").join(format!("submission_date_s3={DATE}")))?;
        scene.fails(&["addons", "more#1"])?;
    }
    Ok(())
}

#[test]
fn linked_outputs_are_followed() -> Result<()> {
    let scene = Scene::new()?;
    let real = scene.place.path().join("elsewhere");
    std::fs::create_dir(&real)?;
    symlink(&real, scene.place.path().join("link"))?;
    let output = scene.place.path().join("link/agg");
    let args = job_args(&scene.root, &output, &scene.place.spill());
    let summary = Tally::new("run").args(args).date(DATE).run()?.summary()?;
    assert_eq!(summary.rows, 6 * GROUP_ROWS as u64);
    ensure!(
        real.join("agg").join(format!("submission_date_s3={DATE}")).is_dir(),
        "the day is where the link leads"
    );
    assert_eq!(std::fs::read_dir(&real)?.count(), 1, "and nothing beside it");
    Ok(())
}

#[test]
fn a_full_standard_output_is_said_and_a_closed_one_is_not() -> Result<()> {
    let scene = Scene::new()?;
    let run = |out: Stdio| {
        let mut command = Command::new(tally_bin());
        command.arg("run").args(job_args(&scene.root, &scene.place.output(), &scene.place.spill()));
        command.args(["--date", DATE]).stdout(out).stderr(Stdio::piped()).spawn()
    };
    let full = run(std::fs::File::options().write(true).open("/dev/full")?.into())?.wait_with_output()?;
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    ensure!(full.status.code() == Some(1) && said.contains("the day is published"), "{said}");
    let mut closed = run(Stdio::piped())?;
    drop(closed.stdout.take());
    let closed = closed.wait_with_output()?;
    ensure!(closed.status.success(), "{}", String::from_utf8_lossy(&closed.stderr));
    Ok(())
}
