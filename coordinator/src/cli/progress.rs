//! The progress bar of an embedded run: stage, shards, rows, bytes, time left. Shown on a
//! terminal only.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::embedded::Progress;

const REFRESH: Duration = Duration::from_millis(100);
/// Steps of the bar: each of the three stages has its share of them.
const STEPS: u64 = 1000;

/// Shows `progress` until the task is aborted.
pub async fn show(progress: Progress) {
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}") {
        bar.set_style(style);
    }
    let started = Instant::now();
    // Dropped with the task, which clears the line.
    let _clear = Clear(bar.clone());
    let mut tick = tokio::time::interval(REFRESH);
    loop {
        tick.tick().await;
        let view = progress.view();
        let (rows, bytes) = (progress.rows(), progress.bytes());
        let share = |done: u64, all: u64| if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) };
        // Reading is most of a job; what follows is shared out by tasks.
        let done = match view.stage {
            "map" => 0.75 * share(rows, view.input_rows),
            "reduce" => 0.75 + 0.2 * share(view.done as u64, view.tasks as u64),
            "write" => 0.95 + 0.04 * share(view.done as u64, view.tasks as u64),
            "publish" => 0.99,
            _ => 0.0,
        };
        bar.set_position((done * STEPS as f64) as u64);
        let elapsed = started.elapsed().as_secs_f64();
        let left =
            if done > 0.02 { format!("{:.0} s left", elapsed / done - elapsed) } else { String::new() };
        bar.set_message(format!(
            "{} {}/{} tasks  {} of {} rows  {}  {left}",
            if view.stage.is_empty() { "plan" } else { view.stage },
            view.done,
            view.tasks,
            HumanCount(rows),
            HumanCount(view.input_rows),
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
