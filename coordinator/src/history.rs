//! The statuses of live jobs and of the last ended ones, for clients, each behind a channel that can be watched; and the
//! load.
//!
//! Not here: what changes a status (the driver).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tally_proto::limits::{MAX_REASON_BYTES, entry_len, shorten};
use tally_proto::{JobId, v1};
use tokio::sync::watch;

use crate::attempt_log::{AttemptLog, AttemptPage};
use crate::load::Load;
use crate::notify::queue::{Moment, Notices};

/// The most bytes of a page, unless a single job has more, so that it fits into a message.
const PAGE_BYTES: usize = 2 << 20;

/// The most ended jobs whose attempts are kept.
const MAX_ATTEMPT_LOGS: usize = 20;

/// The most and the fewest jobs of a kind from which the usual duration is taken.
const MAX_USUAL: usize = 14;
const MIN_USUAL: usize = 3;

/// All known jobs.
#[derive(Debug)]
pub struct Registry {
    jobs: RwLock<Jobs>,
    max_ended: usize,
    /// When the last day was published, in milliseconds since 1970; 0 if that is unknown.
    last_publish: AtomicU64,
    load: watch::Sender<Option<Load>>,
    notices: OnceLock<Notices>,
}

/// The key by which jobs are listed: time of submission, then id.
type ListKey = (u64, JobId);

#[derive(Debug, Default)]
struct Jobs {
    by_key: BTreeMap<ListKey, watch::Sender<v1::JobStatus>>,
    submitted_at: HashMap<JobId, u64>,
    /// Ended jobs, in the order of their ends.
    ended: VecDeque<JobId>,
    /// What was noted of ended jobs.
    notes: HashMap<JobId, Arc<v1::JobNotes>>,
    /// The attempts of the jobs that ended last, in the order of their ends.
    attempts: VecDeque<(JobId, AttemptLog)>,
}

/// A name that is not the name of one job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No job has the id, or an id that begins so.
    #[error("there is no job {0}, or it is too old: `tally jobs` lists the known jobs")]
    Unknown(String),
    /// Several jobs have ids that begin so.
    #[error("{prefix} is the beginning of {count} ids: give more of the id of one of {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The number of jobs.
        count: usize,
        /// The newest of them, a limited number.
        candidates: Vec<String>,
    },
}

/// The name of the job that was submitted last.
const LATEST: &str = "latest";
/// The most candidates in an error.
const MAX_CANDIDATES: usize = 8;

/// Whether a job has ended.
pub fn is_over(status: &v1::JobStatus) -> bool {
    use v1::JobState::{Cancelled, Done, Failed};
    matches!(status.state(), Done | Failed | Cancelled)
}

/// Limits the reason for which a job failed, so that every status fits into a page.
fn limit(status: &mut v1::JobStatus) {
    if status.reason.len() > MAX_REASON_BYTES {
        status.reason = shorten(&status.reason).into_owned();
    }
}

impl Registry {
    /// A registry of live jobs and the last `max_ended` ended ones.
    pub fn new(max_ended: usize) -> Self {
        Registry {
            jobs: RwLock::default(),
            max_ended,
            last_publish: AtomicU64::new(0),
            load: watch::Sender::new(None),
            notices: OnceLock::new(),
        }
    }

    /// Announces the jobs that begin or end from now on.
    pub fn announce_to(&self, notices: Notices) {
        // There is one set of receivers in a term.
        let _ = self.notices.set(notices);
    }

    /// The names of the receivers that are notified of ends.
    pub fn receivers(&self) -> Vec<String> {
        self.notices.get().map(Notices::kinds).unwrap_or_default()
    }

    fn announce(&self, job: &JobId, moment: Moment) {
        if let Some(notices) = self.notices.get() {
            notices.send(job, moment);
        }
    }

    /// Adds a job.
    pub fn add(&self, job: &JobId, mut status: v1::JobStatus) {
        limit(&mut status);
        let over = is_over(&status);
        self.note_publish(&status);
        let at = status.submitted_at;
        let mut jobs = self.jobs.write();
        jobs.submitted_at.insert(job.clone(), at);
        jobs.by_key.insert((at, job.clone()), watch::Sender::new(status));
        if over {
            jobs.end(job, self.max_ended);
        }
        drop(jobs);
        if !over {
            self.announce(job, Moment::Start);
        }
    }

