//! `--ready-marker`: the file exists only while the day is whole, in a folder and in a store, also if another process completes the publish.
//!
//! Not here: takeovers of folders (`publish/tests` of the coordinator), a cluster (`tests/deploy/test_notifications.py`).

use anyhow::{Context, Result, ensure};
use tally_tests::golden::{Case, DATE};
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::s3::proxy::Fault;
use tally_tests::s3::scene::Scene;
use tally_tests::s3::{check_nothing_left, day_folder, put_old_output};
use tally_tests::table;

const MARKER: &str = "_READY";
const FLAG: [&str; 2] = ["--ready-marker", MARKER];

/// The names of hidden files in a folder of the day.
fn hidden(place: &Place) -> Result<Vec<String>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(place.partition(DATE))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(['_', '.']) {
            found.push(name);
        }
    }
    Ok(found)
}

fn in_a_folder_the_marker_comes_and_goes_with_the_day() -> Result<()> {
    let (case, place) = (Case::new("case-05"), Place::new()?);
    let job = |flags: &[&str]| Tally::job(&case.dir, &place).date(DATE).args(flags).run();
    place.put_old_output(DATE)?;
    job(&FLAG)?.summary()?;
    ensure!(hidden(&place)? == [MARKER], "{:?}", hidden(&place)?);
    ensure!(std::fs::read(place.partition(DATE).join(MARKER))?.is_empty(), "the marker is not empty");
    // The day that stays keeps its marker.
    job(&[FLAG[0], FLAG[1], "--expect", "rows < 1"])?.expect_code(6)?;
    ensure!(hidden(&place)? == [MARKER], "{:?}", hidden(&place)?);
    let output = place.output();
    let verify = Tally::new("verify").args(["--date", DATE, "--output"]).args([&output]);
    verify.run()?.expect_code(0)?;
    job(&["--ready-marker", "_other"])?.summary()?;
    ensure!(hidden(&place)? == ["_other"], "{:?}", hidden(&place)?);
    job(&[])?.summary()?;
    ensure!(hidden(&place)?.is_empty(), "{:?}", hidden(&place)?);
    table::compare(&place.read_output(DATE)?, &case.expected_rows()?)
}

fn a_name_that_readers_take_for_data_is_refused_before_any_work() -> Result<()> {
    let (case, place) = (Case::new("case-05"), Place::new()?);
    for name in ["READY", "part-0.parquet", "_a/b", "../_a", "_metadata", "._x.crc", "_"] {
        let job = Tally::job(&case.dir, &place).date(DATE).args(["--ready-marker", name]);
        job.run()?.expect_failure(2, &["ready marker", name])?;
    }
    ensure!(!place.output().exists(), "something was published");
    let job = Tally::job(&case.dir, &place).date(DATE).env("TALLY_READY_MARKER", MARKER);
    job.run()?.summary()?;
    ensure!(hidden(&place)? == [MARKER], "the variable has no effect");
    Ok(())
}

/// A day in a store, which is replaced by jobs with a marker.
struct Marked(Scene);

impl Marked {
    /// A day of another kind, which has a marker of its own, replaced by one with a marker.
    fn new() -> Result<Self> {
        let scene = Scene::new()?;
        put_old_output(&scene.out)?;
        scene.job().args(FLAG).run()?.summary()?;
        let marked = Marked(scene);
        ensure!(marked.has_marker()?, "the first day has no marker");
        Ok(marked)
    }

    fn key() -> String {
        format!("{}/{MARKER}", day_folder())
    }

    fn has_marker(&self) -> Result<bool> {
        Ok(self.0.out.list(&day_folder())?.contains(&Self::key()))
    }

    /// Kills a job at a request.
    fn kill_at(&self, method: &str, part: &str, skip: usize, fault: Fault) -> Result<()> {
        self.0.proxy.break_next(method, part, skip, 1, fault);
        let running = self.0.job().args(FLAG).spawn()?;
        self.0.proxy.wait_held(1)?;
        // Dropping it kills it.
        drop(running);
        self.0.proxy.heal();
        Ok(())
    }

