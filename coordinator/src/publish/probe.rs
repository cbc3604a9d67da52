//! A probe whether a day can be published to a folder of a store. Before any other work it tries each kind of request of
//! the publish, on keys that no other program uses, and leaves no object behind.
//!
//! Not here: the job's records meanwhile (`store_staging`).

use std::sync::Arc;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};
use tally_common::stores::{Bucket, explain, list_below};

use super::PublishError;
use super::abort::abort;

/// A permission: the error without it, and its names in the services.
struct Permission {
    what: &'static str,
    s3: &'static str,
    gcs: &'static str,
    azure: &'static str,
}

const LIST: Permission = Permission {
    what: "the output's objects cannot be listed",
    s3: "s3:ListBucket",
    gcs: "storage.objects.list",
    azure: "blobs/read",
};
const READ: Permission = Permission {
    what: "the output's objects cannot be read",
    s3: "s3:GetObject",
    gcs: "storage.objects.get",
    azure: "blobs/read",
};
const WRITE: Permission = Permission {
    what: "the output's records cannot be written",
    s3: "s3:PutObject",
    gcs: "storage.objects.create",
    azure: "blobs/write",
};
const CREATE: Permission = Permission {
    what: "the output's records cannot be written on condition that they do not exist (If-None-Match: *)",
    s3: "s3:PutObject",
    gcs: "storage.objects.create",
    azure: "blobs/write",
};
const DELETE: Permission = Permission {
    what: "the output's objects cannot be removed",
    s3: "s3:DeleteObject",
    gcs: "storage.objects.delete",
    azure: "blobs/delete",
};
const BEGIN: Permission = Permission {
    what: "a multipart upload cannot begin",
    s3: "s3:PutObject",
    gcs: "storage.multipartUploads.create",
    azure: "blobs/write",
};
const ABORT: Permission = Permission {
    what: "a multipart upload cannot be aborted",
    s3: "s3:AbortMultipartUpload",
    gcs: "storage.multipartUploads.abort",
    azure: "blobs/delete",
};

impl Permission {
    fn failed(&self, bucket: &Bucket, key: &Path, error: &Error) -> PublishError {
        let url = bucket.name_of(key);
        let mut found = PublishError::store(url.clone(), self.what, error);
        let said = explain(error);
        let denied = matches!(error, Error::PermissionDenied { .. }) || said.contains("AccessDenied");
        if let (true, PublishError::Store { reason, .. }) = (denied, &mut found) {
            let permission = match url.split_once("://") {
                Some(("gs", _)) => self.gcs,
                Some(("az", _)) => self.azure,
                _ => self.s3,
            };
            *reason = format!("the permission {permission} is missing: {said}");
        }
        found
    }
}

/// Checks that the day's folder can be listed. True if it contains objects.
///
/// # Errors
/// [`PublishError`] names the missing permission.
pub(super) async fn listing(bucket: &Bucket, day: &Path) -> Result<bool, PublishError> {
    let listed = list_below(&*bucket.objects, day).await;
    listed.map(|objects| !objects.is_empty()).map_err(|error| LIST.failed(bucket, day, &error))
}

/// The keys of a probe.
pub(super) struct Probe<'a> {
    pub(super) bucket: &'a Arc<Bucket>,
    /// The job's record.
    pub(super) record: &'a Path,
    /// An unused key beside it.
    pub(super) spare: &'a Path,
    /// A key in the day's folder.
    pub(super) key: &'a Path,
    /// An old day will be removed.
    pub(super) replaces: bool,
}

impl Probe<'_> {
    fn failed<'a>(
        &'a self,
        permission: &'a Permission,
        key: &'a Path,
    ) -> impl FnOnce(Error) -> PublishError + 'a {
        move |error| permission.failed(self.bucket, key, &error)
    }

    /// Tries to write, read and remove records.
    ///
    /// # Errors
    /// [`PublishError`] names the missing permission.
    pub(super) async fn objects(&self, record: &PutPayload) -> Result<(), PublishError> {
        let store = &self.bucket.objects;
        store.put(self.record, record.clone()).await.map_err(self.failed(&WRITE, self.record))?;
        let read = store.get(self.record).await.map_err(self.failed(&READ, self.record))?;
        read.bytes().await.map_err(self.failed(&READ, self.record))?;
        // The first write may find the object of an earlier probe; the second one must find an object.
        for again in [false, true] {
            match store.put_opts(self.spare, record.clone(), PutMode::Create.into()).await {
                Err(Error::AlreadyExists { .. }) => break,
                Ok(_) if again => return Err(self.ignores_conditions()),
                Ok(_) => {}
                Err(error) => return Err(CREATE.failed(self.bucket, self.spare, &error)),
            }
        }
        // In a versioned bucket, the removal of a missing object leaves a marker. So the key in the day's folder is removed
        // only if an old day will be.
        let keys = [Some(self.spare), Some(self.record), self.replaces.then_some(self.key)];
        let keys: Vec<_> = keys.into_iter().flatten().map(|key| Ok(key.clone())).collect();
        let mut removed = store.delete_stream(futures::stream::iter(keys).boxed());
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(DELETE.failed(self.bucket, self.spare, &error)),
            }
        }
        Ok(())
    }

    fn ignores_conditions(&self) -> PublishError {
        let reason = "the store ignores If-None-Match: two jobs could publish one day at once; use a store, or a version \
                      of it, that has conditional writes";
        PublishError::lasting(self.bucket.name_of(self.spare), CREATE.what, reason.into())
    }

    /// Tries to begin and abort an upload. Meanwhile the job's record is `begun`, afterwards it is `record`.
    ///
    /// # Errors
    /// [`PublishError`] names the missing permission.
    pub(super) async fn uploads(&self, begun: &PutPayload, record: &PutPayload) -> Result<(), PublishError> {
        let store = &self.bucket.objects;
        store.put(self.record, begun.clone()).await.map_err(self.failed(&WRITE, self.record))?;
        let upload = self.bucket.uploads.create_multipart(self.key).await;
        let upload = upload.map_err(self.failed(&BEGIN, self.key))?;
        abort(self.bucket, self.key, &upload).await.map_err(self.failed(&ABORT, self.key))?;
        store.put(self.record, record.clone()).await.map(drop).map_err(self.failed(&WRITE, self.record))
    }
}
