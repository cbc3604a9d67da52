//! The staging of a job's output, in a folder or in an object store, as the driver uses it. All calls may wait for
//! I/O; those on folders run on threads that may block.

use std::sync::Arc;

use tally_common::counts::counted;
use tally_common::stores::urls;
use tally_proto::v1;
use tally_proto::v1::write_work::Target;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::commit_log::{Decided, Manifest};
use super::file_system::FileSystem;
use super::folder_staging::Location;
pub use super::store_staging::StoreStaging;
use super::{Commit, Finished, FolderStaging, PublishError, StagedPart};
use crate::job::JobSpec;

/// The staging of a job.
#[derive(Debug)]
pub enum Staging {
    /// A folder beside the output.
    Folder(FolderStaging),
    /// Open uploads in an object store.
    Store(StoreStaging),
}

/// A day that only has to be made visible.
#[derive(Debug)]
pub enum Ready {
    /// By moves of folders.
    Folder(Commit),
    /// By a record.
    Store(Box<Manifest>),
}

impl Ready {
    /// What the journal keeps of it.
    pub fn record(&self) -> Commit {
        match self {
            Ready::Folder(commit) => commit.clone(),
            Ready::Store(manifest) => {
                let parts = manifest.files.iter().map(|file| file.key.clone()).collect();
                Commit { parts, ..Commit::default() }
            }
        }
    }
}

/// An output could not be staged or published.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The output's folder or store.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A blocking task panicked.
    #[error(transparent)]
    Task(#[from] JoinError),
    /// Uploads of part files are missing.
    #[error("{} of {} instead of {all_files} of {all_rows}: submit again", counted(*files, "upload"), counted(*rows, "row"))]
    MissingUploads {
        /// Known uploads.
        files: usize,
        /// Their rows.
        rows: u64,
        /// Part files of the day.
        all_files: usize,
        /// Rows of the day.
        all_rows: u64,
    },
    /// An upload was removed from the store before it could be completed.
    #[error("{url}: an upload was removed before it was published: submit again")]
    UploadRemoved {
        /// The day.
        url: String,
    },
    /// The publish failed for good.
    #[error("{error}; {outcome}")]
    Abandoned {
        /// Why.
        error: PublishError,
        /// What happens to the day.
        outcome: String,
    },
    /// A folder was to be published to a store, or the reverse.
    #[error("the staged output is not of the kind that is to be published")]
    Mismatch,
}

impl StagingError {
    /// Whether another try may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, StagingError::Publish(error) if error.is_transient())
    }
}

/// The result of making a day visible.
pub enum Published {
    /// The day is visible.
    Done,
    /// The day is not visible, and this decision never makes it so.
    Failed(StagingError),
    /// The day may be decided. The staging is returned for another try.
    Retry(StoreStaging, Box<Manifest>, PublishError),
}

/// Runs work that waits for a file system.
async fn blocking<T: Send + 'static>(
    files: &dyn FileSystem,
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, StagingError> {
    let (sender, done) = oneshot::channel();
    files.spawn(Box::new(move || drop(sender.send(work())))).await?;
    Ok(done.await.map_err(|_| StagingError::Mismatch)??)
}

impl Staging {
    /// Prepares the staging of a job in an epoch; removes what dead jobs left.
    ///
    /// # Errors
    /// [`StagingError`]: the output is not writable.
    pub async fn prepare(
        spec: &JobSpec,
        epoch: u64,
        files: &Arc<dyn FileSystem>,
    ) -> Result<Self, StagingError> {
        let JobSpec { output, day_folder, id, target_file_size, .. } = spec.clone();
        if urls::is_local(&output) {
            let of = files.clone();
            let prepare =
                move || FolderStaging::prepare(Location::with(&output, &day_folder, of)?, &id, epoch);
            let prepared = blocking(&**files, prepare);
            return prepared.await.map(Staging::Folder);
        }
        Ok(Staging::Store(StoreStaging::prepare(&output, &day_folder, &id, epoch, target_file_size).await?))
    }