    /// Changes a job's status; `change` returns whether it changed anything.
    pub fn update(&self, job: &JobId, change: impl FnOnce(&mut v1::JobStatus) -> bool) {
        let mut ended = false;
        {
            let jobs = self.jobs.read();
            let Some(sender) = jobs.get(job) else { return };
            sender.send_if_modified(|status| {
                let was_over = is_over(status);
                let changed = change(status);
                limit(status);
                ended = !was_over && is_over(status);
                self.note_publish(status);
                changed
            });
        }
        if ended {
            self.jobs.write().end(job, self.max_ended);
            self.announce(job, Moment::End);
        }
    }

    fn note_publish(&self, status: &v1::JobStatus) {
        if status.state() == v1::JobState::Done {
            self.last_publish.fetch_max(status.ended_at, Ordering::Relaxed);
        }
    }

    /// When the last job that published its day ended, in milliseconds since 1970; `None` if no known job did. The history
    /// is in the journal, so every leader returns the same.
    pub fn last_publish(&self) -> Option<u64> {
        Some(self.last_publish.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Sets the load.
    pub fn show_load(&self, load: Load) {
        self.load.send_replace(Some(load));
    }

    /// The load, as the driver updates it; `None` before the first update.
    pub fn load(&self) -> watch::Receiver<Option<Load>> {
        self.load.subscribe()
    }

    /// Keeps what was noted of a job that ended, or is about to end.
    pub fn keep_notes(&self, job: &JobId, notes: v1::JobNotes) {
        self.jobs.write().notes.insert(job.clone(), Arc::new(notes));
    }

    /// What was noted of a job that ended.
    pub fn notes(&self, job: &JobId) -> Option<Arc<v1::JobNotes>> {
        self.jobs.read().notes.get(job).cloned()
    }

    /// Keeps the attempts of a job that is about to end, and forgets those of jobs that ended long before.
    pub fn keep_attempts(&self, job: &JobId, attempts: AttemptLog) {
        let kept = &mut self.jobs.write().attempts;
        kept.push_back((job.clone(), attempts));
        if kept.len() > MAX_ATTEMPT_LOGS {
            kept.pop_front();
        }
    }

    /// The attempts of one of the jobs that ended last, with larger numbers than the given one.
    pub fn attempts(&self, job: &JobId, after: u64) -> Option<AttemptPage> {
        let jobs = self.jobs.read();
        jobs.attempts.iter().find(|(ended, _)| ended == job).map(|(_, attempts)| attempts.after(after))
    }

    /// The job with that id, or the only one whose id begins so; `latest` is the one that was submitted last.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn find(&self, name: &str) -> Result<JobId, FindError> {
        let jobs = self.jobs.read();
        let newest_first = jobs.by_key.keys().rev().map(|(_, id)| id);
        if let Ok(id) = JobId::parse(name)
            && jobs.submitted_at.contains_key(&id)
        {
            return Ok(id);
        }
        let unknown = || FindError::Unknown(name.chars().take(80).collect());
        if name == LATEST {
            return newest_first.into_iter().next().cloned().ok_or_else(unknown);
        }
        let found: Vec<&JobId> =
            newest_first.filter(|id| !name.is_empty() && id.as_str().starts_with(name)).collect();
        match found[..] {
            [] => Err(unknown()),
            [one] => Ok(one.clone()),
            _ => Err(FindError::Ambiguous {
                prefix: name.into(),
                count: found.len(),
                candidates: found.iter().take(MAX_CANDIDATES).map(ToString::to_string).collect(),
            }),
        }
    }

    /// A job's status.
    pub fn get(&self, job: &JobId) -> Option<v1::JobStatus> {
        self.jobs.read().get(job).map(|sender| sender.borrow().clone())
    }

    /// The longest duration of the last 14 jobs over the same tables to the same output, in milliseconds; `None` if fewer
    /// than 3 of them are known. The history is in the journal, so every leader returns the same.
    pub fn usual(&self, spec: &v1::JobSpec) -> Option<u64> {
        let jobs = self.jobs.read();
        let done = jobs.by_key.values().rev().filter_map(|sender| {
            let status = sender.borrow();
            let same = status.spec.as_ref().is_some_and(|other| {
                (&other.dataset, &other.inputs, &other.output) == (&spec.dataset, &spec.inputs, &spec.output)
            });
            let took = status.ended_at.saturating_sub(status.submitted_at);
            (same && status.state() == v1::JobState::Done).then_some(took)
        });
        let last: Vec<u64> = done.take(MAX_USUAL).collect();
        last.iter().max().copied().filter(|_| last.len() >= MIN_USUAL)
    }

    /// A job's status, and its changes.
    pub fn watch(&self, job: &JobId) -> Option<watch::Receiver<v1::JobStatus>> {
        self.jobs.read().get(job).map(watch::Sender::subscribe)
    }

    /// Up to `size` jobs, newest first, after the one that `token` names; and the token of the next page, empty on the
    /// last page. `None` for an invalid token.
    pub fn page(&self, size: usize, token: &str) -> Option<(Vec<v1::JobStatus>, String)> {
        let jobs = self.jobs.read();
        let before: Option<ListKey> = match token {
            "" => None,
            token => {
                let (at, id) = token.split_once('.')?;
                Some((u64::from_str_radix(at, 16).ok()?, JobId::parse(id).ok()?))
            }
        };
        let older: Box<dyn Iterator<Item = _>> = match before {
            Some(key) => Box::new(jobs.by_key.range(..key).rev()),
            None => Box::new(jobs.by_key.iter().rev()),
        };
        let mut page = vec![];
        let mut last = None;
        let mut bytes = 0;
        let mut older = older.peekable();
        while page.len() < size
            && let Some(&((at, id), sender)) = older.peek()
        {
            let status = sender.borrow().clone();
            bytes += entry_len(1, &status);
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            older.next();
            page.push(status);
            last = Some(format!("{at:x}.{id}"));
        }
        let more = older.next().is_some();
        Some((page, last.filter(|_| more).unwrap_or_default()))
    }
}

impl Jobs {
    fn get(&self, job: &JobId) -> Option<&watch::Sender<v1::JobStatus>> {
        self.by_key.get(&(*self.submitted_at.get(job)?, job.clone()))
    }

