//! Staging part files in an object store: uploads in parts, each begun here under a key that is used
//! once and put on record first, filled by a worker, and completed or given up by whoever decides.
//!
//! The records lie beside the output's root, never below it, in `.<name>.tally-staging/<day>/`:
//! `jobs/<job>/` has the uploads of live jobs, `commits/` the decisions (`commit_log`). A job that
//! died leaves them, and open uploads; a restart of it gives them up, and so does `sweep` after a
//! while. Not here: which attempt's upload counts.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tally_proto::{JobId, v1};
use tally_worker::stores::{Bucket, OpenUpload, explain};
use tally_worker::urls;

use super::PublishError;
use super::commit_log::{CommitLog, Decided, Manifest, key_of};
use crate::job::date_folder;

/// The least bytes of an upload's part: stores take no smaller ones but for the last.
const PART: u64 = 8 << 20;
/// Parts of an upload that stores take, and room for files that are larger than reckoned.
const PARTS: u64 = 5_000;
/// Requests at a time.
const CONCURRENT: usize = 8;

/// A job's staging in a store.
#[derive(Debug, Clone)]
pub struct Objects {
    bucket: Arc<Bucket>,
    job: JobId,
    epoch: u64,
    /// Where the day lies.
    day: Path,
    /// The job's records of uploads.
    records: Path,
    log: CommitLog,
    part_bytes: u64,
    /// The job is over: uploads that begin just now are given up.
    closed: Arc<AtomicBool>,
}

/// What is known of an upload: without an id it may have begun, or not.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    key: String,
    upload: Option<String>,
}

/// Where an output's day and its records lie.
struct Places {
    bucket: Arc<Bucket>,
    day: Path,
    state: Path,
}

/// What a sweep found, or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Uploads in parts that were open, by URL.
    pub uploads: Vec<String>,
    /// Records of jobs that are no more, by URL.
    pub records: Vec<String>,
    /// Decisions that nobody had carried out, by day.
    pub decisions: Vec<String>,
}

fn no_bucket(output: &str) -> PublishError {
    let reason = "it is no folder in a bucket: write for example s3://BUCKET/FOLDER".into();
    PublishError::Store { url: output.into(), what: "nothing can be published there", reason }
}

/// The root of an output, and the folder beside it that holds all records of its days.
fn root(output: &str) -> Result<(Arc<Bucket>, Path, Path), PublishError> {
    let (bucket, root) = urls::open_bucket(output)?.ok_or_else(|| no_bucket(output))?;
    let name = root.filename().ok_or_else(|| no_bucket(output))?;
    let parts: Vec<_> = root.parts().collect();
    let parent: Path = parts[..parts.len() - 1].iter().cloned().collect();
    let state = parent.join(format!(".{name}.tally-staging"));
    Ok((bucket, root, state))
}

fn places(output: &str, date: &str) -> Result<Places, PublishError> {
    let (bucket, root, state) = root(output)?;
    let folder = date_folder(date);
    Ok(Places { bucket, day: root.join(folder.as_str()), state: state.join(folder.as_str()) })
}

fn log_of(places: &Places) -> CommitLog {
    CommitLog::new(places.bucket.clone(), places.day.clone(), places.state.clone().join("commits"))
}

