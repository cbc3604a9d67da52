//! The election: a hint which of several coordinators should claim the next epoch.
//!
//! Without Consul a coordinator leads at once; with Consul it leads while it holds the leader's key. Not here: the epoch
//! itself, which the journal gives, and with it the guarantee that only one coordinator makes decisions. An election may
//! be wrong for a while; the journal is never wrong.

mod campaign;

use tally_common::discovery::consul::{Consul, LeaderRecord};
use tally_proto::Epoch;
use tokio::sync::{mpsc, oneshot, watch};

use campaign::{Campaign, LeaderCommand};

/// Commands that may wait for a campaign.
const COMMANDS: usize = 8;

/// The standing of a coordinator in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another coordinator leads, or none does. A coordinator that led until now stops leading.
    Standby {
        /// The address of the leader, `host:port`, if there is one.
        leader: Option<String>,
    },
    /// This coordinator leads.
    Lead,
    /// This coordinator led, and does not know whether it still does. Running jobs continue; new ones are refused.
    Doubt {
        /// The reason that refused clients are given.
        why: String,
    },
}

/// A coordinator's candidacy in an election, until it is dropped.
#[derive(Debug)]
pub struct Election {
    standing: watch::Receiver<Standing>,
    /// Without a campaign: keeps the standing's channel open.
    alone: Option<watch::Sender<Standing>>,
    commands: mpsc::Sender<LeaderCommand>,
}

impl Election {
    /// An election without other candidates: the coordinator leads at once and for good.
    pub fn alone() -> Self {
        let (sender, standing) = watch::channel(Standing::Lead);
        // Commands are dropped.
        let (commands, _) = mpsc::channel(1);
        Election { standing, alone: Some(sender), commands }
    }

    /// An election among all coordinators that share `consul`'s keys; others see this one's `id` and `address`
    /// (`host:port`). Must be called on a runtime, which runs the campaign until the election is dropped.
    ///
    /// # Errors
    /// Consul refuses this coordinator. While Consul does not answer, the request is tried again without a limit.
    pub async fn consul(consul: Consul, id: &str, address: &str) -> Result<Self, consul_api_client::Error> {
        let me = LeaderRecord { id: id.into(), address: address.into(), epoch: 0 };
        let (sender, standing) = watch::channel(Standing::Standby { leader: None });
        let mut campaign = Campaign::new(consul, me, sender);
        campaign.open().await?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        tokio::spawn(campaign.run(inbox));
        Ok(Election { standing, alone: None, commands })
    }

    /// The standing, now and after each change. A change from [`Standing::Lead`] or
    /// [`Standing::Doubt`] to [`Standing::Standby`] means: stop leading.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until this coordinator leads the election; then it should claim an epoch.
    pub async fn lead(&self) {
        let mut standing = self.standing.clone();
        if standing.wait_for(|standing| *standing == Standing::Lead).await.is_err() {
            // A campaign ends before its election only when the runtime stops.
            std::future::pending::<()>().await;
        }
    }

    /// Publishes the claimed epoch to clients that look for the leader.
    pub async fn announce(&self, epoch: Epoch) {
        // Without a campaign the command is dropped.
        let _ = self.commands.send(LeaderCommand::Announce(epoch.0)).await;
    }

    /// Steps down after a higher epoch was seen; the coordinator stays a candidate. Afterwards the standing is
    /// [`Standing::Standby`], unless there is no campaign.
    pub async fn step_down(&self) {
        self.command(LeaderCommand::StepDown).await;
    }

    /// Leaves the election, so that another coordinator can lead at once. Waits for two answers of Consul, without a time
    /// limit.
    pub async fn resign(self) {
        self.command(LeaderCommand::Resign).await;
        drop(self.alone);
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> LeaderCommand) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(command(done)).await.is_ok() {
            // An error means that the campaign ended meanwhile, which has the same effect.
            let _ = wait.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alone_it_leads_at_once_and_for_good() {
        let election = Election::alone();
        election.lead().await;
        election.announce(Epoch(3)).await;
        election.step_down().await;
        assert_eq!(*election.standing().borrow(), Standing::Lead);
        election.resign().await;
    }
}
