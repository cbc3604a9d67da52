//! Folders that last as long as the test's process, for what many tests share: a `static` is never dropped. A shell
//! waits for the end of the process, in whatever way it ends, and removes the folder.
//!
//! Not here: folders of one test (`tempfile`).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Reads until all writers have closed the pipe, which means that the owner has ended.
const KEEPER: &str = "cat > /dev/null; rm -rf -- \"$1\"";

/// A folder that is removed with its value, or at the latest when the process ends.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keeper: Child,
}

impl Scratch {
    /// A new folder whose name begins with `prefix`, in the system's temporary folder.
    ///
    /// # Errors
    /// It can't be created, or no shell can be started.
    pub fn new(prefix: &str) -> Result<Self> {
        let path = tempfile::Builder::new().prefix(prefix).tempdir().context("making a folder")?.keep();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "sh"]).arg(&path);
        // Silent, because a reader of the tests' output would otherwise wait for it; and out of reach of a Ctrl-C.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let keeper = command.spawn().context("starting a shell")?;
        Ok(Self { path, keeper })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It fails only if the shell has ended, and has done its work.
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::wait_for;

    /// Set in the environment of a process that must leave its folder behind.
    const LEAVE: &str = "SCRATCH_TEST_LEAVES_ITS_FOLDER";

    #[test]
    fn a_folder_goes_with_its_value() {
        let scratch = Scratch::new("scratch test ").unwrap();
        let path = scratch.path().to_path_buf();
        std::fs::write(path.join("file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_goes_with_its_process() {
        if let Some(report) = std::env::var_os(LEAVE) {
            let scratch = Scratch::new("scratch test ").unwrap();
            std::fs::write(report, scratch.path().to_str().unwrap()).unwrap();
            std::process::abort();
        }
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report");
        let mut itself = Command::new(std::env::current_exe().unwrap());
        itself.arg("a_folder_goes_with_its_process").env(LEAVE, &report).stdout(Stdio::null());
        assert!(!itself.stderr(Stdio::null()).status().unwrap().success(), "it aborts");
        let path = PathBuf::from(std::fs::read_to_string(report).unwrap());
        wait_for("the folder's end", Duration::from_secs(60), || Ok((!path.exists()).then_some(()))).unwrap();
    }
}
