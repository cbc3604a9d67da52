//! The progress of a cluster's job for a waiting command: a bar on a terminal; otherwise lines of
//! text or of JSON. All of it is written to standard error.

use std::cell::RefCell;
use std::io::IsTerminal;

use indicatif::ProgressBar;
use tally_common::counts::{counted, grouped};
use tally_coordinator::client::is_over;
use tally_coordinator::{estimate, view};
use tally_proto::v1::{JobState, JobStatus};

use crate::output::OutputFormat;
use crate::show_detail::age;
use crate::{progress, show};

/// Shows one job's progress until it is dropped.
pub struct Display {
    kind: Kind,
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
        Display { kind, last: RefCell::default() }
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
                // The phase of a job that failed is unknown, so the bar stays where it was.
                if job.state() == JobState::Done || !is_over(job.state()) {
                    bar.set_position((estimate::share_done(job) * progress::STEPS as f64).round() as u64);
                }
                bar.set_message(message(job));
            }
            Kind::Json => self.line(show::progress(job).unwrap_or_default().trim_end()),
            Kind::Lines => self.line(&line(job)),
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
        JobState::Running if tasks > 0 => format!("{}, {}", job.phase, counted(tasks, "task")),
        JobState::Running if job.phase.is_empty() => "plan".into(),
        JobState::Running => job.phase.clone(),
        other => view::state(other).replace('_', " "),
    }
}

/// The line of a job: its phase, and the workers that it waits for because they are silent.
fn line(job: &JobStatus) -> String {
    let silent = show::silent(job).map(|silent| format!(", {silent}"));
    format!("job {}: {}{}", job.job, phase(job), silent.unwrap_or_default())
}

/// The message beside the bar: the most important parts first, because the last ones may not fit.
fn message(job: &JobStatus) -> String {
    let waiting = show::waiting(job);
    let left = job.remaining_millis.map(|left| format!("{} left", age(left)));
    let rows = (job.input_rows > 0)
        .then(|| format!("{} of {}", grouped(job.rows_done), counted(job.input_rows, "row")));
    let elapsed = (job.elapsed_millis > 0).then(|| age(job.elapsed_millis));
    let parts = [Some(show::doing(job)), Some(waiting).filter(|text| !text.is_empty()), left, rows, elapsed];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::{JobWaits, StageStatus};

    use super::*;

    #[test]
    fn the_message_has_rows_done_time_left_and_what_tasks_wait_for() {
        let stage = StageStatus { name: "map".into(), tasks: 4, done: 1, ..StageStatus::default() };
        let mut job = JobStatus {
            phase: "map".into(),
            stages: vec![stage],
            input_rows: 2000,
            rows_done: 500,
            elapsed_millis: 10_000,
            remaining_millis: Some(43_000),
            ..JobStatus::default()
        };
        job.set_state(JobState::Running);
        assert_eq!(message(&job), "map 1/4 tasks  43.0 s left  500 of 2,000 rows  10.0 s");
        assert_eq!(line(&job), "job : map, 4 tasks");
        job.waits = Some(JobWaits { store: 2, silent_workers: 1, ..JobWaits::default() });
        let shown = message(&job);
        assert!(shown.contains("1 worker is silent, 2 tasks wait for the store"), "{shown}");
        let named = |count, names: &[&str]| {
            let silent_worker_ids = names.iter().map(|name| name.to_string()).collect();
            Some(JobWaits { silent_workers: count, silent_worker_ids, ..JobWaits::default() })
        };
        job.waits = named(1, &["w-1"]);
        assert_eq!(line(&job), "job : map, 4 tasks, worker w-1 is silent");
        assert!(message(&job).contains("worker w-1 is silent"), "{}", message(&job));
        job.waits = named(2, &["w-1", "w-2"]);
        assert_eq!(show::silent(&job).as_deref(), Some("workers w-1, w-2 are silent"));
        job.waits = named(1005, &["w-1", "w-2", "w-3"]);
        assert_eq!(show::silent(&job).as_deref(), Some("workers w-1, w-2, w-3 and 1,002 more are silent"));
        job.set_state(JobState::Done);
        assert_eq!(estimate::share_done(&job), 1.0, "the bar ends full");
    }
}