impl Objects {
    /// Makes a job's staging: carries out what was decided before, gives up what an earlier leader
    /// began for the job, and finds out whether objects can be written and removed there at all.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn prepare(
        output: &str,
        date: &str,
        job: &JobId,
        epoch: u64,
        target_file_size: u64,
    ) -> Result<Self, PublishError> {
        let places = places(output, date)?;
        let log = log_of(&places);
        log.settle().await?;
        let Places { bucket, day, state } = places;
        let objects = Objects {
            bucket,
            job: job.clone(),
            epoch,
            day,
            records: state.join("jobs").join(job.as_str()),
            log,
            part_bytes: target_file_size.div_ceil(PARTS).next_multiple_of(1 << 20).max(PART),
            closed: Arc::default(),
        };
        give_up_all(&objects.bucket, &objects.records, epoch).await?;
        let mark = objects.record("job");
        let record = serde_json::json!({ "job": job.as_str(), "epoch": epoch });
        objects.put(&mark, &record).await?;
        // Found out now, a right that lacks leaves the old day alone.
        let removed = objects.bucket.objects.delete(&mark).await;
        removed.map_err(objects.failed(&mark, "the output's objects cannot be removed"))?;
        objects.put(&mark, &record).await?;
        Ok(objects)
    }

    /// Carries out what an earlier leader decided of a job; false where it did not get to decide.
    ///
    /// # Errors
    /// [`PublishError`]: it is not known, or not carried out yet; it may be tried again.
    pub async fn finish(output: &str, date: &str, job: &JobId) -> Result<bool, PublishError> {
        let places = places(output, date)?;
        let (_, jobs) = log_of(&places).settle().await?;
        let decided = jobs.iter().any(|decided| decided == job.as_str());
        if decided {
            give_up_all(&places.bucket, &places.state.join("jobs").join(job.as_str()), u64::MAX).await?;
        }
        Ok(decided)
    }

    /// A record of this term: a later leader's are not ours to give up.
    fn record(&self, name: &str) -> Path {
        self.records.clone().join(format!("{:010}-{name}", self.epoch))
    }

    /// The day's folder as a URL.
    pub fn url(&self) -> String {
        self.bucket.name_of(&self.day)
    }

    fn failed<'a>(&'a self, key: &'a Path, what: &'static str) -> impl FnOnce(Error) -> PublishError + 'a {
        move |error| PublishError::Store { url: self.bucket.name_of(key), what, reason: explain(&error) }
    }

    async fn put(&self, key: &Path, record: &impl Serialize) -> Result<(), PublishError> {
        let json = serde_json::to_vec(record).unwrap_or_default();
        let put = self.bucket.objects.put(key, PutPayload::from(json)).await;
        put.map(drop).map_err(self.failed(key, "the output's records cannot be written"))
    }

    /// The key of a part file that an attempt writes; no other ever has it.
    pub fn key(&self, index: u32, attempt: u32) -> Path {
        self.day.clone().join(format!("part-{index:05}-{}-{attempt}.snappy.parquet", self.job))
    }

    /// Begins the upload of an attempt's part file, after it was put on record.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn begin(&self, index: u32, attempt: u32) -> Result<v1::Upload, PublishError> {
        let key = self.key(index, attempt);
        let record = self.record(&format!("{index:05}-{attempt}"));
        self.put(&record, &Begun { key: key.to_string(), upload: None }).await?;
        let id = self.bucket.uploads.create_multipart(&key).await;
        let id = id.map_err(self.failed(&key, "the upload cannot begin"))?;
        self.put(&record, &Begun { key: key.to_string(), upload: Some(id.clone()) }).await?;
        if self.closed.load(Ordering::Acquire) {
            give_up_all(&self.bucket, &self.records, self.epoch).await?;
        }
        Ok(v1::Upload { url: self.bucket.name_of(&key), id, part_bytes: self.part_bytes })
    }

    /// Publishes the day; every other upload of the job is given up.
    ///
    /// # Errors
    /// [`PublishError`]. It may have been decided: another call goes on, and nothing is given up.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Decided, PublishError> {
        let decided = self.log.publish(manifest, self.epoch).await?;
        self.discard().await;
        Ok(decided)
    }

    /// Gives up all uploads of the job that nobody decided on, and forgets them. What cannot be
    /// removed now is left for a sweep.
    pub async fn discard(&self) {
        self.closed.store(true, Ordering::Release);
        if let Err(error) = give_up_all(&self.bucket, &self.records, self.epoch).await {
            tracing::warn!(job = %self.job, %error, "what was staged stays: `tally gc` removes it");
        }
    }
}

/// Gives up what a job's records of terms up to `epoch` say, then removes them.
async fn give_up_all(bucket: &Bucket, records: &Path, epoch: u64) -> Result<(), PublishError> {
    let listed = bucket.objects.list(Some(records)).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|error| PublishError::Store {
        url: bucket.name_of(records),
        what: "the output's records cannot be listed",
        reason: explain(&error),
    })?;
    let ours = |record: &Path| {
        let term = record.filename().and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
        term.is_none_or(|term| term <= epoch)
    };
    let listed = listed.into_iter().map(|object| object.location).filter(ours);
    let gone = listed.map(|record| async move { give_up(bucket, &record).await }).collect::<Vec<_>>();
    futures::stream::iter(gone).buffer_unordered(CONCURRENT).try_collect::<()>().await
}

