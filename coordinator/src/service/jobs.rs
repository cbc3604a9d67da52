//! The service that people and programs ask: submit, look, cancel, drain.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tally_proto::v1::jobs_server::Jobs;
use tally_proto::{JobId, WorkerId, v1};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Leading, Role, stepping_down};
use crate::cluster::WorkerInput;
use crate::driver::{Input, Refusal, Submit};
use crate::history::is_over;
use crate::job::JobSpec;

/// Entries in a page where none are asked for, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Jobs that are watched at a time, by all clients together.
const WATCHERS: usize = 1024;
/// Between two statuses of a watched job.
const PACE: Duration = Duration::from_millis(250);

/// The service.
pub struct JobsService {
    role: Arc<Role>,
    watchers: Arc<Semaphore>,
}

impl JobsService {
    /// The service of a coordinator in that role.
    pub fn new(role: Arc<Role>) -> Self {
        JobsService { role, watchers: Arc::new(Semaphore::new(WATCHERS)) }
    }
}

fn job_id(text: &str) -> Result<JobId, Status> {
    JobId::parse(text).map_err(|e| Status::invalid_argument(format!("job: {e}")))
}

fn worker_id(text: &str) -> Result<WorkerId, Status> {
    WorkerId::parse(text).map_err(|e| Status::invalid_argument(format!("worker: {e}")))
}

fn unknown(job: &JobId) -> Status {
    Status::not_found(format!("there is no job {job}, or it is forgotten: `tally jobs` lists those known"))
}

fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE.0,
        asked => asked.min(PAGE.1),
    }
}

async fn send(leading: &Leading, input: Input) -> Result<(), Status> {
    leading.sender.send(input).await.map_err(|_| stepping_down())
}

async fn ask<T>(
    leading: &Leading,
    question: impl FnOnce(oneshot::Sender<T>) -> WorkerInput,
) -> Result<T, Status> {
    let (reply, answer) = oneshot::channel();
    send(leading, Input::Worker(Box::new(question(reply)))).await?;
    answer.await.map_err(|_| stepping_down())
}

#[tonic::async_trait]
impl Jobs for JobsService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::JobStatus, Status>> + Send>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let leading = self.role.accepting()?;
        let asked = request.into_inner().spec.ok_or_else(|| Status::invalid_argument("there is no spec"))?;
        // Looks at the disk.
        let spec = tokio::task::spawn_blocking(move || JobSpec::asked(asked)).await;
        let spec = spec.map_err(|e| Status::internal(e.to_string()))?.map_err(Status::invalid_argument)?;
        let (accepted, answer) = oneshot::channel();
        send(&leading, Input::Submit(Box::new(Submit { spec, accepted, ended: None }))).await?;
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
                    Refusal::Full(_) => Status::resource_exhausted(what),
                })
            }
        }
    }

    async fn get(&self, request: Request<v1::JobRequest>) -> Result<Response<v1::JobStatus>, Status> {
        let leading = self.role.leading()?;
        let job = job_id(&request.into_inner().job)?;
        leading.registry.get(&job).map(Response::new).ok_or_else(|| unknown(&job))
    }

    async fn watch(&self, request: Request<v1::JobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let leading = self.role.leading()?;
        let job = job_id(&request.into_inner().job)?;
        let mut watched = leading.registry.watch(&job).ok_or_else(|| unknown(&job))?;
        let busy = |_| {
            Status::resource_exhausted(format!("{WATCHERS} clients follow jobs already: come back later"))
        };
        let place = self.watchers.clone().try_acquire_owned().map_err(busy)?;
        watched.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        let stopped = leading.sender.clone();
        tokio::spawn(async move {
            let _place = place;
            loop {
                let changed = tokio::select! {
                    changed = watched.changed() => changed.is_ok(),
                    () = stopped.closed() => {
                        let _ = sender.send(Err(stepping_down())).await;
                        return;
                    }
                    () = sender.closed() => return,
                };
                let status = watched.borrow_and_update().clone();
                let over = is_over(&status) || !changed;
                if sender.send(Ok(status)).await.is_err() || over {
                    return;
                }
                tokio::time::sleep(PACE).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::JobPage>, Status> {
        let leading = self.role.leading()?;
        let asked = request.into_inner();
        let page = leading.registry.page(page_size(asked.page_size), &asked.page_token);
        let (jobs, next_page_token) =
            page.ok_or_else(|| Status::invalid_argument("page_token: give what the page before said"))?;
        Ok(Response::new(v1::JobPage { jobs, next_page_token }))
    }

    async fn cancel(&self, request: Request<v1::JobRequest>) -> Result<Response<v1::JobStatus>, Status> {
        let leading = self.role.leading()?;
        let job = job_id(&request.into_inner().job)?;
        let status = leading.registry.get(&job).ok_or_else(|| unknown(&job))?;
        tracing::info!(%job, "somebody cancels a job");
        send(&leading, Input::Cancel(job)).await?;
        Ok(Response::new(status))
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
        let (workers, more) = ask(&leading, |reply| WorkerInput::List(after, size, reply)).await?;
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
        tracing::info!(%worker, "somebody drains a worker");
        let answer = ask(&leading, |reply| WorkerInput::Drain(worker.clone(), reply)).await?;
        answer.map(Response::new).ok_or_else(|| Status::not_found(format!("there is no worker {worker}")))
    }
}
