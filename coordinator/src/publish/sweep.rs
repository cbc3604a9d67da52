//! `tally gc` for an output in an object store: carries out or removes what dead jobs left.
//!
//! The error of one day is reported and does not affect the other days. Not here: how a decision is carried out
//! (`commit_log`), and how an upload is aborted (`store_staging`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::Serialize;
use tally_common::stores::{Bucket, OpenUpload, list_below};

use super::PublishError;
use super::abort::abort;
use super::commit_log::{CommitLog, Pending, key_of};
use super::store_staging::{abort_recorded, root};
use crate::objectives::table::DayTable;

/// What a sweep found, or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Open multipart uploads, by URL.
    pub uploads: Vec<String>,
    /// Records of dead jobs, by URL.
    pub records: Vec<String>,
    /// Decisions that had not been carried out, by day.
    pub decisions: Vec<String>,
    /// Errors.
    pub failed: Vec<String>,
}

/// A sweep under way.
struct Sweep<'a> {
    /// URL of the output's root.
    output: &'a str,
    bucket: &'a Arc<Bucket>,
    /// Newer objects are kept.
    until: DateTime<Utc>,
    dry_run: bool,
    swept: Swept,
}

/// What must be kept.
#[derive(Debug, Default)]
struct Kept {
    /// Uploads that decisions complete.
    uploads: HashSet<String>,
    /// Folders.
    folders: Vec<Path>,
}

impl Kept {
    fn holds(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| path.prefix_matches(folder))
    }
}

/// Finds what dead jobs left of an output. Decisions that are older than `age` are carried out, uploads and records that
/// are older are removed; with `dry_run` both are only reported. Newer ones may belong to a live job.
///
/// # Errors
/// [`PublishError`]: the output cannot be listed. Errors of single days are in [`Swept::failed`].
pub async fn sweep(output: &str, age: TimeDelta, dry_run: bool) -> Result<Swept, PublishError> {
    let (bucket, root, state) = root(output)?;
    let failed = |error| PublishError::store(bucket.name_of(&state), "leftovers cannot be listed", &error);
    let listed = list_below(&*bucket.objects, &state).await.map_err(failed)?;
    // Empty objects stand for folders: records have bytes.
    let records: Vec<&ObjectMeta> = listed.iter().filter(|object| object.size > 0).collect();
    let mut sweep =
        Sweep { output, bucket: &bucket, until: Utc::now() - age, dry_run, swept: Swept::default() };
    let open = bucket.open_uploads(&format!("{root}/")).await.unwrap_or_else(|reason| {
        let what = "some uploads may stay open";
        sweep
            .swept
            .failed
            .push(PublishError::lasting(bucket.name_of(&root), what, reason.to_string()).to_string());
        vec![]
    });
    let mut kept = Kept::default();
    let days: BTreeSet<String> = listed.iter().filter_map(|object| below(&state, &object.location)).collect();
    for day in days {
        let (folder, state) = (root.clone().join(day.as_str()), state.clone().join(day.as_str()));
        if let Err(error) = sweep.decision(&folder, &state, &mut kept).await {
            // It is not known which of its uploads are part of a decision.
            kept.folders.extend([folder, state]);
            sweep.swept.failed.push(error.to_string());
        }
    }
    for upload in open {
        sweep.upload(&upload, &kept).await;
    }
    for record in records {
        sweep.record(record, &state, &kept).await;
    }
    Ok(sweep.swept)
}

