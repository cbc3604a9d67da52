//! Buckets of S3, Google Cloud Storage and Azure. A process has one client per bucket, which reads the environment like
//! other programs of the service. Secrets are not accepted in URLs or flags, and are never shown.
//!
//! Not here: URLs (`urls`), how inputs are read (`tally-scan`), how a day is published (the coordinator).

mod answers;
mod credentials;
mod error;
mod explain;
mod lookup;
mod markers;
mod no_credentials;
mod open_uploads;
mod profile;
mod requests;
mod settings;
mod transient;
mod unreachable;
pub mod urls;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use parking_lot::Mutex;

pub use error::BucketError;
pub use explain::explain;
pub use lookup::{find, read};
pub use markers::{bad_key, is_hadoop_marker, list_below, slash_markers};
pub use open_uploads::{OpenUpload, UploadLister};
pub use requests::metrics;
pub use transient::{concerns_credentials, is_transient};
pub use unreachable::fail_fast;

/// A storage service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Amazon S3 and compatible services.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    /// The service of a URL's scheme.
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Service::S3),
            "gs" => Some(Service::Gcs),
            "az" | "azure" => Some(Service::Azure),
            _ => None,
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
        }
    }

    /// The URL of an object or folder.
    pub(crate) fn name(self, bucket: &str, key: &Path) -> String {
        let slash = if key.as_ref().is_empty() { "" } else { "/" };
        format!("{}://{bucket}{slash}{key}", self.scheme())
    }
}

/// A bucket or container.
#[derive(Debug)]
pub struct Bucket {
    service: Service,
    name: String,
    /// Its objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Its multipart uploads.
    pub uploads: Arc<dyn UploadStore>,
    lister: Box<dyn UploadLister>,
}

/// Multipart uploads of a store that implements `Debug`.
pub trait UploadStore: MultipartStore + std::fmt::Debug {}
impl<T: MultipartStore + std::fmt::Debug> UploadStore for T {}

impl Bucket {
    /// A bucket over these clients.
    pub fn new(
        service: Service,
        name: &str,
        objects: Arc<dyn ObjectStore>,
        uploads: Arc<dyn UploadStore>,
        lister: Box<dyn UploadLister>,
    ) -> Self {
        Bucket { service, name: name.into(), objects, uploads, lister }
    }

    /// The URL of one of its objects.
    pub fn name_of(&self, key: &Path) -> String {
        self.service.name(&self.name, key)
    }

    /// The open multipart uploads of keys that start with `prefix`.
    ///
    /// # Errors
    /// [`BucketError::OpenUploads`].
    pub async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, BucketError> {
        self.lister.list(prefix).await
    }
}

type Buckets = Mutex<HashMap<(Service, String), Arc<Bucket>>>;

/// The buckets of this process.
fn buckets() -> &'static Buckets {
    static BUCKETS: OnceLock<Buckets> = OnceLock::new();
    BUCKETS.get_or_init(Buckets::default)
}

/// Gives a bucket of this process a client: URLs of its service and name open it from now on. Simulations have stores of
/// their own.
pub fn install(bucket: Bucket) {
    let name = (bucket.service, bucket.name.clone());
    buckets().lock().insert(name, Arc::new(bucket));
}

/// Forgets the client of a bucket: the next URL creates one.
pub fn uninstall(service: Service, name: &str) {
    buckets().lock().remove(&(service, name.to_string()));
}

/// The bucket with this name. The first call creates its client.
///
/// # Errors
/// [`BucketError`].
pub fn bucket(service: Service, name: &str) -> Result<Arc<Bucket>, BucketError> {
    let mut buckets = buckets().lock();
    if let Some(bucket) = buckets.get(&(service, name.to_string())) {
        return Ok(bucket.clone());
    }
    let made = Arc::new(make(service, name)?);
    buckets.insert((service, name.to_string()), made.clone());
    Ok(made)
}

fn make(service: Service, name: &str) -> Result<Bucket, BucketError> {
    // The clients use the TLS provider of the process. An earlier call has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (objects, uploads, lister): (Arc<dyn ObjectStore>, Arc<dyn UploadStore>, _) = match service {
        Service::S3 => {
            let store = Arc::new(settings::s3(name)?);
            (store.clone(), store.clone(), open_uploads::Lister::s3(store)?)
        }
        Service::Gcs => {
            let store = Arc::new(settings::gcs(name)?);
            (store.clone(), store.clone(), open_uploads::Lister::gcs(store, name)?)
        }
        Service::Azure => {
            let store = Arc::new(settings::azure(name)?);
            (store.clone(), store, open_uploads::Lister::none())
        }
    };
    Ok(Bucket { service, name: name.into(), objects, uploads, lister: Box::new(lister) })
}
