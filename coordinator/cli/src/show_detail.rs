//! What `tally job` shows besides the status, as tables: stages with rates, running tasks and what they wait for,
//! incidents, skew.
//!
//! Not here: the status itself (`show`), the JSON (`tally_coordinator::view`).

use tally_common::counts::counted;
use tally_coordinator::summary::{bytes, grouped};
use tally_coordinator::view::{self, StageTimes, seconds, time};
use tally_proto::ids::attempt_number;
use tally_proto::v1::{EventKind, JobDetail, JobEvent, JobStatus, RunningTask, StageDetail};

use crate::output::{columns, plain};

/// Running tasks and incidents in the table; JSON has all that the coordinator sends.
const MAX_ROWS: usize = 20;

/// A duration for people.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{:.1} s", view::seconds(millis)),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// An event as a line: the time, the subject, the sentence.
pub fn line(event: &JobEvent) -> String {
    let at = time(event.at).unwrap_or_else(|| "-".into());
    let task = match (event.stage.as_str(), event.index) {
        ("", _) => String::new(),
        (stage, None) => format!("{stage}: "),
        (stage, Some(index)) => format!("{stage} task {index}: "),
    };
    let worker = if event.worker.is_empty() { String::new() } else { format!("worker {}: ", event.worker) };
    let attempt = event.attempt.map_or("an attempt".into(), |id| format!("attempt {}", attempt_number(id)));
    let what = match event.kind() {
        EventKind::AttemptFailed => format!("{attempt} failed: "),
        EventKind::SpeculativeAttempt => format!("speculative {attempt} starts: "),
        EventKind::WorkerLost => "lost: ".into(),
        _ => String::new(),
    };
    plain(&format!("{at}  {task}{worker}{what}{}", event.text))
}

/// A cell for a sum that may be missing.
fn sum(millis: u64) -> String {
    if millis == 0 { "-".into() } else { format!("{:.1} s", seconds(millis)) }
}

fn stages(detail: &JobDetail) -> String {
    let head = [
        "stage",
        "time",
        "rows/s",
        "bytes/s",
        "task time",
        "failed",
        "store",
        "memory",
        "workers",
        "peak memory",
    ];
    let row = |stage: &StageDetail| {
        let used = stage.r#use.unwrap_or_default();
        let times = StageTimes::from(stage);
        let rate =
            |rate: Option<f64>, text: fn(u64) -> String| rate.map_or("-".into(), |rate| text(rate as u64));
        [
            plain(&stage.name),
            sum(stage.millis),
            rate(times.rows_per_second, grouped),
            rate(times.bytes_per_second, bytes),
            sum(used.task_millis),
            sum(used.failed_millis),
            sum(used.store_wait_millis),
            sum(used.memory_wait_millis),
            sum(used.worker_wait_millis),
            if used.peak_memory_bytes > 0 { bytes(used.peak_memory_bytes) } else { "-".into() },
        ]
    };
    let rows: Vec<_> = std::iter::once(head.map(String::from)).chain(detail.stages.iter().map(row)).collect();
    let mut out =
        format!("\nwhere the time went (task time, and of it failed attempts and waits)\n{}", columns(&rows));
    for stage in detail.stages.iter().filter(|stage| !stage.pending_reason.is_empty()) {
        out += &format!("pending {} tasks: {}\n", plain(&stage.name), plain(&stage.pending_reason));
    }
    out
}

/// What a task waits for, and whether its worker is silent.
pub fn waits(task: &RunningTask) -> String {
    if let Some(silent) = task.silent_millis {
        return format!("worker silent for {}", age(silent));
    }
    let subject =
        if task.wait_subject.is_empty() { String::new() } else { format!(": {}", task.wait_subject) };
    match task.waits_for.as_str() {
        "" => "-".into(),
        kind => format!("waits for {kind}, {}{subject}", age(task.wait_millis)),
    }
}

