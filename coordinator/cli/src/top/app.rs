//! What `tally top` knows and shows, as one state: answers of the leader and keys go in, actions come out. Time is
//! an argument, the time since the command started.
//!
//! Not here: requests (`feed`), the screen (`paint`).

use std::time::Duration;

use tally_coordinator::client::is_over;
use tally_proto::v1::{JobStatus, WorkerStatus};

use super::keys::Key;

/// The most jobs, and the most workers, in a list.
pub const MAX_LISTED: usize = 200;
/// The most running tasks, and the most incidents, of a job.
pub const MAX_DETAIL: usize = 500;
/// The most characters of a message.
const MAX_TEXT: usize = 1000;
/// The age of the last answer from which the screen does not count as live.
pub const STALE: Duration = Duration::from_secs(3);

/// What the leader answered, or why there is no answer.
#[derive(Debug)]
pub enum Update {
    /// The lists of the overview.
    Cluster(Cluster),
    /// The first workers while a job is open, and whether there are more.
    Workers(Vec<WorkerStatus>, bool),
    /// A job with its detail.
    Job(Box<JobStatus>),
    /// No leader answers.
    Trouble(String),
    /// The leader's refusal, for example because it does not know a job any longer.
    Refused(String),
    /// The effect of a cancellation.
    Cancelled(String),
}

/// The newest jobs and the first workers of a cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    /// The address of the leader.
    pub leader: String,
    /// Newest first.
    pub jobs: Vec<JobStatus>,
    /// The leader knows more jobs.
    pub more_jobs: bool,
    /// By id.
    pub workers: Vec<WorkerStatus>,
    /// The leader knows more workers.
    pub more_workers: bool,
}

/// What a key asks the command to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing besides drawing.
    Draw,
    /// Leave.
    Quit,
    /// Ask for this job from now on.
    Open(String),
    /// Ask for the lists from now on.
    Close,
    /// Cancel this job.
    Cancel(String),
}

/// The lists of the overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// The jobs.
    Jobs,
    /// The workers.
    Workers,
}

/// What covers the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// The question whether to cancel this job.
    Confirm(String),
}

/// The selected row of a list: it stays at its entry while others come and go.
#[derive(Debug, Default)]
struct Selection {
    /// The entry; `None` for the first one, whichever that is.
    id: Option<String>,
    /// Its last place, for the case that the entry is gone.
    at: usize,
}

impl Selection {
    fn place(&self, ids: &[&str]) -> usize {
        let Some(id) = &self.id else { return 0 };
        let last = ids.len().saturating_sub(1);
        ids.iter().position(|other| other == id).unwrap_or(self.at.min(last))
    }

    fn select(&mut self, ids: &[&str], at: usize) {
        self.at = at.min(ids.len().saturating_sub(1));
        self.id = ids.get(self.at).map(|id| (*id).to_string());
    }
}

/// What the last drawing of a page found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows of the screen for the list or page.
    pub rows: usize,
    /// The largest offset of a page.
    pub max_scroll: usize,
    /// The first lines of a page's sections.
    pub sections: Vec<usize>,
}

/// The whole state.
#[derive(Debug)]
pub struct App {
    /// The last lists.
    pub cluster: Cluster,
    /// The job that is shown instead of the overview, and its last status.
    pub open: Option<(String, Option<Box<JobStatus>>)>,
    /// The list that keys move in.
    pub focus: Focus,
    /// What covers the screen.
    pub overlay: Option<Overlay>,
    /// Why there is no answer; `None` after an answer.
    pub trouble: Option<String>,
    /// A refusal, or the effect of a cancellation, until the next key.
    pub notice: Option<String>,
    /// Lines of the job's page above the screen.
    pub scroll: usize,
    job: Selection,
    worker: Selection,
    extent: Extent,
    answered: Duration,
}

impl App {
    /// The overview of these lists.
    pub fn new(mut cluster: Cluster) -> Self {
        bound(&mut cluster);
        App {
            cluster,
            open: None,
            focus: Focus::Jobs,
            overlay: None,
            trouble: None,
            notice: None,
            scroll: 0,
            job: Selection::default(),
            worker: Selection::default(),
            extent: Extent::default(),
            answered: Duration::ZERO,
        }
    }

