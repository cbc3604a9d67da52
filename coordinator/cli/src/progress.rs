//! The progress bar, and what an embedded run shows on it: stage, tasks, rows, bytes,
//! time left. Only for terminals.
//!
//! Not here: the progress of a cluster's job (`follow`).

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tally_common::counts::{counted, grouped};
use tally_coordinator::estimate::job_share;

use crate::embedded::Progress;

const REFRESH: Duration = Duration::from_millis(100);
/// Steps of the bar; each of the three stages has a share of them.
pub const STEPS: u64 = 1000;

/// A bar of [`STEPS`] with a message, on standard error. The message is cut at the end of the terminal's line.
pub fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {percent:>3}%  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// Shows `progress` until the task is aborted.
pub async fn show(progress: Progress) {
    let bar = bar();
    let started = Instant::now();
    // The line is cleared when the bar is dropped with the task.
    let _clear = Clear(bar.clone());
    let mut tick = tokio::time::interval(REFRESH);
    loop {
        tick.tick().await;
        let view = progress.view();
        let (rows, bytes) = (progress.rows(), progress.bytes());
        let share = |done: u64, all: u64| if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) };
        let done = job_share(
            &view.stage,
            match view.stage.as_str() {
                "map" => share(rows, view.input_rows),
                _ => share(view.done, view.tasks),
            },
        );
        bar.set_position((done * STEPS as f64) as u64);
        let elapsed = started.elapsed().as_secs_f64();
        let left =
            if done > 0.02 { format!("{:.0} s left", elapsed / done - elapsed) } else { String::new() };
        bar.set_message(format!(
            "{} {}/{}  {} of {}  {}  {left}",
            if view.stage.is_empty() { "plan" } else { &view.stage },
            grouped(view.done),
            counted(view.tasks, "task"),
            grouped(rows),
            counted(view.input_rows, "row"),
            HumanBytes(bytes),
        ));
    }
}

struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
