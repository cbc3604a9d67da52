//! Certificates for tests of TLS: a test authority, and what it signs, as PEM files. Not here: their users.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

use crate::secrets;

/// An authority that lives as long as the test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The paths of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Signed {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Writes the authority's own certificate to `dir`, as `name.pem`.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let path = dir.join(format!("{name}.pem"));
        std::fs::write(&path, &self.pem)?;
        Ok(path)
    }

    /// Signs a certificate for host names and addresses and writes it to `dir`, as `name.pem` and `name.key`.
    ///
    /// # Errors
    /// A host is neither name nor address, or the folder can't be written.
    pub fn sign(&self, dir: &Path, name: &str, hosts: &[&str]) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        self.finish(dir, name, &params, &key)
    }

    /// Signs a certificate for a URI, as names of roles are; one that `expired` is of the year 2000.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn sign_uri(&self, dir: &Path, name: &str, uri: &str, expired: bool) -> Result<Signed> {
        // The default validity of rcgen.
        self.sign_for(dir, name, uri, if expired { (2000, 2001) } else { (1975, 4096) })
    }

    /// The same, valid from the beginning of one year to the beginning of another.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn sign_for(&self, dir: &Path, name: &str, uri: &str, (from, until): (i32, i32)) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        self.finish(dir, name, &params, &key)
    }

    /// The authority's own certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn finish(&self, dir: &Path, name: &str, params: &CertificateParams, key: &KeyPair) -> Result<Signed> {
        let cert = params.clone().signed_by(key, &self.issuer)?;
        let signed = Signed { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        replace(&signed.cert, &cert.pem(), 0o644)?;
        let secret = key.serialize_pem();
        secrets::register_pem(&secret);
        replace(&signed.key, &secret, 0o600)?;
        Ok(signed)
    }
}

/// Replaces or creates a file atomically.
///
/// # Errors
/// The folder can't be written.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, Permissions::from_mode(mode))?;
    std::fs::rename(&new, path)?;
    Ok(())
}
