//! A client of the leading coordinator: requests, and following a job across changes of the leader.
//!
//! `reach` finds the leader. Not here: what commands do with the answers (`cli`), how a coordinator answers (`service`).

mod reach;

use std::time::Duration;

use tally_common::discovery::leader::why;
use tally_common::retry::RetryPolicy;
use tally_proto::v1::{self, JobState};
use tokio::time::Instant;
use tonic::{Code, Status};

pub use reach::Client;
use reach::Jobs;
pub use tally_common::discovery::leader::{Address, Source};

/// The time for which a client looks for the leading coordinator.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each request.
    pub ask: Duration,
    /// While a job is followed: from the loss of the leader.
    pub follow: Duration,
}

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No coordinator leads, or none can be reached.
    #[error("no leading coordinator answered within {:.0} s:{}", waited.as_secs_f64(), listed(tried))]
    NoLeader {
        /// Each address once, with its last error.
        tried: Vec<(String, String)>,
        /// The time spent.
        waited: Duration,
    },
    /// The coordinators were reached, and no secure connection to them is possible as it is configured.
    #[error(
        "no connection to a coordinator is possible with these certificates:{}\nhint: check --tls-ca, --tls-cert and \
         --tls-key; give none of them only if the coordinator runs without TLS",
        listed(tried)
    )]
    Handshake {
        /// Each address with its error.
        tried: Vec<(String, String)>,
    },
    /// The job, or the worker, does not exist.
    #[error("{what} is not known to the coordinator at {address}: {message}")]
    Unknown {
        /// The subject of the request, such as `job x`.
        what: String,
        /// The coordinator.
        address: String,
        /// Its answer.
        message: String,
    },
    /// The leader finds the request invalid.
    #[error("the coordinator at {address} refuses: {message}")]
    Invalid {
        /// The coordinator.
        address: String,
        /// Its answer.
        message: String,
    },
    /// The leader refuses the request.
    #[error("the coordinator at {address} refuses: {message}")]
    Refused {
        /// The coordinator.
        address: String,
        /// Its answer.
        message: String,
    },
}

fn listed(tried: &[(String, String)]) -> String {
    tried.iter().map(|(address, reason)| format!("\n  {address}: {}", plain(reason))).collect()
}

/// The text of another process, on one line and cut to a limit.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}

impl ClientError {
    /// Keeps the last error of each address.
    fn no_leader(mut tried: Vec<(String, String)>, waited: Duration) -> Self {
        let all = std::mem::take(&mut tried);
        for (address, reason) in all {
            tried.retain(|(other, _)| *other != address);
            tried.push((address, reason));
        }
        ClientError::NoLeader { tried, waited }
    }

    fn refused(address: &str, what: &str, status: &Status) -> Self {
        let (address, message) = (address.to_string(), plain(status.message()));
        match status.code() {
            Code::NotFound => ClientError::Unknown { what: what.into(), address, message },
            Code::InvalidArgument => ClientError::Invalid { address, message },
            _ => ClientError::Refused { address, message },
        }
    }
}

/// Whether a job in this state has ended.
pub fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Done | JobState::Failed | JobState::Cancelled)
}

/// The answer of a coordinator that does not know an accepted job: another one may know it.
fn unavailable_if_unknown(status: Status) -> Status {
    match status.code() {
        Code::NotFound => Status::unavailable(status.message()),
        _ => status,
    }
}

/// The retries of a client that follows a job and lost its leader.
const FOLLOW_RETRY: RetryPolicy = RetryPolicy::doubling(Duration::from_millis(100), Duration::from_secs(1));

/// Entries of a page: few enough for a message of 4 MiB, even with long paths.
pub const PAGE: u32 = 200;

fn first_page() -> v1::ListRequest {
    v1::ListRequest { page_size: PAGE, page_token: String::new() }
}

impl Client {
    /// Submits a job.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::NoLeader`] the job may have been accepted nevertheless.
    pub async fn submit(&mut self, spec: &v1::JobSpec) -> Result<v1::SubmitReply, ClientError> {
        let request = v1::SubmitRequest { spec: Some(spec.clone()) };
        self.ask("the job", async |mut jobs| jobs.submit(request.clone()).await).await
    }

