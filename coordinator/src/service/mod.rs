//! The coordinator's services over gRPC and HTTP. Only the leader answers; a standby names the leader.
//!
//! `control` serves workers (`wire` is its encoding), `jobs` serves clients, `api` serves them over HTTP, `scaler` serves
//! KEDA, `observed` serves kubelets and Prometheus; `lead` is a term of leadership, `serve` the process from start to end.
//! Not here: decisions about jobs (the driver).

pub mod api;
pub mod control;
pub mod jobs;
pub mod lead;
pub mod observed;
pub mod scaler;
pub mod serve;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tally_proto::LEADER_METADATA;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::driver::DriverInput;
use crate::election::Standing;
use crate::history::Registry;

/// The coordinator's intervals and timeouts.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The interval of heartbeats in both directions.
    pub heartbeat: Duration,
    /// The time from the end of a worker's stream until the worker is lost.
    pub grace: Duration,
    /// The time without a message after which a worker is lost.
    pub timeout: Duration,
    /// The time from the begin of the term until jobs of earlier epochs continue.
    pub settle: Duration,
    /// The time that a job waits while there are no workers.
    pub no_workers: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_secs(1),
            grace: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            settle: Duration::from_secs(3),
            no_workers: Duration::from_secs(300),
        }
    }
}

/// A leading coordinator, as its services use it.
#[derive(Debug, Clone)]
pub struct Leading {
    /// The driver's inbox.
    pub sender: mpsc::Sender<DriverInput>,
    /// The statuses of jobs.
    pub registry: Arc<Registry>,
    /// The term.
    pub epoch: u64,
}

/// The current role of this coordinator; shared by all services.
#[derive(Debug, Default)]
pub struct CoordinatorRole {
    leading: RwLock<Option<Leading>>,
    standing: RwLock<Option<Standing>>,
}

impl CoordinatorRole {
    /// Begins or ends the lead.
    pub fn set(&self, leading: Option<Leading>) {
        *self.leading.write() = leading;
    }

    /// Sets the standing in the election.
    pub fn note(&self, standing: Standing) {
        *self.standing.write() = Some(standing);
    }

    /// The standing in the election, if it is known.
    pub fn standing(&self) -> Option<Standing> {
        self.standing.read().clone()
    }

    /// The leader, if this coordinator leads.
    ///
    /// # Errors
    /// A status that names the leader, if it is known.
    pub fn leading(&self) -> Result<Leading, Status> {
        if let Some(leading) = self.leading.read().clone() {
            return Ok(leading);
        }
        let leader = match &*self.standing.read() {
            Some(Standing::Standby { leader: Some(leader) }) => Some(leader.clone()),
            _ => None,
        };
        let known = match &leader {
            Some(leader) => format!("this coordinator does not lead: {leader} does"),
            None => "this coordinator does not lead, and knows of no leader".into(),
        };
        let mut status = Status::failed_precondition(known);
        if let Some(value) = leader.and_then(|leader| MetadataValue::try_from(leader).ok()) {
            status.metadata_mut().insert(LEADER_METADATA, value);
        }
        Err(status)
    }

    /// The leader, if it accepts new jobs.
    ///
    /// # Errors
    /// A status with the reason.
    pub fn accepting(&self) -> Result<Leading, Status> {
        let leading = self.leading()?;
        match &*self.standing.read() {
            Some(Standing::Doubt { why }) => {
                Err(Status::unavailable(format!("no new job is accepted: {why}")))
            }
            _ => Ok(leading),
        }
    }
}

/// The status for a request that the driver did not answer before it ended.
pub(crate) fn stepping_down() -> Status {
    Status::unavailable("this coordinator is stepping down: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_names_the_leader_and_a_leader_in_doubt_begins_nothing() {
        let role = CoordinatorRole::default();
        let refusal = |role: &CoordinatorRole| role.leading().err().unwrap();
        assert!(refusal(&role).metadata().get(LEADER_METADATA).is_none());
        role.note(Standing::Standby { leader: Some("other:7070".into()) });
        let status = refusal(&role);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(status.metadata().get(LEADER_METADATA).unwrap(), "other:7070");
        let (sender, _inbox) = mpsc::channel(1);
        role.set(Some(Leading { sender, registry: Arc::new(Registry::new(1)), epoch: 1 }));
        role.note(Standing::Lead);
        assert!(role.leading().is_ok() && role.accepting().is_ok());
        role.note(Standing::Doubt { why: "Consul is away".into() });
        assert!(role.leading().is_ok());
        assert!(role.accepting().err().unwrap().message().contains("Consul is away"));
    }
}
