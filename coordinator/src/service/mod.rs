//! The coordinator as a service: what it answers over gRPC, and when. Only the leader answers;
//! a standby says who leads.
//!
//! `control` talks to workers (`wire` is its bytes), `jobs` to people and programs, `scaler` to
//! KEDA, `observed` to kubelets and Prometheus; `lead` is a term of leadership,
//! `serve` the process from its start to its end. Not here: any decision about jobs (the driver).

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

use crate::driver::Input;
use crate::election::Standing;
use crate::history::Registry;

/// Bytes of a message, at most, both ways: larger answers are paged.
pub const MESSAGE_BYTES: usize = 4 << 20;

/// How long the coordinator waits for its workers.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two signs of life, both ways.
    pub heartbeat: Duration,
    /// After a broken stream, until the worker is lost.
    pub grace: Duration,
    /// Silence after which a worker is lost.
    pub timeout: Duration,
    /// After taking the lead, until jobs of earlier epochs go on.
    pub settle: Duration,
    /// How long a job waits while there are no workers.
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

/// A leading coordinator, as its services reach it.
#[derive(Debug, Clone)]
pub struct Leading {
    /// The driver's inbox.
    pub sender: mpsc::Sender<Input>,
    /// How jobs stand.
    pub registry: Arc<Registry>,
    /// The term.
    pub epoch: u64,
}

/// What this coordinator is just now; shared by all services.
#[derive(Debug, Default)]
pub struct Role {
    leading: RwLock<Option<Leading>>,
    standing: RwLock<Option<Standing>>,
}

impl Role {
    /// From now on it leads, or does no more.
    pub fn set(&self, leading: Option<Leading>) {
        *self.leading.write() = leading;
    }

    /// Notes how the election stands.
    pub fn note(&self, standing: Standing) {
        *self.standing.write() = Some(standing);
    }

    /// How the election stands, as far as that is known.
    pub fn standing(&self) -> Option<Standing> {
        self.standing.read().clone()
    }

    /// The leader, if this is it.
    ///
    /// # Errors
    /// A status that says who leads, as far as that is known.
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
            None => "this coordinator does not lead, and knows nobody who does".into(),
        };
        let mut status = Status::failed_precondition(known);
        if let Some(value) = leader.and_then(|leader| MetadataValue::try_from(leader).ok()) {
            status.metadata_mut().insert(LEADER_METADATA, value);
        }
        Err(status)
    }

    /// The leader, if it may begin something new.
    ///
    /// # Errors
    /// A status that says why not.
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

/// What is answered when the driver ended before it could answer.
pub(crate) fn stepping_down() -> Status {
    Status::unavailable("this coordinator stops to lead: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_names_the_leader_and_a_leader_in_doubt_begins_nothing() {
        let role = Role::default();
        let refusal = |role: &Role| role.leading().err().unwrap();
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
