//! Configures the client of each service: credentials and endpoint from the environment and AWS's files, and Tally's own
//! time limits and retries.
//!
//! Not here: AWS's files (`profile`), how credentials are fetched (`credentials`).

use std::str::FromStr;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, HeaderValue, RetryConfig};

use super::credentials::{Fetched, Source, one_try};
use super::requests::Counted;
use super::{BucketError, Service, credentials, profile};
use crate::environment;

/// The time limit of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// The maximum time without data within an answer. A whole answer has no time limit, because it may be large.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The time after which a request is not retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);
/// The maximum number of retries of a request.
const MAX_RETRIES: usize = 10;

/// The retries of a request with a transient error (5xx, 429, a broken connection): the delays grow and are random.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        base: 4.,
    };
    RetryConfig { backoff, max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT }
}

/// The options of all clients; plain HTTP only if the endpoint is an `http://` URL.
pub(super) fn client_options(endpoint: Option<&str>) -> Result<ClientOptions, BucketError> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let options = ClientOptions::new()
        .with_user_agent(HeaderValue::from_static(concat!("tally/", env!("CARGO_PKG_VERSION"))))
        .with_allow_http(plain)
        .with_timeout_disabled()
        .with_read_timeout(READ_TIMEOUT)
        .with_connect_timeout(CONNECT);
    let Some(file) = environment::text("AWS_CA_BUNDLE") else { return Ok(options) };
    let cannot = |reason: String| BucketError::CaBundle { file: file.clone(), reason };
    let pem = std::fs::read(&file).map_err(|e| cannot(e.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| cannot(e.to_string()))?;
    if certificates.is_empty() {
        return Err(cannot("it contains no certificate".into()));
    }
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

/// A bucket of S3.
///
/// # Errors
/// [`BucketError`].
pub(super) fn s3(bucket: &str) -> Result<AmazonS3, BucketError> {
    let mut builder =
        variables("AWS_").fold(AmazonS3Builder::new(), |b, (key, value)| b.with_config(key, value));
    let given = |builder: &AmazonS3Builder, keys: &[Key]| {
        keys.iter().any(|key| builder.get_config_value(key).is_some_and(|value| !value.is_empty()))
    };
    // This setting always has a value.
    let unsigned = builder.get_config_value(&Key::SkipSignature).is_some_and(|value| value == "true");
    let profile = profile::read()?;
    if let (Some(region), false) = (&profile.region, given(&builder, &[Key::Region, Key::DefaultRegion])) {
        builder = builder.with_region(region);
    }
    if let (Some(url), false) = (&profile.endpoint, given(&builder, &[Key::Endpoint, Key::S3Endpoint])) {
        builder = builder.with_endpoint(url);
    }
    let endpoint = [Key::S3Endpoint, Key::Endpoint].iter().find_map(|key| builder.get_config_value(key));
    let options = client_options(endpoint.as_deref())?;
    builder = builder.with_bucket_name(bucket).with_http_connector(Counted(Service::S3));
    if !unsigned && let Some(provider) = credentials::s3(&builder, options.clone(), &profile)? {
        builder = builder.with_credentials(provider);
    }
    Ok(builder.with_retry(retry()).with_client_options(options).build()?)
}

/// The variables that set options of a service's client.
fn variables<K: FromStr>(prefix: &str) -> impl Iterator<Item = (K, String)> {
    let named = environment::with_prefix(prefix).into_iter();
    named.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

/// A bucket of Google Cloud Storage.
///
/// # Errors
/// [`BucketError`].
pub(super) fn gcs(bucket: &str) -> Result<GoogleCloudStorage, BucketError> {
    let mut builder = GoogleCloudStorageBuilder::new();
    if let Some(path) = environment::text("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    let builder = variables("GOOGLE_").fold(builder, |b, (key, value)| b.with_config(key, value));
    let builder = builder.with_bucket_name(bucket).with_http_connector(Counted(Service::Gcs));
    let options = client_options(None)?;
    let quick =
        builder.clone().with_retry(one_try()).with_client_options(credentials::quick(options.clone()));
    let quick = quick.build()?;
    let asked = "no credentials for Google Cloud Storage, from GOOGLE_APPLICATION_CREDENTIALS, \
                 GOOGLE_SERVICE_ACCOUNT or the metadata server";
    let advice = "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account";
    let keys = [GoogleConfigKey::ServiceAccount, GoogleConfigKey::ServiceAccountKey];
    let keys = keys.into_iter().chain([GoogleConfigKey::ApplicationCredentials]);
    let last_resort = keys.into_iter().all(|key| builder.get_config_value(&key).is_none());
    let source = Source { asked: asked.into(), advice, last_resort };
    let provider = Fetched::provider(Service::Gcs, quick.credentials(), source);
    let builder = builder.with_credentials(provider).with_retry(retry()).with_client_options(options);
    Ok(builder.build()?)
}

/// A container of Azure.
///
/// # Errors
/// [`BucketError`].
pub(super) fn azure(container: &str) -> Result<MicrosoftAzure, BucketError> {
    let mut builder = MicrosoftAzureBuilder::new();
    if let Some(endpoint) = environment::text("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    let builder = variables("AZURE_").fold(builder, |b, (key, value)| b.with_config(key, value));
    let emulator =
        builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|value| value == "true");
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let endpoint = if emulator { Some("http://") } else { endpoint.as_deref() };
    let options = client_options(endpoint)?;
    let builder = builder.with_container_name(container).with_http_connector(Counted(Service::Azure));
    let quick =
        builder.clone().with_retry(one_try()).with_client_options(credentials::quick(options.clone()));
    let quick = quick.build()?;
    let asked = "no credentials for Azure, from AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, a client secret, a \
                 federated token or a managed identity";
    let advice = "Set AZURE_STORAGE_ACCOUNT_KEY, or the variables of one of the others";
    let keys =
        [AzureConfigKey::ClientSecret, AzureConfigKey::FederatedTokenFile, AzureConfigKey::MsiEndpoint];
    let last_resort = keys.iter().all(|key| builder.get_config_value(key).is_none());
    let source = Source { asked: asked.into(), advice, last_resort };
    let provider = Fetched::provider(Service::Azure, quick.credentials(), source);
    let builder = builder.with_credentials(provider).with_retry(retry()).with_client_options(options);
    Ok(builder.build()?)
}
