//! One long-lived process of a cluster: its log, signals and exit. Dropping it kills it, by its own id, and searches
//! its log for secrets.
//!
//! Not here: which options it gets (`coordinator`, `worker`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::secrets;
use crate::wait::{PATIENT, wait_every};

/// A process that serves until it is asked to stop.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    /// The same, also after its folder is removed.
    file: File,
    ended: Option<ExitStatus>,
    /// A non-zero exit code with which it ended as expected.
    agreed: Option<i32>,
}

impl Server {
    /// Starts `command` with both of its outputs in the file `log`.
    ///
    /// # Errors
    /// The binary can't be started, or the log cannot be written.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        for (name, value) in command.get_envs() {
            secrets::register_variable(name, value.unwrap_or_default());
        }
        let file = File::options().read(true).write(true).create(true).truncate(true).open(log);
        let file = file.with_context(|| format!("writing {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf(), file, ended: None, agreed: None })
    }

    /// Its name in the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The process is unknown to the system.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// kill -9, and waits until the process is reaped.
    ///
    /// # Errors
    /// It had already ended: then something else went wrong.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended before it was killed: {status}", self.name);
        }
        self.child.kill()?;
        self.ended = Some(self.child.wait()?);
        Ok(())
    }

    /// SIGSTOP: connections stay open, without answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// It does not run.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended before it was signalled: {status}", self.name);
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.name))
    }

    /// Waits until it has ended on its own.
    ///
    /// # Errors
    /// It still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        wait_every(PATIENT, &format!("the end of {}", self.name.clone()), deadline, || self.ended())
    }

    /// Waits until it has ended with exit code 0.
    ///
    /// # Errors
    /// It ends otherwise, or not in time.
    pub fn wait_done(&mut self, deadline: Duration) -> Result<()> {
        let status = self.wait(deadline)?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Waits until it has ended with this exit code, which then does not count as a crash.
    ///
    /// # Errors
    /// It ends otherwise, or not in time.
    pub fn wait_code(&mut self, code: i32, deadline: Duration) -> Result<()> {
        let status = self.wait(deadline)?;
        ensure!(status.code() == Some(code), "{} ended with {status}, not with exit code {code}", self.name);
        self.agreed = Some(code);
        Ok(())
    }

    /// Checks that it runs, was ended by a signal of the test, or ended as agreed, so that a crash is found where it
    /// happens.
    ///
    /// # Errors
    /// It ended with an exit code other than 0 or the agreed one.
    pub fn check_no_crash(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) if status.success() || status.signal() == Some(Signal::KILL.as_raw()) => Ok(()),
            Some(status) if self.agreed.is_some() && status.code() == self.agreed => Ok(()),
            Some(status) => bail!("{} crashed: {status}", self.name),
        }
    }

    /// Its whole log.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only when the process has ended, which is the goal.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let length = self.file.metadata().map_or(0, |about| about.len());
        let mut said = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut said, 0);
        secrets::check_dropped(&format!("the log of {}", self.name), &String::from_utf8_lossy(&said));
        if let Err(error) = read {
            assert!(std::thread::panicking(), "reading the log of {}: {error}", self.name);
        }
    }
}

/// The last lines of a log.
pub fn tail(log: &str, lines: usize) -> &str {
    let skip = log.lines().count().saturating_sub(lines);
    let from: usize = log.split_inclusive('\n').take(skip).map(str::len).sum();
    log.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Server {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Server::start("shell", command, &dir.join("shell.log")).unwrap()
    }

    #[test]
    fn signals_arrive_and_what_was_said_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut server =
            shell("trap 'echo bye; exit 0' TERM; echo there; while :; do sleep 0.01; done", dir.path());
        wait_every(PATIENT, "a word", Duration::from_secs(10), || {
            Ok(server.said().contains("there").then_some(()))
        })
        .unwrap();
        server.freeze().unwrap();
        server.terminate().unwrap();
        assert!(server.wait(Duration::from_millis(50)).is_err(), "a frozen process does not go");
        server.thaw().unwrap();
        server.wait_done(Duration::from_secs(10)).unwrap();
        assert!(server.said().ends_with("bye\n"));
        assert!(server.kill().is_err() && server.freeze().is_err(), "it has ended");
    }

    #[test]
    fn a_crash_is_no_kill() {
        let dir = tempfile::tempdir().unwrap();
        let mut crashed = shell("exit 3", dir.path());
        crashed.wait(Duration::from_secs(10)).unwrap();
        assert!(crashed.check_no_crash().is_err());
        assert!(crashed.wait_code(4, Duration::from_secs(10)).is_err() && crashed.check_no_crash().is_err());
        crashed.wait_code(3, Duration::from_secs(10)).unwrap();
        crashed.check_no_crash().unwrap();
        let mut killed = shell("sleep 100", dir.path());
        killed.kill().unwrap();
        killed.check_no_crash().unwrap();
    }

    #[test]
    fn one_that_is_dropped_must_not_have_said_a_secret() {
        secrets::register("said-by-a-dropped-server");
        for (word, killed) in
            [("said-by-a-dropped-server", false), ("said-by-a-dropped-server", true), ("hello", true)]
        {
            let dir = tempfile::tempdir().unwrap();
            let mut server = shell(&format!("echo {word} there; exec sleep 1000"), dir.path());
            wait_every(PATIENT, "a word", Duration::from_secs(10), || {
                Ok(server.said().contains("there").then_some(()))
            })
            .unwrap();
            if killed {
                server.kill().unwrap();
            }
            // The log is kept in memory, without its file.
            drop(dir);
            let dropped = std::thread::spawn(move || drop(server)).join();
            let failed = dropped.err().map(|failed| failed.downcast_ref::<String>().unwrap().clone());
            let expected = "the log of shell says a secret";
            assert_eq!(failed.is_some_and(|failed| failed.contains(expected)), word != "hello");
        }
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a", 5), "a");
    }
}
