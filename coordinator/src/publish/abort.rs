//! Aborting an upload.

use object_store::Error;
use object_store::path::Path;
use tally_common::stores::{Bucket, explain};

/// Aborts an upload. An upload that was completed or aborted before is not an error.
pub(super) async fn abort(bucket: &Bucket, key: &Path, id: &str) -> Result<(), Error> {
    match bucket.uploads.abort_multipart(key, &id.to_string()).await {
        Err(error) if matches!(error, Error::NotFound { .. }) || explain(&error).contains("NoSuchUpload") => {
            Ok(())
        }
        done => done,
    }
}