    /// A job's status.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&mut self, job: &str) -> Result<v1::JobStatus, ClientError> {
        let request = v1::JobRequest { job: job.into() };
        self.ask(&format!("job {job}"), async |mut jobs| jobs.get(request.clone()).await).await
    }

    /// The events of a job with larger numbers than `after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&mut self, job: &str, after: u64) -> Result<v1::EventPage, ClientError> {
        let request = v1::EventsRequest { job: job.into(), after };
        self.ask(&format!("job {job}"), async |mut jobs| jobs.events(request.clone()).await).await
    }

    /// Asks to cancel a job; returns its status at that time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&mut self, job: &str) -> Result<v1::JobStatus, ClientError> {
        let request = v1::JobRequest { job: job.into() };
        self.ask(&format!("job {job}"), async |mut jobs| jobs.cancel(request.clone()).await).await
    }

    /// All jobs that the leader knows, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn jobs(&mut self) -> Result<Vec<v1::JobStatus>, ClientError> {
        self.pages(async |client, request| {
            let page = client.ask("the list", async |mut jobs| jobs.list(request.clone()).await).await?;
            Ok((page.jobs, page.next_page_token))
        })
        .await
    }

    /// All workers that the leader knows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn workers(&mut self) -> Result<Vec<v1::WorkerStatus>, ClientError> {
        self.pages(async |client, request| {
            let page =
                client.ask("the list", async |mut jobs| jobs.list_workers(request.clone()).await).await?;
            Ok((page.workers, page.next_page_token))
        })
        .await
    }

    /// The newest jobs, at most a page, and whether the leader knows more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn newest_jobs(&mut self) -> Result<(Vec<v1::JobStatus>, bool), ClientError> {
        let page = self.ask("the list", async |mut jobs| jobs.list(first_page()).await).await?;
        Ok((page.jobs, !page.next_page_token.is_empty()))
    }

    /// The first workers, at most a page, and whether the leader knows more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn first_workers(&mut self) -> Result<(Vec<v1::WorkerStatus>, bool), ClientError> {
        let page = self.ask("the list", async |mut jobs| jobs.list_workers(first_page()).await).await?;
        Ok((page.workers, !page.next_page_token.is_empty()))
    }

    /// Asks to drain a worker; returns its status at that time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&mut self, worker: &str) -> Result<v1::WorkerStatus, ClientError> {
        let request = v1::WorkerRequest { worker: worker.into() };
        self.ask(&format!("worker {worker}"), async |mut jobs| jobs.drain_worker(request.clone()).await).await
    }

    async fn pages<T>(
        &mut self,
        page: impl AsyncFn(&mut Self, v1::ListRequest) -> Result<(Vec<T>, String), ClientError>,
    ) -> Result<Vec<T>, ClientError> {
        let mut all = vec![];
        let mut request = first_page();
        loop {
            let (entries, next) = page(self, request.clone()).await?;
            // Do not loop if a leader always returns the same page.
            if !next.is_empty() && (next == request.page_token || entries.is_empty()) {
                let message = format!(
                    "page {next:?} is returned repeatedly: does the coordinator have another version?"
                );
                return Err(ClientError::Refused { address: self.address(), message });
            }
            all.extend(entries);
            if next.is_empty() {
                return Ok(all);
            }
            request.page_token = next;
        }
    }

    /// Passes each status of an accepted job to `changed` until the job ends, and returns the last status. After the loss of
    /// the leader it continues with the next one. A coordinator that does not know the job does not lead any longer, even if
    /// it has not noticed that yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn follow(
        &mut self,
        job: &str,
        mut changed: impl FnMut(&v1::JobStatus),
    ) -> Result<v1::JobStatus, ClientError> {
        let request = v1::JobRequest { job: job.into() };
        let what = format!("job {job}");
        let mut retries = FOLLOW_RETRY.start();
        // The moment at which the leader was lost, until the next status is received.
        let mut lost_at: Option<Instant> = None;
        self.trouble_over();
        loop {
            let until = lost_at.unwrap_or_else(Instant::now) + self.patience().follow;
            let watch =
                async |mut jobs: Jobs| jobs.watch(request.clone()).await.map_err(unavailable_if_unknown);
            let mut stream = self.ask_until(until, &what, watch).await?;
            let lost = loop {
                match self.hear(stream.message()).await {
                    Ok(Some(status)) => {
                        if self.trouble_over() {
                            self.tell(&format!("following job {job} at {}", self.address()));
                        }
                        lost_at = None;
                        retries.reset();
                        changed(&status);
                        if is_over(status.state()) {
                            return Ok(status);
                        }
                    }
                    Ok(None) => break Status::unavailable("it ended the stream of the job's statuses"),
                    Err(status) => break status,
                }
            };
            let address = self.address();
            if let Some(found) = self.connected() {
                self.lost(&found, &lost, &what)?;
            }
            let waited = lost_at.get_or_insert_with(Instant::now).elapsed();
            let reason = why(&lost);
            if waited > self.patience().follow {
                return Err(ClientError::no_leader(vec![(address, reason)], waited));
            }
            self.trouble(&address, &plain(&reason), self.patience().follow);
            retries.wait().await;
        }
    }
}
