//! Asks the leader for what `tally top` shows, the lists, or the open job and the workers: twice per second, and one request after the
//! other. After the loss of a leader it asks until another one answers.
//!
//! Not here: what is done with the answers (`app`), finding the leader (`tally_coordinator::client`).

use std::time::Duration;

use tally_coordinator::client::{Client, ClientError};
use tally_proto::v1::JobStatus;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::app::{Cluster, Update};
use crate::{Stop, show};

/// The time from one question to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// The questions of the screen.
pub struct Questions {
    /// The open job; `None` for the lists.
    pub open: watch::Receiver<Option<String>>,
    /// Jobs to cancel.
    pub cancel: mpsc::Receiver<String>,
}

/// The lists, once.
///
/// # Errors
/// [`ClientError`].
pub async fn cluster(client: &mut Client) -> Result<Cluster, ClientError> {
    let (jobs, more_jobs) = client.newest_jobs().await?;
    let (workers, more_workers) = client.first_workers().await?;
    Ok(Cluster { leader: client.address(), jobs, more_jobs, workers, more_workers })
}

/// What the leader answers about the open job and the workers, or about all jobs and the workers.
async fn answers(client: &mut Client, open: Option<String>) -> Vec<Update> {
    let failed = |error: ClientError| match error {
        ClientError::NoLeader { .. } | ClientError::Handshake { .. } => Update::Trouble(error.to_string()),
        refusal => Update::Refused(refusal.to_string()),
    };
    let Some(id) = open else {
        return vec![cluster(client).await.map_or_else(failed, Update::Cluster)];
    };
    let workers = match client.first_workers().await {
        Ok((workers, more)) => Update::Workers(workers, more),
        Err(error) => return vec![failed(error)],
    };
    let job = client.job(&id).await.map_or_else(failed, |job| Update::Job(Box::new(job)));
    vec![workers, job]
}

/// The effect of a cancellation, as a sentence.
fn effect(answer: Result<JobStatus, ClientError>) -> String {
    match answer.map(|job| (show::cancelled(&job), job)) {
        Ok((Ok(()), job)) => format!("job {} is cancelled", job.job),
        Ok((Err(Stop::Failed(why)), _)) => why,
        Ok((Err(_), job)) => format!("job {} is not cancelled", job.job),
        Err(error) => error.to_string(),
    }
}

/// Asks until the screen is closed.
pub async fn run(mut client: Client, mut questions: Questions, updates: mpsc::Sender<Update>) {
    loop {
        let begun = Instant::now();
        let open = questions.open.borrow_and_update().clone();
        for update in answers(&mut client, open).await {
            if updates.send(update).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep_until(begun + INTERVAL) => {}
            changed = questions.open.changed() => if changed.is_err() { return },
            job = questions.cancel.recv() => {
                let Some(job) = job else { return };
                let effect = effect(client.cancel(&job).await);
                if updates.send(Update::Cancelled(effect)).await.is_err() {
                    return;
                }
            }
        }
    }
}
