//! The progress of a cluster's job for a waiting command: a bar on a terminal; otherwise lines of
//! text or of JSON. All of it is written to standard error.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanCount, ProgressBar};
use tally_proto::v1::{JobState, JobStatus};

use crate::output::OutputFormat;
use crate::{progress, show};

/// Shows one job's progress until it is dropped.
pub struct Display {
    kind: Kind,
    started: Instant,
    /// The last line, so that no line is repeated.
    last: RefCell<String>,
}

enum Kind {
    Bar(ProgressBar),
    Lines,
    Json,
}

impl Display {
    /// The display for standard error and the requested format.
    pub fn new(format: OutputFormat) -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::of(Kind::Bar(progress::bar())),
            false => Self::lines(format),
        }
    }

    /// The display of a job among others: lines, also on a terminal.
    pub fn lines(format: OutputFormat) -> Self {
        Self::of(match format {
            OutputFormat::Json => Kind::Json,
            OutputFormat::Table => Kind::Lines,
        })
    }

    fn of(kind: Kind) -> Self {
        Display { kind, started: Instant::now(), last: RefCell::default() }
    }

    /// Prints a notice.
    pub fn note(&self, text: &str) {
        match &self.kind {
            Kind::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            _ => eprintln!("{text}"),
        }
    }

    /// Shows the progress of the job.
    pub fn show(&self, job: &JobStatus) {
        match &self.kind {
            Kind::Bar(bar) => {
                bar.set_position((share_done(job) * progress::STEPS as f64) as u64);
                bar.set_message(format!(
                    "{}  {} rows to read  {} s",
                    show::doing(job),
                    HumanCount(job.input_rows),
                    self.started.elapsed().as_secs()
                ));
            }
            Kind::Json => self.line(show::progress(job).unwrap_or_default().trim_end()),
            Kind::Lines => self.line(&format!("job {}: {}", job.job, phase(job))),
        }
    }

    fn line(&self, text: &str) {
        if *self.last.borrow() != text {
            eprintln!("{text}");
            text.clone_into(&mut self.last.borrow_mut());
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

/// The phase and its size, but not the number of finished tasks: a line per task would fill logs.
fn phase(job: &JobStatus) -> String {
    let tasks = job.stages.iter().find(|stage| stage.name == job.phase).map_or(0, |stage| stage.tasks);
    match job.state() {
        JobState::Running if tasks > 0 => format!("{}, {tasks} tasks", job.phase),
        JobState::Running if job.phase.is_empty() => "plan".into(),
        JobState::Running => job.phase.clone(),
        other => show::state(other).replace('_', " "),
    }
}

/// Reading is most of a job; each later stage has a fixed share of the rest.
fn share_done(job: &JobStatus) -> f64 {
    let stage = job.stages.iter().find(|stage| stage.name == job.phase);
    let share = stage.map_or(0.0, |stage| stage.done as f64 / stage.tasks.max(1) as f64);
    progress::share_done(&job.phase, share)
}
