//! The JSON of every command, and of failures, has the fields that `deploy/docs/json.md` documents, and no others.
//!
//! Not here: the values, which the tests of each command check.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::generated::Generated;
use tally_tests::golden::DATE;
use tally_tests::help::{commands, help};
use tally_tests::json_docs::JsonDocs;
use tally_tests::output::Place;
use tally_tests::process::{Outcome, Tally, job_args, tally_bin};
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

/// An object without the version, which the same object has as an answer of its own.
const NO_VERSION: [&str; 1] = ["schema_version"];

fn commands_without_a_cluster_print_what_is_documented() -> Result<()> {
    let docs = JsonDocs::read()?;
    let (folder, place) = (Scratch::new("tally json ")?, Place::new()?);
    let output = folder.path().join("day");
    let generate =
        Tally::new("generate").args(["--clients", "300", "--date", DATE, "--output"]).args([&output]);
    docs.check("generate", &result(&generate.args(["--output-format", "json"]).run()?.expect_code(0)?)?)?;
    docs.check("run, submit", &result(&Tally::job(&output, &place).date(DATE).run()?.expect_code(0)?)?)?;
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
    let dir = folder.path().join("demo");
    let demo = Tally::new("demo").args(["--clients", "300", "--output-format", "json", "--dir"]).args([&dir]);
    let demo = result(&demo.run()?.expect_code(0)?)?;
    docs.check("demo", &demo)?;
    docs.check_without("run, submit", &NO_VERSION, &demo["summary"])
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
        docs.check("run, submit", &summary)?;
        let lines = submitted.stderr.lines().filter(|line| line.starts_with('{'));
        let progress: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(!progress.is_empty(), "{submitted}");
        progress.iter().try_for_each(|line| docs.check("submit, progress", line))?;
        let id = summary["job_id"].as_str().context("no id")?;
        let job = result(&ask("job", &[id])?.expect_code(0)?)?;
        docs.check("job, cancel", &job)?;
        docs.check_without("run, submit", &NO_VERSION, &job["summary"])?;
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
        let without = ["coordinator", "completions", "man"].contains(&name.as_str());
        ensure!(offers != without, "{name} has no --output-format, or has one that the test does not expect");
        ensure!(without || titles.contains(&name), "json.md does not document {name}");
        with_json += usize::from(offers);
    }
    ensure!(with_json >= 13, "only {with_json} commands");
    Ok(())
}

tally_tests::tests![
    commands_without_a_cluster_print_what_is_documented,
    commands_of_a_cluster_print_what_is_documented,
    gc_prints_what_is_documented,
    a_failure_is_one_object_with_its_kind_a_hint_and_the_exit_code,
    every_command_with_json_is_documented,
];
