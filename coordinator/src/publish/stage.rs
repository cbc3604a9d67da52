//! A job's way to its output, on files or in an object store, as the driver takes it. All calls may
//! wait for I/O; those on files do so on threads that may block.

use tally_proto::v1;
use tally_proto::v1::write_work::Target;
use tally_worker::urls;
use tokio::task::spawn_blocking;

use super::commit_log::{Decided, Manifest};
use super::objects::Objects;
use super::{Commit, Finished, PublishError, Staging};
use crate::job::JobSpec;

/// What a job stages.
#[derive(Debug)]
pub enum Stage {
    /// A folder beside the output.
    Files(Staging),
    /// Uploads that are open.
    Objects(Objects),
}

/// A day that only needs to be made visible.
#[derive(Debug)]
pub enum Ready {
    /// By an exchange of folders.
    Files(Commit),
    /// By a record.
    Objects(Box<Manifest>),
}

impl Ready {
    /// What the journal says of it.
    pub fn record(&self) -> Commit {
        match self {
            Ready::Files(commit) => commit.clone(),
            Ready::Objects(manifest) => {
                let parts = manifest.files.iter().map(|file| file.key.clone()).collect();
                Commit { device: 0, inode: 0, parts }
            }
        }
    }
}

/// What came of making a day visible.
pub enum Published {
    /// It is.
    Done,
    /// It is not, and never will be by this decision.
    Failed(String),
    /// It may be decided; the stage is there to try again.
    Again(Objects, Box<Manifest>, String),
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, String> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

impl Stage {
    /// Makes the staging of a job in an epoch; cleans up behind dead ones.
    ///
    /// # Errors
    /// A sentence: the output cannot be written.
    pub async fn prepare(spec: &JobSpec, epoch: u64) -> Result<Self, String> {
        let JobSpec { output, date, id, target_file_size, .. } = spec.clone();
        if urls::is_local(&output) {
            return blocking(move || Staging::prepare(&output, &date, &id, epoch)).await.map(Stage::Files);
        }
        let objects = Objects::prepare(&output, &date, &id, epoch, target_file_size).await;
        objects.map(Stage::Objects).map_err(|e| e.to_string())
    }

    /// Takes over what an earlier leader staged on files. In stores nothing is kept: write tasks are
    /// cheap. Blocks.
    pub fn adopt(spec: &JobSpec, epoch: u64) -> Option<Self> {
        let local = urls::is_local(&spec.output);
        local.then(|| Staging::adopt(&spec.output, &spec.date, &spec.id, epoch)).flatten().map(Stage::Files)
    }

    /// Carries out what an earlier leader decided, once, however often it is tried.
    ///
    /// # Errors
    /// A sentence: the old day is as it was, or, in a store, is being replaced.
    pub async fn finish_commit(spec: &JobSpec, epoch: u64, commit: Commit) -> Result<Finished, String> {
        let JobSpec { output, date, id, .. } = spec.clone();
        if urls::is_local(&output) {
            return blocking(move || Staging::finish_commit(&output, &date, &id, epoch, &commit)).await;
        }
        match Objects::finish(&output, &date, &id).await {
            Ok(true) => Ok(Finished::Done),
            Ok(false) => Ok(Finished::Gone),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Lets go of it: it stays as it is for who goes on with the job.
    pub fn leave(self) {
        if let Stage::Files(staging) = self {
            staging.leave();
        }
    }

    /// Where an attempt is to write a part file, if that needs no request.
    pub fn target(&self, index: u32, attempt: u32) -> Option<Target> {
        match self {
            Stage::Files(staging) => Some(Target::Path(staging.part(index, attempt).display().to_string())),
            Stage::Objects(_) => None,
        }
    }

    /// The day of the winners' part files, each given by number and attempt.
    ///
    /// # Errors
    /// A sentence: a part file is not there, or the disk fails.
    pub async fn ready(self, winners: Vec<(u32, u32)>, manifest: Manifest) -> Result<(Self, Ready), String> {
        match self {
            Stage::Files(staging) => {
                blocking(move || {
                    let commit = staging.commit(&winners)?;
                    Ok((Stage::Files(staging), Ready::Files(commit)))
                })
                .await
            }
            objects @ Stage::Objects(_) => {
                let (files, rows) =
                    (manifest.files.len(), manifest.files.iter().map(|file| file.rows).sum::<u64>());
                if (files, rows) == (winners.len(), manifest.rows) {
                    return Ok((objects, Ready::Objects(Box::new(manifest))));
                }
                objects.discard().await;
                let (wanted, all) = (winners.len(), manifest.rows);
                Err(format!("{files} uploads of {rows} rows instead of {wanted} of {all}: submit again"))
            }
        }
    }

    /// Makes the day visible.
    pub async fn publish(self, ready: Ready) -> Published {
        let done = match (self, ready) {
            (Stage::Files(staging), Ready::Files(_)) => blocking(move || staging.publish()).await,
            (Stage::Objects(objects), Ready::Objects(manifest)) => match objects.publish(&manifest).await {
                Ok(Decided::Published) => Ok(()),
                Ok(Decided::Undone) => Err(format!(
                    "{}: somebody removed an upload before it was published: submit again",
                    objects.url()
                )),
                Err(error) => return Published::Again(objects, manifest, error.to_string()),
            },
            _ => Err("what was staged is not what is to be published".into()),
        };
        match done {
            Ok(()) => Published::Done,
            Err(reason) => Published::Failed(reason),
        }
    }

    /// Removes what is staged.
    pub async fn discard(self) {
        match self {
            // Its folder goes with it.
            Stage::Files(staging) => drop(spawn_blocking(move || drop(staging)).await),
            Stage::Objects(objects) => objects.discard().await,
        }
    }
}

/// The key of a part file that an upload makes.
pub fn key_of(upload: &v1::Upload) -> Option<String> {
    Some(urls::open_bucket(&upload.url).ok()??.1.to_string())
}
