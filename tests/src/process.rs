//! Runs the built `tally` binary as a user does: as a process, with flags, an exit code, and one JSON object on
//! standard output. Not here: the expected output of the job.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::output::Place;
use crate::secrets;
use crate::wait::wait_for;

/// Timeout after which a run counts as hung.
const DEADLINE: Duration = Duration::from_secs(180);
/// Timeout for the rest of a killed process's output: it takes longer only if another process has its pipes, too.
const REST: Duration = Duration::from_secs(5);

/// The binary under test: `TALLY_BIN`, else the `tally` in a folder above the running test, where `cargo build
/// --release` puts it.
///
/// # Panics
/// There is no binary; the message tells how to build it.
pub fn tally_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("TALLY_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "TALLY_BIN is {}, which is no file", path.display());
        return path;
    }
    let test = std::env::current_exe().unwrap_or_default();
    let found = test.ancestors().skip(1).map(|folder| folder.join("tally")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no tally binary above {}: build it first with `cargo build --release -p tally`, \
             run all tests with `tests/run`, or name one in TALLY_BIN",
            test.display()
        )
    })
}

/// The object that a job prints with `--output-format json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub job_id: String,
    pub date: String,
    pub rows: u64,
    pub files: u64,
    pub n_clients: u64,
    pub n_custom_theme_clients: u64,
    pub bytes_read: u64,
    /// Bytes of the shuffle, and those of them that crossed the network.
    pub shuffle_bytes: u64,
    pub shuffle_network_bytes: u64,
    /// Bytes that did not fit in memory and were written to disk.
    pub spilled_bytes: u64,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
    pub stages: Vec<StageSummary>,
}

/// One stage of a [`Summary`].
#[derive(Clone, Debug, Deserialize)]
pub struct StageSummary {
    pub name: String,
    pub tasks: u64,
    pub rows: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
}

/// A command line for the binary, for a single run.
#[derive(Debug)]
pub struct Tally {
    command: Command,
    deadline: Duration,
}

impl Tally {
    /// `tally SUBCOMMAND`, with nothing in the environment that would change its defaults.
    pub fn new(subcommand: &str) -> Self {
        Self::wrapped(&tally_bin(), [OsStr::new(subcommand)])
    }

    /// Another program that finally runs the binary.
    pub fn wrapped(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program);
        clean(&mut command);
        command.args(args);
        Self { command, deadline: DEADLINE }
    }

    /// `tally run` over the day under `root` (`addons/v2` and `main_summary/v3`) into `place`, with JSON output and
    /// no date: add one with [`Tally::date`].
    pub fn job(root: &Path, place: &Place) -> Self {
        Self::new("run").args(job_args(root, &place.output(), &place.spill()))
    }

    /// Adds `--date`.
    pub fn date(self, date: &str) -> Self {
        self.args(["--date", date])
    }

    /// Adds flags.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        secrets::register_variable(name.as_ref(), value.as_ref());
        self.command.env(name, value);
        self
    }

    /// Runs the command to its end.
    pub fn run(self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Starts the command.
    pub fn spawn(mut self) -> Result<Running> {
        let line = format!("{:?}", self.command);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("starting {line}"))?;
        let stdout = Collector::new(child.stdout.take());
        let stderr = Collector::new(child.stderr.take());
        Ok(Running { child, line, deadline: self.deadline, said: Some([stdout, stderr]) })
    }
}

impl From<Command> for Tally {
    /// A command that is set up in another way.
    fn from(command: Command) -> Self {
        Self { command, deadline: DEADLINE }
    }
}

