//! A process under test while it runs: its output, signals, and its end. Not here: how it is started (`process`).

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{OUTPUTS, Outcome};
use crate::secrets;
use crate::wait::wait_for;

/// Timeout for the rest of a killed process's output: it takes longer only if another process has its pipes, too.
const REST: Duration = Duration::from_secs(5);

/// A running process. Dropping it kills it, and its output until then is searched for secrets.
pub struct Running {
    child: Child,
    line: String,
    deadline: Duration,
    /// The readers of both outputs, until the end was waited for.
    said: Option<[Collector; 2]>,
}

impl Running {
    /// Starts a command whose end is waited for until the deadline.
    pub(super) fn start(mut command: Command, deadline: Duration) -> Result<Self> {
        let line = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {line}"))?;
        let stdout = Collector::new(child.stdout.take());
        let stderr = Collector::new(child.stderr.take());
        Ok(Self { child, line, deadline, said: Some([stdout, stderr]) })
    }

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
    use std::path::Path;

    use super::super::{DEADLINE, Tally, output};
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
