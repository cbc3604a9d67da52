//! The page of one job in `tally top`: progress, stages, running tasks and what they wait for, failures, where the time
//! went, partitions, result.
//!
//! Not here: the overview (`overview`), the frame around both (`paint`).

use ratatui_core::text::{Line, Span};
use tally_common::counts::counted;
use tally_coordinator::client::is_over;
use tally_coordinator::summary::{Summary, bytes, grouped};
use tally_coordinator::view::{StageTimes, seconds, time};
use tally_proto::v1::{EventKind, JobDetail, JobState, JobStatus, RunningTask, StageStatus};

use super::grid::{Cell, Column, safe, table, wrap};
use super::overview::{progress, state_style};
use super::theme::Theme;
use crate::show;
use crate::show_detail::{age, attempt, line, waits};

/// Running tasks on the page: those that wait, or whose worker is silent, come first.
const MAX_RUNNING: usize = 50;
/// The width of the bar.
const BAR: usize = 30;
/// The indentation of the second line of a text.
const INDENT: usize = 4;

const STAGES: [Column; 10] = [
    Column::new("STAGE", 0),
    Column::new("TASKS", 0),
    Column::new("DONE", 0),
    Column::new("RUNNING", 0),
    Column::new("PENDING", 1),
    Column::new("FAILED", 0),
    Column::new("AGAIN", 2),
    Column::new("SPECULATIVE", 3),
    Column::new("ROWS/S", 4),
    Column::new("BYTES/S", 4),
];

const RUNNING: [Column; 7] = [
    Column::new("TASK", 0),
    Column::new("ATTEMPT", 2),
    Column::new("AGE", 1),
    Column::free("WAITS", 0),
    Column::new("WORKER", 0),
    Column::new("ROWS", 3),
    Column::new("HOST", 4),
];

const TIMES: [Column; 8] = [
    Column::new("STAGE", 0),
    Column::new("TIME", 0),
    Column::new("TASK TIME", 0),
    Column::new("FAILED", 1),
    Column::new("STORE", 1),
    Column::new("MEMORY", 1),
    Column::new("WORKERS", 1),
    Column::new("PEAK MEMORY", 2),
];

/// The page of a job: its lines, and the first line of each section.
pub struct Page {
    /// As many as the job has.
    pub lines: Vec<Line<'static>>,
    /// Line numbers, for Tab.
    pub sections: Vec<usize>,
    theme: Theme,
    width: usize,
}

impl Page {
    /// The page for that width.
    pub fn new(job: &JobStatus, theme: Theme, width: usize) -> Self {
        let mut page = Page { lines: vec![], sections: vec![], theme, width };
        page.status(job);
        page.stages(job);
        if let Some(detail) = &job.detail {
            page.running(detail);
            page.incidents(detail);
            page.times(detail);
            page.partitions(detail);
        }
        page.result(job);
        page
    }

    fn section(&mut self, title: &str) {
        self.lines.push(Line::default());
        self.sections.push(self.lines.len());
        self.lines.push(Line::styled(title.to_string(), self.theme.head()));
    }

    fn table(&mut self, columns: &[Column], rows: &[Vec<Cell>]) {
        self.lines.extend(table(columns, rows, self.width, self.theme.dim()));
    }

    fn text(&mut self, text: &str, style: ratatui_core::style::Style) {
        let lines = wrap(&safe(text), self.width, INDENT);
        self.lines.extend(lines.into_iter().map(|line| Line::styled(line, style)));
    }

