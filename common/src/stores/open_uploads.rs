//! Lists the open multipart uploads of a bucket. `object_store` does not have this request, so this module sends it with
//! the client and the credentials of `object_store`. Google's store answers like Amazon's. Azure has no multipart uploads:
//! it deletes uncommitted blocks after a week.
//!
//! Not here: which uploads are aborted (the coordinator's `publish`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::gcp::GoogleCloudStorage;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;

use super::requests::Counted;
use super::settings::client_options;
use super::transient::is_transient_status;
use super::{BucketError, Service, explain};
use crate::retry::RetryPolicy;

/// How long a signed request is valid.
const SIGNED: Duration = Duration::from_secs(300);
/// The maximum number of pages, each of 1,000 uploads.
const MAX_PAGES: usize = 1000;
/// How a page is requested again.
const RETRY: RetryPolicy =
    RetryPolicy::doubling(Duration::from_millis(400), Duration::from_millis(3200)).with_max_retries(4);

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenUpload {
    /// The key of its object.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it started.
    pub initiated: DateTime<Utc>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Page {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(rename = "Upload")]
    uploads: Vec<OpenUpload>,
}

/// Lists the open uploads of one bucket.
#[async_trait]
pub trait UploadLister: std::fmt::Debug + Send + Sync {
    /// The open uploads of keys that begin with `prefix`.
    ///
    /// # Errors
    /// [`BucketError::OpenUploads`].
    async fn list(&self, prefix: &str) -> Result<Vec<OpenUpload>, BucketError>;
}

/// The lister of a service; `None` for Azure.
#[derive(Debug)]
pub(super) struct Lister(Option<(Bucket, HttpClient)>);

#[derive(Debug)]
enum Bucket {
    S3(Arc<AmazonS3>),
    Gcs(Arc<GoogleCloudStorage>, String),
}

fn failed(reason: impl std::fmt::Display) -> BucketError {
    BucketError::OpenUploads(reason.to_string())
}

fn client(service: Service) -> Result<HttpClient, BucketError> {
    // The signed URL decides whether plain HTTP is used.
    let options = client_options(None)?.with_allow_http(true);
    Counted(service).connect(&options).map_err(|e| failed(explain(&e)))
}

impl Lister {
    pub(super) fn s3(store: Arc<AmazonS3>) -> Result<Self, BucketError> {
        Ok(Lister(Some((Bucket::S3(store), client(Service::S3)?))))
    }

    pub(super) fn gcs(store: Arc<GoogleCloudStorage>, bucket: &str) -> Result<Self, BucketError> {
        Ok(Lister(Some((Bucket::Gcs(store, bucket.into()), client(Service::Gcs)?))))
    }

    pub(super) fn none() -> Self {
        Lister(None)
    }
}

#[async_trait]
impl UploadLister for Lister {
    async fn list(&self, prefix: &str) -> Result<Vec<OpenUpload>, BucketError> {
        let Some((bucket, client)) = &self.0 else { return Ok(vec![]) };
        let mut found = vec![];
        let mut query =
            vec![("uploads".to_string(), String::new()), ("prefix".to_string(), prefix.to_string())];
        for _ in 0..MAX_PAGES {
            let page = page(bucket, client, &query).await?;
            // Some stores ignore a part of the prefix.
            found.extend(page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)));
            let (true, Some(key)) = (page.is_truncated, page.next_key_marker) else { return Ok(found) };
            query.truncate(2);
            query.push(("key-marker".into(), key));
            query.extend(page.next_upload_id_marker.map(|id| ("upload-id-marker".into(), id)));
        }
        Err(failed(format!("{prefix}: there are more than {MAX_PAGES} pages")))
    }
}

async fn page(bucket: &Bucket, client: &HttpClient, query: &[(String, String)]) -> Result<Page, BucketError> {
    let mut retries = RETRY.start();
    loop {
        let request = request(bucket, query).await?;
        let (error, again) = match client.execute(request).await {
            Ok(answer) => {
                let status = answer.status();
                let text = answer.into_body().bytes().await.map_err(failed)?;
                let text = String::from_utf8_lossy(&text);
                if status.is_success() {
                    return quick_xml::de::from_str(&text).map_err(failed);
                }
                let source = text.into_owned().into();
                let error = object_store::Error::PermissionDenied { path: String::new(), source };
                (explain(&error), is_transient_status(status.as_u16()))
            }
            Err(error) => (error.to_string(), true),
        };
        if !again || !retries.wait().await {
            return Err(failed(error));
        }
    }
}

async fn request(bucket: &Bucket, query: &[(String, String)]) -> Result<HttpRequest, BucketError> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    let url = match bucket {
        Bucket::S3(store) => {
            let query = query.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let options = SignedUrlOptions::default().with_query(query);
            let root = Path::default();
            let signed = store.signed_url_opts(http::Method::GET, &root, SIGNED, &options);
            signed.await.map_err(|e| failed(explain(&e)))?
        }
        Bucket::Gcs(store, name) => {
            let credential = store.credentials().get_credential().await.map_err(|e| failed(explain(&e)))?;
            let bearer = http::HeaderValue::from_str(&format!("Bearer {}", credential.bearer));
            let bearer =
                bearer.map_err(|_| failed("the token of Google Cloud Storage is not valid in a header"))?;
            request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
            let base = format!("https://storage.googleapis.com/{name}");
            url::Url::parse_with_params(&base, query).map_err(failed)?
        }
    };
    *request.uri_mut() = url.as_str().parse::<http::Uri>().map_err(failed)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_uploads_is_read_with_and_without_any() {
        let text = r#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><KeyMarker/><NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>
            <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
            <Upload><Key>a/k1</Key><UploadId>u1</UploadId><StorageClass>STANDARD</StorageClass>
              <Initiated>2026-11-10T20:48:33.000Z</Initiated></Upload>
            <Upload><Key>a/k2</Key><UploadId>u2</UploadId><Initiator><ID>x</ID></Initiator>
              <Initiated>2026-11-10T20:48:34Z</Initiated></Upload></ListMultipartUploadsResult>"#;
        let page: Page = quick_xml::de::from_str(text).unwrap();
        assert!(page.is_truncated);
        assert_eq!(page.uploads.iter().map(|u| u.key.as_str()).collect::<Vec<_>>(), ["a/k1", "a/k2"]);
        assert_eq!(page.uploads[1].upload_id, "u2");
        let none =
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
        let page: Page = quick_xml::de::from_str(none).unwrap();
        assert!(page.uploads.is_empty() && !page.is_truncated);
    }
}
