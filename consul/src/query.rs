//! The options of reads: consistency, and blocking until a change.
//!
//! Not here: the loop around blocking queries (`watch`).

use std::time::Duration;

use crate::client::{Answer, Call};

/// The maximum wait of a blocking query.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// The consistency of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader answers; just after a change of leaders, the old one may answer.
    #[default]
    Default,
    /// The leader first confirms that it still leads: one more round trip, and never an old value.
    Consistent,
    /// Any server answers, even without a leader; the value may be old.
    Stale,
}

/// The options of a read. The default returns at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub consistency: Consistency,
    /// The server delays the answer until the value has an index higher than this, or until `wait` is over. 0: at once.
    pub index: u64,
    /// At most [`MAX_WAIT`]. Consul adds up to a sixteenth, and uses 5 minutes for zero.
    pub wait: Duration,
}

impl Query {
    /// Returns a value newer than `index`, or the same value after `wait`.
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
        // At least a millisecond: zero means the server's default.
        let wait = self.wait.clamp(Duration::from_millis(1), MAX_WAIT);
        call.query("index", self.index.to_string())
            .query("wait", format!("{}ms", wait.as_millis()))
            .wait(wait + wait / 16)
    }
}

/// A value, and the index to wait for the next change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed<T> {
    pub value: T,
    /// At least 1. It may become smaller after Consul's data is restored: then start at 0 again.
    pub index: u64,
}

impl<T> Indexed<T> {
    /// An answer without an index counts as the oldest, so that the next query returns at once.
    pub(crate) fn of(answer: &Answer<'_>, value: T) -> Self {
        Self { value, index: answer.index.unwrap_or(0).max(1) }
    }
}
