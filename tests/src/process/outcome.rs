//! How a run of the binary ended: its exit code, its outputs, and the summary that it printed. Not here: the run (`running`).

use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

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

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub(super) line: String,
    pub(super) status: ExitStatus,
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
