//! Which coordinators a command speaks to: flags, then the environment.
//!
//! Not here: speaking to them (`crate::client`).

use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;

use super::{Stop, duration};
use crate::client::{Address, Client, ClientError, Patience, Source};

/// How long a command that waits for a job looks for the next leader.
const FOLLOW: Duration = Duration::from_secs(60);

/// Where the coordinators are.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Coordinators, any of which may lead; separated by commas [env: TALLY_COORDINATOR]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    coordinator: Vec<Address>,
    /// How long to look for a coordinator that leads
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    connect_timeout: Duration,
}

impl ConnectArgs {
    fn source(&self) -> Result<Source, Stop> {
        if !self.coordinator.is_empty() {
            return Ok(Source::Listed(self.coordinator.clone()));
        }
        let named = std::env::var("TALLY_COORDINATOR").ok().filter(|value| !value.trim().is_empty());
        let Some(named) = named else {
            let what = "which coordinator? give --coordinator HOST:PORT, or set TALLY_COORDINATOR";
            return Err(Stop::Usage(what.into()));
        };
        let addresses: Result<Vec<Address>, _> = named.split(',').map(|text| text.trim().parse()).collect();
        Ok(Source::Listed(addresses.map_err(|why| Stop::Usage(format!("TALLY_COORDINATOR: {why}")))?))
    }

    /// A client of these coordinators, which gives `notice` what a waiting user wants to know.
    ///
    /// # Errors
    /// No coordinator was named.
    pub(super) fn client(&self, notice: impl Fn(&str) + 'static) -> Result<Client, Stop> {
        let patience = Patience { ask: self.connect_timeout, follow: self.connect_timeout.max(FOLLOW) };
        Ok(Client::new(self.source()?, patience, notice))
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        let text = error.to_string();
        match error {
            ClientError::NoLeader { .. } => Stop::NoLeader(text),
            ClientError::Invalid { .. } => Stop::Usage(text),
            ClientError::Unknown { .. } | ClientError::Refused { .. } => Stop::Failed(text),
        }
    }
}

/// A runtime for a command that only waits for others.
///
/// # Errors
/// The system has no room for it.
pub fn runtime() -> Result<Runtime, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))
}