    /// A line `name  value`, if there is a value.
    fn value(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(&format!("{name:<9} {value}"), self.theme.text());
        }
    }

    fn status(&mut self, job: &JobStatus) {
        let theme = self.theme;
        self.lines.push(Line::from(vec![
            Span::styled(format!("Job {}  ", safe(&job.job)), theme.head()),
            Span::styled(safe(&show::doing(job)), state_style(job, theme)),
        ]));
        let bar = progress(job, BAR.min(self.width / 2));
        if !bar.is_empty() {
            self.lines.push(Line::styled(bar, theme.good()));
        }
        if !job.reason.is_empty() {
            self.text(&format!("reason    {}", job.reason), theme.bad());
        }
        if !show::waiting(job).is_empty() {
            self.text(&format!("waiting   {}", show::waiting(job)), theme.waits());
        }
        let over = is_over(job.state());
        let detail = job.detail.as_ref().filter(|detail| detail.phase_millis > 0 && !over);
        let times = [
            (job.elapsed_millis > 0).then(|| age(job.elapsed_millis)),
            job.remaining_millis.map(|left| format!("about {} left", age(left))),
            detail.map(|detail| format!("{} for {}", job.phase, age(detail.phase_millis))),
        ];
        self.value("elapsed", &times.into_iter().flatten().collect::<Vec<_>>().join(", "));
        if job.rows_done > 0 && !over {
            self.value("read", &format!("{}, {}", counted(job.rows_done, "row"), bytes(job.bytes_done)));
        }
        if job.input_rows > 0 {
            self.value("input", &format!("{}, {}", counted(job.input_rows, "row"), bytes(job.input_bytes)));
        }
        if let Some(spec) = &job.spec {
            self.value("day", &format!("{} of {}", spec.date, spec.dataset));
            self.value("output", &spec.output);
        }
        self.value("submitted", &time(job.submitted_at).unwrap_or_default());
        self.value("ended", &time(job.ended_at).unwrap_or_default());
    }

    fn stages(&mut self, job: &JobStatus) {
        if job.stages.is_empty() {
            return;
        }
        let theme = self.theme;
        let times: Vec<StageTimes> =
            job.detail.iter().flat_map(|detail| &detail.stages).map(StageTimes::from).collect();
        let rate =
            |rate: Option<f64>, text: fn(u64) -> String| rate.map_or("-".into(), |rate| text(rate as u64));
        let row = |(at, stage): (usize, &StageStatus)| {
            let (rows, sizes) =
                times.get(at).map_or((None, None), |it| (it.rows_per_second, it.bytes_per_second));
            let failed = if stage.failed_attempts > 0 { theme.bad() } else { theme.text() };
            vec![
                Cell::from(&stage.name),
                Cell::from(grouped(stage.tasks)),
                Cell::from(grouped(stage.done)),
                Cell::from(grouped(stage.running)),
                Cell::from(grouped(stage.pending)),
                Cell::new(grouped(stage.failed_attempts), failed),
                Cell::from(grouped(stage.reruns)),
                Cell::from(grouped(stage.second_attempts)),
                Cell::from(rate(rows, grouped)),
                Cell::from(rate(sizes, bytes)),
            ]
        };
        let rows: Vec<_> = job.stages.iter().enumerate().map(row).collect();
        self.section("Stages");
        self.table(&STAGES, &rows);
        for stage in job.detail.iter().flat_map(|detail| &detail.stages) {
            if !stage.pending_reason.is_empty() {
                self.text(&format!("pending {} tasks: {}", stage.name, stage.pending_reason), theme.waits());
            }
        }
    }

    fn running(&mut self, detail: &JobDetail) {
        if detail.running.is_empty() {
            return;
        }
        let theme = self.theme;
        let row = |task: &&RunningTask| {
            let style = match (task.silent_millis, task.waits_for.is_empty()) {
                (Some(_), _) => theme.bad(),
                (None, false) => theme.waits(),
                (None, true) => theme.text(),
            };
            vec![
                Cell::from(format!("{} {}", task.stage, task.index)),
                Cell::from(attempt(task)),
                Cell::from(age(task.age_millis)),
                Cell::new(waits(task), style),
                Cell::from(&task.worker),
                Cell::from(if task.rows > 0 { grouped(task.rows) } else { "-".into() }),
                Cell::from(&task.host),
            ]
        };
        let mut tasks: Vec<&RunningTask> = detail.running.iter().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((task.silent_millis, task.wait_millis, task.age_millis)));
        let rows: Vec<_> = tasks.iter().take(MAX_RUNNING).map(row).collect();
        let left_out = detail.running_left_out + (tasks.len() - rows.len()) as u64;
        self.section("Running tasks");
        self.table(&RUNNING, &rows);
        if left_out > 0 {
            self.text(&format!("and {} more", grouped(left_out)), theme.dim());
        }
    }

    fn incidents(&mut self, detail: &JobDetail) {
        if detail.incidents.is_empty() {
            return;
        }
        self.section("Failed attempts, speculative attempts and workers, newest first");
        for event in detail.incidents.iter().rev() {
            let bad = matches!(event.kind(), EventKind::AttemptFailed | EventKind::WorkerLost);
            self.text(&line(event), if bad { self.theme.bad() } else { self.theme.text() });
        }
        if detail.incidents_left_out > 0 {
            let text = format!("and {} earlier ones", grouped(detail.incidents_left_out));
            self.text(&text, self.theme.dim());
        }
    }

    fn times(&mut self, detail: &JobDetail) {
        if detail.stages.iter().all(|stage| stage.millis == 0) {
            return;
        }
        let sum = |millis: u64| if millis == 0 { "-".into() } else { format!("{:.1} s", seconds(millis)) };
        let rows = detail.stages.iter().map(|stage| {
            let used = stage.r#use.unwrap_or_default();
            let peak = if used.peak_memory_bytes > 0 { bytes(used.peak_memory_bytes) } else { "-".into() };
            let times = [
                stage.millis,
                used.task_millis,
                used.failed_millis,
                used.store_wait_millis,
                used.memory_wait_millis,
                used.worker_wait_millis,
            ];
            let times = times.into_iter().map(|millis| Cell::from(sum(millis)));
            std::iter::once(Cell::from(&stage.name)).chain(times).chain([Cell::from(peak)]).collect()
        });
        let rows: Vec<Vec<Cell>> = rows.collect();
        self.section("Where the time went (task time, and of it failed attempts and waits)");
        self.table(&TIMES, &rows);
    }

    fn partitions(&mut self, detail: &JobDetail) {
        let Some(skew) = &detail.skew else { return };
        let factor = skew.largest_rows as f64 / skew.median_rows.max(1) as f64;
        let text = format!(
            "{}; the largest, {}, has {}, {factor:.1} times the median of {}",
            grouped(skew.partitions),
            skew.largest,
            counted(skew.largest_rows, "row"),
            grouped(skew.median_rows)
        );
        self.section("Partitions");
        self.text(&text, self.theme.text());
    }

    fn result(&mut self, job: &JobStatus) {
        if job.state() != JobState::Done {
            return;
        }
        if let Ok(summary) = serde_json::from_str::<Summary>(&job.summary) {
            self.section("Result");
            for row in summary.table().lines() {
                self.lines.push(Line::raw(safe(row)));
            }
        }
    }
}