/// Removes from a command's environment what would change the defaults of the programs under test.
pub fn clean(command: &mut Command) {
    let ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        ["TALLY_", "AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "OTEL_"].iter().any(|ours| name.starts_with(ours))
            || name == "date"
            || name == "bucket"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
}

/// The flags of `tally run` for the day under `root`.
pub fn job_args(root: &Path, output: &Path, spill: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    for (flag, path) in [
        ("--addons", root.join("addons/v2")),
        ("--main-summary", root.join("main_summary/v3")),
        ("--output", output.to_path_buf()),
        ("--spill-dir", spill.to_path_buf()),
    ] {
        args.extend([flag.into(), path.into_os_string()]);
    }
    args.extend(["--output-format".into(), "json".into()]);
    args
}

/// The outcome of a process that was started in any other way, with both outputs captured; they are searched for secrets.
///
/// # Errors
/// It does not start, or prints a secret.
pub fn output(mut command: Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    for (name, text) in OUTPUTS.into_iter().zip([&output.stdout, &output.stderr]) {
        secrets::check(name, &String::from_utf8_lossy(text))?;
    }
    Ok(output)
}

/// A running process. Dropping it kills it, and its output until then is searched for secrets.
pub struct Running {
    child: Child,
    line: String,
    deadline: Duration,
    /// The readers of both outputs, until the end was waited for.
    said: Option<[Collector; 2]>,
}

const OUTPUTS: [&str; 2] = ["standard output", "standard error"];

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until a text is on standard error, or the process has ended.
    pub fn wait_said(&mut self, text: &str) -> Result<()> {
        wait_for(&format!("{text:?} of {}", self.line), self.deadline, || {
            let said = self.said.as_ref().is_some_and(|[_, stderr]| stderr.text().contains(text));
            Ok((said || self.child.try_wait()?.is_some()).then_some(()))
        })
    }

    /// Sends SIGINT, as Ctrl-C does; nothing happens to a process that has ended.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Sends a signal; nothing happens to a process that has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()? {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("sending {signal:?}"))
    }

    /// Processor time used so far, in clock ticks (hundredths of a second).
    pub fn cpu_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let after_name = stat.rsplit_once(')').context("reading /proc/PID/stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime are fields 14 and 15 of the line, of which the first two are cut off.
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    /// Waits for the end, and searches the output for secrets.
    pub fn wait(mut self) -> Result<Outcome> {
        let child = &mut self.child;
        let status = wait_for(&format!("the end of {}", self.line), self.deadline, || Ok(child.try_wait()?));
        if status.is_err() {
            self.child.kill()?;
        }
        let [stdout, stderr] = self.said.take().map(|said| said.map(Collector::all)).unwrap_or_default();
        secrets::check(OUTPUTS[0], &stdout)?;
        secrets::check(OUTPUTS[1], &stderr)?;
        match status {
            Ok(status) => Ok(Outcome { line: self.line.clone(), status, stdout, stderr }),
            Err(error) => bail!("{error}\nstandard error so far:\n{stderr}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is the goal.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let until = Instant::now() + REST;
        for (name, said) in OUTPUTS.into_iter().zip(self.said.take().into_iter().flatten()) {
            secrets::check_dropped(&format!("a process that was dropped, on {name},"), &said.until(until));
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    line: String,
    status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The exit code; None if a signal ended the process.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit code.
    ///
    /// # Errors
    /// Shows the command line and both outputs.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(self.code() == Some(code), "exit code {code} was expected\n{self}");
        Ok(self)
    }

    /// The summary of a job that succeeded.
    pub fn summary(self) -> Result<Summary> {
        let done = self.expect_code(0)?;
        serde_json::from_str(&done.stdout)
            .with_context(|| format!("the summary is no JSON of the agreed form\n{done}"))
    }

    /// Checks that the run failed with `code` and that standard error contains each of `words`, in any case.
    pub fn expect_failure(self, code: i32, words: &[&str]) -> Result<Self> {
        let failed = self.expect_code(code)?;
        let text = failed.stderr.to_lowercase();
        for word in words {
            ensure!(text.contains(&word.to_lowercase()), "the error does not say {word:?}\n{failed}");
        }
        ensure!(!text.contains("panicked at"), "the process panicked\n{failed}");
        Ok(failed)
    }

    /// Checks that standard error contains at least one of `words`, in any case.
    pub fn expect_any(self, words: &[&str]) -> Result<Self> {
        let text = self.stderr.to_lowercase();
        ensure!(
            words.iter().any(|word| text.contains(&word.to_lowercase())),
            "the error says none of {words:?}\n{self}"
        );
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}", self.line, self.status)?;
        writeln!(
            f,
            "standard output:\n{}\nstandard error:\n{}",
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// Reads an output while it is written.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut piece = [0; 1 << 16];
            loop {
                match pipe.read(&mut piece) {
                    Ok(read @ 1..) => {
                        kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..read]);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // A read error ends the text early; the exit code and the text so far are still useful.
                    Ok(0) | Err(_) => return,
                }
            }
        });
        Self { bytes, thread }
    }

    /// The text so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The text, after all writers have closed the pipe.
    fn all(self) -> String {
        let Self { bytes, thread } = self;
        // The thread does not panic.
        let _ = thread.join();
        String::from_utf8_lossy(&bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The same, or the text so far.
    fn until(self, end: Instant) -> String {
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tally {
        Tally::wrapped(Path::new("/bin/sh"), ["-c", script])
    }

    #[test]
    fn both_outputs_and_the_code_come_back() {
        let outcome = shell("echo out; echo Row Group 3 >&2; exit 1").run().unwrap();
        assert_eq!(outcome.stdout, "out\n");
        let outcome = outcome.expect_failure(1, &["row group 3"]).unwrap();
        assert!(outcome.expect_failure(1, &["row group 4"]).is_err());
    }

    #[test]
    fn a_hung_process_is_killed_at_the_deadline() {
        let mut hung = shell("echo hanging >&2; exec sleep 1000");
        hung.deadline = Duration::from_millis(100);
        let error = hung.run().unwrap_err().to_string();
        assert!(error.contains("in vain") && error.contains("hanging"), "{error}");
    }

    /// The failure of a test that drops a process with this output.
    fn dropped_after(script: &str, sign: &str) -> Option<String> {
        let running = shell(script).spawn().unwrap();
        wait_for("what it says", DEADLINE, || {
            let said = running.said.iter().flatten().any(|said| said.text().contains(sign));
            Ok(said.then_some(()))
        })
        .unwrap();
        let failed = std::thread::spawn(move || drop(running)).join().err()?;
        Some(failed.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn a_process_that_is_dropped_must_not_have_said_a_secret() {
        secrets::register("said-by-a-dropped-process");
        for redirected in ["", ">&2"] {
            let script = format!("echo said-by-a-dropped-process, it goes on {redirected}; exec sleep 1000");
            let failed = dropped_after(&script, "goes on").unwrap();
            assert!(
                failed.contains("a process that was dropped, on standard")
                    && failed.contains(", says a secret"),
                "{failed}"
            );
            assert!(!failed.contains("said-by-a-dropped-process, it"), "{failed}");
        }
        assert_eq!(dropped_after("echo a word; exec sleep 1000", "word"), None);
        // While a test fails, it is printed; a second panic would abort all tests.
        let running = shell("echo said-by-a-dropped-process").spawn().unwrap();
        let failed = std::thread::spawn(move || {
            let _running = running;
            panic!("the first one");
        });
        assert_eq!(failed.join().unwrap_err().downcast_ref::<&str>(), Some(&"the first one"));
        // A process that was waited for, or run to its end, returns an error.
        assert!(shell("echo said-by-a-dropped-process").run().is_err());
        let mut command = Command::new("/bin/echo");
        command.arg("said-by-a-dropped-process");
        assert!(output(command).is_err());
    }

    #[test]
    fn who_has_the_pipes_of_a_dropped_process_is_not_waited_for() {
        secrets::register("said-before-a-long-sleep");
        let start = Instant::now();
        let script = "echo said-before-a-long-sleep; sleep 30 & echo started; exec sleep 1000";
        assert!(dropped_after(script, "started").is_some());
        assert!(start.elapsed() < Duration::from_secs(25), "it was waited for");
    }

    #[test]
    fn an_interrupt_arrives() {
        // Not a shell: in tests started in the background of a script, a shell cannot trap a signal that is ignored at
        // its start.
        let script =
            "import os, signal\nsignal.signal(signal.SIGINT, lambda *_: os._exit(130))\nwhile True: pass";
        let mut running =
            Tally::wrapped(Path::new("/usr/bin/env"), ["python3", "-c", script]).spawn().unwrap();
        wait_for("work beyond its start", DEADLINE, || Ok((running.cpu_ticks()? > 50).then_some(())))
            .unwrap();
        running.interrupt().unwrap();
        running.wait().unwrap().expect_code(130).unwrap();
    }
}
