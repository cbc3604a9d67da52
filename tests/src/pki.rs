//! The certificates of a cluster: an authority, and one certificate for each role, in the folder that the processes
//! read. They can be replaced while the processes run. Not here: how certificates are made (`certs`).

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::certs::{Authority, replace};
use crate::secrets;

/// The tokens that coordinators accept.
pub const OPERATORS_TOKEN: &str = "operators-0123456789abcdef";
pub const READERS_TOKEN: &str = "readers-0123456789abcdef";
/// `sha256sum` of [`READERS_TOKEN`].
const READERS_DIGEST: &str = "e73c7e0719236792231406c6933fa10ec3c685195f9efd21322239ed844efe8a";

/// The prefix of a cluster's custom names.
pub const OWN_NAMES: &str = "spiffe://prod.example/ns/telemetry/sa/";

/// The roles, as named by the files of their certificates.
pub const ROLES: [&str; 4] = ["coordinator", "worker", "operator", "reader"];

/// A cluster's certificates.
#[derive(Debug)]
pub struct Pki {
    dir: TempDir,
    authority: Authority,
    /// The prefix of the names of roles.
    names: &'static str,
}

impl Pki {
    /// A new authority, and certificates for all roles.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn new() -> Result<Self> {
        Self::named("spiffe://tally/")
    }

    /// The same with custom names in the certificates, and the file that maps names to roles.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn with_roles() -> Result<Self> {
        let pki = Self::named(OWN_NAMES)?;
        let lines: String = ROLES.iter().map(|role| format!("{role} = [\"{OWN_NAMES}{role}\"]\n")).collect();
        replace(&pki.roles(), &lines, 0o644)?;
        Ok(pki)
    }

    fn named(names: &'static str) -> Result<Self> {
        let pki = Self { dir: TempDir::new()?, authority: Authority::new("tally tests")?, names };
        pki.trust(&[&pki.authority])?;
        pki.sign_all(&pki.authority)?;
        [OPERATORS_TOKEN, READERS_TOKEN].into_iter().for_each(secrets::register);
        let lines = format!("operator ops {OPERATORS_TOKEN}\nreader dash sha256:{READERS_DIGEST}\n");
        replace(&pki.tokens(), &lines, 0o600)?;
        Ok(pki)
    }

    /// The file of names and roles, if there is one.
    pub fn roles(&self) -> PathBuf {
        self.dir().join("roles.toml")
    }

    /// The file of tokens.
    pub fn tokens(&self) -> PathBuf {
        self.dir().join("tokens")
    }

    /// The folder of all files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The authority that signs now.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sets the authorities that all processes trust from now on.
    fn trust(&self, authorities: &[&Authority]) -> Result<()> {
        let pems: String = authorities.iter().map(|authority| authority.pem()).collect();
        replace(&self.dir().join("ca.pem"), &pems, 0o644)
    }

    fn sign_all(&self, authority: &Authority) -> Result<()> {
        for role in ROLES {
            authority.sign_uri(self.dir(), role, &format!("{}{role}", self.names), false)?;
        }
        Ok(())
    }

    /// Replaces authority and certificates in three steps, without any refusal: both authorities are trusted, the new
    /// one signs, the old one is no longer trusted. After each step, `taken` is called with its number; it returns when
    /// all processes have read the new files.
    ///
    /// # Errors
    /// Those of `taken`, or a file can't be written.
    pub fn renew(&mut self, mut taken: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let new = Authority::new("tally tests, the next")?;
        self.trust(&[&self.authority, &new])?;
        taken(1)?;
        self.sign_all(&new)?;
        taken(2)?;
        self.trust(&[&new])?;
        self.authority = new;
        taken(3)
    }

    /// The flags that give a process that role, or another certificate of the folder.
    pub fn flags(&self, name: &str) -> Vec<String> {
        let path = |file: String| self.dir().join(file).to_string_lossy().into_owned();
        let pairs = [
            ("--tls-ca", path("ca.pem".into())),
            ("--tls-cert", path(format!("{name}.pem"))),
            ("--tls-key", path(format!("{name}.key"))),
        ];
        let roles = ("--tls-roles", path("roles.toml".into()));
        let roles = self.roles().exists().then_some(roles);
        pairs.into_iter().chain(roles).flat_map(|(flag, path)| [flag.to_string(), path]).collect()
    }

    /// The flags of a client that trusts the cluster and shows no certificate.
    pub fn nameless(&self) -> Vec<String> {
        let mut flags = self.flags("none");
        flags.drain(2..6);
        flags
    }

    /// The same with a token, which is written to a file.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn with_token(&self, token: &str) -> Result<Vec<String>> {
        secrets::register(token);
        let file = self.dir().join("shown");
        replace(&file, &format!("{token}\n"), 0o600)?;
        let mut flags = self.nameless();
        flags.extend(["--token-file".into(), file.to_string_lossy().into_owned()]);
        Ok(flags)
    }
}
