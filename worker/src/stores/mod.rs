//! Buckets of S3, Google Cloud Storage and Azure: one client each and process, made from the
//! environment as other programs of each service are set up. No secret is taken from a URL or a
//! flag, and none is shown.
//!
//! Not here: URLs (`urls`), what is read (`scan`), how a day is published (the coordinator).

mod explain;
mod open_uploads;
mod profile;
mod requests;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use parking_lot::Mutex;

pub use explain::explain;
pub use open_uploads::OpenUpload;
pub use requests::metrics;

/// Whose stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Amazon's, and all that speak like it.
    S3,
    /// Google's.
    Gcs,
    /// Microsoft's.
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

/// A bucket, or container.
#[derive(Debug)]
pub struct Bucket {
    service: Service,
    name: String,
    /// Its objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Its uploads in parts.
    pub uploads: Arc<dyn UploadStore>,
    lister: open_uploads::Lister,
}

/// Uploads in parts, of a store that can be shown.
pub trait UploadStore: MultipartStore + std::fmt::Debug {}
impl<T: MultipartStore + std::fmt::Debug> UploadStore for T {}

impl Bucket {
    /// The URL of one of its objects.
    pub fn name_of(&self, key: &Path) -> String {
        self.service.name(&self.name, key)
    }

    /// The uploads that somebody began and nobody ended, of keys that begin with `prefix`.
    ///
    /// # Errors
    /// What the store said, for people.
    pub async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, String> {
        self.lister.list(prefix).await
    }
}

type Buckets = Mutex<HashMap<(Service, String), Arc<Bucket>>>;

/// The bucket of that name, made at the first call.
///
/// # Errors
/// Which setting makes no sense.
pub fn bucket(service: Service, name: &str) -> Result<Arc<Bucket>, String> {
    static BUCKETS: OnceLock<Buckets> = OnceLock::new();
    let mut buckets = BUCKETS.get_or_init(Buckets::default).lock();
    if let Some(bucket) = buckets.get(&(service, name.to_string())) {
        return Ok(bucket.clone());
    }
    let made = Arc::new(make(service, name)?);
    buckets.insert((service, name.to_string()), made.clone());
    Ok(made)
}

fn make(service: Service, name: &str) -> Result<Bucket, String> {
    // The clients take the process's provider of TLS; whoever installed one before has the same.
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
    Ok(Bucket { service, name: name.into(), objects, uploads, lister })
}
