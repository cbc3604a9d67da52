//! How reads are asked: consistency, and blocking until something changes. Not here: the loop around blocking queries
//! (`watch`).

use std::time::Duration;

use crate::client::{Answer, Call};

/// Consul lets a blocking query wait no longer than this.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader answers; just after a change of leaders, an old one might.
    #[default]
    Default,
    /// The leader makes sure that it still leads: one round more, never an old value.
    Consistent,
    /// Any server answers, also without a leader; the value may be old.
    Stale,
}

/// How a read is done. The default answers at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub consistency: Consistency,
    /// With an index, the answer is held back until what is read has a newer one, or `wait` is over. 0: at once.
    pub index: u64,
    /// At most [`MAX_WAIT`]. Consul adds up to a sixteenth, and takes 5 minutes for zero.
    pub wait: Duration,
}

impl Query {
    /// Answers once there is something newer than `index`, or after `wait` with the same again.
    pub fn after(index: u64, wait: Duration) -> Self {
        Self { index, wait, ..Self::default() }
    }

    /// The same with another consistency.
    pub fn with(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    pub(crate) fn apply<'a>(&self, call: Call<'a>) -> Call<'a> {
        let call = match self.consistency {
            Consistency::Default => call,
            Consistency::Consistent => call.query("consistent", ""),
            Consistency::Stale => call.query("stale", ""),
        };
        if self.index == 0 {
            return call;
        }
        // Nothing shorter than a millisecond: zero would mean the server's default.
        let wait = self.wait.clamp(Duration::from_millis(1), MAX_WAIT);
        call.query("index", self.index.to_string())
            .query("wait", format!("{}ms", wait.as_millis()))
            .wait(wait + wait / 16)
    }
}

/// What was read, and the index to ask for newer things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed<T> {
    pub value: T,
    /// At least 1. It may be smaller than before, after Consul's data was restored: then start at 0 again.
    pub index: u64,
}

impl<T> Indexed<T> {
    /// An answer without an index counts as the oldest, so that the next query does not wait in vain.
    pub(crate) fn of(answer: &Answer<'_>, value: T) -> Self {
        Self { value, index: answer.index.unwrap_or(0).max(1) }
    }
}
