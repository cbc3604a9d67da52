//! The list of what happened in a job, for `tally logs`. Pure and bounded: the oldest events of attempts and workers are
//! left out first, those of the job itself last.
//!
//! Not here: when an event happens (the driver), how lists are recorded (`journal`).

use std::collections::VecDeque;

use prost::Message;
use tally_proto::v1::{EventKind, JobEvent};

/// The largest encoded list of a live job, in bytes.
pub const MAX_BYTES: usize = 32 << 10;
/// The largest encoded list of an ended job, which every snapshot of the journal contains.
pub const MAX_ENDED_BYTES: usize = 12 << 10;
/// The longest text of an event, in bytes.
pub(crate) const MAX_TEXT: usize = 500;

/// The events of a job, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventLog {
    events: VecDeque<JobEvent>,
    bytes: usize,
    left_out: u64,
}

/// Whether an event is about an attempt or a worker, and not about the job itself.
pub fn is_incident(event: &JobEvent) -> bool {
    use EventKind::{
        AttemptFailed, SpeculativeAttempt, WorkerAttached, WorkerDetached, WorkerDraining, WorkerLeft,
        WorkerLost,
    };
    let of_attempts = [AttemptFailed, SpeculativeAttempt];
    let of_workers = [WorkerAttached, WorkerDetached, WorkerDraining, WorkerLeft, WorkerLost];
    of_attempts.contains(&event.kind()) || of_workers.contains(&event.kind())
}

impl EventLog {
    /// A list that was recorded.
    pub fn of(events: &[JobEvent], left_out: u64) -> Self {
        let mut log = EventLog { left_out, ..EventLog::default() };
        events.iter().for_each(|event| log.push(event.clone()));
        log
    }

    /// Adds an event. One whose number is not larger than the last one's is ignored: it was added before.
    pub fn push(&mut self, mut event: JobEvent) {
        if event.number <= self.last_number() {
            return;
        }
        if event.text.len() > MAX_TEXT {
            event.text.truncate(event.text.floor_char_boundary(MAX_TEXT - 3));
            event.text.push_str("...");
        }
        self.bytes += event.encoded_len();
        self.events.push_back(event);
        self.shrink(MAX_BYTES);
    }

    /// Leaves out events until the list has at most so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.events.len() > 1 {
            let at = self.events.iter().position(is_incident).unwrap_or(0);
            let Some(removed) = self.events.remove(at) else { return };
            self.bytes -= removed.encoded_len();
            self.left_out += 1;
        }
    }

    /// The number of the last event; 0 if there is none.
    pub fn last_number(&self) -> u64 {
        self.events.back().map_or(0, |event| event.number)
    }

    /// The events with larger numbers.
    pub fn after(&self, number: u64) -> impl DoubleEndedIterator<Item = &JobEvent> {
        self.events.iter().filter(move |event| event.number > number)
    }

    /// All events.
    pub fn to_vec(&self) -> Vec<JobEvent> {
        self.events.iter().cloned().collect()
    }

    /// The number of events that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, kind: EventKind, text: &str) -> JobEvent {
        JobEvent { number, kind: kind.into(), text: text.into(), ..JobEvent::default() }
    }

    #[test]
    fn incidents_are_left_out_before_the_events_of_the_job() {
        let mut log = EventLog::default();
        log.push(event(1, EventKind::Accepted, "accepted"));
        for number in 2..1000 {
            log.push(event(number, EventKind::AttemptFailed, &"ü".repeat(1000)));
        }
        log.push(event(1000, EventKind::Ended, "failed"));
        let kept = log.to_vec();
        assert_eq!((kept[0].kind(), kept.last().unwrap().kind()), (EventKind::Accepted, EventKind::Ended));
        assert!(kept.len() as u64 + log.left_out() == 1000 && kept.len() > 50, "{}", kept.len());
        assert!(kept[1].text.len() <= MAX_TEXT && kept[1].text.ends_with("..."));
        assert!(kept.iter().map(Message::encoded_len).sum::<usize>() <= MAX_BYTES);
        // The latest incidents are kept.
        assert_eq!(kept[kept.len() - 2].number, 999);
        log.shrink(10);
        assert_eq!(log.to_vec().len(), 1);
    }

    #[test]
    fn an_event_is_added_once() {
        let mut log = EventLog::of(&[event(3, EventKind::Accepted, ""), event(5, EventKind::Ended, "")], 7);
        log.push(event(5, EventKind::Ended, ""));
        log.push(event(4, EventKind::Publish, ""));
        assert_eq!((log.after(0).count(), log.after(3).count(), log.left_out()), (2, 1, 7));
    }
}