/// The attempt of a running task.
pub fn attempt(task: &RunningTask) -> String {
    let speculative = if task.speculative { " (speculative)" } else { "" };
    format!("{}{speculative}", attempt_number(task.attempt))
}

fn running(detail: &JobDetail) -> String {
    if detail.running.is_empty() {
        return String::new();
    }
    let head = ["running", "attempt", "worker", "host", "age", "rows", "waits"];
    let row = |task: &RunningTask| {
        [
            plain(&format!("{} {}", task.stage, task.index)),
            attempt(task),
            plain(&task.worker),
            plain(&task.host),
            age(task.age_millis),
            if task.rows > 0 { grouped(task.rows) } else { "-".into() },
            plain(&waits(task)),
        ]
    };
    // Those that wait or whose worker is silent first.
    let mut tasks: Vec<&RunningTask> = detail.running.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse((task.silent_millis, task.wait_millis, task.age_millis)));
    let rows: Vec<_> = std::iter::once(head.map(String::from))
        .chain(tasks.iter().take(MAX_ROWS).map(|task| row(task)))
        .collect();
    let left_out = detail.running_left_out + tasks.len().saturating_sub(MAX_ROWS) as u64;
    let more = if left_out > 0 { format!("and {} more\n", grouped(left_out)) } else { String::new() };
    format!("\n{}{more}", columns(&rows))
}

fn incidents(detail: &JobDetail) -> String {
    if detail.incidents.is_empty() {
        return String::new();
    }
    let skipped = detail.incidents.len().saturating_sub(MAX_ROWS);
    let left_out = detail.incidents_left_out + skipped as u64;
    let more = if left_out > 0 {
        format!(" (the last ones; {} before them)", grouped(left_out))
    } else {
        String::new()
    };
    let lines: String = detail.incidents.iter().skip(skipped).map(|event| line(event) + "\n").collect();
    format!("\nfailed attempts, speculative attempts and workers{more}\n{lines}")
}

/// The detail as tables.
pub fn tables(job: &JobStatus) -> String {
    let Some(detail) = &job.detail else { return String::new() };
    let mut out = running(detail);
    if detail.stages.iter().any(|stage| stage.millis > 0) {
        out += &stages(detail);
    }
    if let Some(skew) = &detail.skew {
        let factor = skew.largest_rows as f64 / skew.median_rows.max(1) as f64;
        out += &format!(
            "partitions: {}; the largest, {}, has {}, {factor:.1} times the median of {}\n",
            grouped(skew.partitions),
            skew.largest,
            counted(skew.largest_rows, "row"),
            grouped(skew.median_rows)
        );
    }
    out + &incidents(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_and_a_silent_worker_are_shown_with_their_time() {
        let mut task = RunningTask { waits_for: "store".into(), wait_millis: 4000, ..RunningTask::default() };
        assert_eq!(waits(&task), "waits for store, 4.0 s");
        task.wait_subject = "s3://a/b".into();
        assert_eq!(waits(&task), "waits for store, 4.0 s: s3://a/b");
        task.silent_millis = Some(65_000);
        assert_eq!(waits(&task), "worker silent for 1 min 5 s");
        assert_eq!((waits(&RunningTask::default()), age(7_260_000)), ("-".into(), "2 h 1 min".into()));
    }

    #[test]
    fn long_lists_say_how_much_is_left_out() {
        let task =
            |index| RunningTask { stage: "map".into(), index, worker: "w".into(), ..RunningTask::default() };
        let event = |number| JobEvent { number, text: "x".into(), ..JobEvent::default() };
        let detail = JobDetail {
            running: (0..30).map(task).collect(),
            running_left_out: 5,
            incidents: (0..30).map(event).collect(),
            incidents_left_out: 7,
            ..JobDetail::default()
        };
        let shown = tables(&JobStatus { detail: Some(detail), ..JobStatus::default() });
        assert!(shown.contains("and 15 more") && shown.contains("17 before them"), "{shown}");
        assert_eq!(shown.lines().filter(|line| line.starts_with("map ")).count(), MAX_ROWS);
    }
}