impl Sweep<'_> {
    fn is_old(&self, at: DateTime<Utc>) -> bool {
        at <= self.until
    }

    /// Carries out a day's last decision if it is old enough. A newer one may belong to a live job.
    async fn decision(&mut self, folder: &Path, state: &Path, kept: &mut Kept) -> Result<(), PublishError> {
        let log = CommitLog::new(Arc::clone(self.bucket), folder.clone(), state.clone().join("commits"));
        let Some(Pending { manifest, at }) = log.pending().await? else {
            return if self.dry_run { Ok(()) } else { log.tidy().await };
        };
        kept.uploads.extend(manifest.files.into_iter().map(|part| part.upload));
        if !self.is_old(at) {
            kept.folders.push(state.clone().join("jobs").join(manifest.job.as_str()));
            return Ok(());
        }
        if !self.dry_run {
            log.settle().await?;
            let day = folder.filename().unwrap_or_default();
            if let Some(table) = DayTable::new(&manifest.dataset, self.output, day) {
                table.update().await;
            }
        }
        self.swept.decisions.push(self.bucket.name_of(folder));
        Ok(())
    }

    async fn upload(&mut self, upload: &OpenUpload, kept: &Kept) {
        let OpenUpload { key, upload_id, initiated } = upload;
        let path = key_of(key);
        let abandoned = is_ours(upload)
            && self.is_old(*initiated)
            && !kept.uploads.contains(upload_id)
            && !kept.holds(&path);
        if !abandoned {
            return;
        }
        let done = match self.dry_run {
            true => Ok(()),
            false => abort(self.bucket, &path, upload_id).await,
        };
        let name = self.bucket.name_of(&path);
        match done {
            Ok(()) => self.swept.uploads.push(format!("{name} {upload_id}")),
            Err(error) => {
                let error = PublishError::store(name, "an upload cannot be aborted", &error);
                self.swept.failed.push(error.to_string());
            }
        }
    }

    async fn record(&mut self, object: &ObjectMeta, state: &Path, kept: &Kept) {
        let record = &object.location;
        let mut parts = record.prefix_match(state).into_iter().flatten().skip(1);
        let is_jobs = parts.next().is_some_and(|part| part.as_ref() == "jobs");
        if !is_jobs || !self.is_old(object.last_modified) || kept.holds(record) {
            return;
        }
        let done = match self.dry_run {
            true => Ok(()),
            false => abort_recorded(self.bucket, record).await,
        };
        match done {
            Ok(()) => self.swept.records.push(self.bucket.name_of(record)),
            Err(error) => self.swept.failed.push(error.to_string()),
        }
    }
}

/// Whether an upload is Tally's, by its key.
fn is_ours(upload: &OpenUpload) -> bool {
    let name = upload.key.rsplit('/').next().unwrap_or_default();
    let numbered = name.strip_prefix("part-").and_then(|rest| rest.split_once('-'));
    numbered.is_some_and(|(number, rest)| {
        number.len() == 5
            && number.bytes().all(|b| b.is_ascii_digit())
            && rest.strip_suffix(".snappy.parquet").and_then(|rest| rest.rsplit_once('-')).is_some_and(
                |(job, attempt)| begins_with_date(job) && attempt.bytes().all(|b| b.is_ascii_digit()),
            )
    })
}

fn begins_with_date(job: &str) -> bool {
    job.split_once('-').is_some_and(|(date, _)| date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()))
}

/// The first part of an object's path below a folder.
fn below(folder: &Path, object: &Path) -> Option<String> {
    object.prefix_match(folder)?.next().map(|part| part.as_ref().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_uploads_are_swept() {
        let check = |name: &str, ours| {
            let upload = OpenUpload {
                key: format!("a/b/submission_date_s3=20170227/{name}"),
                upload_id: "u".into(),
                initiated: DateTime::UNIX_EPOCH,
            };
            assert_eq!(is_ours(&upload), ours, "{name}");
        };
        check("part-00003-20170227-1a203b13e4c-6eeb-0-8193.snappy.parquet", true);
        check("sample_id=7/part-00003-20170227-1a203b13e4c-6eeb-0-8193.snappy.parquet", true);
        check("part-00003-20170227-1a203b13e4c-6eeb-0.snappy.parquet.tmp", false);
        check("part-00000-c000.snappy.parquet", false);
        check("other.parquet", false);
    }
}
