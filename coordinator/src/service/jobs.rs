//! The service for clients: submit, get, watch, list and cancel jobs, and read their events; list and drain workers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::Stream;
use tally_proto::v1::jobs_server::Jobs;
use tally_proto::{JobId, WorkerId, v1};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{CoordinatorRole, Leading, stepping_down};
use crate::cluster::WorkerInput;
use crate::driver::{DriverInput, Refusal, Submit, recorded_detail};
use crate::estimate;
use crate::history::{FindError, is_over};
use crate::job::JobSpec;
use crate::job_id::new_key;

/// The default and the largest number of entries in a page.
const PAGE: (usize, usize) = (100, 1000);
/// The most watched jobs at a time, over all clients.
const WATCHERS: usize = 1024;
/// The shortest time between two statuses of a watched job.
const PACE: Duration = Duration::from_millis(250);

/// The longest time between two statuses of a watched job.
const REPEAT: Duration = Duration::from_secs(1);

/// The service.
pub struct JobsService {
    role: Arc<CoordinatorRole>,
    watchers: Arc<Semaphore>,
}

impl JobsService {
    /// The service of a coordinator in that role.
    pub fn new(role: Arc<CoordinatorRole>) -> Self {
        JobsService { role, watchers: Arc::new(Semaphore::new(WATCHERS)) }
    }
}

fn worker_id(text: &str) -> Result<WorkerId, Status> {
    WorkerId::parse(text).map_err(|e| Status::invalid_argument(format!("worker: {e}")))
}

pub(super) fn unknown(job: &JobId) -> Status {
    Status::not_found(FindError::Unknown(job.to_string()).to_string())
}

/// The job that a client names: by its id, a prefix, or `latest`. All of these have the form of an id.
pub(super) fn find(leading: &Leading, name: &str) -> Result<JobId, Status> {
    JobId::parse(name).map_err(|e| Status::invalid_argument(format!("job: {e}")))?;
    leading.registry.find(name).map_err(|error| match error {
        FindError::Unknown(_) => Status::not_found(error.to_string()),
        FindError::Ambiguous { .. } => Status::invalid_argument(error.to_string()),
    })
}

/// Sets the times of a status, which pass also while it does not change.
fn timed(mut status: v1::JobStatus) -> v1::JobStatus {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let until = if status.ended_at > 0 { status.ended_at } else { now };
    status.elapsed_millis = until.saturating_sub(status.submitted_at);
    let left = estimate::remaining(&status, Duration::from_millis(status.elapsed_millis));
    status.remaining_millis = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    status
}

fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE.0,
        asked => asked.min(PAGE.1),
    }
}

async fn send(leading: &Leading, input: DriverInput) -> Result<(), Status> {
    leading.sender.send(input).await.map_err(|_| stepping_down())
}

pub(super) async fn ask<T>(
    leading: &Leading,
    question: impl FnOnce(oneshot::Sender<T>) -> DriverInput,
) -> Result<T, Status> {
    let (reply, answer) = oneshot::channel();
    send(leading, question(reply)).await?;
    answer.await.map_err(|_| stepping_down())
}

async fn ask_workers<T>(
    leading: &Leading,
    question: impl FnOnce(oneshot::Sender<T>) -> WorkerInput,
) -> Result<T, Status> {
    ask(leading, |reply| DriverInput::Worker(Box::new(question(reply)))).await
}

