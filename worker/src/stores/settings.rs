//! How each service's client is set up: credentials and endpoint from the environment and from
//! AWS's files, time limits and retries of our own.
//!
//! Credentials of S3, the first that are there: keys in the environment; a web identity (IRSA); a
//! container's (ECS, EKS); a profile of the credentials file; the instance's metadata. Of the others
//! what `object_store` takes from the environment. Not here: what the files say (`profile`).

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, Certificate, ClientOptions, HeaderValue, RetryConfig};

use super::requests::Counted;
use super::{Service, profile};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may send nothing. There is no limit on a whole answer: its size decides.
const SILENCE: Duration = Duration::from_secs(20);
/// After so long nothing is tried again.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Tries of a request after the first.
const TRIES: usize = 10;

/// What a request that fails for a moment (5xx, 429, a broken connection) is tried again by: waits
/// grow and are drawn at random.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        base: 4.,
    };
    RetryConfig { backoff, max_retries: TRIES, retry_timeout: GIVE_UP }
}

/// The setting of all clients; plain HTTP only where the endpoint is given as such.
pub(super) fn client_options(endpoint: Option<&str>) -> Result<ClientOptions, String> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let options = ClientOptions::new()
        .with_user_agent(HeaderValue::from_static(concat!("tally/", env!("CARGO_PKG_VERSION"))))
        .with_allow_http(plain)
        .with_timeout_disabled()
        .with_read_timeout(SILENCE)
        .with_connect_timeout(CONNECT);
    let Ok(file) = std::env::var("AWS_CA_BUNDLE") else { return Ok(options) };
    let cannot = |what: String| format!("AWS_CA_BUNDLE {file}: {what}");
    let pem = std::fs::read(&file).map_err(|e| cannot(e.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| cannot(e.to_string()))?;
    if certificates.is_empty() {
        return Err(cannot("there is no certificate in it".into()));
    }
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

/// A bucket of S3.
///
/// # Errors
/// Which setting makes no sense.
pub(super) fn s3(bucket: &str) -> Result<AmazonS3, String> {
    let mut builder = AmazonS3Builder::from_env();
    let given = |builder: &AmazonS3Builder, keys: &[Key]| {
        keys.iter().any(|key| builder.get_config_value(key).is_some_and(|value| !value.is_empty()))
    };
    let elsewhere = [
        Key::AccessKeyId,
        Key::SecretAccessKey,
        Key::WebIdentityTokenFile,
        Key::ContainerCredentialsRelativeUri,
        Key::ContainerCredentialsFullUri,
    ];
    // This one always has a value.
    let unsigned = builder.get_config_value(&Key::SkipSignature).is_some_and(|value| value == "true");
    let profile = profile::read()?;
    if let (Some((id, secret)), false) = (&profile.keys, unsigned || given(&builder, &elsewhere)) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = &profile.token {
            builder = builder.with_token(token);
        }
    }
    if let (Some(region), false) = (&profile.region, given(&builder, &[Key::Region, Key::DefaultRegion])) {
        builder = builder.with_region(region);
    }
    if let (Some(url), false) = (&profile.endpoint, given(&builder, &[Key::Endpoint, Key::S3Endpoint])) {
        builder = builder.with_endpoint(url);
    }
    let endpoint = [Key::S3Endpoint, Key::Endpoint].iter().find_map(|key| builder.get_config_value(key));
    let builder = builder
        .with_bucket_name(bucket)
        .with_retry(retry())
        .with_http_connector(Counted(Service::S3))
        .with_client_options(client_options(endpoint.as_deref())?);
    builder.build().map_err(|e| e.to_string())
}

/// A bucket of Google Cloud Storage.
///
/// # Errors
/// Which setting makes no sense.
pub(super) fn gcs(bucket: &str) -> Result<GoogleCloudStorage, String> {
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry())
        .with_http_connector(Counted(Service::Gcs))
        .with_client_options(client_options(None)?);
    builder.build().map_err(|e| e.to_string())
}

/// A container of Azure.
///
/// # Errors
/// Which setting makes no sense.
pub(super) fn azure(container: &str) -> Result<MicrosoftAzure, String> {
    let builder = MicrosoftAzureBuilder::from_env();
    let emulator =
        builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|value| value == "true");
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let endpoint = if emulator { Some("http://") } else { endpoint.as_deref() };
    let options = client_options(endpoint)?;
    let builder = builder
        .with_container_name(container)
        .with_retry(retry())
        .with_http_connector(Counted(Service::Azure))
        .with_client_options(options);
    builder.build().map_err(|e| e.to_string())
}
