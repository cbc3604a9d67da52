//! The JSON of every command, and of failures, has the fields that `deploy/docs/json.md` documents, and no others.
//!
//! Not here: the values, which the tests of each command check.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{Int32Array, Int64Array};
use serde_json::Value;
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::generated::Generated;
use tally_tests::golden::{Case, DATE};
use tally_tests::help::{commands, help};
use tally_tests::json_docs::JsonDocs;
use tally_tests::output::{Place, part_files};
use tally_tests::process::{Outcome, Tally, job_args, tally_bin};
use tally_tests::rewrite::PartFile;
use tally_tests::s3::reach;
use tally_tests::s3::server::{ADMIN, Kind, OUT, Server};
use tally_tests::scratch::Scratch;

/// The result of a command: one line on standard output.
fn result(outcome: &Outcome) -> Result<Value> {
    ensure!(outcome.stdout.lines().count() == 1, "{outcome}");
    serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())
}

/// The failure of a command: the last line of standard error.
fn failure(outcome: &Outcome) -> Result<Value> {
    let line = outcome.stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| outcome.to_string())
}

/// The lines of JSON in a text with other lines.
fn lines(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The elements of a list, of which there is at least one.
fn elements(list: &Value) -> Result<&[Value]> {
    let elements = list.as_array().with_context(|| format!("no list: {list}"))?;
    ensure!(!elements.is_empty(), "an empty list");
    Ok(elements)
}

/// An object without the version, which the same object has as an answer of its own.
const NO_VERSION: [&str; 1] = ["schema_version"];

fn commands_without_a_cluster_print_what_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let (folder, place) = (Scratch::new("tally json ")?, Place::new()?);
    let output = folder.path().join("day");
    let generate =
        Tally::new("generate").args(["--clients", "300", "--date", DATE, "--output"]).args([&output]);
    let generated = generate.args(["--output-format", "json"]).run()?.expect_code(0)?;
    docs.check("generate", &result(&generated)?)?;
    let second = folder.path().join("day2");
    let second = Tally::new("generate")
        .args(["--clients", "300", "--dataset", "addon_aggregates_v2", "--output-format", "json", "--output"])
        .args([&second]);
    docs.check("generate, addon_aggregates_v2", &result(&second.run()?.expect_code(0)?)?)?;
    let progress = lines(&generated.stderr)?;
    ensure!(!progress.is_empty(), "{generated}");
    progress.iter().try_for_each(|line| docs.check("generate, progress", line))?;
    docs.check(
        "run, submit, wait",
        &result(&Tally::job(&output, &place).date(DATE).run()?.expect_code(0)?)?,
    )?;
    let tables: Vec<_> = job_args(&output, &place.output(), &place.spill());
    let with = |command: &str, flags: &[&str]| {
        let args = tables.iter().take(6).cloned().chain(flags.iter().map(Into::into));
        Tally::new(command).args(args).args(["--output-format", "json"]).run()
    };
    let range = ["--from", "20170226", "--to", DATE];
    docs.check("days", &result(&with("days", &range)?.expect_code(0)?)?)?;
    // The first day has no inputs.
    let planned = with("plan", &range)?.expect_code(1)?;
    docs.check("plan", &result(&planned)?)?;
    docs.check("Failures", &failure(&planned)?)?;
    let filled = with("backfill", &range)?.expect_code(1)?;
    docs.check("backfill", &result(&filled)?)?;
    docs.check("Failures", &failure(&filled)?)?;
    let unmet = with("backfill", &["--from", DATE, "--to", DATE, "--expect", "rows < 1"])?.expect_code(6)?;
    let days = result(&unmet)?;
    docs.check("backfill", &days)?;
    ensure!(days["days"][0]["state"] == "unmet" && days["days"][0]["reason"].is_string(), "{unmet}");
    let datasets = Tally::new("datasets").args(["--output-format", "json"]).run()?.expect_code(0)?;
    docs.check("datasets", &result(&datasets)?)?;
    let dir = folder.path().join("demo");
    let demo = Tally::new("demo").args(["--clients", "300", "--output-format", "json", "--dir"]).args([&dir]);
    let demo = result(&demo.run()?.expect_code(0)?)?;
    docs.check("demo", &demo)?;
    docs.check_without("run, submit, wait", &NO_VERSION, &demo["summary"])
}

