//! The TLS configuration of a client, with the cryptography of `ring` whatever the process uses elsewhere.
//!
//! Not here: which addresses use TLS (`config`).

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::config::Tls;
use crate::error::{Error, Result};

/// The trusted authorities and the client certificate. Without `https` no file is read, and no certificate is trusted.
pub(crate) fn client_config(https: bool, tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Settings(error.to_string()))?;
    if !https {
        if tls.ca_file.is_some() || tls.client_cert.is_some() || tls.client_key.is_some() {
            let reason = "certificates are set, but the address is not https";
            return Err(Error::Settings(reason.into()));
        }
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca_file {
        Some(path) => trust_only(path, provider)?,
        None => Arc::new(Verifier::new(provider).map_err(|error| {
            Error::Settings(format!(
                "this machine has no trusted certificate authorities ({error}); give a CA file"
            ))
        })?),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match (&tls.client_cert, &tls.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("the client certificate", cert)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| failed("the client key", key, &error.to_string()))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| failed("the client certificate", cert, &error.to_string()))?
        }
        _ => return Err(Error::Settings("give a client certificate and its key together".into())),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn trust_only(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
    const WHAT: &str = "the CA file";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(WHAT, path)? {
        roots.add(certificate).map_err(|error| failed(WHAT, path, &error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| failed(WHAT, path, &error.to_string()))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(what, path, &error.to_string()))?;
    if found.is_empty() {
        return Err(failed(what, path, "it contains no certificate in PEM"));
    }
    Ok(found)
}

fn failed(what: &'static str, path: &Path, reason: &str) -> Error {
    Error::File { what, path: path.to_owned(), reason: reason.to_owned() }
}
