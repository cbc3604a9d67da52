//! Speaks to whichever coordinator leads: finds it, and follows a job when another takes over.
//!
//! `reach` finds the leader; this is what it is asked. Not here: what commands do with the answers
//! (`cli`), how a coordinator answers.

mod reach;

use std::time::Duration;

use tally_proto::v1::{self, JobState};
use tally_worker::leader::why;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

pub use reach::Client;
pub use tally_worker::leader::{Address, Source};

/// How long a client looks for a coordinator that leads.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each question.
    pub ask: Duration,
    /// While a job is followed, from the moment at which its leader was lost.
    pub follow: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody leads, or nobody can be reached.
    #[error("no leading coordinator answered within {:.0} s:{}", waited.as_secs_f64(), listed(tried))]
    NoLeader {
        /// Each place once, with its last reason.
        tried: Vec<(String, String)>,
        /// How long it was tried.
        waited: Duration,
    },
    /// The job, or the worker, does not exist.
    #[error("{what} is not known to the coordinator at {address}: {message}")]
    Unknown {
        /// What was asked for, such as `job x`.
        what: String,
        /// Who was asked.
        address: String,
        /// Its answer.
        message: String,
    },
    /// The request makes no sense to the leader.
    #[error("the coordinator at {address} refuses: {message}")]
    Invalid {
        /// Who was asked.
        address: String,
        /// Its answer.
        message: String,
    },
    /// The leader will not do it.
    #[error("the coordinator at {address} refuses: {message}")]
    Refused {
        /// Who was asked.
        address: String,
        /// Its answer.
        message: String,
    },
}

fn listed(tried: &[(String, String)]) -> String {
    tried.iter().map(|(address, reason)| format!("\n  {address}: {}", plain(reason))).collect()
}

/// What another process said, on one line and of bearable length.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}

impl ClientError {
    /// Keeps the last word of each address.
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

/// Whether a job in this state changes no more.
pub fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Done | JobState::Failed | JobState::Cancelled)
}

/// Pauses between tries double up to a limit.
struct Backoff(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Backoff {
    fn new() -> Self {
        Backoff(FIRST_PAUSE)
    }

    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Entries of a page: few enough for a message of 4 MiB, whatever paths a job has.
const PAGE: u32 = 200;

impl Client {
    /// Hands a job in.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::NoLeader`] the job may have been taken all the same.
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

    /// Asks for a job's end; answers with its status at that time.
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

    /// Asks for a worker's drain; answers with its status at that time.
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
        let mut request = v1::ListRequest { page_size: PAGE, page_token: String::new() };
        loop {
            let (entries, next) = page(self, request.clone()).await?;
            // A leader that answers with the same page again and again is no reason to hang.
            if !next.is_empty() && (next == request.page_token || entries.is_empty()) {
                let message = format!("page {next:?} does not go on; is it of another version?");
                return Err(ClientError::Refused { address: self.address(), message });
            }
            all.extend(entries);
            if next.is_empty() {
                return Ok(all);
            }
            request.page_token = next;
        }
    }

    /// Gives each status of a job to `changed` until it is over, and then that one. When the leader
    /// is lost it goes on with the next one.
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
        let mut backoff = Backoff::new();
        // The moment of a loss that no word of the job has followed yet.
        let mut lost_at: Option<Instant> = None;
        self.trouble_over();
        loop {
            let until = lost_at.unwrap_or_else(Instant::now) + self.patience().follow;
            let mut stream =
                self.ask_until(until, &what, async |mut jobs| jobs.watch(request.clone()).await).await?;
            let lost = loop {
                match self.hear(stream.message()).await {
                    Ok(Some(status)) => {
                        if self.trouble_over() {
                            self.tell(&format!("following job {job} at {}", self.address()));
                        }
                        (lost_at, backoff) = (None, Backoff::new());
                        changed(&status);
                        if is_over(status.state()) {
                            return Ok(status);
                        }
                    }
                    Ok(None) => break Status::unavailable("it stopped telling of the job"),
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
            backoff.wait().await;
        }
    }
}
