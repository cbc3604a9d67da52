//! The options of security, which are the same for all programs. Each is also read from the environment and, by servers,
//! from `--config`.
//!
//! Not here: what the files contain (`certificates`, `identity`, `tokens`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::certificates::{Credentials, Files};
use super::{Bearer, Dialer, SecurityError};

/// Certificates.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// Certificate authorities for the certificates of other processes, as PEM; read again when it changes, like the
    /// next three files
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate of this process with its intermediate certificates, as PEM
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM; only its owner and group may have access
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The roles of names in certificates, as TOML [default: spiffe://tally/ROLE, where
    /// ROLE is coordinator, worker, operator or reader]
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    pub tls_roles: Option<PathBuf>,
}

/// Security of a server.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Serve in plain text without authentication, also to other machines
    #[arg(long, help_heading = "Security")]
    pub insecure: bool,
}

/// Security of a command that connects to a coordinator.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// File with the bearer token for the coordinator
    #[arg(long, help_heading = "Security", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl TlsArgs {
    fn files(&self) -> Result<Option<Files>, SecurityError> {
        let wrong = |what: &str| Err(SecurityError::Options(what.into()));
        let pair = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => return wrong("give --tls-cert and --tls-key together"),
        };
        match &self.tls_ca {
            Some(ca) => Ok(Some(Files { ca: ca.clone(), pair, roles: self.tls_roles.clone() })),
            None if pair.is_some() => wrong("--tls-cert needs --tls-ca, the trusted authorities"),
            None if self.tls_roles.is_some() => wrong("--tls-roles needs --tls-ca"),
            None => Ok(None),
        }
    }

    /// Adds the option that names the file to an error; `more` is an option besides those of certificates.
    pub(super) fn named(&self, error: SecurityError, more: (&str, Option<&Path>)) -> SecurityError {
        let SecurityError::File { path, reason } = &error else { return error };
        let options = [
            ("--tls-ca", self.tls_ca.as_deref()),
            ("--tls-cert", self.tls_cert.as_deref()),
            ("--tls-key", self.tls_key.as_deref()),
            ("--tls-roles", self.tls_roles.as_deref()),
            more,
        ];
        match options.iter().find(|(_, file)| *file == Some(path)) {
            Some((option, _)) => SecurityError::Options(format!("{option} {}: {reason}", path.display())),
            None => error,
        }
    }

    /// The files of a server, which needs a certificate.
    pub(super) fn server_files(&self) -> Result<Option<Files>, SecurityError> {
        match self.files()? {
            Some(files) if files.pair.is_none() => Err(SecurityError::Options(
                "--tls-ca needs --tls-cert and --tls-key: a server needs a certificate".into(),
            )),
            files => Ok(files),
        }
    }
}

impl ClientArgs {
    /// The dialer for coordinators; reads the files.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn dialer(&self) -> Result<Dialer, SecurityError> {
        let files = self.tls.files()?;
        if files.is_none() && self.token_file.is_some() {
            let what = "--token-file needs --tls-ca: tokens are sent over TLS only";
            return Err(SecurityError::Options(what.into()));
        }
        let named = |error| self.tls.named(error, ("--token-file", self.token_file.as_deref()));
        let credentials = files.map(|files| Credentials::open(files, false)).transpose().map_err(named)?;
        let bearer = self.token_file.as_deref().map(Bearer::read).transpose().map_err(named)?;
        Ok(Dialer::new(credentials.map(Arc::new), bearer.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_file_names_its_option() {
        let tls = TlsArgs { tls_ca: Some("/no/ca.crt".into()), ..TlsArgs::default() };
        let error = ClientArgs { tls, token_file: None }.dialer().err().unwrap().to_string();
        assert!(error.starts_with("--tls-ca /no/ca.crt: "), "{error}");
        let other = SecurityError::File { path: "/other".into(), reason: "x".into() };
        let error = TlsArgs::default().named(other, ("--tokens-file", Some(Path::new("/other"))));
        assert_eq!(error.to_string(), "--tokens-file /other: x");
    }
}