    /// Takes over the staging folder of an earlier leader. Nothing is kept in stores, because write tasks are cheap.
    /// Blocks.
    pub fn adopt(spec: &JobSpec, epoch: u64, files: &Arc<dyn FileSystem>) -> Option<Self> {
        if !urls::is_local(&spec.output) {
            return None;
        }
        let location = Location::with(&spec.output, &spec.day_folder, files.clone()).ok()?;
        FolderStaging::adopt(&location, &spec.id, epoch).map(Staging::Folder)
    }

    /// Carries out the decision of an earlier leader. Repeated calls carry it out once.
    ///
    /// # Errors
    /// [`StagingError`]: the old day is unchanged, or, in a store, is being replaced.
    pub async fn finish_commit(
        spec: &JobSpec,
        epoch: u64,
        commit: Commit,
        files: &Arc<dyn FileSystem>,
    ) -> Result<Finished, StagingError> {
        let JobSpec { output, day_folder, id, .. } = spec.clone();
        if urls::is_local(&output) {
            let of = files.clone();
            let finish = move || {
                let location = Location::with(&output, &day_folder, of)?;
                FolderStaging::finish_commit(&location, &id, epoch, &commit)
            };
            return blocking(&**files, finish).await;
        }
        match StoreStaging::finish(&output, &day_folder, &id, epoch).await? {
            true => Ok(Finished::Done),
            false => Ok(Finished::Gone),
        }
    }

    /// Keeps the staging for the next leader of the job.
    pub fn leave(self) {
        if let Staging::Folder(staging) = self {
            staging.leave();
        }
    }

    /// The path to which an attempt writes a part file; `None` if it writes to an upload.
    pub fn target(&self, index: u32, attempt: u32) -> Option<Target> {
        match self {
            Staging::Folder(staging) => {
                Some(Target::Path(staging.part(index, attempt).display().to_string()))
            }
            Staging::Store(_) => None,
        }
    }

    /// Prepares the day from the winners' part files.
    ///
    /// # Errors
    /// [`StagingError`]: a part file is missing, or the disk fails.
    pub async fn ready(
        self,
        winners: Vec<StagedPart>,
        manifest: Manifest,
    ) -> Result<(Self, Ready), StagingError> {
        match self {
            Staging::Folder(staging) => {
                let files = staging.location.files.clone();
                blocking(&*files, move || {
                    let commit = staging.commit(&winners, manifest.ready_marker.as_ref())?;
                    Ok((Staging::Folder(staging), Ready::Folder(commit)))
                })
                .await
            }
            objects @ Staging::Store(_) => {
                let (files, rows) =
                    (manifest.files.len(), manifest.files.iter().map(|file| file.rows).sum::<u64>());
                if (files, rows) == (winners.len(), manifest.rows) {
                    return Ok((objects, Ready::Store(Box::new(manifest))));
                }
                objects.discard().await;
                let (all_files, all_rows) = (winners.len(), manifest.rows);
                Err(StagingError::MissingUploads { files, rows, all_files, all_rows })
            }
        }
    }

    /// Makes the day visible.
    pub async fn publish(self, ready: Ready) -> Published {
        let done = match (self, ready) {
            (Staging::Folder(staging), Ready::Folder(commit)) => {
                let files = staging.location.files.clone();
                blocking(&*files, move || staging.publish(&commit)).await
            }
            (Staging::Store(objects), Ready::Store(manifest)) => match objects.publish(&manifest).await {
                Ok(Decided::Published) => Ok(()),
                Ok(Decided::Undone) => Err(StagingError::UploadRemoved { url: objects.url() }),
                Err(error) if error.is_transient() => return Published::Retry(objects, manifest, error),
                Err(error) => Err(StagingError::Abandoned { error, outcome: objects.abandon().await }),
            },
            _ => Err(StagingError::Mismatch),
        };
        match done {
            Ok(()) => Published::Done,
            Err(error) => Published::Failed(error),
        }
    }

    /// Removes the staged files.
    pub async fn discard(self) {
        match self {
            // The folder is removed on drop.
            Staging::Folder(staging) => {
                let files = staging.location.files.clone();
                drop(files.spawn(Box::new(move || drop(staging))).await);
            }
            Staging::Store(objects) => objects.discard().await,
        }
    }
}

/// The key of the part file that an upload makes.
pub fn key_of(upload: &v1::Upload) -> Option<String> {
    Some(urls::open_bucket(&upload.url).ok()??.1.to_string())
}
