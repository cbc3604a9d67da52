//! The coordinator's process from its start to its end: it listens, stands for election, leads
//! when it may, and steps down when it must.

use std::sync::Arc;
use std::time::Duration;

use tally_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use tally_proto::v1::jobs_server::JobsServer;
use tally_proto::{DESCRIPTORS, Epoch};
use tally_worker::refusals::Refusals;
use tally_worker::security::{Guard, Security, incoming};
use tally_worker::urls::UrlError;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::control::ControlService;
use super::jobs::JobsService;
use super::lead::{LeadError, LeadOptions, lead};
use super::scaler::ScalerService;
use super::wire::ControlServer;
use super::{MESSAGE_BYTES, Role};
use crate::driver::End;
use crate::election::{Election, Standing};
use crate::journal::JournalError;
use crate::journal::store::StateDir;

/// How often a peer that says nothing is asked for a sign of life, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long requests may take to end when the process does.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of a request's headers, at most.
const HEADERS: u32 = 16 << 10;
/// Requests at a time on one connection.
const STREAMS: u32 = 256;

type Health = HealthReporter;
/// The services that only a leader has, as the health service names them.
const SERVICES: [&str; 2] = ["tally.v1.Control", "tally.v1.Jobs"];
/// The one that answers wherever it is asked: a standby asks the leader.
const SCALER: &str = "externalscaler.ExternalScaler";

/// What a coordinator's process is given.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the journal lies, a path or URL.
    pub state_dir: String,
    /// How it leads.
    pub lead: LeadOptions,
    /// What it is just now, for those who look.
    pub role: Arc<Role>,
    /// Who may connect, and how others are connected to.
    pub security: Arc<Security>,
}

/// Why the process ends though nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Asked,
    /// Another coordinator leads, as this says, and there is no election to wait for.
    Deposed(String),
}

/// A coordinator that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory's URL.
    #[error("--state-dir {0}")]
    StateDir(#[from] UrlError),
    /// The term.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The journal failed in the middle of a term.
    #[error("{0}")]
    Journal(String),
    /// The descriptors.
    #[error("the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `until`, or until another coordinator leads and nobody says whose turn it is.
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
    let resigned = tokio::time::timeout(LAST_WORDS * 2, election.resign());
    let _ = stop.send(());
    let ended = tokio::time::timeout(LAST_WORDS, server);
    // Neither may hold up the end.
    let _ = tokio::join!(resigned, ended);
    exit
}

struct Candidate<'a> {
    role: &'a Role,
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
                    // An error means that the election is over, and nobody asks to stop.
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
                Ok(End::Asked) if asked => return Ok(Exit::Asked),
                Ok(End::Asked) => {
                    tracing::info!("another coordinator was elected: this one stands by");
                    continue;
                }
                Ok(End::Deposed(why)) => why,
                Ok(End::Journal(why)) => return Err(ServeError::Journal(why)),
                Err(LeadError::Journal(error @ JournalError::Fenced { .. })) => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            tracing::warn!(why, "this coordinator leads no more");
            election.step_down().await;
            if *election.standing().borrow() == Standing::Lead {
                return Ok(Exit::Deposed(why));
            }
        }
    }
}

fn note_standing(role: &Arc<Role>, election: &Election) -> JoinHandle<()> {
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
    role: &Arc<Role>,
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
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
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
            // Whoever would tell it being gone means the same.
            let _ = stopped.await;
        };
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "the server ended");
        }
    });
    Ok((health, server))
}
