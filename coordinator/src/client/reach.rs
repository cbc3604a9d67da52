//! One question to whoever leads: coordinators are asked in turn, round after round, for a bounded
//! time.
//!
//! Not here: whom to ask next (`tally_worker::leader`), what is asked.

use std::time::Duration;

use tally_proto::MESSAGE_BYTES;
use tally_proto::v1::jobs_client::JobsClient;
use tally_worker::leader::{Found, Leader, Source};
use tally_worker::security::{Bearer, Dialer};
use tokio::time::{Instant, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{ClientError, Patience};

/// For an answer, or the beginning of one.
const ANSWER: Duration = Duration::from_secs(10);

type Jobs = JobsClient<InterceptedService<Channel, Bearer>>;

/// A client of the coordinators of one cluster. It connects when something is asked.
pub struct Client {
    leader: Leader,
    bearer: Bearer,
    patience: Patience,
    notice: Box<dyn Fn(&str)>,
    connected: Option<Found>,
    /// Somebody was told of trouble that is not over.
    told: bool,
}

impl Client {
    /// A client that connects by `dialer`, and gives `notice` a sentence when it has to look for a leader longer than usual.
    pub fn new(source: Source, dialer: Dialer, patience: Patience, notice: impl Fn(&str) + 'static) -> Self {
        let (notice, bearer) = (Box::new(notice), dialer.bearer());
        Client { leader: Leader::new(source, dialer), bearer, patience, notice, connected: None, told: false }
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// Who answered last.
    pub(super) fn address(&self) -> String {
        self.connected.as_ref().map(|found| found.address.to_string()).unwrap_or_default()
    }

    pub(super) fn tell(&self, text: &str) {
        (self.notice)(text);
    }

    /// Tells of trouble, once until it is over.
    pub(super) fn trouble(&mut self, address: &str, reason: &str, patience: Duration) {
        if !std::mem::replace(&mut self.told, true) {
            let seconds = patience.as_secs_f64().ceil();
            self.tell(&format!(
                "{address}: {reason}; looking for the leading coordinator for up to {seconds} s"
            ));
        }
    }

    /// Whether somebody was told of it.
    pub(super) fn trouble_over(&mut self) -> bool {
        std::mem::take(&mut self.told)
    }

    /// Asks with the usual patience.
    pub(super) async fn ask<T>(
        &mut self,
        what: &str,
        question: impl AsyncFn(Jobs) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let answer = self.ask_until(Instant::now() + self.patience.ask, what, question).await;
        self.told = false;
        answer
    }

    /// Asks everybody in turn until the leader answers, or the time is over and each was asked.
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
                Err(nobody) if Instant::now() >= until => {
                    return Err(ClientError::no_leader(nobody.tried, started.elapsed()));
                }
                Err(nobody) => {
                    let (address, reason) = nobody.tried.first().cloned().unwrap_or_default();
                    self.trouble(&address, &reason, until.saturating_duration_since(started));
                    self.leader.pause().await;
                    continue;
                }
            };
            let jobs = JobsClient::with_interceptor(found.channel.clone(), self.bearer.clone())
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES);
            let late = |_| Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs()));
            let answer = self.leader.unless_succeeded(&found, question(jobs));
            match timeout(ANSWER, answer).await.map_err(late).flatten() {
                Ok(answer) => {
                    self.leader.leads(&found);
                    self.connected = Some(found);
                    return Ok(answer.into_inner());
                }
                Err(status) => self.lost(&found, &status, what)?,
            }
        }
    }

    /// Lets go of the coordinator that answered `status`, or was seen to.
    ///
    /// # Errors
    /// Where the answer stands: nobody else, and no later time, would give another.
    pub(super) fn lost(&mut self, found: &Found, status: &Status, what: &str) -> Result<(), ClientError> {
        self.connected = None;
        match self.leader.refused(found, status) {
            true => Ok(()),
            false => Err(ClientError::refused(&found.address.to_string(), what, status)),
        }
    }

    /// What the one that answered last says further, unless another leads meanwhile.
    pub(super) async fn hear<T>(&self, said: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match &self.connected {
            Some(found) => self.leader.unless_succeeded(found, said).await,
            None => said.await,
        }
    }

    /// The coordinator that answered last.
    pub(super) fn connected(&self) -> Option<Found> {
        self.connected.clone()
    }
}
