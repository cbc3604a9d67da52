//! Who may lead: the hint by which one of several coordinators claims the next epoch.
//!
//! Without Consul a coordinator leads at once; with it, while it holds the leader's key. Not here:
//! the epoch itself, which the journal gives, and with it the guarantee that only one coordinator
//! decides anything. An election may be wrong for a while; the journal may not.

mod campaign;

use tally_proto::Epoch;
use tally_worker::consul::{Consul, LeaderRecord};
use tokio::sync::{mpsc, oneshot, watch};

use campaign::{Campaign, Order};

/// Orders that a campaign has not looked at yet.
const ORDERS: usize = 8;

/// How a coordinator stands in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody else leads, or nobody. Whoever led until now stops to.
    Standby {
        /// Where the leader is reached, `host:port`, if there is one.
        leader: Option<String>,
    },
    /// It leads.
    Lead,
    /// It led and cannot tell whether it still does: what runs goes on, nothing new begins.
    Doubt {
        /// A sentence for those who are refused.
        why: String,
    },
}

/// A coordinator's part in an election, until it is dropped.
#[derive(Debug)]
pub struct Election {
    standing: watch::Receiver<Standing>,
    /// Kept where there is no campaign, so that the standing is there as long as the election.
    alone: Option<watch::Sender<Standing>>,
    orders: mpsc::Sender<Order>,
}

impl Election {
    /// Without anybody else: it leads at once and for good.
    pub fn alone() -> Self {
        let (sender, standing) = watch::channel(Standing::Lead);
        // Nobody takes orders; they are dropped.
        let (orders, _) = mpsc::channel(1);
        Election { standing, alone: Some(sender), orders }
    }

    /// Among all that share `consul`'s keys; `id` and `address` (`host:port`) are what others see of
    /// this one. Must be called on a runtime, where the campaign goes on until the election is
    /// dropped.
    ///
    /// # Errors
    /// Consul refuses this coordinator. One that does not answer is asked again, for as long as it
    /// takes.
    pub async fn consul(consul: Consul, id: &str, address: &str) -> Result<Self, consul_api_client::Error> {
        let me = LeaderRecord { id: id.into(), address: address.into(), epoch: 0 };
        let (sender, standing) = watch::channel(Standing::Standby { leader: None });
        let mut campaign = Campaign::new(consul, me, sender);
        campaign.open().await?;
        let (orders, inbox) = mpsc::channel(ORDERS);
        tokio::spawn(campaign.run(inbox));
        Ok(Election { standing, alone: None, orders })
    }

    /// The standing, now and after each change. A change from [`Standing::Lead`] or
    /// [`Standing::Doubt`] to [`Standing::Standby`] means: stop leading.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until this coordinator is to lead; then it claims an epoch.
    pub async fn lead(&self) {
        let mut standing = self.standing.clone();
        if standing.wait_for(|standing| *standing == Standing::Lead).await.is_err() {
            // Only with the runtime does a campaign end before its election.
            std::future::pending::<()>().await;
        }
    }

    /// Tells those who look for the leader which epoch was claimed.
    pub async fn announce(&self, epoch: Epoch) {
        // Without a campaign there is nobody to tell.
        let _ = self.orders.send(Order::Announce(epoch.0)).await;
    }

    /// Gives the lead to somebody else, after hearing of a higher epoch; it stays a candidate. When
    /// this returns the standing is [`Standing::Standby`], unless it is alone.
    pub async fn step_down(&self) {
        self.order(Order::StepDown).await;
    }

    /// Leaves the election, so that another leads at once. Takes as long as Consul does to answer
    /// twice: bound it.
    pub async fn resign(self) {
        self.order(Order::Resign).await;
        drop(self.alone);
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            // It is dropped where the campaign ended meanwhile, which is as good.
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
