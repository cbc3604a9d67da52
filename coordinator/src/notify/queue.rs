//! The bounded queues of notices, one per receiver. A job never waits for them: a notice that finds its queue full is dropped,
//! counted and logged.
//!
//! Not here: who takes notices out of a queue (`delivery`).

use std::sync::atomic::{AtomicU64, Ordering};

use tally_common::metrics::Page;
use tally_common::warn_limited;
use tally_proto::JobId;
use tokio::sync::mpsc;

/// Notices that may wait for one receiver. They are only ids of jobs.
const QUEUE: usize = 4096;

/// A kind of receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A webhook.
    Webhook,
    /// A collector of OpenLineage's events.
    OpenLineage,
}

/// All kinds.
const KINDS: [Kind; 2] = [Kind::Webhook, Kind::OpenLineage];

impl Kind {
    /// Its name in metrics, in the log and in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Webhook => "webhook",
            Kind::OpenLineage => "openlineage",
        }
    }
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The job is accepted. Only OpenLineage has such events.
    Start,
    /// The job has ended, and its end is in the journal.
    End,
}

/// What became of a notice, or of one try to deliver it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has it.
    Delivered,
    /// A try failed, and another one follows.
    Retried,
    /// It was given up. It is sent again by the next leader, if it is that of an end.
    GivenUp,
    /// It did not fit into the queue, or its job was forgotten meanwhile.
    Dropped,
}

const FATES: [(Fate, &str); 4] = [
    (Fate::Delivered, "delivered"),
    (Fate::Retried, "retried"),
    (Fate::GivenUp, "given_up"),
    (Fate::Dropped, "dropped"),
];

/// The notices of this process by kind and fate.
static COUNTS: [[AtomicU64; FATES.len()]; KINDS.len()] =
    [const { [const { AtomicU64::new(0) }; FATES.len()] }; KINDS.len()];

/// Counts what became of a notice.
pub(super) fn count(kind: Kind, fate: Fate) {
    let kind = KINDS.iter().position(|known| *known == kind);
    let fate = FATES.iter().position(|(known, _)| *known == fate);
    if let (Some(kind), Some(fate)) = (kind, fate) {
        COUNTS[kind][fate].fetch_add(1, Ordering::Relaxed);
    }
}

/// Adds the counts of notices to a page.
pub fn metrics(page: &mut Page) {
    let labelled = KINDS.iter().zip(&COUNTS).flat_map(|(kind, counts)| {
        FATES.iter().zip(counts).map(|((_, fate), count)| {
            let labels = vec![("kind", kind.name().to_string()), ("outcome", fate.to_string())];
            (labels, count.load(Ordering::Relaxed) as f64)
        })
    });
    page.counters("tally_notices", "Notices of jobs to webhooks and OpenLineage, by outcome", labelled);
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The job.
    pub job: JobId,
    /// What it is about.
    pub moment: Moment,
}

/// The sending sides of the queues.
#[derive(Debug, Default)]
pub struct Notices {
    queues: Vec<(Kind, mpsc::Sender<Notice>)>,
}

impl Notices {
    /// Adds the queue of a receiver; returns its other side.
    pub fn add(&mut self, kind: Kind) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.queues.push((kind, sender));
        receiver
    }

    /// The names of the receivers that have to be notified of the end of a job.
    pub fn kinds(&self) -> Vec<String> {
        self.queues.iter().map(|(kind, _)| kind.name().into()).collect()
    }

    /// Notifies all receivers that expect such notices. Never waits.
    pub fn send(&self, job: &JobId, moment: Moment) {
        for (kind, queue) in &self.queues {
            if (*kind, moment) == (Kind::Webhook, Moment::Start) {
                continue;
            }
            let full = queue.try_send(Notice { job: job.clone(), moment });
            // A closed queue means that the term ends: the next leader sends the notice.
            if let Err(mpsc::error::TrySendError::Full(_)) = full {
                count(*kind, Fate::Dropped);
                warn_limited!(%job, kind = kind.name(), "a notice is dropped, because {QUEUE} others wait for their receiver");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_notices_and_delays_no_job() {
        let mut notices = Notices::default();
        let mut waiting = notices.add(Kind::OpenLineage);
        for number in 0..QUEUE + 5 {
            notices.send(&JobId::parse(&format!("j{number}")).unwrap(), Moment::End);
        }
        let kept = std::iter::from_fn(|| waiting.try_recv().ok()).map(|notice| notice.job.to_string());
        assert_eq!(kept.collect::<Vec<_>>(), (0..QUEUE).map(|n| format!("j{n}")).collect::<Vec<_>>());
        // Other tests count, too.
        assert!(COUNTS[1][3].load(Ordering::Relaxed) >= 5);
    }

    #[test]
    fn a_webhook_is_notified_of_ends_only() {
        let mut notices = Notices::default();
        let (mut webhook, mut lineage) = (notices.add(Kind::Webhook), notices.add(Kind::OpenLineage));
        assert_eq!(notices.kinds(), ["webhook", "openlineage"]);
        let job = JobId::parse("a").unwrap();
        notices.send(&job, Moment::Start);
        notices.send(&job, Moment::End);
        assert_eq!(webhook.try_recv().unwrap().moment, Moment::End);
        assert_eq!(lineage.try_recv().unwrap().moment, Moment::Start);
        assert_eq!(lineage.try_recv().unwrap().moment, Moment::End);
        drop(lineage);
        // The term ends: nothing is lost that the journal does not have.
        notices.send(&job, Moment::End);
    }
}