fn commands_of_a_cluster_print_what_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let (folder, place) = (Scratch::new("tally json ")?, Place::new()?);
    let day = Generated::new(folder.path(), &["--clients", "300", "--narrow"])?;
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let ask = |command: &str, flags: &[&str]| {
            client.tally(command).args(flags).args(["--output-format", "json"]).run()
        };
        let submitted = client.submit_command(&day.root, &place, &[]).run()?.expect_code(0)?;
        let summary = result(&submitted)?;
        docs.check("run, submit, wait", &summary)?;
        let progress = lines(&submitted.stderr)?;
        ensure!(!progress.is_empty(), "{submitted}");
        progress.iter().try_for_each(|line| docs.check("submit, wait, progress", line))?;
        let id = summary["job_id"].as_str().context("no id")?;
        let job = result(&ask("job", &[id])?.expect_code(0)?)?;
        docs.check("job, cancel", &job)?;
        docs.check_without("run, submit, wait", &NO_VERSION, &job["summary"])?;
        docs.check("job, detail", &job["detail"])?;
        ensure!(job["detail"]["partitions"].is_object(), "{job}");
        elements(&job["detail"]["stage_times"])?;
        docs.check("run, submit, wait", &result(&ask("wait", &[id])?.expect_code(0)?)?)?;
        let logged = lines(&ask("logs", &["latest"])?.expect_code(0)?.stdout)?;
        ensure!(logged.len() > 5, "{logged:?}");
        logged.iter().try_for_each(|event| docs.check("logs", event))?;
        let jobs = result(&ask("jobs", &[])?.expect_code(0)?)?;
        docs.check("jobs", &jobs)?;
        docs.check_without("job, cancel", &NO_VERSION, &jobs["jobs"][0])?;
        let workers = result(&ask("workers", &[])?.expect_code(0)?)?;
        docs.check("workers", &workers)?;
        docs.check_without("worker drain", &NO_VERSION, &workers["workers"][0])?;
        // Refused by the coordinator, unknown to it, and invalid.
        for (command, flags, code, kind) in [
            ("job", &["none"][..], 1, "failed"),
            ("cancel", &[id], 1, "failed"),
            ("jobs", &["--none"], 2, "usage"),
        ] {
            let failed = failure(&ask(command, flags)?.expect_code(code)?)?;
            docs.check("Failures", &failed)?;
            ensure!(failed["error"]["kind"] == kind && failed["error"]["exit_code"] == code, "{failed}");
        }
        cluster.freeze_workers()?;
        let place = Place::new()?;
        let detached = client.submit_command(&day.root, &place, &["--detach"]).run()?.expect_code(0)?;
        let detached = result(&detached)?;
        docs.check("submit --detach", &detached)?;
        let id = detached["job_id"].as_str().context("no id")?;
        docs.check("job, cancel", &result(&ask("cancel", &[id])?.expect_code(0)?)?)?;
        cluster.release()?;
        client.wait_over(id)?;
        let worker = workers["workers"][0]["worker_id"].as_str().context("no id")?;
        let address = cluster.coordinators[0].address().to_string();
        let drain = |worker: &str| {
            let flags = ["--output-format", "json", "--coordinator", &address];
            Tally::new("worker").args(["drain", worker]).args(flags).run()
        };
        docs.check("Failures", &failure(&drain("none")?.expect_code(1)?)?)?;
        docs.check("worker drain", &result(&drain(worker)?.expect_code(0)?)?)?;
        cluster.workers[0].process.wait_done(tally_tests::cluster::client::DEADLINE)
    })
}

