//! Who may lead: the hint by which one of several coordinators claims the next epoch.
//!
//! Not here: the epoch itself, which the journal gives, and with it the guarantee that only one
//! coordinator decides anything. An election may be wrong for a while; the journal may not.

use tally_proto::Epoch;
use tokio::sync::watch;

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
    /// Kept, so that the receivers see it as it is for as long as the election lives.
    standing: watch::Sender<Standing>,
}

impl Election {
    /// Without anybody else: it leads at once and for good.
    pub fn alone() -> Self {
        Election { standing: watch::Sender::new(Standing::Lead) }
    }

    /// The standing, now and after each change. A change from [`Standing::Lead`] or
    /// [`Standing::Doubt`] to [`Standing::Standby`] means: stop leading.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Waits until this coordinator is to lead; then it claims an epoch.
    pub async fn lead(&self) {
        // Fails only without a sender, and `self` holds one.
        let _ = self.standing.subscribe().wait_for(|standing| *standing == Standing::Lead).await;
    }

    /// Tells those who look for the leader which epoch was claimed.
    pub async fn announce(&self, _epoch: Epoch) {}

    /// Gives the lead to somebody else, after hearing of a higher epoch; it stays a candidate.
    pub async fn step_down(&self) {}

    /// Leaves the election, so that another leads at once. Takes 2 s at most.
    pub async fn resign(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alone_it_leads_at_once() {
        let election = Election::alone();
        election.lead().await;
        assert_eq!(*election.standing().borrow(), Standing::Lead);
    }
}
