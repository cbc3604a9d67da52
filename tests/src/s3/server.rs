//! Real S3 servers on loopback: SeaweedFS, which checks signatures, checksums and conditions, and moto, a second
//! opinion. Both come from PyPI into the virtual environment that `tests/run` makes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use super::client::{Client, Keys};
use crate::certs::Signed;
use crate::ports::{self, Port};
use crate::python::beside_python;
use crate::wait::wait_for;

/// Timeout of a server's start.
const READY: Duration = Duration::from_secs(90);
/// How often other ports are tried when another process took ours between choosing and using them.
const TRIES: usize = 5;
/// SeaweedFS listens for gRPC at this offset above each of its ports.
const ABOVE: u16 = 10_000;

/// The bucket of inputs; [`READER`] may list and read it.
pub const DATA: &str = "data";
/// The bucket of outputs, which only [`ADMIN`] may access.
pub const OUT: &str = "out";
/// All permissions.
pub const ADMIN: Keys = Keys { id: "tally-admin", secret: "tally-admin-secret" };
/// May list and read [`DATA`], and nothing else.
pub const READER: Keys = Keys { id: "tally-reader", secret: "tally-reader-secret" };
/// May read [`DATA`], but not list it.
pub const LISTLESS: Keys = Keys { id: "tally-listless", secret: "tally-listless-secret" };
/// Keys that the server does not know.
pub const UNKNOWN: Keys = Keys { id: "tally-unknown", secret: "tally-unknown-secret" };

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A real store.
    Seaweed,
    /// A mock of AWS; it takes any credentials.
    Moto,
}

/// A running server with both buckets. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    bin: PathBuf,
    dir: TempDir,
    /// The ports for S3, master, volume, filer, and S3 over TLS.
    ports: [Port; 5],
    /// Its certificate for TLS.
    tls: Option<Signed>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server and makes its buckets.
    ///
    /// # Errors
    /// [`Missing`](crate::harness::Missing) if it is not installed. It does not start, or is not ready in time; the
    /// message holds the end of its log.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, None)
    }

    /// Starts SeaweedFS, which also listens for TLS.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_tls(signed: &Signed) -> Result<Self> {
        Self::start_with(Kind::Seaweed, Some(signed.clone()))
    }

    fn start_with(kind: Kind, tls: Option<Signed>) -> Result<Self> {
        let name = match kind {
            Kind::Seaweed => "weed",
            Kind::Moto => "moto_server",
        };
        let bin = beside_python(name)?;
        let (dir, ports) = (TempDir::with_prefix("s3-")?, ports::free(&[ABOVE])?);
        let mut server = Self { kind, bin, dir, ports, tls, child: None };
        for _ in 1..TRIES {
            match server.run() {
                Err(_) if server.log().to_lowercase().contains("address already in use") => {
                    server.ports = ports::free(&[ABOVE])?;
                }
                result => return result.map(|()| server),
            }
        }
        server.run().map(|()| server)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[0].number).into()
    }

    /// The address that it listens on for TLS.
    ///
    /// # Panics
    /// It was started without TLS.
    pub fn tls_address(&self) -> SocketAddr {
        assert!(self.tls.is_some(), "a server with TLS");
        (Ipv4Addr::LOCALHOST, self.ports[4].number).into()
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// The runtime cannot be created.
    pub fn client(&self, bucket: &str) -> Result<Client> {
        Client::new(self.address(), bucket, ADMIN)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn run(&mut self) -> Result<()> {
        self.kill();
        let result = self.spawn().and_then(|()| self.wait_until_ready());
        if result.is_err() {
            self.kill();
        }
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        result
            .with_context(|| format!("starting {}; its log ends (last first): {tail:#?}", self.bin.display()))
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::create(self.dir.path().join("log"))?;
        let mut command = Command::new(&self.bin);
        let ports = self.ports.each_ref().map(|port| port.number);
        match self.kind {
            Kind::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &ports[0].to_string()]);
            }
            Kind::Seaweed => {
                let config = self.dir.path().join("s3.json");
                std::fs::write(&config, identities())?;
                let [plain @ .., sealed] = ports;
                seaweed(&mut command, self.dir.path(), &config, plain);
                if let Some(signed) = &self.tls {
                    command.arg(format!("-s3.port.https={sealed}"));
                    command.arg(format!("-s3.cert.file={}", signed.cert.display()));
                    command.arg(format!("-s3.key.file={}", signed.key.display()));
                }
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// A server is ready when it accepts an object; volumes start after the port opens.
    fn wait_until_ready(&mut self) -> Result<()> {
        let address = self.address();
        let clients = [DATA, OUT].map(|bucket| Client::new(address, bucket, ADMIN));
        let child = self.child.as_mut().context("the server does not run")?;
        for client in clients {
            let client = client?;
            wait_for("the S3 server", READY, || {
                if let Some(status) = child.try_wait()? {
                    bail!("it ended with {status}");
                }
                let there = TcpStream::connect(address).is_ok()
                    && client.make_bucket().is_ok()
                    && client.put("ready", b"ready".to_vec()).is_ok()
                    && client.remove("ready").is_ok();
                Ok(there.then_some(()))
            })?;
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn identities() -> String {
    let identity = |keys: Keys, actions: &[&str]| {
        json!({
            "name": keys.id,
            "credentials": [{ "accessKey": keys.id, "secretKey": keys.secret }],
            "actions": actions,
        })
    };
    let reads = [format!("Read:{DATA}"), format!("List:{DATA}")];
    let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
    json!({ "identities": [
        identity(ADMIN, &["Admin", "Read", "Write", "List", "Tagging"]),
        identity(READER, &reads),
        identity(LISTLESS, &reads[..1]),
    ] })
    .to_string()
}

fn seaweed(command: &mut Command, dir: &Path, config: &Path, [s3, master, volume, filer]: [u16; 4]) {
    command.current_dir(dir).args(["server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]);
    command.args(["-master.telemetry=false", "-volume.max=64", "-master.volumeSizeLimitMB=64"]);
    // A single master, which starts without waiting for peers.
    command.arg("-master.peers=none");
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    for (flag, port) in
        [("s3.port", s3), ("master.port", master), ("volume.port", volume), ("filer.port", filer)]
    {
        command.arg(format!("-{flag}={port}"));
    }
    command.arg(format!("-s3.config={}", config.display()));
}