/// Waits between two statuses of a watched job. The end of the job ends the wait: `submit` exits with it.
pub(super) async fn pause(watched: &watch::Receiver<v1::JobStatus>, pace: Duration) {
    let mut end = watched.clone();
    tokio::select! {
        () = tokio::time::sleep(pace) => {}
        // An error means that the job is no longer known.
        _ = end.wait_for(is_over) => {}
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::JobStatus, Status>> + Send>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let leading = self.role.accepting()?;
        let asked =
            request.into_inner().spec.ok_or_else(|| Status::invalid_argument("the spec is missing"))?;
        // Resolving paths blocks.
        let spec = tokio::task::spawn_blocking(move || JobSpec::asked(asked)).await;
        let spec = spec
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (accepted, answer) = oneshot::channel();
        let submit = Submit { spec, key: new_key(), accepted, ended: None };
        send(&leading, DriverInput::Submit(Box::new(submit))).await?;
        match answer.await.map_err(|_| stepping_down())? {
            Ok(accepted) => Ok(Response::new(v1::SubmitReply {
                job: accepted.job.to_string(),
                existing: accepted.existing,
            })),
            Err(refusal) => {
                let what = refusal.to_string();
                Err(match refusal {
                    Refusal::Dataset(_) => Status::invalid_argument(what),
                    Refusal::OtherInputs { .. } => Status::already_exists(what),
                    Refusal::Full(_) | Refusal::BeingCancelled(_) => Status::resource_exhausted(what),
                })
            }
        }
    }

    async fn get(&self, request: Request<v1::JobRequest>) -> Result<Response<v1::JobStatus>, Status> {
        let leading = self.role.leading()?;
        let job = find(&leading, &request.into_inner().job)?;
        let live = ask(&leading, |reply| DriverInput::Describe(job.clone(), reply)).await?;
        let status = leading.registry.get(&job).ok_or_else(|| unknown(&job))?;
        let recorded = || leading.registry.notes(&job).map(|notes| recorded_detail(&notes));
        let detail = live.filter(|_| !is_over(&status)).or_else(recorded);
        Ok(Response::new(timed(v1::JobStatus { detail, ..status })))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventPage>, Status> {
        let leading = self.role.leading()?;
        let v1::EventsRequest { job, after } = request.into_inner();
        let job = find(&leading, &job)?;
        let live = ask(&leading, |reply| DriverInput::Events(job.clone(), after, reply)).await?;
        // The end of a job is shown after it is in the journal.
        let over = leading.registry.get(&job).is_some_and(|status| is_over(&status));
        let page = match (live, leading.registry.notes(&job)) {
            (_, Some(notes)) if over => v1::EventPage {
                job: job.to_string(),
                events: notes.events.iter().filter(|event| event.number > after).cloned().collect(),
                left_out: notes.left_out,
                over,
            },
            (Some(page), _) => page,
            (None, _) => v1::EventPage { job: job.to_string(), over, ..v1::EventPage::default() },
        };
        Ok(Response::new(page))
    }

    async fn watch(&self, request: Request<v1::JobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let leading = self.role.leading()?;
        let job = find(&leading, &request.into_inner().job)?;
        let mut watched = leading.registry.watch(&job).ok_or_else(|| unknown(&job))?;
        let busy = |_| {
            Status::resource_exhausted(format!(
                "{WATCHERS} clients follow jobs, which is the limit: try again later"
            ))
        };
        let permit = self.watchers.clone().try_acquire_owned().map_err(busy)?;
        watched.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        let stopped = leading.sender.clone();
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                let changed = tokio::select! {
                    changed = watched.changed() => changed.is_ok(),
                    // The times pass, and a client sees that the coordinator is alive.
                    () = tokio::time::sleep(REPEAT) => true,
                    () = stopped.closed() => {
                        let _ = sender.send(Err(stepping_down())).await;
                        return;
                    }
                    () = sender.closed() => return,
                };
                let status = watched.borrow_and_update().clone();
                let over = is_over(&status) || !changed;
                if sender.send(Ok(timed(status))).await.is_err() || over {
                    return;
                }
                pause(&watched, PACE).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::JobPage>, Status> {
        let leading = self.role.leading()?;
        let asked = request.into_inner();
        let page = leading.registry.page(page_size(asked.page_size), &asked.page_token);
        let (jobs, next_page_token) =
            page.ok_or_else(|| Status::invalid_argument("page_token: give the token of the page before"))?;
        let jobs = jobs.into_iter().map(timed).collect();
        Ok(Response::new(v1::JobPage { jobs, next_page_token }))
    }

    async fn cancel(&self, request: Request<v1::JobRequest>) -> Result<Response<v1::JobStatus>, Status> {
        let leading = self.role.leading()?;
        let job = find(&leading, &request.into_inner().job)?;
        tracing::info!(%job, "a client cancels a job");
        let (reply, recorded) = oneshot::channel();
        send(&leading, DriverInput::Cancel(job.clone(), reply)).await?;
        recorded.await.map_err(|_| stepping_down())?;
        let status = leading.registry.get(&job).ok_or_else(|| unknown(&job))?;
        Ok(Response::new(timed(status)))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::WorkerPage>, Status> {
        let leading = self.role.leading()?;
        let asked = request.into_inner();
        let after = match asked.page_token.as_str() {
            "" => None,
            token => Some(worker_id(token)?),
        };
        let size = page_size(asked.page_size);
        let (workers, more) = ask_workers(&leading, |reply| WorkerInput::List(after, size, reply)).await?;
        let last = workers.last().map(|worker: &v1::WorkerStatus| worker.worker.clone());
        let next_page_token = last.filter(|_| more).unwrap_or_default();
        Ok(Response::new(v1::WorkerPage { workers, next_page_token }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::WorkerRequest>,
    ) -> Result<Response<v1::WorkerStatus>, Status> {
        let leading = self.role.leading()?;
        let worker = worker_id(&request.into_inner().worker)?;
        tracing::info!(%worker, "a client drains a worker");
        let answer = ask_workers(&leading, |reply| WorkerInput::Drain(worker.clone(), reply)).await?;
        answer.map(Response::new).ok_or_else(|| Status::not_found(format!("there is no worker {worker}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_watched_job_is_sent_without_a_pause() {
        let (shown, watched) = watch::channel(v1::JobStatus::default());
        let long = tokio::spawn(async move { pause(&watched, Duration::from_secs(3600)).await });
        shown.send_modify(|status| status.phase = "reduce".into());
        tokio::task::yield_now().await;
        assert!(!long.is_finished(), "a change that is not the end");
        shown.send_modify(|status| status.set_state(v1::JobState::Done));
        tokio::time::timeout(Duration::from_secs(60), long).await.unwrap().unwrap();
    }
}
