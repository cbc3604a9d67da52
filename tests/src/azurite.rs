//! Azurite, Microsoft's emulator of Azure Blob Storage, on loopback. `tests/tools/azurite` installs it from npm.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::harness::Missing;
use crate::process::Tally;
use crate::python::script_command;
use crate::s3::client::Client;
use crate::wait::{PATIENT, wait_every};

/// Timeout of its start.
const READY: Duration = Duration::from_secs(60);
/// The account that every Azurite has, and its key, from its documentation.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The only container.
pub const CONTAINER: &str = "data";

/// A running emulator with an empty container. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Azurite {
    child: Child,
    _dir: TempDir,
    address: SocketAddr,
}

impl Azurite {
    /// Starts it.
    ///
    /// # Errors
    /// [`Missing`] if it is not installed. It does not start.
    pub fn start() -> Result<Self> {
        let bin = std::env::var_os("AZURITE_BIN").filter(|bin| !bin.is_empty()).map(PathBuf::from);
        let bin = bin.ok_or_else(|| Missing("no AZURITE_BIN; `tests/tools/azurite` makes one".into()))?;
        let dir = TempDir::with_prefix("azurite-")?;
        let log = dir.path().join("log");
        let out = File::create(&log)?;
        let mut command = Command::new(&bin);
        command.args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
            "--skipApiVersionCheck",
            "--disableTelemetry",
        ]);
        command.arg("--location").arg(dir.path().join("data"));
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("starting {}", bin.display()))?;
        let mut azurite = Self { child, _dir: dir, address: ([127, 0, 0, 1], 0).into() };
        azurite.address = wait_every(PATIENT, "Azurite", READY, || {
            let said = std::fs::read_to_string(&log)?;
            if let Some(status) = azurite.child.try_wait()? {
                bail!("Azurite ended with {status}: {said}");
            }
            let (_, rest) = said.split_once("successfully listens on http://").unwrap_or_default();
            Ok(rest
                .lines()
                .next()
                .filter(|_| rest.contains('\n'))
                .and_then(|address| address.trim().parse().ok()))
        })?;
        let mut script = script_command("make_container.py")?;
        let made = script.args([&endpoint(azurite.address), ACCOUNT, KEY, CONTAINER]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(azurite)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of its container.
    ///
    /// # Errors
    /// The runtime cannot be created.
    pub fn client(&self) -> Result<Client> {
        Client::azure(&endpoint(self.address), ACCOUNT, KEY, CONTAINER)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is the goal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}/{ACCOUNT}")
}

/// Sets a command's environment so that it reaches the emulator at that address.
pub fn reach(command: Tally, address: SocketAddr) -> Tally {
    let command = command.env("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT).env("AZURE_STORAGE_ACCOUNT_KEY", KEY);
    command.env("AZURE_STORAGE_ENDPOINT", &endpoint(address))
}
