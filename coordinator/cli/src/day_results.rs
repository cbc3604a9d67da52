//! The results of a backfill by day: states, the table, the JSON, and the end of the command. The JSON is stable: fields are
//! added, never changed.
//!
//! Not here: how the days are computed (`backfill`).

use chrono::NaiveDate;
use serde::Serialize;
use tally_common::counts::counted;
use tally_coordinator::dates::date_text;
use tally_coordinator::summary::{Summary, grouped};

use crate::Stop;
use crate::output::{OutputFormat, columns, json, plain};

/// What became of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultState {
    /// Its job published it.
    Done,
    /// The output had it, and no input was newer.
    UpToDate,
    /// Its job failed, or was refused.
    Failed,
    /// Its job computed it, and it does not meet an expectation.
    Unmet,
    /// Its job was cancelled.
    Cancelled,
    /// Its job continues on the cluster.
    Running,
    /// No coordinator confirmed the job, or its end: it may run.
    Unknown,
    /// The command ended before the day's turn.
    NotStarted,
}

impl ResultState {
    fn name(self) -> &'static str {
        match self {
            ResultState::Done => "done",
            ResultState::UpToDate => "up to date",
            ResultState::Failed => "failed",
            ResultState::Unmet => "unmet expectation",
            ResultState::Cancelled => "cancelled",
            ResultState::Running => "running",
            ResultState::Unknown => "unknown",
            ResultState::NotStarted => "not started",
        }
    }

    fn is_success(self) -> bool {
        matches!(self, ResultState::Done | ResultState::UpToDate)
    }
}

/// The result of a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayResult {
    date: String,
    state: ResultState,
    job_id: Option<String>,
    rows: Option<u64>,
    files: Option<usize>,
    seconds: Option<f64>,
    reason: Option<String>,
}

impl DayResult {
    /// A day without a job.
    pub fn without_job(date: NaiveDate, state: ResultState) -> Self {
        let (rows, files, seconds) = (None, None, None);
        DayResult { date: date_text(date), state, job_id: None, rows, files, seconds, reason: None }
    }

    /// A day whose job ended, or whose command did; `job` is the job's id, if there is one.
    pub(crate) fn ended(date: NaiveDate, job: Option<String>, ended: &Result<Summary, Stop>) -> Self {
        let (state, reason) = match ended {
            Ok(_) => (ResultState::Done, None),
            Err(Stop::Interrupted) => (ResultState::Cancelled, None),
            Err(Stop::Cancelled(why)) => (ResultState::Cancelled, Some(why)),
            Err(Stop::Detached(why)) if job.is_some() => (ResultState::Running, Some(why)),
            Err(Stop::Detached(why) | Stop::NoLeader(why)) => (ResultState::Unknown, Some(why)),
            Err(Stop::Unmet(why)) => (ResultState::Unmet, Some(why)),
            Err(
                Stop::Usage(why)
                | Stop::Failed(why)
                | Stop::TimedOut(why)
                | Stop::Deposed(why)
                | Stop::Unreadable(why),
            ) => (ResultState::Failed, Some(why)),
        };
        let summary = ended.as_ref().ok();
        DayResult {
            job_id: job,
            rows: summary.map(|summary| summary.rows),
            files: summary.map(|summary| summary.files),
            seconds: summary.map(|summary| summary.seconds),
            reason: reason.cloned(),
            ..Self::without_job(date, state)
        }
    }

    /// The date, `YYYYMMDD`.
    pub fn date(&self) -> &str {
        &self.date
    }

    /// The result in a line.
    pub fn line(&self) -> String {
        let DayResult { date, state, rows, seconds, reason, .. } = self;
        match (rows, seconds, reason) {
            (Some(rows), Some(seconds), _) => {
                format!("{date}: done, {} in {seconds:.2} s", counted(*rows, "row"))
            }
            (_, _, Some(reason)) => {
                format!("{date}: {}: {}", state.name(), plain(&reason.replace('\n', " ")))
            }
            _ => format!("{date}: {}", state.name()),
        }
    }

    fn row(&self) -> [String; 6] {
        let missing = || "-".to_string();
        [
            self.date.clone(),
            self.state.name().into(),
            self.job_id.as_deref().map_or_else(missing, plain),
            self.rows.map_or_else(missing, grouped),
            self.files.map_or_else(missing, |files| grouped(files as u64)),
            self.seconds.map_or_else(missing, |seconds| format!("{seconds:.2} s")),
        ]
    }
}

/// All days.
///
/// # Errors
/// See [`json`].
pub(crate) fn show(days: &[DayResult], format: OutputFormat) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Results<'a> {
        days: &'a [DayResult],
    }
    if format == OutputFormat::Json {
        return json(&Results { days });
    }
    let head = ["DATE", "STATE", "JOB", "ROWS", "FILES", "TIME"].map(String::from);
    Ok(columns(&std::iter::once(head).chain(days.iter().map(DayResult::row)).collect::<Vec<_>>()))
}

