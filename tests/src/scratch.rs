//! Folders that last as long as the test's process, for what many tests share: a `static` is never dropped. A shell waits
//! for the end of the process, whichever it is, and removes the folder.
//!
//! Not here: folders of one test (`tempfile`).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Reads until nobody writes any more, which is when the owner has ended.
const KEEPER: &str = "cat > /dev/null; rm -rf -- \"$1\"";

/// A folder that goes with its value, or with the process at the latest.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keeper: Child,
}

impl Scratch {
    /// A new folder whose name begins with `prefix`, where temporary files belong.
    ///
    /// # Errors
    /// It can't be made, or no shell be started.
    pub fn new(prefix: &str) -> Result<Self> {
        let path = tempfile::Builder::new().prefix(prefix).tempdir().context("making a folder")?.keep();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "sh"]).arg(&path);
        // Silent, or whoever reads the tests' output would wait for it; and not in reach of a Ctrl-C.
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
        // It fails only for one that is gone, and has done its work.
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::wait_for;

    /// In the environment of a process that is to leave its folder behind.
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
        if let Some(told) = std::env::var_os(LEAVE) {
            let scratch = Scratch::new("scratch test ").unwrap();
            std::fs::write(told, scratch.path().to_str().unwrap()).unwrap();
            std::process::abort();
        }
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let mut itself = Command::new(std::env::current_exe().unwrap());
        itself.arg("a_folder_goes_with_its_process").env(LEAVE, &told).stdout(Stdio::null());
        assert!(!itself.stderr(Stdio::null()).status().unwrap().success(), "it aborts");
        let path = PathBuf::from(std::fs::read_to_string(told).unwrap());
        wait_for("the folder's end", Duration::from_secs(60), || Ok((!path.exists()).then_some(()))).unwrap();
    }
}