    /// Checks that the day is whole, and has its marker. Removes the marker.
    fn check(&self) -> Result<()> {
        ensure!(self.has_marker()?, "the day has no marker: {:?}", self.0.out.list(&day_folder())?);
        self.0.out.remove(&Self::key())?;
        self.0.check_day()?;
        check_nothing_left(&self.0.out)
    }
}

fn in_a_store_the_marker_is_written_last() -> Result<()> {
    let Marked(scene) = Marked::new()?;
    scene.proxy.take();
    scene.job().args(FLAG).run()?.summary()?;
    let exchanges = scene.proxy.take();
    let at = |method: &str, part: &str| {
        let of = |(at, exchange): (usize, &tally_tests::s3::proxy::Exchange)| {
            (exchange.method == method && exchange.target.contains(part)).then_some(at)
        };
        exchanges.iter().enumerate().filter_map(of).collect::<Vec<usize>>()
    };
    let (marked, decided) = (at("PUT", MARKER), at("PUT", "/commits/"));
    let [marked] = marked[..] else { anyhow::bail!("{} requests for the marker", marked.len()) };
    let completed = at("POST", "uploadId");
    let last = *completed.last().context("nothing was completed")?;
    let removed = at("POST", "?delete");
    ensure!(
        removed.iter().any(|at| decided[0] < *at && *at < completed[0]),
        "the old marker stayed: {removed:?}"
    );
    ensure!(removed.iter().any(|at| last < *at && *at < marked), "the old files stayed: {removed:?}");
    ensure!(
        last < marked && marked < *at("PUT", ".done").last().context("no mark")?,
        "{completed:?} {marked}"
    );
    Marked(scene).check()
}

/// Where a job is killed, and whether the marker is there then.
const STEPS: [(&str, &str, usize, Fault, bool); 6] = [
    ("PUT", "/commits/", 0, Fault::Hold, true),
    ("POST", "uploadId", 0, Fault::Hold, false),
    ("POST", "uploadId", 1, Fault::HoldAnswer, false),
    ("PUT", MARKER, 0, Fault::Hold, false),
    ("PUT", MARKER, 0, Fault::HoldAnswer, true),
    ("PUT", ".done", 0, Fault::Hold, true),
];

fn each_process_that_completes_a_publish_also_writes_the_marker() -> Result<()> {
    for (method, part, skip, fault, there) in STEPS {
        let context = || format!("{method} {part} {skip} {fault:?}");
        let marked = Marked::new()?;
        marked.kill_at(method, part, skip, fault.clone()).with_context(context)?;
        ensure!(marked.has_marker()? == there, "{}: {:?}", context(), marked.0.out.list(&day_folder())?);
        marked.0.gc(&[])?;
        marked.check().with_context(context)?;
    }
    Ok(())
}

fn a_publish_that_is_undone_leaves_the_old_day_with_its_marker() -> Result<()> {
    let marked = Marked::new()?;
    let old = marked.0.out.list(&day_folder())?;
    marked.0.proxy.break_next("PUT", "/commits/", 0, 1, Fault::Hold);
    let running = marked.0.job().args(FLAG).spawn()?;
    marked.0.proxy.wait_held(1)?;
    ensure!(marked.0.gc(&[])?.contains("upload removed"), "nothing was removed");
    marked.0.proxy.heal();
    running.wait()?.expect_failure(1, &["an upload was removed"])?;
    assert_eq!(marked.0.out.list(&day_folder())?, old);
    // A job without a marker removes it.
    marked.0.job().run()?.summary()?;
    ensure!(!marked.has_marker()?, "the marker of the old day stayed");
    marked.0.check_day()
}

tally_tests::tests![
    in_a_folder_the_marker_comes_and_goes_with_the_day,
    a_name_that_readers_take_for_data_is_refused_before_any_work,
    in_a_store_the_marker_is_written_last,
    each_process_that_completes_a_publish_also_writes_the_marker,
    a_publish_that_is_undone_leaves_the_old_day_with_its_marker,
];
