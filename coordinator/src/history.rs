//! How jobs stand, for those who ask: live ones and the last that ended, each behind a channel that
//! can be watched; and the load.
//!
//! Not here: what changes a status (the driver).

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::RwLock;
use prost::Message;
use tally_proto::{JobId, v1};
use tokio::sync::watch;

use crate::load::Load;

/// A page ends after so many bytes: it has to fit into a message.
const PAGE_BYTES: usize = 2 << 20;

/// So many jobs of a kind say what is usual, and so few say nothing.
const USUAL: usize = 14;
const LEAST_USUAL: usize = 3;

/// All jobs that can be asked for.
#[derive(Debug)]
pub struct Registry {
    jobs: RwLock<Jobs>,
    most_ended: usize,
    load: watch::Sender<Option<Load>>,
}

/// By time of submit, then id: the order of lists.
type Place = (u64, JobId);

#[derive(Debug, Default)]
struct Jobs {
    by_place: BTreeMap<Place, watch::Sender<v1::JobStatus>>,
    places: HashMap<JobId, u64>,
    /// In the order of their ends.
    ended: VecDeque<JobId>,
}

/// Whether a job in this state changes no more.
pub fn is_over(status: &v1::JobStatus) -> bool {
    use v1::JobState::{Cancelled, Done, Failed};
    matches!(status.state(), Done | Failed | Cancelled)
}

impl Registry {
    /// Keeps live jobs, and the last `most_ended` of the others.
    pub fn new(most_ended: usize) -> Self {
        Registry { jobs: RwLock::default(), most_ended, load: watch::Sender::new(None) }
    }

    /// Adds a job.
    pub fn add(&self, job: &JobId, status: v1::JobStatus) {
        let over = is_over(&status);
        let at = status.submitted_at;
        let mut jobs = self.jobs.write();
        jobs.places.insert(job.clone(), at);
        jobs.by_place.insert((at, job.clone()), watch::Sender::new(status));
        if over {
            jobs.end(job, self.most_ended);
        }
    }

    /// Changes a job's status; `change` says whether it did.
    pub fn update(&self, job: &JobId, change: impl FnOnce(&mut v1::JobStatus) -> bool) {
        let mut ended = false;
        {
            let jobs = self.jobs.read();
            let Some(sender) = jobs.get(job) else { return };
            sender.send_if_modified(|status| {
                let was_over = is_over(status);
                let changed = change(status);
                ended = !was_over && is_over(status);
                changed
            });
        }
        if ended {
            self.jobs.write().end(job, self.most_ended);
        }
    }

    /// Notes how much there is to do.
    pub fn show_load(&self, load: Load) {
        self.load.send_replace(Some(load));
    }

    /// How much there is to do, now and at each look of the driver; `None` before its first.
    pub fn load(&self) -> watch::Receiver<Option<Load>> {
        self.load.subscribe()
    }

    /// A job's status.
    pub fn get(&self, job: &JobId) -> Option<v1::JobStatus> {
        self.jobs.read().get(job).map(|sender| sender.borrow().clone())
    }

    /// The longest that one of the last 14 jobs over the same tables to the same output took, in milliseconds; none
    /// where fewer than 3 of them are known. History is kept in the journal, so another leader says the same.
    pub fn usual(&self, spec: &v1::JobSpec) -> Option<u64> {
        let jobs = self.jobs.read();
        let done = jobs.by_place.values().rev().filter_map(|sender| {
            let status = sender.borrow();
            let same = status.spec.as_ref().is_some_and(|other| {
                (&other.dataset, &other.inputs, &other.output) == (&spec.dataset, &spec.inputs, &spec.output)
            });
            let took = status.ended_at.saturating_sub(status.submitted_at);
            (same && status.state() == v1::JobState::Done).then_some(took)
        });
        let last: Vec<u64> = done.take(USUAL).collect();
        last.iter().max().copied().filter(|_| last.len() >= LEAST_USUAL)
    }

    /// A job's status as it changes.
    pub fn watch(&self, job: &JobId) -> Option<watch::Receiver<v1::JobStatus>> {
        self.jobs.read().get(job).map(watch::Sender::subscribe)
    }

    /// Up to `size` jobs, the newest first, after the one that `token` names; and the next
    /// page's token, empty on the last. `None` for a token that is none.
    pub fn page(&self, size: usize, token: &str) -> Option<(Vec<v1::JobStatus>, String)> {
        let jobs = self.jobs.read();
        let before: Option<Place> = match token {
            "" => None,
            token => {
                let (at, id) = token.split_once('.')?;
                Some((u64::from_str_radix(at, 16).ok()?, JobId::parse(id).ok()?))
            }
        };
        let mut older: Box<dyn Iterator<Item = _>> = match before {
            Some(place) => Box::new(jobs.by_place.range(..place).rev()),
            None => Box::new(jobs.by_place.iter().rev()),
        };
        let mut page = vec![];
        let mut last = None;
        let mut bytes = 0;
        while page.len() < size
            && bytes < PAGE_BYTES
            && let Some(((at, id), sender)) = older.next()
        {
            let status = sender.borrow().clone();
            bytes += status.encoded_len();
            page.push(status);
            last = Some(format!("{at:x}.{id}"));
        }
        let more = older.next().is_some();
        Some((page, last.filter(|_| more).unwrap_or_default()))
    }
}

impl Jobs {
    fn get(&self, job: &JobId) -> Option<&watch::Sender<v1::JobStatus>> {
        self.by_place.get(&(*self.places.get(job)?, job.clone()))
    }

    fn end(&mut self, job: &JobId, most: usize) {
        self.ended.push_back(job.clone());
        while self.ended.len() > most {
            let Some(oldest) = self.ended.pop_front() else { return };
            if let Some(at) = self.places.remove(&oldest) {
                self.by_place.remove(&(at, oldest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> JobId {
        JobId::parse(&format!("j{n}")).unwrap()
    }

    fn status(n: u64, state: v1::JobState) -> v1::JobStatus {
        v1::JobStatus { job: id(n).to_string(), submitted_at: n, state: state.into(), ..Default::default() }
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_without_gap() {
        let registry = Registry::new(100);
        (0..7).for_each(|n| registry.add(&id(n), status(n, v1::JobState::Running)));
        let (mut token, mut seen) = (String::new(), vec![]);
        loop {
            let (page, next) = registry.page(3, &token).unwrap();
            // A job that comes in between stands before the first page.
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
    fn what_is_usual_is_said_by_the_last_jobs_of_the_kind() {
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
    fn jobs_that_ended_are_forgotten_in_the_order_of_their_ends() {
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
        // Who watches sees the end even so.
        assert!(watched.has_changed().is_ok_and(|changed| changed) || is_over(&watched.borrow()));
    }
}
