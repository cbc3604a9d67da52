//! One request to the leader: coordinators are asked in turn, round after round, for a bounded time.
//!
//! Not here: which coordinator is asked next (`tally_common::discovery::leader`), the content of requests.

use std::time::Duration;

use tally_common::discovery::leader::{Candidate, Leader, Source};
use tally_common::security::{Bearer, Dialer};
use tally_proto::MESSAGE_BYTES;
use tally_proto::v1::jobs_client::JobsClient;
use tokio::time::{Instant, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{ClientError, Patience};

/// The time limit for an answer, or for the first message of a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of one coordinator.
pub(super) type Jobs = JobsClient<InterceptedService<Channel, Bearer>>;

/// A client of the coordinators of one cluster. It connects at the first request.
pub struct Client {
    leader: Leader,
    bearer: Bearer,
    patience: Patience,
    notice: Box<dyn Fn(&str)>,
    connected: Option<Candidate>,
    /// The user was notified of a problem that is not over.
    notified: bool,
    /// A coordinator has answered.
    answered: bool,
}

impl Client {
    /// A client that connects through `dialer`. It passes a sentence to `notice` when it does not find the leader at once.
    pub fn new(source: Source, dialer: Dialer, patience: Patience, notice: impl Fn(&str) + 'static) -> Self {
        let (notice, bearer) = (Box::new(notice), dialer.bearer());
        Client {
            leader: Leader::new(source, dialer),
            bearer,
            patience,
            notice,
            connected: None,
            notified: false,
            answered: false,
        }
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The address of the coordinator that answered last; empty if there is none.
    pub fn address(&self) -> String {
        self.connected.as_ref().map(|found| found.address.to_string()).unwrap_or_default()
    }

    pub(super) fn tell(&self, text: &str) {
        (self.notice)(text);
    }

    /// Notifies the user of a problem, once until it is over.
    pub(super) fn trouble(&mut self, address: &str, reason: &str, patience: Duration) {
        if !std::mem::replace(&mut self.notified, true) {
            let seconds = patience.as_secs_f64().ceil();
            self.tell(&format!(
                "{address}: {reason}; looking for the leading coordinator for up to {seconds} s"
            ));
        }
    }

    /// The problem is over; returns whether the user was notified of it.
    pub(super) fn trouble_over(&mut self) -> bool {
        std::mem::take(&mut self.notified)
    }

    /// Asks with the usual time limit.
    pub(super) async fn ask<T>(
        &mut self,
        what: &str,
        question: impl AsyncFn(Jobs) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let answer = self.ask_until(Instant::now() + self.patience.ask, what, question).await;
        self.notified = false;
        answer
    }

    /// Asks all coordinators in turn until the leader answers, or the time is over and each was asked.
    pub(super) async fn ask_until<T>(
        &mut self,
        until: Instant,
        what: &str,
        question: impl AsyncFn(Jobs) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        loop {
            let found = match &self.connected {
                Some(found) => Ok(found.clone()),
                None => self.leader.next().await,
            };
            let found = match found {
                Ok(found) => found,
                Err(none) if none.handshakes_failed && !self.answered => {
                    return Err(ClientError::Handshake { tried: none.tried });
                }
                Err(none) if Instant::now() >= until => {
                    return Err(ClientError::no_leader(none.tried, started.elapsed()));
                }
                Err(none) => {
                    let (address, reason) = none.tried.first().cloned().unwrap_or_default();
                    self.trouble(&address, &reason, until.saturating_duration_since(started));
                    self.leader.pause().await;
                    continue;
                }
            };
            let jobs = JobsClient::with_interceptor(found.channel.clone(), self.bearer.clone())
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES);
            let late =
                |_| Status::deadline_exceeded(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
            let answer = self.leader.unless_succeeded(&found, question(jobs));
            match timeout(ANSWER_TIMEOUT, answer).await.map_err(late).flatten() {
                Ok(answer) => {
                    self.leader.leads(&found);
                    self.answered = true;
                    self.connected = Some(found);
                    return Ok(answer.into_inner());
                }
                Err(status) => self.lost(&found, &status, what)?,
            }
        }
    }

    /// Disconnects from the coordinator that answered `status`.
    ///
    /// # Errors
    /// The answer is final: another coordinator, or a later request, would give the same.
    pub(super) fn lost(&mut self, found: &Candidate, status: &Status, what: &str) -> Result<(), ClientError> {
        self.connected = None;
        match self.leader.refused(found, status) {
            true => Ok(()),
            false => Err(ClientError::refused(&found.address.to_string(), what, status)),
        }
    }

    /// The next message of the coordinator that answered last, unless another coordinator leads meanwhile.
    pub(super) async fn hear<T>(&self, said: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match &self.connected {
            Some(found) => self.leader.unless_succeeded(found, said).await,
            None => said.await,
        }
    }

    /// The coordinator that answered last.
    pub(super) fn connected(&self) -> Option<Candidate> {
        self.connected.clone()
    }
}
