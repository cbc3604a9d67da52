//! The coordinator's process from start to end: it listens, takes part in the election, leads while elected, and steps
//! down.

use std::sync::Arc;
use std::time::Duration;

use tally_common::refusal_log::Refusals;
use tally_common::security::{Guard, Security, incoming};
use tally_common::stores::urls::UrlError;
use tally_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use tally_proto::v1::jobs_server::JobsServer;
use tally_proto::{DESCRIPTORS, Epoch, MESSAGE_BYTES};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::CoordinatorRole;
use super::control::ControlService;
use super::jobs::JobsService;
use super::lead::{LeadError, LeadOptions, lead};
use super::scaler::ScalerService;
use super::wire::ControlServer;
use crate::driver::TermEnd;
use crate::election::{Election, Standing};
use crate::journal::JournalError;
use crate::journal::log::EpochLog;
use crate::journal::state_dir::StateDir;

/// The interval of keepalive pings on a silent connection, and the time limit for the answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The time limit for open requests when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for the check of the journal's format at the start.
const JOURNAL_CHECK: Duration = Duration::from_secs(10);
/// The largest headers of a request, in bytes.
const MAX_HEADERS: u32 = 16 << 10;
/// The most requests at a time on one connection.
const MAX_STREAMS: u32 = 256;

type Health = HealthReporter;
/// The services that only a leader provides, by their names in the health service.
const SERVICES: [&str; 2] = ["tally.v1.Control", "tally.v1.Jobs"];
/// The service that every coordinator provides: a standby asks the leader.
const SCALER: &str = "externalscaler.ExternalScaler";

/// The options of a coordinator's process.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The path or URL of the journal.
    pub state_dir: String,
    /// The options of its terms.
    pub lead: LeadOptions,
    /// Its current role.
    pub role: Arc<CoordinatorRole>,
    /// The security of connections in both directions.
    pub security: Arc<Security>,
}

/// The reason for which the process ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Asked,
    /// Another coordinator leads, which the text names, and there is no election in which to wait.
    Deposed(String),
}

/// The coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory's URL.
    #[error("--state-dir {0}")]
    StateDir(#[from] UrlError),
    /// The term.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The journal failed during a term.
    #[error("{0}")]
    Journal(String),
    /// The descriptors of the reflection service.
    #[error("the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Checks the journal before the process listens. In a roll-back, this coordinator then never becomes ready, and the newer
/// one goes on. A store that does not answer is an error only for a leader.
///
/// # Errors
/// [`ServeError`]: the state directory cannot be used, whatever happens later.
pub async fn check_journal(state_dir: &str) -> Result<(), ServeError> {
    let dir = StateDir::open(state_dir)?;
    let check = async {
        dir.require_writable().await?;
        EpochLog::check(&dir).await
    };
    match tokio::time::timeout(JOURNAL_CHECK, check).await {
        Ok(Err(error)) if error.is_permanent() => Err(LeadError::Journal(error).into()),
        _ => Ok(()),
    }
}

/// Serves until `until` resolves, or until another coordinator leads and there is no election.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    options: ServeOptions,
    election: Election,
    until: impl Future<Output = ()>,
) -> Result<Exit, ServeError> {
    let dir = StateDir::open(&options.state_dir)?;
    let lead_options = options.lead;
    let role = options.role;
    let (stop, stopped) = oneshot::channel::<()>();
    let (health, server) = start(listener, &role, &lead_options, &options.security, stopped).await?;
    let standing = note_standing(&role, &election);
    tokio::pin!(until);
    let candidate = Candidate { role: &role, dir: &dir, options: &lead_options, health: &health };
    let exit = candidate.stand(&election, &mut until).await;
    standing.abort();
    let resigned = tokio::time::timeout(SHUTDOWN_TIMEOUT * 2, election.resign());
    let _ = stop.send(());
    let ended = tokio::time::timeout(SHUTDOWN_TIMEOUT, server);
    // Both have a time limit.
    let _ = tokio::join!(resigned, ended);
    exit
}

struct Candidate<'a> {
    role: &'a CoordinatorRole,
    dir: &'a StateDir,
    options: &'a LeadOptions,
    health: &'a Health,
}

impl Candidate<'_> {
    async fn stand(
        &self,
        election: &Election,
        until: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<Exit, ServeError> {
        loop {
            tokio::select! {
                () = election.lead() => {}
                () = &mut *until => return Ok(Exit::Asked),
            }
            let mut asked = false;
            let mut standing = election.standing();
            let stop = async {
                tokio::select! {
                    () = &mut *until => asked = true,
                    // An error means that the election has ended.
                    _ = standing.wait_for(|standing| matches!(standing, Standing::Standby { .. })) => {}
                }
            };
            let claimed = |epoch| async move {
                set_serving(self.health, true).await;
                election.announce(Epoch(epoch)).await;
            };
            let end = lead(self.role, self.dir, self.options, claimed, stop).await;
            set_serving(self.health, false).await;
            let why = match end {
                Ok(TermEnd::Asked) if asked => return Ok(Exit::Asked),
                Ok(TermEnd::Asked) => {
                    tracing::info!("another coordinator was elected: this one is a standby now");
                    continue;
                }
                Ok(TermEnd::Deposed(why)) => why,
                Ok(TermEnd::Journal(why)) => return Err(ServeError::Journal(why)),
                Err(LeadError::Journal(error @ JournalError::Fenced { .. })) => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            tracing::warn!(why, "this coordinator no longer leads");
            election.step_down().await;
            if *election.standing().borrow() == Standing::Lead {
                return Ok(Exit::Deposed(why));
            }
        }
    }
}

fn note_standing(role: &Arc<CoordinatorRole>, election: &Election) -> JoinHandle<()> {
    let (role, mut standing) = (role.clone(), election.standing());
    tokio::spawn(async move {
        loop {
            let now = standing.borrow_and_update().clone();
            role.note(now);
            if standing.changed().await.is_err() {
                return;
            }
        }
    })
}

async fn set_serving(health: &Health, serving: bool) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    for service in SERVICES {
        health.set_service_status(service, if serving { Serving } else { NotServing }).await;
    }
}

async fn start(
    listener: TcpListener,
    role: &Arc<CoordinatorRole>,
    options: &LeadOptions,
    security: &Arc<Security>,
    stopped: oneshot::Receiver<()>,
) -> Result<(Health, JoinHandle<()>), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(&health, false).await;
    health.set_service_status(SCALER, tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    let control = ControlServer::new(ControlService::new(role.clone(), options.timing));
    let jobs = JobsServer::new(JobsService::new(role.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .layer(Guard::new(security.clone()))
        .layer(Refusals)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(control)
        .add_service(jobs)
        .add_service(ExternalScalerServer::new(ScalerService::new(role.clone(), security.dialer())));
    let incoming = incoming(listener, security.clone());
    let server = tokio::spawn(async move {
        let stopped = async move {
            // A dropped sender has the same meaning.
            let _ = stopped.await;
        };
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "the server ended");
        }
    });
    Ok((health, server))
}
