//! The first screen of `tally top`: the newest jobs with their progress, and the workers.
//!
//! Not here: one job (`job_page`), the frame around both (`paint`).

use ratatui_core::style::Style;
use ratatui_core::text::{Line, Span};
use tally_coordinator::client::is_over;
use tally_coordinator::estimate;
use tally_coordinator::summary::grouped;
use tally_coordinator::view::time;
use tally_proto::v1::{JobState, JobStatus, WorkerStatus};

use super::app::{App, Extent, Focus};
use super::grid::{Cell, Column, bar, table};
use super::theme::Theme;
use crate::show;
use crate::show_detail::age;

/// The title and the head of a list.
const HEADS: usize = 2;
/// The width of a bar in a list.
const BAR: usize = 10;

const JOBS: [Column; 8] = [
    Column::new("JOB", 0),
    Column::new("DATE", 3),
    Column::free("STATE", 0),
    Column::new("PROGRESS", 1),
    Column::new("ELAPSED", 4),
    Column::new("LEFT", 2),
    Column::free("WAITING", 5),
    Column::new("SUBMITTED", 6),
];

const WORKERS: [Column; 10] = [
    Column::new("WORKER", 0),
    Column::free("STATE", 0),
    Column::new("SLOTS", 1),
    Column::new("HEARTBEAT", 1),
    Column::new("MEMORY", 2),
    Column::new("SPILL", 3),
    Column::free("WAITING", 4),
    Column::new("OUTPUTS", 6),
    Column::new("HOST", 5),
    Column::new("VERSION", 7),
];

/// The style of a job's state.
pub fn state_style(job: &JobStatus, theme: Theme) -> Style {
    match job.state() {
        JobState::Failed => theme.bad(),
        JobState::Done => theme.good(),
        JobState::WaitingForWorkers => theme.waits(),
        JobState::Cancelled => theme.dim(),
        _ => theme.text(),
    }
}

/// The progress of a job as a bar and a number; empty if it ended without a result, because its share is unknown.
pub fn progress(job: &JobStatus, columns: usize) -> String {
    if is_over(job.state()) && job.state() != JobState::Done {
        return String::new();
    }
    let share = estimate::share_done(job);
    format!("{} {:>3.0} %", bar(share, columns), (share * 100.0).floor())
}

fn job_row(job: &JobStatus, theme: Theme) -> Vec<Cell> {
    let date = job.spec.as_ref().map_or("", |spec| &spec.date);
    let elapsed = if job.elapsed_millis > 0 { age(job.elapsed_millis) } else { "-".into() };
    vec![
        Cell::from(&job.job),
        Cell::from(date),
        Cell::new(show::doing(job), state_style(job, theme)),
        Cell::new(progress(job, BAR), theme.good()),
        Cell::from(elapsed),
        Cell::from(job.remaining_millis.map_or_else(|| "-".into(), age)),
        Cell::new(show::waiting(job), theme.waits()),
        Cell::from(time(job.submitted_at).unwrap_or_else(|| "-".into())),
    ]
}

fn worker_row(worker: &WorkerStatus, theme: Theme) -> Vec<Cell> {
    let state = match (worker.silent, worker.state.as_str()) {
        (true, _) => theme.bad(),
        (false, "attached") => theme.text(),
        (false, _) => theme.waits(),
    };
    let beat = if worker.silent { theme.bad() } else { theme.text() };
    vec![
        Cell::from(&worker.worker),
        Cell::new(show::worker_state(worker), state),
        Cell::from(format!("{}/{}", worker.running, worker.slots)),
        Cell::new(format!("{} ago", age(worker.heartbeat_age_millis)), beat),
        Cell::from(show::worker_memory(worker)),
        Cell::from(show::worker_spill(worker)),
        Cell::new(show::worker_waits(worker), theme.waits()),
        Cell::from(grouped(worker.outputs)),
        Cell::from(&worker.flight_address),
        Cell::from(&worker.version),
    ]
}

/// The first row to show, so that the selected one is visible.
fn first_row(selected: usize, rows: usize) -> usize {
    (selected + 1).saturating_sub(rows.max(1))
}

/// The heights of both lists: each gets what it needs, and the workers at least half if both need more.
fn heights(app: &App, height: usize) -> (usize, usize) {
    let (jobs, workers) = (app.cluster.jobs.len().max(1), app.cluster.workers.len().max(1));
    let needed = |rows: usize| rows + HEADS;
    if height < 2 * (HEADS + 1) {
        return if app.focus == Focus::Jobs { (height, 0) } else { (0, height) };
    }
    let below = needed(workers).min((height / 2).max(height.saturating_sub(needed(jobs))));
    (height - below, below)
}

struct List {
    title: String,
    lines: Vec<Line<'static>>,
    empty: &'static str,
    list: Focus,
}

impl List {
    /// That many lines: the title, the head, and the rows around the selected one.
    fn window(self, app: &App, theme: Theme, height: usize) -> Vec<Line<'static>> {
        let focused = app.focus == self.list;
        let mark = if focused { "> " } else { "  " };
        let mut out = vec![Line::styled(format!("{mark}{}", self.title), theme.head())];
        if self.lines.len() < 2 {
            out.push(Line::styled(format!("  {}", self.empty), theme.dim()));
            out.resize(height, Line::default());
            return out;
        }
        let selected = app.selected(self.list);
        let rows = height.saturating_sub(HEADS);
        let first = first_row(selected, rows);
        let mut lines = self.lines.into_iter();
        out.extend(lines.next());
        for (at, line) in lines.enumerate().skip(first).take(rows) {
            out.push(if focused && at == selected { line.style(theme.bar()) } else { line });
        }
        // Rows of entries that are left out below.
        out.resize(height, Line::from(vec![Span::raw("")]));
        out
    }
}

/// The lines of the overview, and their extent.
pub fn lines(app: &App, theme: Theme, width: usize, height: usize) -> (Vec<Line<'static>>, Extent) {
    let count = |count: usize, more: bool, first: &str| match more {
        true => format!("({first} {count})"),
        false => format!("({count})"),
    };
    let cluster = &app.cluster;
    let jobs: Vec<_> = cluster.jobs.iter().map(|job| job_row(job, theme)).collect();
    let workers: Vec<_> = cluster.workers.iter().map(|worker| worker_row(worker, theme)).collect();
    let jobs = List {
        title: format!("Jobs {}", count(jobs.len(), cluster.more_jobs, "newest")),
        lines: table(&JOBS, &jobs, width, theme.dim()),
        empty: "The cluster has no jobs.",
        list: Focus::Jobs,
    };
    let workers = List {
        title: format!("Workers {}", count(workers.len(), cluster.more_workers, "first")),
        lines: table(&WORKERS, &workers, width, theme.dim()),
        empty: "No worker is attached.",
        list: Focus::Workers,
    };
    let (above, below) = heights(app, height);
    let mut out = vec![];
    if above > 0 {
        out.extend(jobs.window(app, theme, above));
    }
    if below > 0 {
        out.extend(workers.window(app, theme, below));
    }
    out.truncate(height);
    let rows = if app.focus == Focus::Jobs { above } else { below }.saturating_sub(HEADS);
    (out, Extent { rows, ..Extent::default() })
}
