//! Real S3 servers on loopback: SeaweedFS, which checks signatures, checksums and conditions, and moto, a second
//! opinion. Both come from PyPI into the virtual environment that `tests/run` makes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use super::client::{Client, Keys};
use crate::certs::Signed;
use crate::python::beside_python;
use crate::wait::wait_for;

/// How long a server may take until it answers.
const READY: Duration = Duration::from_secs(90);
/// How often other ports are tried when somebody took ours between choosing and using them.
const TRIES: usize = 5;
/// gRPC listens so far above each port of SeaweedFS.
const ABOVE: u16 = 10_000;

/// The bucket of inputs; [`READER`] may list and read it.
pub const DATA: &str = "data";
/// The bucket of outputs, which only [`ADMIN`] sees.
pub const OUT: &str = "out";
/// May do all.
pub const ADMIN: Keys = Keys { id: "tally-admin", secret: "tally-admin-secret" };
/// May list and read [`DATA`], and nothing else.
pub const READER: Keys = Keys { id: "tally-reader", secret: "tally-reader-secret" };
/// May read [`DATA`], and not list it.
pub const LISTLESS: Keys = Keys { id: "tally-listless", secret: "tally-listless-secret" };
/// Whom the server does not know.
pub const STRANGER: Keys = Keys { id: "tally-stranger", secret: "tally-stranger-secret" };

/// Which server.
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
    port: u16,
    /// What it shows over TLS, and on which port.
    tls: Option<(Signed, u16)>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server and makes its buckets.
    ///
    /// # Errors
    /// [`Missing`](crate::harness::Missing) where it is not on this machine. It does not start, or is not ready in time; the message holds the
    /// end of its log.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, None)
    }

    /// Starts SeaweedFS, which listens for TLS, too.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_tls(signed: &Signed) -> Result<Self> {
        Self::start_with(Kind::Seaweed, Some((signed.clone(), 0)))
    }

    fn start_with(kind: Kind, tls: Option<(Signed, u16)>) -> Result<Self> {
        let name = match kind {
            Kind::Seaweed => "weed",
            Kind::Moto => "moto_server",
        };
        let bin = beside_python(name)?;
        let mut server = Self { kind, bin, dir: TempDir::with_prefix("s3-")?, port: 0, tls, child: None };
        for _ in 1..TRIES {
            match server.run() {
                Err(_) if server.log().to_lowercase().contains("address already in use") => {}
                result => return result.map(|()| server),
            }
        }
        server.run().map(|()| server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it listens for TLS.
    ///
    /// # Panics
    /// It was not started so.
    pub fn tls_address(&self) -> SocketAddr {
        let (_, port) = self.tls.as_ref().expect("a server with TLS");
        (Ipv4Addr::LOCALHOST, *port).into()
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// The system gives no runtime.
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
        let ports = free_ports::<5>()?;
        self.port = ports[0];
        match self.kind {
            Kind::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &ports[0].to_string()]);
            }
            Kind::Seaweed => {
                let config = self.dir.path().join("s3.json");
                std::fs::write(&config, identities())?;
                let [plain @ .., sealed] = ports;
                seaweed(&mut command, self.dir.path(), &config, plain);
                if let Some((signed, port)) = &mut self.tls {
                    *port = sealed;
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

    /// Ready is who takes an object; volumes come up after the port does.
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
            // It may have ended by itself.
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
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    for (flag, port) in
        [("s3.port", s3), ("master.port", master), ("volume.port", volume), ("filer.port", filer)]
    {
        command.arg(format!("-{flag}={port}"));
    }
    command.arg(format!("-s3.config={}", config.display()));
}

/// Ports that nobody uses at the moment, and those for gRPC above them.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..1000 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let above = port.checked_add(ABOVE).map(|above| TcpListener::bind((Ipv4Addr::LOCALHOST, above)));
        if let Some(Ok(above)) = above {
            ports.push(port);
            held.push((listener, above));
        } else {
            // Below this one there may be room: the system gives other numbers while this one is held.
            held.push((listener, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?));
        }
        if let Ok(ports) = <[u16; N]>::try_from(ports.as_slice()) {
            return Ok(ports);
        }
    }
    bail!("no {N} ports on loopback are free")
}
