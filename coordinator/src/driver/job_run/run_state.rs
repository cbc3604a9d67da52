//! The state of a live job, with the staging that belongs to it.

use crate::publish::staging::{Ready, Staging};

/// The states of a live job. A job that ended is no longer live.
pub(in crate::driver) enum RunState {
    /// The submission is not in the journal yet.
    Submitted,
    /// The stages run, or wait to begin. The staging exists once the inputs are planned, or since an earlier leader's was
    /// adopted.
    Running { staging: Option<Staging> },
    /// The part files are being prepared. The background task has the staging.
    Preparing,
    /// The day is staged; the decision to publish waits for the journal.
    Decided { staging: Staging, ready: Ready },
    /// The decision is in the journal and the day is being made visible. The background task has the staging.
    Publishing,
    /// The decision of an earlier leader is being carried out. The summary is the one that it recorded.
    Recovering { summary: String },
}

impl RunState {
    /// Whether the submission is in the journal.
    pub(in crate::driver) fn is_recorded(&self) -> bool {
        !matches!(self, RunState::Submitted)
    }

    /// Whether the publish has begun: a cancellation is too late.
    pub(in crate::driver) fn is_committing(&self) -> bool {
        !matches!(self, RunState::Submitted | RunState::Running { .. })
    }

    /// The summary that an earlier leader recorded with its decision.
    pub(in crate::driver) fn recorded_summary(&self) -> Option<&str> {
        match self {
            RunState::Recovering { summary } => Some(summary),
            _ => None,
        }
    }

    /// The staging, unless a background task has it.
    pub(in crate::driver) fn staging(&self) -> Option<&Staging> {
        match self {
            RunState::Running { staging } => staging.as_ref(),
            RunState::Decided { staging, .. } => Some(staging),
            _ => None,
        }
    }

    /// Takes the staging out, unless a background task has it. A decided job continues as a publishing job.
    pub(in crate::driver) fn take_staging(&mut self) -> Option<Staging> {
        match self {
            RunState::Running { staging } => staging.take(),
            _ => self.take_decided().map(|(staging, _)| staging),
        }
    }

    /// The submission is in the journal.
    pub(in crate::driver) fn recorded(&mut self) {
        if let RunState::Submitted = self {
            self.resume(None);
        }
    }

    /// The stages run.
    pub(in crate::driver) fn resume(&mut self, staging: Option<Staging>) {
        *self = RunState::Running { staging };
    }

    /// The decision of an earlier leader is being carried out.
    pub(in crate::driver) fn resume_commit(&mut self, summary: String) {
        *self = RunState::Recovering { summary };
    }

    /// All part files are verified: they are prepared for the publish, in the staging that is returned.
    pub(in crate::driver) fn begin_commit(&mut self) -> Option<Staging> {
        let staging = self.take_staging()?;
        *self = RunState::Preparing;
        Some(staging)
    }

    /// The day is staged.
    pub(in crate::driver) fn decided(&mut self, staging: Staging, ready: Ready) {
        *self = RunState::Decided { staging, ready };
    }

    /// The decision is in the journal: what is to be published.
    pub(in crate::driver) fn take_decided(&mut self) -> Option<(Staging, Ready)> {
        if !matches!(self, RunState::Decided { .. }) {
            return None;
        }
        match std::mem::replace(self, RunState::Publishing) {
            RunState::Decided { staging, ready } => Some((staging, ready)),
            _ => None,
        }
    }
}
