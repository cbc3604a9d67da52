//! The configuration of rustls: TLS 1.3 only, cryptography of `ring`, the same authorities for both sides, and no
//! resumption, so that each connection presents its certificate.
//!
//! Not here: which name has which role (`identity`), when files are read again (`watched`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::SecurityError;
use super::identity::{Role, RoleMap, Roles};
use super::watched::{StaleFiles, Watched, check_private};

/// How long the last certificates, authorities and roles count while their files cannot be used.
const MAX_STALE: Duration = Duration::from_secs(3600);
/// The application protocols: of gRPC, and of the listener of health, metrics and the HTTP API.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The files of a process's credentials.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The authorities.
    pub(super) ca: PathBuf,
    /// Certificate and key.
    pub(super) pair: Option<(PathBuf, PathBuf)>,
    /// Names and roles.
    pub(super) roles: Option<PathBuf>,
}

/// The current credentials of a process.
pub(super) struct Credentials(Watched<Loaded>);

/// The content of the files at one time.
pub(super) struct Loaded {
    /// For incoming connections; `None` without a certificate.
    pub(super) server: Option<Arc<ServerConfig>>,
    /// The same over HTTP/1.1.
    pub(super) web: Option<Arc<ServerConfig>>,
    /// Names and roles.
    pub(super) roles: Arc<RoleMap>,
    /// Grows with each change.
    pub(super) generation: u64,
    /// The validity of the authorities and of the process's certificates: for each, of the one that expires first.
    pub(super) valid: Vec<(&'static str, Valid)>,
    to_coordinators: Arc<ClientConfig>,
    to_workers: Arc<ClientConfig>,
}

impl Loaded {
    /// For connections to a process with this role.
    pub(super) fn client(&self, role: Role) -> Arc<ClientConfig> {
        if role == Role::Worker { self.to_workers.clone() } else { self.to_coordinators.clone() }
    }
}

impl Credentials {
    /// Reads them. With `tokens` a client may have a token instead of a certificate.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub(super) fn open(files: Files, tokens: bool) -> Result<Self, SecurityError> {
        let mut watched = vec![files.ca.clone()];
        watched.extend(files.pair.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]));
        watched.extend(files.roles.clone());
        Watched::open("certificates", MAX_STALE, watched, move |generation| load(&files, tokens, generation))
            .map(Credentials)
    }

    /// The content of the files for a new connection, at most a second old.
    ///
    /// # Errors
    /// The files cannot be used for too long.
    pub(super) fn current(&self) -> Result<Arc<Loaded>, StaleFiles> {
        self.0.current()
    }

    /// The last content of the files, however old.
    pub(super) fn last(&self) -> Arc<Loaded> {
        self.0.last()
    }

    /// For how long the files cannot be used.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        self.0.failing_for()
    }
}

fn load(files: &Files, tokens: bool, generation: u64) -> Result<Loaded, SecurityError> {
    let provider = Arc::new(ring::default_provider());
    let roles = Arc::new(match &files.roles {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| SecurityError::file(path, e))?;
            RoleMap::parse(&text).map_err(|reason| SecurityError::file(path, reason))?
        }
        None => RoleMap::default(),
    });
    let mut roots = RootCertStore::empty();
    let authorities = certificates(&files.ca)?;
    for certificate in &authorities {
        roots.add(certificate.clone()).map_err(|e| SecurityError::file(&files.ca, e))?;
    }
    let roots = Arc::new(roots);
    let pair = files.pair.as_ref().map(|(cert, key)| Pair::read(cert, key)).transpose()?;
    let own = pair.as_ref().map_or(&[][..], |pair| &pair.chain[..]);
    let valid = [("authority", &authorities[..]), ("process", own)];
    let valid =
        valid.into_iter().filter_map(|(whose, all)| Some((whose, Valid::first_to_expire(all)?))).collect();
    let client = |expected| client(&provider, &roots, &roles, pair.as_ref(), expected);
    let server = pair.as_ref().map(|pair| server(&provider, &roots, pair, tokens)).transpose()?;
    Ok(Loaded {
        to_coordinators: client(Role::Coordinator)?,
        to_workers: client(Role::Worker)?,
        web: server.as_ref().map(|server| {
            let mut config = ServerConfig::clone(server);
            config.alpn_protocols = vec![HTTP1.to_vec()];
            Arc::new(config)
        }),
        server,
        roles,
        generation,
        valid,
    })
}

/// The validity of a certificate, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Valid {
    /// The first second.
    pub(super) from: i64,
    /// The last one.
    pub(super) until: i64,
}

impl Valid {
    /// The validity of the certificate that expires first.
    fn first_to_expire(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        certificates.iter().filter_map(Valid::of).min_by_key(|valid| valid.until)
    }

    /// `None` if the certificate cannot be parsed; rustls then reports it.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let valid = parsed.validity();
        Some(Valid { from: valid.not_before.timestamp(), until: valid.not_after.timestamp() })
    }
}

/// A certificate with its chain, and its key.
struct Pair {
    cert: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    fn read(cert: &Path, key: &Path) -> Result<Self, SecurityError> {
        check_private(key)?;
        let secret = PrivateKeyDer::from_pem_file(key);
        // The parser's message may quote the key.
        let secret = secret.map_err(|_| SecurityError::file(key, "it contains no private key in PEM"))?;
        Ok(Pair { cert: cert.into(), chain: certificates(cert)?, key: secret })
    }

    fn misfit(&self, error: Error) -> SecurityError {
        SecurityError::file(&self.cert, format!("it cannot be used with its key: {error}"))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|e| SecurityError::file(path, e))?;
    if found.is_empty() {
        return Err(SecurityError::file(path, "it contains no certificate in PEM"));
    }
    Ok(found)
}

fn unusable(error: impl std::fmt::Display) -> SecurityError {
    SecurityError::Tls(error.to_string())
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    pair: &Pair,
    tokens: bool,
) -> Result<Arc<ServerConfig>, SecurityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = if tokens { verifier.allow_unauthenticated() } else { verifier };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier.build().map_err(unusable)?)
        .with_single_cert(pair.chain.clone(), pair.key.clone_key())
        .map_err(|e| pair.misfit(e))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    roles: &Arc<RoleMap>,
    pair: Option<&Pair>,
    expected: Role,
) -> Result<Arc<ClientConfig>, SecurityError> {
    let verifier =
        RoleVerifier { roots: roots.clone(), provider: provider.clone(), roles: roles.clone(), expected };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match pair {
        Some(pair) => builder
            .with_client_auth_cert(pair.chain.clone(), pair.key.clone_key())
            .map_err(|e| pair.misfit(e))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A certificate without the expected role.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of {name} has the role {roles}, not {}", expected.name())]
struct WrongRole {
    name: String,
    roles: Roles,
    expected: Role,
}

/// Checks that a trusted authority signed the certificate and that it has the role.
#[derive(Debug)]
struct RoleVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    roles: Arc<RoleMap>,
    expected: Role,
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let identity = self.roles.identity(end_entity);
        if identity.roles.has(self.expected) {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongRole { name: identity.name, roles: identity.roles, expected: self.expected };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not supported".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
