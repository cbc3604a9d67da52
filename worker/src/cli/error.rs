//! Why the `tally-worker` command fails.

/// Why the worker does not start.
#[derive(Debug)]
pub(super) enum CommandError {
    /// Invalid arguments.
    Usage(String),
    /// Something that it needs is not available.
    Failed(String),
}