/// A job that runs, with a worker that drains.
fn the_detail_of_a_running_job_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    with_cluster(Setup { workers: 2, ..Setup::default() }, |cluster| {
        let (client, place) = (cluster.client(), Place::new()?);
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.1))?;
        let drained = client.workers()?[0].worker_id.clone();
        client.drain_command(&drained).run()?.expect_code(0)?;
        let shown = client.tally("job").args([&job.id, "--output-format", "json"]).run()?.expect_code(0)?;
        let shown = result(&shown)?;
        docs.check("job, cancel", &shown)?;
        docs.check("job, detail", &shown["detail"])?;
        elements(&shown["detail"]["running"])?;
        for event in elements(&shown["detail"]["incidents"])? {
            docs.check_without("logs", &["schema_version", "job_id"], event)?;
        }
        cluster.release()?;
        job.done()?;
        client.wait_for_workers("a worker that left", |workers| workers.len() == 1)?;
        Ok(())
    })
}

/// Days that were changed, that differ, that do not exist, and that do not meet an expectation.
fn commands_about_published_days_print_what_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let (case, places) = (Case::new("case-05"), [Place::new()?, Place::new()?]);
    for place in &places {
        Tally::job(&case.dir, place).date(DATE).run()?.expect_code(0)?;
    }
    let outputs = [places[0].output(), places[1].output()];
    let verify = |date: &str| {
        let verify = Tally::new("verify").args(["--date", date, "--output-format", "json", "--output"]);
        verify.args([&outputs[1]]).run()
    };
    let diff = || Tally::new("diff").args(&outputs).args(["--date", DATE, "--output-format", "json"]).run();
    let report = |to: &str| {
        let flags = ["--from", DATE, "--to", to, "--output-format", "json", "--output"];
        Tally::new("report").args(flags).args([&outputs[1]]).run()
    };
    docs.check("verify", &result(&verify(DATE)?.expect_code(0)?)?)?;
    docs.check("diff", &result(&diff()?.expect_code(0)?)?)?;
    check_report(&docs, &result(&report("20170228")?.expect_code(0)?)?)?;
    let check_failure = |outcome: &Outcome, kind: &str| {
        let failed = failure(outcome)?;
        docs.check("Failures", &failed)?;
        ensure!(failed["error"]["kind"] == kind, "{failed}");
        Ok(())
    };
    let missing = verify("20170228")?.expect_code(7)?;
    ensure!(missing.stdout.is_empty(), "{missing}");
    check_failure(&missing, "unreadable")?;
    let unmet = Tally::job(&case.dir, &places[1]).date(DATE).args(["--expect", "rows < 1"]).run()?;
    let unmet = unmet.expect_code(6)?;
    check_failure(&unmet, "unmet_expectation")?;
    // A changed value in a row, and a changed value of the whole day.
    let file = &part_files(&places[1].partition(DATE))?[0];
    let mut part = PartFile::read(file)?;
    part.set(0, "count", Arc::new(Int64Array::from(vec![4_711])))?;
    for row in 0..part.rows.num_rows() {
        part.set(row, "n_clients", Arc::new(Int32Array::from(vec![9_999])))?;
    }
    part.write(file)?;
    let changed = verify(DATE)?.expect_code(1)?;
    check_failure(&changed, "failed")?;
    let changed = result(&changed)?;
    docs.check("verify", &changed)?;
    elements(&changed["findings"])?;
    let different = diff()?.expect_code(1)?;
    check_failure(&different, "failed")?;
    let different = result(&different)?;
    docs.check("diff", &different)?;
    elements(&different["constants"])?;
    elements(&different["first"][0]["only_in_a"])?;
    elements(&different["first"][0]["only_in_b"])?;
    std::fs::write(file, "no Parquet file")?;
    let unreadable = report(DATE)?.expect_code(1)?;
    check_failure(&unreadable, "failed")?;
    let unreadable = result(&unreadable)?;
    ensure!(unreadable["days"][0]["reason"].is_string(), "{unreadable}");
    check_report(&docs, &unreadable)
}