    /// The age of the last answer.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered)
    }

    /// The selected rows of jobs and workers.
    pub fn selected(&self, list: Focus) -> usize {
        match list {
            Focus::Jobs => self.job.place(&self.job_ids()),
            Focus::Workers => self.worker.place(&self.worker_ids()),
        }
    }

    /// The open job: with its detail once it is known, until then as the list has it.
    pub fn job(&self) -> Option<&JobStatus> {
        let (id, detail) = self.open.as_ref()?;
        detail.as_deref().or_else(|| self.cluster.jobs.iter().find(|job| job.job == *id))
    }

    /// Takes the sizes of what was drawn last, which limit the next keys.
    pub fn fit(&mut self, extent: Extent) {
        self.scroll = self.scroll.min(extent.max_scroll);
        self.extent = extent;
    }

    /// Takes an answer, or the lack of one.
    pub fn update(&mut self, update: Update, now: Duration) {
        match update {
            Update::Trouble(text) => {
                self.trouble = Some(short(&text));
                return;
            }
            Update::Cancelled(text) => {
                self.notice = Some(short(&text));
                return;
            }
            Update::Refused(text) => self.notice = Some(short(&text)),
            Update::Workers(workers, more) => {
                (self.cluster.workers, self.cluster.more_workers) = (workers, more);
                bound(&mut self.cluster);
                self.worker.at = self.selected(Focus::Workers);
            }
            Update::Cluster(mut cluster) => {
                bound(&mut cluster);
                self.cluster = cluster;
                // The place of an entry that is gone later.
                self.job.at = self.selected(Focus::Jobs);
                self.worker.at = self.selected(Focus::Workers);
            }
            Update::Job(mut job) => {
                if let Some(detail) = &mut job.detail {
                    let running = detail.running.len().saturating_sub(MAX_DETAIL);
                    detail.running.truncate(MAX_DETAIL);
                    detail.running_left_out += running as u64;
                    // Oldest first.
                    let incidents = detail.incidents.len().saturating_sub(MAX_DETAIL);
                    detail.incidents.drain(..incidents);
                    detail.incidents_left_out += incidents as u64;
                }
                // An answer about a job that was closed meanwhile is old.
                if let Some((id, status)) = &mut self.open
                    && *id == job.job
                {
                    *status = Some(job);
                }
            }
        }
        self.trouble = None;
        self.answered = now;
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Action {
        if !matches!(key, Key::Other | Key::Redraw) {
            self.notice = None;
        }
        match (key, self.overlay.take()) {
            (Key::Interrupt, _) => Action::Quit,
            (Key::Other | Key::Redraw, overlay) => {
                self.overlay = overlay;
                Action::Draw
            }
            (Key::Char('y'), Some(Overlay::Confirm(job))) => Action::Cancel(job),
            // Any other key closes what covers the screen.
            (_, Some(_)) => Action::Draw,
            (Key::Char('q'), None) => Action::Quit,
            (Key::Char('?'), None) => {
                self.overlay = Some(Overlay::Help);
                Action::Draw
            }
            (Key::Char('c'), None) => {
                let job = self.target().filter(|job| !is_over(job.state()));
                self.overlay = job.map(|job| Overlay::Confirm(job.job.clone()));
                Action::Draw
            }
            (key, None) if self.open.is_some() => self.page_key(key),
            (key, None) => self.list_key(key),
        }
    }

    /// The job that `c` and Enter are about.
    fn target(&self) -> Option<&JobStatus> {
        match (&self.open, self.focus) {
            (Some(_), _) => self.job(),
            (None, Focus::Jobs) => self.cluster.jobs.get(self.selected(Focus::Jobs)),
            (None, Focus::Workers) => None,
        }
    }

    fn job_ids(&self) -> Vec<&str> {
        self.cluster.jobs.iter().map(|job| job.job.as_str()).collect()
    }

    fn worker_ids(&self) -> Vec<&str> {
        self.cluster.workers.iter().map(|worker| worker.worker.as_str()).collect()
    }

    /// The place that a key moves to, at most `last`.
    fn moved(&self, key: Key, from: usize, last: usize) -> usize {
        let page = self.extent.rows.max(1);
        let to = match key {
            Key::Up | Key::Char('k') => from.saturating_sub(1),
            Key::Down | Key::Char('j') => from + 1,
            Key::PageUp => from.saturating_sub(page),
            Key::PageDown => from + page,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            _ => from,
        };
        to.min(last)
    }

    fn list_key(&mut self, key: Key) -> Action {
        match key {
            Key::Tab | Key::BackTab => {
                self.focus = if self.focus == Focus::Jobs { Focus::Workers } else { Focus::Jobs };
            }
            Key::Enter => {
                if let Some(id) = self.target().map(|job| job.job.clone()) {
                    // A job that comes later does not become the selected one.
                    let (ids, at) = (self.job_ids(), self.selected(Focus::Jobs));
                    let mut job = Selection::default();
                    job.select(&ids, at);
                    self.job = job;
                    self.open = Some((id.clone(), None));
                    self.scroll = 0;
                    return Action::Open(id);
                }
            }
            key => {
                let from = self.selected(self.focus);
                let ids = if self.focus == Focus::Jobs { self.job_ids() } else { self.worker_ids() };
                let to = self.moved(key, from, ids.len().saturating_sub(1));
                let mut moved = Selection::default();
                moved.select(&ids, to);
                match self.focus {
                    _ if to == from => {}
                    Focus::Jobs => self.job = moved,
                    Focus::Workers => self.worker = moved,
                }
            }
        }
        Action::Draw
    }

    fn page_key(&mut self, key: Key) -> Action {
        let sections = &self.extent.sections;
        match key {
            Key::Escape | Key::Left => {
                self.open = None;
                return Action::Close;
            }
            // After the last section comes the beginning.
            Key::Tab => {
                let next = sections.iter().find(|first| **first > self.scroll);
                self.scroll = match next {
                    Some(next) if self.scroll < self.extent.max_scroll => (*next).min(self.extent.max_scroll),
                    _ => 0,
                };
            }
            Key::BackTab => {
                let before = sections.iter().rev().find(|first| **first < self.scroll);
                self.scroll = before.copied().unwrap_or(0);
            }
            key => self.scroll = self.moved(key, self.scroll, self.extent.max_scroll),
        }
        Action::Draw
    }
}

fn bound(cluster: &mut Cluster) {
    cluster.more_jobs |= cluster.jobs.len() > MAX_LISTED;
    cluster.more_workers |= cluster.workers.len() > MAX_LISTED;
    cluster.jobs.truncate(MAX_LISTED);
    cluster.workers.truncate(MAX_LISTED);
}

/// A message on one line.
fn short(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ").chars().take(MAX_TEXT).collect()
}
