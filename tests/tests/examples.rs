//! Every command has examples in its help, and every example works: it is run by a shell as it is printed, in a folder
//! with three days of input, beside a cluster.
//!
//! Addresses and buckets of the examples are replaced by those of the test. `$JOB` and `$WORKER` are a finished job and a
//! worker of the cluster. Not here: what the commands print (`json_output` and the tests of each command).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::generated::Generated;
use tally_tests::help::{Example, commands, examples, help};
use tally_tests::output::Place;
use tally_tests::process::{Tally, clean, output, tally_bin};
use tally_tests::s3::server::{ADMIN, Kind, OUT, Server};
use tally_tests::scratch::Scratch;

/// The address of the coordinator in examples.
const ADDRESS: &str = "localhost:7070";
/// The bucket in examples.
const BUCKET: &str = "s3://bucket/";
/// Days of the input.
const DAYS: [&str; 3] = ["20170226", "20170227", "20170228"];
/// Commands that run until they are ended, and what they say when they are ready.
const SERVERS: [(&str, &str); 2] = [("coordinator", "listening on"), ("tally-worker", "attached")];

/// A command that needs a terminal, and the key with which it ends.
const ON_SCREEN: (&str, char) = ("tally top", 'q');

/// Commands whose examples read published days, and the script that publishes them.
const READERS: [&str; 3] = ["tally verify", "tally diff", "tally report"];
const PUBLISH: &str = "
    publish() {
        tally backfill --addons day/addons/v2 --main-summary day/main_summary/v3 --from 20170226 --to 20170228 --output $1
    }
    publish aggregates
    cp -r aggregates aggregates-new
    cp -r aggregates spark
";

/// The examples of a command as one script.
fn script(examples: &[Example]) -> String {
    let lines = examples.iter().flat_map(|example| example.lines.iter());
    lines.map(|line| format!("{line}\n")).collect()
}

/// The script of a command that needs a terminal: `script` gives one to each line, and the key, also before it is read.
fn in_a_terminal(script: &str, key: char) -> Result<String> {
    ensure!(!script.contains('\''), "{script}");
    let line = |line: &str| format!("printf {key} | TERM=xterm script -qec '{line}' /dev/null\n");
    Ok(script.lines().map(line).collect())
}

/// A folder in which examples run: `day` with three days, and a home.
fn folder() -> Result<Scratch> {
    let folder = Scratch::new("tally examples ")?;
    let flags = ["--clients", "200", "--narrow", "--date"];
    for date in DAYS {
        let day = folder.path().join("day");
        let generate = Tally::new("generate").args(flags).args([date, "--output"]).args([day]);
        generate.run()?.expect_code(0)?;
    }
    std::fs::create_dir(folder.path().join("home"))?;
    Ok(folder)
}

