//! Which uploads in parts are open in a bucket: a request that `object_store` does not have, made with
//! its own client and credentials. Google's store answers it as Amazon's does; Azure has no such
//! thing, there blocks that belong to nothing go by themselves after a week.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::gcp::GoogleCloudStorage;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;

use super::requests::Counted;
use super::settings::client_options;
use super::{Service, explain};

/// How long a signed request may take until it is sent.
const SIGNED: Duration = Duration::from_secs(300);
/// More pages of a thousand uploads are not asked for.
const MOST_PAGES: usize = 1000;
/// How often a page is asked for.
const TRIES: u64 = 5;

/// An upload that somebody began and nobody ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenUpload {
    /// The key that it would make.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it began.
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

/// The way to ask.
#[derive(Debug)]
pub(super) struct Lister(Option<(Who, HttpClient)>);

#[derive(Debug)]
enum Who {
    S3(Arc<AmazonS3>),
    Gcs(Arc<GoogleCloudStorage>, String),
}

fn client(service: Service) -> Result<HttpClient, String> {
    // Plain HTTP goes only where the signed URL says so.
    let options = client_options(None)?.with_allow_http(true);
    Counted(service).connect(&options).map_err(|e| explain(&e))
}

impl Lister {
    pub(super) fn s3(store: Arc<AmazonS3>) -> Result<Self, String> {
        Ok(Lister(Some((Who::S3(store), client(Service::S3)?))))
    }

    pub(super) fn gcs(store: Arc<GoogleCloudStorage>, bucket: &str) -> Result<Self, String> {
        Ok(Lister(Some((Who::Gcs(store, bucket.into()), client(Service::Gcs)?))))
    }

    pub(super) fn none() -> Self {
        Lister(None)
    }

    /// The open uploads of keys that begin with `prefix`.
    ///
    /// # Errors
    /// What the store said.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<OpenUpload>, String> {
        let Some((who, client)) = &self.0 else { return Ok(vec![]) };
        let mut found = vec![];
        let mut query =
            vec![("uploads".to_string(), String::new()), ("prefix".to_string(), prefix.to_string())];
        for _ in 0..MOST_PAGES {
            let page = page(who, client, &query).await?;
            // Some stores take a prefix for less than it says.
            found.extend(page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)));
            let (true, Some(key)) = (page.is_truncated, page.next_key_marker) else { return Ok(found) };
            query.truncate(2);
            query.push(("key-marker".into(), key));
            query.extend(page.next_upload_id_marker.map(|id| ("upload-id-marker".into(), id)));
        }
        Err(format!("{prefix}: more than {MOST_PAGES} pages of open uploads"))
    }
}

async fn page(who: &Who, client: &HttpClient, query: &[(String, String)]) -> Result<Page, String> {
    let mut tried = 0;
    loop {
        tried += 1;
        let request = request(who, query).await?;
        let (error, again) = match client.execute(request).await {
            Ok(answer) => {
                let status = answer.status();
                let text = answer.into_body().bytes().await.map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&text);
                if status.is_success() {
                    return quick_xml::de::from_str(&text)
                        .map_err(|e| format!("a list of open uploads: {e}"));
                }
                let source = text.into_owned().into();
                let error = object_store::Error::PermissionDenied { path: String::new(), source };
                (explain(&error), status.is_server_error() || status.as_u16() == 429)
            }
            Err(error) => (error.to_string(), true),
        };
        if !again || tried == TRIES {
            return Err(format!("open uploads cannot be listed: {error}"));
        }
        tokio::time::sleep(Duration::from_millis(200 << tried)).await;
    }
}

async fn request(who: &Who, query: &[(String, String)]) -> Result<HttpRequest, String> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    let url = match who {
        Who::S3(store) => {
            let query = query.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let options = SignedUrlOptions::default().with_query(query);
            let root = Path::default();
            let signed = store.signed_url_opts(http::Method::GET, &root, SIGNED, &options);
            signed.await.map_err(|e| explain(&e))?
        }
        Who::Gcs(store, bucket) => {
            let credential = store.credentials().get_credential().await.map_err(|e| explain(&e))?;
            let bearer = http::HeaderValue::from_str(&format!("Bearer {}", credential.bearer));
            let bearer = bearer.map_err(|_| "the credentials of Google's store are no text".to_string())?;
            request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
            let base = format!("https://storage.googleapis.com/{bucket}");
            url::Url::parse_with_params(&base, query).map_err(|e| e.to_string())?
        }
    };
    *request.uri_mut() = url.as_str().parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
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
