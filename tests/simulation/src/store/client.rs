//! The simulated store as the product's code uses it: `ObjectStore`, multipart uploads, and the list of open uploads.
//! One bucket serves all processes of all schedules; the thread's world tells which is meant.
//!
//! Not here: what a request does (`store`).

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Once};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tally_common::stores::{self, Bucket, BucketError, OpenUpload, Service, UploadLister};

use super::ops::Call;
use super::{Answer, Fail, Object, Request};
use crate::world::{EPOCH_SECONDS, Micros};

/// The bucket of all schedules: `s3://simulation`.
pub const BUCKET: &str = "simulation";

/// A client of the simulated store.
#[derive(Debug)]
pub struct Client;

/// Makes the simulated store that of its bucket's name in this process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let client = Arc::new(Client);
        stores::install(Bucket::new(Service::S3, BUCKET, client.clone(), client, Box::new(Client)));
    });
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

fn failed(fail: Fail) -> Error {
    let generic = |text: &str| Error::Generic { store: "S3", source: text.into() };
    match fail {
        Fail::Exists(path) => Error::AlreadyExists { path, source: "it exists".into() },
        Fail::NotFound(path) => Error::NotFound { path, source: "NoSuchKey".into() },
        Fail::NoUpload(id) => Error::NotFound { path: id, source: "NoSuchUpload".into() },
        Fail::Unavailable => {
            generic("Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>")
        }
        Fail::Timeout => generic("operation timed out"),
        Fail::Internal => generic("the answer contains an error: <Code>InternalError</Code>"),
    }
}

/// Sends a request.
async fn call(request: Request) -> Result<Answer> {
    Call::new(request).await.map_err(failed)
}

fn unexpected() -> Error {
    Error::Generic { store: "S3", source: "an answer of another kind".into() }
}

/// A point in virtual time on a calendar.
pub fn date(at: Micros) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
        + TimeDelta::seconds(EPOCH_SECONDS.cast_signed())
        + TimeDelta::microseconds(at.cast_signed())
}

fn tag_text(tag: u64) -> String {
    format!("\"{tag}\"")
}

fn meta(object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: object.key.clone(),
        last_modified: date(object.written),
        size: object.bytes.len() as u64,
        e_tag: Some(tag_text(object.tag)),
        version: None,
    }
}

fn written(answer: Answer) -> Result<PutResult> {
    let Answer::Written(tag) = answer else { return Err(unexpected()) };
    Ok(PutResult { e_tag: Some(tag_text(tag)), version: None, extensions: Default::default() })
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(Error::NotSupported { source: "If-Match".into() }),
        };
        written(call(Request::Put { key: key.clone(), bytes: payload.into(), create }).await?)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: "uploads are those of `MultipartStore`".into() })
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let Answer::Object(object) = call(Request::Get { key: key.clone() }).await? else {
            return Err(unexpected());
        };
        let meta = meta(&object);
        options.check_preconditions(&meta)?;
        let range = match options.range.filter(|_| !options.head) {
            Some(range) => range.as_range(meta.size).map_err(|_| unexpected())?,
            None => 0..meta.size,
        };
        let bytes = slice(&object.bytes, &range);
        let payload = GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let removed = async move {
            let keys: Vec<Path> = keys.try_collect().await?;
            if !keys.is_empty() {
                call(Request::Delete { keys: keys.clone() }).await?;
            }
            Ok::<_, Error>(stream::iter(keys.into_iter().map(Ok)))
        };
        removed.into_stream().try_flatten().boxed()
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = folder.cloned().unwrap_or_default();
        let listed = async move {
            let Answer::Listed { objects, .. } = call(Request::List { folder, shallow: false }).await? else {
                return Err(unexpected());
            };
            Ok(stream::iter(objects.into_iter().map(|object| Ok(meta(&object)))))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        let folder = folder.cloned().unwrap_or_default();
        let Answer::Listed { objects, folders } = call(Request::List { folder, shallow: true }).await? else {
            return Err(unexpected());
        };
        let objects = objects.iter().map(meta).collect();
        Ok(ListResult { common_prefixes: folders, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: "copies".into() })
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let end = (range.end as usize).min(bytes.len());
    bytes.slice((range.start as usize).min(end)..end)
}

#[async_trait]
impl MultipartStore for Client {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        match call(Request::Begin { key: key.clone() }).await? {
            Answer::Begun(id) => Ok(id),
            _ => Err(unexpected()),
        }
    }

    async fn put_part(
        &self,
        key: &Path,
        id: &MultipartId,
        number: usize,
        payload: PutPayload,
    ) -> Result<PartId> {
        let (key, upload, bytes) = (key.clone(), id.clone(), payload.into());
        match call(Request::Part { key, upload, number, bytes }).await? {
            Answer::Part(content_id) => Ok(PartId { content_id }),
            _ => Err(unexpected()),
        }
    }

    async fn complete_multipart(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let parts = parts.into_iter().map(|part| part.content_id).collect();
        written(call(Request::Complete { key: key.clone(), upload: id.clone(), parts }).await?)
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        call(Request::Abort { key: key.clone(), upload: id.clone() }).await.map(drop)
    }
}

#[async_trait]
impl UploadLister for Client {
    async fn list(&self, prefix: &str) -> Result<Vec<OpenUpload>, BucketError> {
        let Answer::Uploads(open) = call(Request::Uploads { prefix: prefix.into() }).await? else {
            return Err(unexpected().into());
        };
        let open = open.into_iter().map(|(upload_id, upload)| OpenUpload {
            key: upload.key.to_string(),
            upload_id,
            initiated: date(upload.begun),
        });
        Ok(open.collect())
    }
}
