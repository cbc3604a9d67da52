//! Paths of inputs and outputs: outputs that would replace an input, files that the store does not name, links and
//! relative paths, a full or closed standard output. The contents of the files are in `errors` and `layouts`.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, check_unchanged, snapshot};
use tally_tests::process::{Tally, job_args, output, tally_bin};
use tally_tests::scene::{GROUP_ROWS, Scene};

#[test]
fn an_output_over_an_input_is_refused_and_the_input_stays() -> Result<()> {
    let scene = Scene::new()?;
    let before = snapshot(&scene.root)?;
    let day = scene.root.join("addons/v2").join(format!("submission_date_s3={DATE}/agg"));
    let beside = scene.root.join("main_summary/v3/agg");
    for output in [scene.root.join("addons/v2"), scene.root.join("main_summary/v3/../v3"), day, beside] {
        let args = job_args(&scene.root, &output, &scene.place.spill());
        Tally::new("run").args(args).date(DATE).run()?.expect_failure(2, &["overlap"])?;
        check_unchanged(&before, &snapshot(&scene.root)?)?;
    }
    Ok(())
}

/// A way to corrupt a day's folder.
type Corrupt = fn(&Path) -> Result<()>;

#[test]
fn other_kinds_of_files_are_reported_by_kind() -> Result<()> {
    let corruptions: [(&str, Corrupt); 6] = [
        ("more#1 has a name that object stores do not support", |day| {
            Ok(std::fs::copy(day.join("part-00000.snappy.parquet"), day.join("more#1")).map(drop)?)
        }),
        ("more#1 is a link whose target cannot be opened", |day| {
            Ok(symlink(day.join("nothing"), day.join("more#1"))?)
        }),
        ("more is a FIFO", |day| {
            let made = Command::new("mkfifo").arg(day.join("more")).status()?;
            ensure!(made.success(), "mkfifo failed");
            Ok(())
        }),
        ("more is a socket", |day| Ok(UnixListener::bind(day.join("more")).map(drop)?)),
        // As in Spark, every file is data unless its name begins with an underscore or a dot.
        ("this is not a Parquet file", |day| {
            Ok(std::fs::write(day.join("more.csv"), "client_id,addon_id\na,b\n")?)
        }),
        ("names begin with _ or .", |day| {
            Ok(std::fs::write(day.join("more.csv"), "client_id,addon_id\na,b\n")?)
        }),
    ];
    for (words, corrupt) in corruptions {
        let scene = Scene::new()?;
        corrupt(&scene.root.join("addons/v2").join(format!("submission_date_s3={DATE}")))?;
        scene.fails(&["addons", words])?;
    }
    Ok(())
}

#[test]
fn a_url_of_a_store_is_no_folder_of_this_machine() -> Result<()> {
    let place = Place::new()?;
    let generate = Tally::new("generate").args(["--clients", "10", "--output", "s3://bucket/day"]);
    let spill = Tally::new("demo").args(["--spill-dir", "gs://bucket/spill"]);
    let worker = Tally::wrapped(&worker_bin(), ["--spill-dir", "s3://bucket/spill"]);
    for (command, option) in [(generate, "--output"), (spill, "--spill-dir"), (worker, "--spill-dir")] {
        command.run()?.expect_failure(2, &[option, "://bucket/", "give a path"])?;
    }
    for folder in ["s3:", "gs:"] {
        ensure!(!Path::new(folder).exists(), "there is a folder {folder}");
    }
    // A `file://` URL is a path.
    let folder = format!("file://{}", place.path().join("generated").display());
    Tally::new("generate").args(["--clients", "10", "--output", &folder]).run()?.expect_code(0)?;
    ensure!(place.path().join("generated/addons/v2").is_dir(), "nothing was generated there");
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
    assert_eq!(std::fs::read_dir(&real)?.count(), 2, "and only the objectives table beside it");
    Ok(())
}

#[test]
fn a_full_standard_output_is_said_and_a_closed_one_is_not() -> Result<()> {
    let scene = Scene::new()?;
    let run = |out: Stdio| {
        let mut command = Command::new(tally_bin());
        command.arg("run").args(job_args(&scene.root, &scene.place.output(), &scene.place.spill()));
        command.args(["--date", DATE]).stdout(out);
        output(command)
    };
    let full = run(std::fs::File::options().write(true).open("/dev/full")?.into())?;
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    ensure!(full.status.code() == Some(1) && said.contains("the day is published"), "{said}");
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let closed = run(writer.into())?;
    ensure!(closed.status.success(), "{}", String::from_utf8_lossy(&closed.stderr));
    Ok(())
}