fn check_report(docs: &JsonDocs, report: &Value) -> Result<()> {
    docs.check("report", report)?;
    elements(&report["figures"])?;
    for day in elements(&report["days"])?.iter().chain([&report["baseline"]]) {
        docs.check("report, day", day)?;
        let (figures, counts) = (day["figures"].as_object(), day["distributions"].as_object());
        ensure!(figures.is_some() == (day["state"] == "published"), "{day}");
        ensure!(figures.is_some() == counts.is_some(), "{day}");
        for (name, value) in figures.into_iter().flatten() {
            docs.check("report, figure of a day", value).with_context(|| name.clone())?;
        }
        for (name, counts) in counts.into_iter().flatten() {
            ensure!(elements(counts)?.iter().all(Value::is_u64), "{name}: {day}");
        }
    }
    Ok(())
}

fn gc_prints_what_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let server = Server::start(Kind::Moto)?;
    let gc = Tally::new("gc").args(["--output", &format!("s3://{OUT}/agg"), "--output-format", "json"]);
    docs.check("gc", &result(&reach(gc, server.address(), ADMIN).run()?.expect_code(0)?)?)
}

/// Failures before any work, of each kind that needs no cluster.
fn a_failure_is_one_object_with_its_kind_a_hint_and_the_exit_code() -> Result<()> {
    let docs = JsonDocs::read()?;
    let check = |command: Tally, code: i32, kind: &str, hint: &str| -> Result<()> {
        let outcome = command.run()?.expect_code(code)?;
        ensure!(outcome.stdout.is_empty(), "{outcome}");
        ensure!(outcome.stderr.lines().count() == 1, "{outcome}");
        let failed = failure(&outcome)?;
        docs.check("Failures", &failed)?;
        let error = &failed["error"];
        ensure!(error["kind"] == kind && error["exit_code"] == code, "{outcome}");
        ensure!(error["hint"].as_str().is_some_and(|said| said.contains(hint)), "no {hint:?}: {outcome}");
        Ok(())
    };
    let json = ["--output-format", "json"];
    check(Tally::new("run").args(json), 2, "usage", "--preset (telemetry)")?;
    check(Tally::new("run").args(json).args(["--threads", "0"]), 2, "usage", "--help")?;
    check(Tally::new("run").args(["--none", "--output-format=json"]), 2, "usage", "--help")?;
    check(Tally::new("jobs").args(["--none"]).env("TALLY_OUTPUT_FORMAT", "json"), 2, "usage", "--help")?;
    check(Tally::new("jobs").args(json).args(["--config", "/no/such/file"]), 2, "usage", "--help")?;
    check(Tally::new("jobs").args(json), 2, "usage", "TALLY_COORDINATOR")
}

/// The commands whose help offers JSON, against the titles of the page.
fn every_command_with_json_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let titles: BTreeSet<String> =
        docs.sections().flat_map(|title| title.split(", ")).map(String::from).collect();
    let mut with_json = 0;
    for name in commands()?.into_iter().filter(|name| !name.is_empty()) {
        let offers = help(&tally_bin(), &name)?.contains("--output-format");
        let name = name.join(" ");
        let without = ["coordinator", "completions", "man", "top"].contains(&name.as_str());
        ensure!(offers != without, "{name} has no --output-format, or has one that the test does not expect");
        ensure!(without || titles.contains(&name), "json.md does not document {name}");
        with_json += usize::from(offers);
    }
    ensure!(with_json >= 18, "only {with_json} commands");
    Ok(())
}

tally_tests::tests![
    commands_without_a_cluster_print_what_is_documented,
    commands_of_a_cluster_print_what_is_documented,
    the_detail_of_a_running_job_is_documented,
    commands_about_published_days_print_what_is_documented,
    gc_prints_what_is_documented,
    a_failure_is_one_object_with_its_kind_a_hint_and_the_exit_code,
    every_command_with_json_is_documented,
];
