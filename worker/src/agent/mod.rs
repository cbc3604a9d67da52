//! The agent of a worker process: finds the leading coordinator, attaches to it, follows its messages, and exits when
//! requested.
//!
//! `machine` has the decisions, as a state machine without I/O. `shell` runs it: `session` is one stream to a
//! coordinator, and `incarnation` is what runs under one id. `status` is what health checks and metrics show. Not here:
//! the tasks (`runner`), serving and sending outputs (`flight`), arguments and signals (`cli`).

mod incarnation;
mod machine;
mod session;
mod shell;
mod status;

pub use incarnation::{IncarnationError, Options};
pub use machine::{
    AgentConfig, AgentCore, AgentInput, AgentOutput, ExitReason, HeldOutputs, Holdings, PAGE_BYTES,
    Rejection, ShutdownRequest, Stale, StreamError, TaskHost,
};
pub use shell::{AgentError, run};
pub use status::WorkerStatus;

/// Maximum length of the name in an id.
const MAX_NAME: usize = 40;

/// The prefix of worker ids: the name of the host or of the worker, with invalid characters replaced.
pub fn name(given: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = given.chars().take(MAX_NAME).map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "worker".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_name_gives_valid_worker_ids() {
        for (host, expected) in [
            ("Rack-3.example.org", "rack-3-example-org"),
            ("", "worker"),
            ("..", "worker"),
            ("b\u{fc}ro", "b-ro"),
            (&"x".repeat(200), &"x".repeat(MAX_NAME)),
        ] {
            assert_eq!(name(host), expected);
            assert!(tally_proto::WorkerId::parse(&name(host)).is_ok());
        }
    }
}