/// The end of the command: success only if all days succeeded. `unreachable` is the error of a cluster without a leader.
///
/// # Errors
/// [`Stop`] names the days that are not done.
pub(crate) fn verdict(
    days: &[DayResult],
    unreachable: Option<String>,
    interrupted: bool,
) -> Result<(), Stop> {
    let open: Vec<&DayResult> = days.iter().filter(|day| !day.state.is_success()).collect();
    if open.is_empty() {
        return Ok(());
    }
    let verb = if open.len() == 1 { "is" } else { "are" };
    let count = format!("{} of {} {verb} not done", open.len(), counted(days.len(), "day"));
    if let Some(why) = unreachable.filter(|_| !interrupted) {
        return Err(Stop::NoLeader(format!("{count}: {why}")));
    }
    if interrupted {
        let again = "run the command again with --only-missing to continue";
        return Err(Stop::Detached(format!("{count}: {again}")));
    }
    let lines: Vec<String> = open.iter().map(|day| day.line()).collect();
    let why = format!("{count}:\n  {}", lines.join("\n  "));
    match open.iter().all(|day| day.state == ResultState::Unmet) {
        true => Err(Stop::Unmet(why)),
        false => Err(Stop::Failed(why)),
    }
}

#[cfg(test)]
mod tests {
    use tally_coordinator::dates::parse_date;

    use super::*;

    fn result(job: Option<&str>, ended: Result<Summary, Stop>) -> DayResult {
        DayResult::ended(parse_date("20170227").unwrap(), job.map(String::from), &ended)
    }

    #[test]
    fn the_state_of_a_day_follows_from_the_end_of_its_job() {
        let state = |job, stop| result(job, Err(stop)).state;
        let why = || "why".to_string();
        assert_eq!(result(Some("j"), Ok(Summary::default())).state, ResultState::Done);
        assert_eq!(state(Some("j"), Stop::Failed(why())), ResultState::Failed);
        assert_eq!(state(None, Stop::Usage(why())), ResultState::Failed);
        assert_eq!(state(None, Stop::NoLeader(why())), ResultState::Unknown);
        assert_eq!(state(Some("j"), Stop::NoLeader(why())), ResultState::Unknown);
        assert_eq!(state(Some("j"), Stop::Cancelled(why())), ResultState::Cancelled);
        assert_eq!(state(Some("j"), Stop::Interrupted), ResultState::Cancelled);
        assert_eq!(state(Some("j"), Stop::Detached(why())), ResultState::Running);
        assert_eq!(state(None, Stop::Detached(why())), ResultState::Unknown);
    }

    #[test]
    fn the_command_succeeds_only_if_all_days_did() {
        let date = parse_date("20170228").unwrap();
        let done = result(Some("j"), Ok(Summary { rows: 1234, seconds: 0.5, ..Summary::default() }));
        let current = DayResult::without_job(date, ResultState::UpToDate);
        let failed = result(Some("j"), Err(Stop::Failed("no data files".into())));
        let waiting = DayResult::without_job(date, ResultState::NotStarted);
        let code = |days: &[DayResult], unreachable: Option<&str>, interrupted| {
            let ended = verdict(days, unreachable.map(String::from), interrupted);
            ended.map_or_else(|stop| stop.report(), |()| (String::new(), 0))
        };
        assert_eq!(code(&[done.clone(), current], None, true).1, 0);
        let (text, exit) = code(&[done.clone(), failed.clone()], None, false);
        assert!(
            exit == 1
                && text.contains("1 of 2 days is not done")
                && text.contains("20170227: failed: no data"),
            "{text}"
        );
        let (text, exit) = code(&[done.clone(), waiting.clone()], None, true);
        assert!(exit == 130 && text.contains("--only-missing"), "{text}");
        assert_eq!(code(&[done.clone(), waiting.clone()], Some("no leading coordinator"), true).1, 130);
        let (text, exit) = code(&[done, failed, waiting], Some("no leading coordinator"), false);
        assert!(exit == 5 && text.contains("2 of 3 days are not done: no leading"), "{text}");
    }

    #[test]
    fn the_table_and_the_json_have_all_days() {
        let done =
            result(Some("j"), Ok(Summary { rows: 1234, files: 1, seconds: 0.5, ..Summary::default() }));
        let days = [done, DayResult::without_job(parse_date("20170228").unwrap(), ResultState::UpToDate)];
        let table = show(&days, OutputFormat::Table).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["20170227", "done", "j", "1,234", "1", "0.50", "s"]
        );
        assert!(lines.len() == 3 && lines[2].starts_with("20170228  up to date"), "{table}");
        let json: serde_json::Value =
            serde_json::from_str(&show(&days, OutputFormat::Json).unwrap()).unwrap();
        assert_eq!(
            (&json["days"][0]["rows"], &json["days"][1]["state"]),
            (&1234.into(), &"up_to_date".into())
        );
        assert_eq!(days[0].line(), "20170227: done, 1,234 rows in 0.50 s");
    }
}