/// A shell that runs a script in a folder, with the programs under test in its path.
fn shell(folder: &Path, script: &str, more: &[(&str, String)]) -> Result<Command> {
    let mut path = vec![tally_bin().parent().context("a folder")?.to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").context("no PATH")?));
    let mut command = Command::new("bash");
    clean(&mut command);
    command.args(["-euc", script]).current_dir(folder).env("PATH", std::env::join_paths(path)?);
    command.env("HOME", folder.join("home")).env("TMPDIR", folder);
    command.envs(more.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Runs the examples of a command. Returns their folder.
fn run(name: &str, script: &str, more: &[(&str, String)]) -> Result<Scratch> {
    let folder = folder()?;
    if script.contains("tally generate") {
        std::fs::remove_dir_all(folder.path().join("day"))?;
    }
    let mut script = script.to_string();
    if READERS.contains(&name) {
        let stored = if script.contains(&format!("s3://{OUT}/")) {
            format!("publish s3://{OUT}/aggregates\n")
        } else {
            String::new()
        };
        script.insert_str(0, &format!("{PUBLISH}{stored}"));
    }
    let done = output(shell(folder.path(), &script, more)?)?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(done.status.success(), "{name}: {script}\n{}\n{}", said(&done.stdout), said(&done.stderr));
    Ok(folder)
}

/// Runs the example of a command that serves, until it is ready.
fn serve(name: &str, script: &str, ready: &str) -> Result<()> {
    let folder = folder()?;
    // The shell's process becomes the server.
    let script = script.replacen("tally", "exec tally", 1);
    let mut running = Tally::from(shell(folder.path(), &script, &[])?).spawn()?;
    running.wait_said(ready)?;
    running.interrupt()?;
    running.wait()?.expect_code(0).with_context(|| name.to_string())?;
    Ok(())
}

/// The names of all commands with their examples. No command has none.
fn all() -> Result<Vec<(String, String)>> {
    let mut found = vec![];
    for name in commands()? {
        let text = help(&tally_bin(), &name)?;
        let shown = ["tally".to_string()].into_iter().chain(name).collect::<Vec<_>>().join(" ");
        let script = script(&examples(&text).with_context(|| format!("{shown} --help"))?);
        let own = script.lines().any(|line| line.contains(&shown));
        ensure!(own, "{shown} --help has only examples of other commands: {script}");
        found.push((shown, script));
    }
    let worker = examples(&help(&worker_bin(), &[])?).context("tally-worker --help")?;
    found.push(("tally-worker".into(), script(&worker)));
    Ok(found)
}

/// A job of the cluster that is done.
fn finished(cluster: &Cluster) -> Result<String> {
    let (folder, place) = (Scratch::new("tally examples day ")?, Place::new()?);
    let day = Generated::new(folder.path(), &["--clients", "200", "--narrow"])?;
    Ok(cluster.client().submit_command(&day.root, &place, &[]).run()?.summary()?.job_id)
}

fn every_example_of_every_command_works() -> Result<()> {
    let all = all()?;
    with_cluster(Setup { workers: 2, ..Setup::default() }, |cluster| {
        let address = cluster.coordinators[0].address().to_string();
        let job = finished(cluster)?;
        let worker = cluster.client().workers()?[0].worker_id.clone();
        let known = [("JOB", job), ("WORKER", worker)];
        let mut ran = BTreeSet::new();
        // A worker that is drained leaves the cluster.
        let (last, others): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| name == "tally worker drain");
        for (name, script) in others.into_iter().chain(last) {
            ran.insert(name.clone());
            if script.contains(BUCKET) {
                continue;
            }
            if let Some((_, ready)) = SERVERS.iter().find(|(server, _)| name.ends_with(server)) {
                let script = match name.as_str() {
                    "tally coordinator" => script.replace(ADDRESS, "localhost:0"),
                    _ => script.replace(ADDRESS, &address),
                };
                serve(name, &script, ready)?;
                continue;
            }
            // The job must not end before it is cancelled.
            if name == "tally cancel" {
                cluster.freeze_workers()?;
            }
            let mut script = script.replace(ADDRESS, &address);
            if name == ON_SCREEN.0 {
                script = in_a_terminal(&script, ON_SCREEN.1)?;
            }
            let _folder = run(name, &script, &known)?;
            cluster.release()?;
            // A job that no example waits for reads the folder, and other examples are about the latest job.
            cluster.client().wait_over("latest")?;
        }
        ensure!(ran.len() == all.len() && ran.len() > 15, "{ran:?}");
        let drained = cluster.client().wait_for_workers("a worker that left", |workers| {
            workers.iter().filter(|worker| worker.state == "attached").count() == 1
        });
        drained?;
        for worker in &mut cluster.workers {
            if worker.process.said().contains("drained") {
                worker.process.wait_done(DEADLINE)?;
            }
        }
        Ok(())
    })
}

fn every_example_with_a_bucket_works() -> Result<()> {
    let server = Server::start(Kind::Moto)?;
    let environment = ADMIN.environment(server.address());
    let scripts: Vec<_> = all()?.into_iter().filter(|(_, script)| script.contains(BUCKET)).collect();
    ensure!(!scripts.is_empty(), "no example has a bucket");
    for (name, script) in scripts {
        run(&name, &script.replace(BUCKET, &format!("s3://{OUT}/")), &environment)?;
    }
    Ok(())
}

tally_tests::tests![every_example_of_every_command_works, every_example_with_a_bucket_works];
