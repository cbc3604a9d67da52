//! The process's limit of open files. At start it is raised as far as the system allows. A part of it is reserved for
//! the files and connections that the process opens itself: incoming connections are refused before they use the
//! reserve.
//!
//! The system gives a new descriptor the lowest free number. So a connection whose number is below the reserve leaves
//! the whole reserve free, and no counting is necessary.
//!
//! Not here: connections per listener (`security::listen`).

use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The minimum and the maximum of the reserve.
const RESERVE: [u64; 2] = [10, 512];
/// With a lower limit the process works, but serves few peers at a time.
const LOW_LIMIT: u64 = 256;

/// The kind of client of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Workers, coordinators, clients.
    Peer,
    /// Clients of health and metrics. They may also use half of the reserve, so that they are served while peers are
    /// refused.
    Observer,
}

/// Raises the limit to what the system allows. Call it once, at start.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let limit = limit();
    if limit < LOW_LIMIT {
        tracing::warn!(
            limit,
            "the limit of open files is low, so few connections are accepted: raise the hard limit (ulimit -Hn)"
        );
    }
}

/// The maximum number of open files.
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of descriptors that connections must leave free.
fn reserve(limit: u64, caller: Caller) -> u64 {
    let whole = (limit / 4).clamp(RESERVE[0], RESERVE[1]);
    match caller {
        Caller::Peer => whole,
        Caller::Observer => whole / 2,
    }
}

/// Whether an accepted connection leaves the reserve free. If not, close it.
pub fn has_room(connection: &impl AsRawFd, caller: Caller) -> bool {
    let limit = limit();
    let number = u64::try_from(connection.as_raw_fd()).unwrap_or(u64::MAX);
    number < limit.saturating_sub(reserve(limit, caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_leave_a_reserve_and_observers_half_of_it() {
        for (limit, peers, observers) in
            [(40, 10, 5), (64, 16, 8), (1024, 256, 128), (1 << 20, 512, 256), (u64::MAX, 512, 256)]
        {
            assert_eq!(reserve(limit, Caller::Peer), peers, "{limit}");
            assert_eq!(reserve(limit, Caller::Observer), observers, "{limit}");
        }
    }
}
