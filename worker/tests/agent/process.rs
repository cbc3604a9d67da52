//! The binary: its messages and exit codes when it cannot start, and on signals.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tempfile::TempDir;
use tonic::Status;

use crate::fake::{DEADLINE, Fake};
use crate::rig::short;

/// A worker process of a test.
pub struct Process {
    child: Child,
    spill_dir: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts it without environment variables that would change its defaults.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let spill_dir = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally-worker"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLY_")) {
            command.env_remove(name);
        }
        let command = command.env("TALLY_SPILL_DIR", spill_dir.path()).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        Ok(Process { child, spill_dir })
    }

    fn signal(&self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for its end. Returns the exit code and the log. The spill directory must be empty.
    pub fn ended(mut self) -> Result<(Option<i32>, String)> {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None => ensure!(Instant::now() < deadline, "the worker does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        self.child.stderr.take().context("no log")?.read_to_string(&mut said)?;
        let left = std::fs::read_dir(self.spill_dir.path())?.count();
        ensure!(left == 0, "{left} folders are left in the spill directory");
        Ok((status.code(), said))
    }
}

fn check(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let (exit, said) = Process::start(arguments)?.ended()?;
    ensure!(exit == Some(code), "{arguments:?}: exit code {exit:?}: {said}");
    ensure!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    Ok(())
}

fn errors_of_arguments_name_the_option_and_its_value() -> Result<()> {
    let there = ["--coordinator", "127.0.0.1:1"];
    let with = |more: &[&'static str]| [&there, more].concat();
    check(&[], 2, &["--coordinator"])?;
    check(&["--coordinator", "nowhere"], 2, &["--coordinator", "\"nowhere\"", "host:port"])?;
    check(
        &with(&["--memory-limit", "64MiB"]),
        2,
        &["--memory-limit 64.0 MiB", "too little for --slots 1", "128MiB"],
    )?;
    check(&with(&["--slots", "0"]), 2, &["--slots", "0"])?;
    check(&with(&["--listen", "0.0.0.0:0"]), 2, &["--listen 0.0.0.0:0", "--advertise"])?;
    check(&with(&["--advertise", "a b"]), 2, &["--advertise: \"a b\"", "host:port"])?;
    check(&with(&["--spill-dir", "/dev/null/x"]), 1, &["--spill-dir /dev/null/x"])?;
    check(&with(&["--drain-timeout", "soon"]), 2, &["--drain-timeout", "\"soon\""])?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    check(&[&there[..], &["--listen", &address]].concat(), 1, &["--listen", &address])
}

async fn a_coordinator_of_another_version_has_its_own_exit_code() -> Result<()> {
    let mut fake = Fake::start().await?;
    let process =
        Process::start(&["--coordinator", &fake.address, "--memory-limit", "1GiB", "--slots", "1"])?;
    fake.knock().await?.refuse(Status::unimplemented("it speaks version 1, this coordinator 2"));
    let (code, said) = tokio::task::spawn_blocking(|| process.ended()).await??;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&fake.address) && said.contains("it speaks version 1"), "{said}");
    Ok(())
}

fn a_worker_waits_for_a_coordinator_and_logs_the_addresses() -> Result<()> {
    let arguments = ["--coordinator", "127.0.0.1:1,localhost:1", "--memory-limit", "1GiB", "--slots", "1"];
    let mut process = Process::start(&[&arguments[..], &["--log-format", "json"]].concat())?;
    let log = process.child.stderr.take().context("no log")?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(log));
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("no leading coordinator")));
    let line: serde_json::Value = serde_json::from_str(&line.context("nothing was said")??)?;
    let said = line["message"].as_str().context("no message")?;
    assert!(said.contains("127.0.0.1:1: ") && said.contains("localhost:1: "), "{said}");
    process.signal()?;
    let last: Vec<String> = lines.collect::<std::io::Result<_>>()?;
    assert!(last.last().is_some_and(|line| line.contains("drained")), "{last:?}");
    assert_eq!(process.child.wait()?.code(), Some(0), "it holds nothing, so it exits");
    Ok(())
}

async fn a_signal_drains_and_a_second_one_ends() -> Result<()> {
    for again in [false, true] {
        let mut fake = Fake::start().await?;
        let process =
            Process::start(&["--coordinator", &fake.address, "--memory-limit", "1GiB", "--slots", "1"])?;
        let mut stream = fake.let_in(1).await?;
        stream.inventory().await?;
        stream.say(Down::Start(short(0))).await?;
        stream.ended().await?;
        process.signal()?;
        assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
        if again {
            process.signal()?;
        } else {
            stream.say(Down::Drained(v1::Drained {})).await?;
        }
        assert_eq!(stream.news().await?, Up::Goodbye(v1::Goodbye { clean: !again }));
        drop(stream);
        let (code, said) = tokio::task::spawn_blocking(|| process.ended()).await??;
        assert_eq!(code, Some(if again { 130 } else { 0 }), "{said}");
    }
    Ok(())
}

tally_tests::tests![
    mod:
    errors_of_arguments_name_the_option_and_its_value,
    a_worker_waits_for_a_coordinator_and_logs_the_addresses,
    ;
    async:
    a_coordinator_of_another_version_has_its_own_exit_code,
    a_signal_drains_and_a_second_one_ends,
];
