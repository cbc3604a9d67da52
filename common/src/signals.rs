//! The signals that ask a process to end: SIGINT (Ctrl-C), SIGTERM, and SIGHUP, which a closed terminal sends. They mean
//! the same to every process. A process that was started with `nohup` ignores SIGHUP.
//!
//! Not here: what a process does when it is asked to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::procfs;

/// Requests to end.
#[derive(Debug)]
pub struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl EndSignals {
    /// Handles the signals from now on. Needs a runtime.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        let hangup = match procfs::ignores_signal(SignalKind::hangup().as_raw_value()) {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(EndSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// The next request.
    pub async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}
