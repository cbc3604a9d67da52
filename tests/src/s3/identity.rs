//! A process that issues credentials as clouds do. Not here: their users.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use crate::certs::Signed;
use crate::http::get;
use crate::python::script_command;

/// The running process; dropping it stops it.
#[derive(Debug)]
pub struct Identity {
    child: Child,
    /// The URL of metadata and containers.
    pub plain: String,
    /// The URL of the token service, over TLS.
    pub sealed: String,
}

impl Identity {
    /// Starts it with a certificate; its token service's credentials expire after `seconds`, if set, and their tokens
    /// contain the expiry (see [`refuse_expired`](super::proxy::Proxy::refuse_expired)).
    ///
    /// # Errors
    /// It does not start.
    pub fn start(signed: &Signed, seconds: Option<f64>) -> Result<Self> {
        let mut script = script_command("identity.py")?;
        script.args([&signed.cert, &signed.key]).args(seconds.map(|seconds| seconds.to_string()));
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let (plain, sealed) = line.trim().split_once(' ').context("no ports")?;
        let (plain, sealed) = (format!("http://127.0.0.1:{plain}"), format!("https://127.0.0.1:{sealed}"));
        Ok(Self { child, plain, sealed })
    }

    /// The number of requests to the token service so far.
    ///
    /// # Errors
    /// It does not answer.
    pub fn token_requests(&self) -> Result<usize> {
        let address = self.plain.trim_start_matches("http://").parse()?;
        let (status, body) = get(address, "/token-requests")?;
        ensure!(status == 200, "status {status}");
        Ok(body.trim().parse()?)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is the goal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
