//! The coordinators that a command connects to.
//!
//! Not here: the connection (`tally_coordinator::client`).

use std::time::Duration;

use clap::Args;
use tally_common::config;
use tally_common::discovery::consul::ConsulArgs;
use tally_common::security::ClientArgs;
use tally_coordinator::client::{Address, Client, ClientError, Patience, Source};
use tokio::runtime::Runtime;

use crate::{Stop, duration};

/// How long to look for a leader: with addresses, and with Consul, where the session of a killed leader
/// takes up to 20 s to expire.
const ASK: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];
/// How long a command that waits for a job looks for a new leader.
const FOLLOW: Duration = Duration::from_secs(60);

/// Where the coordinators are.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Addresses of all coordinators, separated by commas
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    coordinator: Vec<Address>,
    #[command(flatten)]
    consul: ConsulArgs,
    #[command(flatten)]
    security: ClientArgs,
    /// How long to look for the leading coordinator [default: 10s, with Consul 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    connect_timeout: Option<Duration>,
}

impl ConnectArgs {
    /// Whether the command line names coordinators, and not only the environment or a file, which are for all commands.
    pub(crate) fn is_named() -> bool {
        config::is_on_command_line(&["coordinator", "consul"])
    }

    /// Of the two options, `config` keeps the one from the first source.
    fn source(&self) -> Result<Source, Stop> {
        if !self.coordinator.is_empty() {
            return Ok(Source::Listed(self.coordinator.clone()));
        }
        let consul = self.consul.open().map_err(|e| Stop::Usage(e.to_string()))?;
        let missing = "no coordinator is given\nhint: give --coordinator HOST:PORT or --consul URL, set \
                       TALLY_COORDINATOR or TALLY_CONSUL, or name a file of settings with --config";
        consul.map(Source::Consul).ok_or_else(|| Stop::Usage(missing.into()))
    }

    /// A client of these coordinators; it passes notices for a waiting user to `notice`.
    ///
    /// # Errors
    /// No coordinator is named.
    pub(crate) fn client(&self, notice: impl Fn(&str) + 'static) -> Result<Client, Stop> {
        let source = self.source()?;
        let ask = self.connect_timeout.unwrap_or(ASK[usize::from(matches!(source, Source::Consul(_)))]);
        let dialer = self.security.dialer().map_err(|e| Stop::Usage(e.to_string()))?;
        Ok(Client::new(source, dialer, Patience { ask, follow: ask.max(FOLLOW) }, notice))
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        let text = error.to_string();
        match error {
            ClientError::NoLeader { .. } | ClientError::Handshake { .. } => Stop::NoLeader(text),
            ClientError::Invalid { .. } => Stop::Usage(text),
            ClientError::Unknown { .. } | ClientError::Refused { .. } => Stop::Failed(text),
        }
    }
}

/// A runtime for a command that only waits for other processes.
///
/// # Errors
/// The system cannot start it.
pub fn runtime() -> Result<Runtime, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))
}