    fn end(&mut self, job: &JobId, max: usize) {
        self.ended.push_back(job.clone());
        while self.ended.len() > max {
            let Some(oldest) = self.ended.pop_front() else { return };
            if let Some(at) = self.submitted_at.remove(&oldest) {
                self.notes.remove(&oldest);
                self.by_key.remove(&(at, oldest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tally_proto::MESSAGE_BYTES;

    use super::*;

    fn id(n: u64) -> JobId {
        JobId::parse(&format!("j{n}")).unwrap()
    }

    fn status(n: u64, state: v1::JobState) -> v1::JobStatus {
        v1::JobStatus { job: id(n).to_string(), submitted_at: n, state: state.into(), ..Default::default() }
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_without_gaps() {
        let registry = Registry::new(100);
        (0..7).for_each(|n| registry.add(&id(n), status(n, v1::JobState::Running)));
        let (mut token, mut seen) = (String::new(), vec![]);
        loop {
            let (page, next) = registry.page(3, &token).unwrap();
            // A new job is listed before the first page.
            registry.add(&id(100 + seen.len() as u64), status(100, v1::JobState::Running));
            seen.extend(page.into_iter().map(|s| s.job));
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, ["j6", "j5", "j4", "j3", "j2", "j1", "j0"]);
        assert!(registry.page(3, "nonsense").is_none() && registry.page(3, "zz.j1").is_none());
    }

    #[test]
    fn a_job_is_found_by_a_unique_beginning_of_its_id_or_as_the_latest() {
        let registry = Registry::new(100);
        assert_eq!(registry.find("latest"), Err(FindError::Unknown("latest".into())));
        [1, 10, 11, 2].iter().for_each(|n| registry.add(&id(*n), status(*n, v1::JobState::Running)));
        assert_eq!(registry.find("j2"), Ok(id(2)));
        assert_eq!(registry.find("j1"), Ok(id(1)), "a whole id");
        assert_eq!(registry.find("latest"), Ok(id(11)));
        assert_eq!(registry.find("j11"), Ok(id(11)));
        for missing in ["", "x", "j3", "../j1"] {
            assert_eq!(registry.find(missing), Err(FindError::Unknown(missing.into())));
        }
        let error = registry.find("j").unwrap_err().to_string();
        assert!(error.contains("4 ids") && error.contains("j11, j10, j2, j1"), "{error}");
    }

    #[test]
    fn pages_of_long_statuses_fit_into_messages() {
        // Statuses of a third of a page, of about a page, and of more.
        for (bytes, jobs) in [(PAGE_BYTES / 3 - 100, 3), (PAGE_BYTES - 100, 1), (PAGE_BYTES + 1, 1)] {
            let registry = Registry::new(100);
            let summary = "x".repeat(bytes);
            let long = |n| v1::JobStatus { summary: summary.clone(), ..status(n, v1::JobState::Done) };
            (0..7).for_each(|n| registry.add(&id(n), long(n)));
            let (mut token, mut seen) = (String::new(), 0);
            loop {
                let (page, next) = registry.page(100, &token).unwrap();
                seen += page.len();
                assert!(page.len() == jobs || (next.is_empty() && seen == 7), "{} jobs", page.len());
                let page = v1::JobPage { jobs: page, next_page_token: next.clone() };
                assert!(page.encoded_len() <= MESSAGE_BYTES);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(seen, 7);
        }
    }

    #[test]
    fn a_long_reason_is_shortened() {
        let registry = Registry::new(100);
        let failed =
            |n, bytes| v1::JobStatus { reason: "x".repeat(bytes), ..status(n, v1::JobState::Failed) };
        registry.add(&id(0), failed(0, 9 << 20));
        registry.add(&id(1), status(1, v1::JobState::Running));
        registry.update(&id(1), |status| {
            *status = failed(1, 9 << 20);
            true
        });
        for n in 0..2 {
            let reason = registry.get(&id(n)).unwrap().reason;
            assert!(reason.len() <= MAX_REASON_BYTES && reason.ends_with("more bytes)"));
        }
    }

    #[test]
    fn the_usual_duration_is_taken_from_the_last_jobs_of_the_kind() {
        let registry = Registry::new(100);
        let spec = |output: &str| v1::JobSpec { output: output.into(), ..v1::JobSpec::default() };
        let done = |n: u64, took: u64, output: &str| {
            let status = v1::JobStatus {
                spec: Some(v1::JobSpec { date: n.to_string(), ..spec(output) }),
                ended_at: n + took,
                ..status(n, v1::JobState::Done)
            };
            registry.add(&id(n), status);
        };
        done(0, 9000, "a");
        done(1, 10, "a");
        assert_eq!(registry.usual(&spec("a")), None, "two are too few");
        done(2, 20, "a");
        assert_eq!(registry.usual(&spec("a")), Some(9000));
        (3..14).for_each(|n| done(n, 30 + n, "a"));
        done(14, 70_000, "b");
        assert_eq!(registry.usual(&spec("a")), Some(9000), "it is the 14th");
        done(15, 5, "a");
        assert_eq!((registry.usual(&spec("a")), registry.usual(&spec("b"))), (Some(43), None));
    }

    #[test]
    fn the_last_publish_is_the_latest_end_of_a_job_that_is_done() {
        let ended = |n, state, ended_at| v1::JobStatus { ended_at, ..status(n, state) };
        let registry = Registry::new(1);
        registry.add(&id(0), ended(0, v1::JobState::Failed, 900));
        registry.add(&id(1), status(1, v1::JobState::Running));
        assert_eq!(registry.last_publish(), None);
        registry.add(&id(2), ended(2, v1::JobState::Done, 500));
        registry.update(&id(1), |status| {
            *status = ended(1, v1::JobState::Done, 400);
            true
        });
        assert_eq!(registry.last_publish(), Some(500));
        // Also after that job is forgotten.
        registry.add(&id(3), ended(3, v1::JobState::Cancelled, 950));
        assert!(registry.get(&id(2)).is_none());
        assert_eq!(registry.last_publish(), Some(500));
    }

    #[test]
    fn ended_jobs_are_forgotten_in_the_order_of_their_ends() {
        let registry = Registry::new(2);
        (0..4).for_each(|n| registry.add(&id(n), status(n, v1::JobState::Running)));
        let mut watched = registry.watch(&id(3)).unwrap();
        watched.mark_unchanged();
        for n in [3, 1, 2] {
            registry.update(&id(n), |status| {
                status.set_state(v1::JobState::Done);
                true
            });
        }
        assert!(registry.get(&id(3)).is_none() && registry.get(&id(0)).is_some());
        assert!(registry.get(&id(1)).is_some_and(|s| is_over(&s)));
        // Watchers see the end nevertheless.
        assert!(watched.has_changed().is_ok_and(|changed| changed) || is_over(&watched.borrow()));
    }
}