/// Gives up what a record says, then removes it.
async fn give_up(bucket: &Bucket, record: &Path) -> Result<(), PublishError> {
    let failed = |error| PublishError::Store {
        url: bucket.name_of(record),
        what: "an upload cannot be given up",
        reason: explain(&error),
    };
    let found = match bucket.objects.get(record).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if let Ok(Begun { key, upload }) = serde_json::from_slice::<Begun>(&found) {
        let ids = match upload {
            Some(id) => vec![id],
            // Whoever began it died before it could say so.
            None => {
                let open = bucket.open_uploads(&key).await.unwrap_or_else(|reason| {
                    tracing::warn!(key, reason, "an upload may stay open");
                    vec![]
                });
                open.into_iter().filter(|upload| upload.key == key).map(|upload| upload.upload_id).collect()
            }
        };
        for id in ids {
            abort(bucket, &key_of(&key), &id).await.map_err(failed)?;
        }
    }
    match bucket.objects.delete(record).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

async fn abort(bucket: &Bucket, key: &Path, id: &str) -> Result<(), Error> {
    match bucket.uploads.abort_multipart(key, &id.to_string()).await {
        // Completed, or given up before.
        Err(error) if matches!(error, Error::NotFound { .. }) || explain(&error).contains("NoSuchUpload") => {
            Ok(())
        }
        done => done,
    }
}

/// Finds what jobs that died left of an output: decisions are carried out, uploads and records that
/// are older than `age` removed; with `dry_run` both are only told.
///
/// # Errors
/// [`PublishError`].
pub async fn sweep(output: &str, age: TimeDelta, dry_run: bool) -> Result<Swept, PublishError> {
    let (bucket, root, state) = root(output)?;
    let mut swept = Swept::default();
    // Uploads that decisions complete.
    let mut decided = HashSet::new();
    let failed = |error| PublishError::Store {
        url: bucket.name_of(&state),
        what: "leftovers cannot be listed",
        reason: explain(&error),
    };
    let listed = bucket.objects.list(Some(&state)).try_collect::<Vec<_>>().await.map_err(failed)?;
    let mut days: Vec<String> = listed.iter().filter_map(|object| below(&state, &object.location)).collect();
    days.sort_unstable();
    days.dedup();
    for day in days {
        let (places, state) = (root.clone().join(day.as_str()), state.clone().join(day.as_str()));
        let log = CommitLog::new(bucket.clone(), places.clone(), state.join("commits"));
        if let Some(manifest) = log.pending().await? {
            decided.extend(manifest.files.into_iter().map(|part| part.upload));
            swept.decisions.push(bucket.name_of(&places));
            if !dry_run {
                log.settle().await?;
            }
        }
    }
    let old = |at: DateTime<Utc>| Utc::now() - at >= age;
    let open = bucket.open_uploads(&format!("{root}/")).await;
    let open = open.map_err(|reason| PublishError::Store {
        url: bucket.name_of(&root),
        what: "leftovers cannot be found",
        reason,
    })?;
    let left = |upload: &OpenUpload| {
        is_ours(upload) && old(upload.initiated) && !decided.contains(&upload.upload_id)
    };
    for OpenUpload { key, upload_id, .. } in open.into_iter().filter(left) {
        swept.uploads.push(format!("{} {upload_id}", bucket.name_of(&key_of(&key))));
        if !dry_run {
            abort(&bucket, &key_of(&key), &upload_id).await.map_err(failed)?;
        }
    }
    for object in listed.iter().filter(|object| old(object.last_modified)) {
        let mut parts = object.location.prefix_match(&state).into_iter().flatten().skip(1);
        if parts.next().is_some_and(|part| part.as_ref() == "jobs") {
            swept.records.push(bucket.name_of(&object.location));
            if !dry_run {
                give_up(&bucket, &object.location).await?;
            }
        }
    }
    Ok(swept)
}

/// Uploads of other programs are none of ours.
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
        check("part-00003-20170227-1a203b13e4c-6eeb-0.snappy.parquet.tmp", false);
        check("part-00000-c000.snappy.parquet", false);
        check("other.parquet", false);
    }

    #[test]
    fn records_lie_beside_the_output() {
        let (_, root, state) = root("s3://b/agg/v1").unwrap();
        assert_eq!((root.as_ref(), state.as_ref()), ("agg/v1", "agg/.v1.tally-staging"));
        assert_eq!(super::root("s3://b/out").unwrap().2.as_ref(), ".out.tally-staging");
        for bad in ["s3://b", "s3://b/", "/tmp/x"] {
            assert!(super::root(bad).is_err(), "{bad}");
        }
    }
}
