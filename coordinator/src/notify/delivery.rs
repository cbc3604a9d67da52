//! Delivers the notices of a term: a task per receiver sends them one after another, so that the start of a job comes before
//! its end. A failed notice is tried again for a limited time, and then given up.
//!
//! Each delivered notice of an end is reported to the driver, which has it noted in the journal. So a later leader sends only
//! what is missing. Not here: the queues (`queue`), contents (`webhook`, `lineage`).

use std::sync::Arc;
use std::time::Duration;

use tally_common::receiver::{PostError, Receiver};
use tally_common::retry::RetryPolicy;
use tally_common::secrets;
use tally_proto::{JobId, v1};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lineage::{self, Context};
use super::queue::{Fate, Kind, Moment, Notice, Notices, count};
use super::webhook;
use crate::driver::{DriverInput, recorded_detail};
use crate::history::Registry;

/// The retries of a notice.
pub const RETRY: RetryPolicy = RetryPolicy::doubling(Duration::from_secs(1), Duration::from_secs(60))
    .with_deadline(Duration::from_secs(900))
    .with_jitter(0.2);

/// What is sent to a receiver.
#[derive(Debug, Clone)]
pub enum Content {
    /// The job in JSON.
    Webhook,
    /// Events of OpenLineage.
    OpenLineage(Context),
}

/// A receiver, and what is sent to it.
#[derive(Debug)]
pub struct Sink {
    /// What is sent.
    pub content: Content,
    /// Where.
    pub receiver: Receiver,
    /// When a notice is tried again.
    pub retry: RetryPolicy,
}

/// A notice that is ready to be sent.
struct Message {
    key: String,
    json: String,
}

impl Sink {
    fn kind(&self) -> Kind {
        match self.content {
            Content::Webhook => Kind::Webhook,
            Content::OpenLineage(_) => Kind::OpenLineage,
        }
    }

    /// The content of a notice, without secrets; `None` if there is nothing to send for such a job.
    fn message(&self, status: &v1::JobStatus, moment: Moment) -> Option<Message> {
        let (key, json) = match &self.content {
            Content::Webhook => (webhook::key(status), webhook::body(status).ok()?),
            Content::OpenLineage(context) => {
                let key = format!("{}:{}", status.job, lineage::event_type(status, moment));
                (key, lineage::event(status, moment, context)?.to_string())
            }
        };
        Some(Message { key, json: secrets::cut_output(&json).into_owned() })
    }

    /// Sends a message, again and again until it is accepted, refused, or the time for retries is over.
    async fn send(&self, message: &Message, failing: &mut bool) -> Result<(), PostError> {
        let mut retries = self.retry.start();
        loop {
            let error = match self.receiver.post(&message.key, message.json.clone()).await {
                Ok(()) => {
                    if std::mem::take(failing) {
                        tracing::info!(receiver = self.receiver.shown(), "notices are delivered again");
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            if !std::mem::replace(failing, true) {
                let (kind, receiver) = (self.kind().name(), self.receiver.shown());
                tracing::warn!(kind, receiver, %error, "notices of jobs cannot be delivered");
            }
            if !error.is_transient() {
                return Err(error);
            }
            let Some(delay) = retries.next() else { return Err(error) };
            count(self.kind(), Fate::Retried);
            tokio::time::sleep(delay).await;
        }
    }
}

/// The receivers of a process.
#[derive(Debug, Clone, Default)]
pub struct Sinks(pub Vec<Arc<Sink>>);

/// The tasks that deliver the notices of a term, until it is dropped. What they have not delivered by then is left to the next
/// leader.
#[derive(Debug)]
pub struct Deliveries {
    _tasks: JoinSet<()>,
}

/// A receiver's side of its queue.
struct Delivery {
    sink: Arc<Sink>,
    registry: Arc<Registry>,
    driver: mpsc::Sender<DriverInput>,
    /// The last try failed.
    failing: bool,
}

impl Sinks {
    /// Starts the delivery of a term's notices. `registry` knows the jobs, and passes new notices on; `driver` hears of the
    /// delivered ones. `undelivered` returns the jobs whose ends an earlier leader has not reported to a receiver of that name.
    pub fn start(
        &self,
        registry: &Arc<Registry>,
        driver: &mpsc::Sender<DriverInput>,
        undelivered: impl Fn(&str) -> Vec<JobId>,
    ) -> Deliveries {
        let (mut notices, mut tasks) = (Notices::default(), JoinSet::new());
        for sink in &self.0 {
            let (kind, queue) = (sink.kind(), notices.add(sink.kind()));
            let (registry, driver) = (registry.clone(), driver.clone());
            let mut delivery = Delivery { sink: sink.clone(), registry, driver, failing: false };
            let earlier = undelivered(kind.name());
            tasks.spawn(async move { delivery.run(earlier, queue).await });
        }
        registry.announce_to(notices);
        Deliveries { _tasks: tasks }
    }
}

impl Delivery {
    async fn run(&mut self, earlier: Vec<JobId>, mut queue: mpsc::Receiver<Notice>) {
        for job in earlier {
            self.deliver(Notice { job, moment: Moment::End }).await;
        }
        while let Some(notice) = queue.recv().await {
            self.deliver(notice).await;
        }
    }

    /// The job of a notice as it is shown to clients.
    fn status(&self, notice: &Notice) -> Option<v1::JobStatus> {
        let mut status = self.registry.get(&notice.job)?;
        if notice.moment == Moment::End {
            status.elapsed_millis = status.ended_at.saturating_sub(status.submitted_at);
            status.detail = self.registry.notes(&notice.job).map(|notes| recorded_detail(&notes));
        }
        Some(status)
    }

    async fn deliver(&mut self, notice: Notice) {
        let kind = self.sink.kind();
        let status = self.status(&notice);
        let Some(message) = status.and_then(|status| self.sink.message(&status, notice.moment)) else {
            tracing::warn!(job = %notice.job, kind = kind.name(), "a notice is dropped: its job is no longer known");
            count(kind, Fate::Dropped);
            return;
        };
        let Notice { job, moment } = notice;
        match self.sink.send(&message, &mut self.failing).await {
            Ok(()) => {
                count(kind, Fate::Delivered);
                if moment == Moment::End {
                    // A closed inbox means that the term ends: the next leader sends the notice again.
                    let _ = self.driver.send(DriverInput::Notified(job, kind.name())).await;
                }
            }
            Err(error) => {
                count(kind, Fate::GivenUp);
                let receiver = self.sink.receiver.shown();
                tracing::warn!(%job, kind = kind.name(), receiver, %error, "a notice of a job is given up");
            }
        }
    }
}
