//! The fold of a journal's records: live jobs and a bounded history. Pure.

use std::collections::{BTreeMap, VecDeque};

use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

use crate::events::EventLog;

/// The fold of records.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    live: BTreeMap<String, v1::LiveJob>,
    history: VecDeque<v1::JobEnded>,
    max: usize,
}

impl State {
    /// The state before any record. The history keeps the last `max` jobs.
    pub fn new(max: usize) -> Self {
        State { live: BTreeMap::new(), history: VecDeque::new(), max }
    }

    /// Applies the next record. Records about a job that is not live change nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Claim(claim) => {
                claim.notes.iter().for_each(|notes| self.note(notes));
                claim.notified.iter().for_each(|notified| self.delivered(notified));
            }
            Record::Seal(_) => {}
            Record::Snapshot(snapshot) => {
                let id = |job: &v1::LiveJob| job.submitted.as_ref().map(|s| s.job.clone());
                self.live = snapshot.live.iter().filter_map(|job| Some((id(job)?, job.clone()))).collect();
                self.history = snapshot.history.iter().cloned().collect();
            }
            Record::Submitted(submitted) => {
                let live = v1::LiveJob { submitted: Some(submitted.clone()), ..v1::LiveJob::default() };
                self.live.insert(submitted.job.clone(), live);
            }
            Record::Planned(planned) => {
                if let Some(job) = self.live.get_mut(&planned.job) {
                    job.planned = Some(planned.clone());
                }
            }
            Record::Committed(committed) => {
                if let Some(job) = self.live.get_mut(&committed.job) {
                    job.committed = Some(committed.clone());
                }
            }
            Record::Cancelled(cancelled) => {
                if let Some(job) = self.live.get_mut(&cancelled.job) {
                    job.cancelled = true;
                }
            }
            Record::Ended(ended) => {
                if let Some(status) = &ended.status {
                    self.live.remove(&status.job);
                    self.history.push_back(ended.clone());
                }
            }
        }
        while self.history.len() > self.max {
            self.history.pop_front();
        }
    }

    /// Adds notes to those of a live job.
    fn note(&mut self, notes: &v1::JobNotes) {
        let Some(job) = self.live.get_mut(&notes.job) else { return };
        let kept = job.notes.take().unwrap_or_default();
        let mut log = EventLog::of(&kept.events, kept.left_out);
        notes.events.iter().for_each(|event| log.push(event.clone()));
        job.notes = Some(v1::JobNotes { events: log.to_vec(), left_out: log.left_out(), ..notes.clone() });
    }

    /// A receiver has the notice of a job's end.
    fn delivered(&mut self, notified: &v1::JobNotified) {
        let of = |ended: &&mut v1::JobEnded| {
            ended.status.as_ref().is_some_and(|status| status.job == notified.job)
        };
        if let Some(ended) = self.history.iter_mut().rev().find(of) {
            ended.undelivered.retain(|receiver| *receiver != notified.receiver);
        }
    }

    /// The ended jobs of whose end a receiver has no notice yet, in the order of their ends.
    pub fn undelivered<'a>(&'a self, receiver: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |ended: &&v1::JobEnded| ended.undelivered.iter().any(|name| name == receiver);
        self.history.iter().filter(of).filter_map(|ended| Some(ended.status.as_ref()?.job.as_str()))
    }

    /// The state as one record.
    pub fn snapshot(&self) -> v1::Snapshot {
        v1::Snapshot {
            live: self.live.values().cloned().collect(),
            history: self.history.iter().cloned().collect(),
        }
    }

    /// Live jobs, in the order of their submission.
    pub fn live(&self) -> Vec<&v1::LiveJob> {
        let mut live: Vec<_> = self.live.values().collect();
        live.sort_by_key(|job| job.submitted.as_ref().map(|s| (s.submitted_at, s.job.clone())));
        live
    }

    /// Ended jobs with their notes, in the order of their ends.
    pub fn history_with_notes(&self) -> impl Iterator<Item = (&v1::JobStatus, Option<&v1::JobNotes>)> {
        self.history.iter().filter_map(|ended| Some((ended.status.as_ref()?, ended.notes.as_ref())))
    }

    /// Ended jobs, in the order of their ends.
    pub fn history(&self) -> impl Iterator<Item = &v1::JobStatus> {
        self.history.iter().filter_map(|ended| ended.status.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submitted(job: &str, at: u64) -> Record {
        Record::Submitted(v1::JobSubmitted { job: job.into(), submitted_at: at, ..Default::default() })
    }

    fn ended(job: &str) -> Record {
        let status = v1::JobStatus { job: job.into(), ..Default::default() };
        Record::Ended(v1::JobEnded { status: Some(status), ..Default::default() })
    }

    fn fold(max: usize, records: &[Record]) -> State {
        let mut state = State::new(max);
        records.iter().for_each(|record| state.apply(record));
        state
    }

    #[test]
    fn a_job_lives_from_its_submit_to_its_end() {
        let planned = v1::JobPlanned { job: "b".into(), rows: 7, ..Default::default() };
        let state = fold(
            9,
            &[
                submitted("b", 2),
                submitted("a", 3),
                Record::Planned(planned.clone()),
                Record::Planned(v1::JobPlanned { job: "ghost".into(), ..Default::default() }),
                ended("a"),
                submitted("c", 1),
                Record::Cancelled(v1::JobCancelled { job: "c".into() }),
            ],
        );
        let live = state.live();
        let ids: Vec<_> = live.iter().map(|job| job.submitted.as_ref().unwrap().job.as_str()).collect();
        assert_eq!(ids, ["c", "b"]);
        assert!(live[0].cancelled && live[1].planned == Some(planned));
        assert_eq!(state.history().map(|s| s.job.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_delivered_notice_is_not_delivered_again() {
        let ended = |job: &str| {
            let Record::Ended(ended) = ended(job) else { unreachable!("it is the record of an end") };
            let undelivered = vec!["webhook".into(), "openlineage".into()];
            Record::Ended(v1::JobEnded { undelivered, ..ended })
        };
        let notified = |job: &str, receiver: &str| {
            let notified = vec![v1::JobNotified { job: job.into(), receiver: receiver.into() }];
            Record::Claim(v1::Claim { notified, ..Default::default() })
        };
        let state = fold(
            9,
            &[
                ended("a"),
                ended("b"),
                notified("a", "webhook"),
                notified("ghost", "webhook"),
                notified("b", "x"),
            ],
        );
        for state in [fold(9, &[Record::Snapshot(state.snapshot())]), state] {
            assert_eq!(state.undelivered("webhook").collect::<Vec<_>>(), ["b"]);
            assert_eq!(state.undelivered("openlineage").collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(state.undelivered("other").count(), 0);
        }
    }

    #[test]
    fn a_snapshot_replaces_all_records_before_it_and_the_history_is_bounded() {
        let state = fold(2, &[submitted("x", 1), ended("a"), ended("b"), ended("c")]);
        assert_eq!(state.history().map(|s| s.job.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        let again = fold(2, &[submitted("old", 1), Record::Snapshot(state.snapshot())]);
        assert_eq!(again, state);
        assert_eq!(fold(1, &[Record::Snapshot(state.snapshot())]).history().count(), 1);
    }
}
