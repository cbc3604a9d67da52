//! The staging of part files in an object store: multipart uploads. Each upload is recorded, begins here under a key that
//! is used once, is filled by a worker, and is completed or aborted by the publish.
//!
//! The records are stored beside the output's root, never below it, in `.<name>.tally-staging/<day>/`: `jobs/<job>/` has
//! the uploads of live jobs, `commits/` the decisions (`commit_log`). A dead job leaves records and open uploads; a
//! restart of the job aborts them, and so does `sweep` after a while. Not here: which attempt's upload counts.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tally_common::stores::urls;
use tally_common::stores::{Bucket, list_below, read};
use tally_proto::{JobId, v1};

use super::PublishError;
use super::abort::abort;
use super::begins::Begins;
use super::commit_log::{CommitLog, Decided, Manifest, Settled, key_of};
use super::probe::{self, Probe};

/// The smallest size of an upload's part that stores accept, except for the last part.
const MIN_PART: u64 = 8 << 20;
/// The number of parts of a file of the target size: half of what stores accept, because files may be larger.
const TARGET_PARTS: u64 = 5_000;
/// Requests at a time.
const CONCURRENT: usize = 8;
/// The number of the part file for the probe; no job has as many.
const PROBE: u32 = 99_999;

/// A job's staging in a store.
#[derive(Debug, Clone)]
pub struct StoreStaging {
    bucket: Arc<Bucket>,
    job: JobId,
    epoch: u64,
    /// The day's folder.
    day: Path,
    /// The job's records of uploads.
    records: Path,
    log: CommitLog,
    part_bytes: u64,
    /// Its uploads that are beginning.
    begins: Arc<Begins>,
}

/// The record of an upload. Without an id the upload may have begun, or not.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    key: String,
    upload: Option<String>,
}

/// The locations of an output's day and of its records.
struct DayLocation {
    bucket: Arc<Bucket>,
    day: Path,
    state: Path,
}

fn no_bucket(output: &str) -> PublishError {
    let reason = "it is not a folder in a bucket: write for example s3://BUCKET/FOLDER".into();
    PublishError::lasting(output.into(), "a day cannot be published there", reason)
}

/// The root of an output, and the folder beside it that holds all records of its days.
pub(super) fn root(output: &str) -> Result<(Arc<Bucket>, Path, Path), PublishError> {
    let (bucket, root) = urls::open_bucket(output)?.ok_or_else(|| no_bucket(output))?;
    let name = root.filename().ok_or_else(|| no_bucket(output))?;
    let parts: Vec<_> = root.parts().collect();
    let parent: Path = parts[..parts.len() - 1].iter().cloned().collect();
    let state = parent.join(format!(".{name}.tally-staging"));
    Ok((bucket, root, state))
}

fn locate(output: &str, day_folder: &str) -> Result<DayLocation, PublishError> {
    let (bucket, root, state) = root(output)?;
    Ok(DayLocation { bucket, day: root.join(day_folder), state: state.join(day_folder) })
}

fn log_of(location: &DayLocation) -> CommitLog {
    CommitLog::new(location.bucket.clone(), location.day.clone(), location.state.clone().join("commits"))
}

impl StoreStaging {
    /// Whether a publish of the day is decided and not carried out: the day may lack files, or have those of two jobs.
    ///
    /// # Errors
    /// [`PublishError`]: it is not known.
    pub async fn is_half_published(output: &str, day_folder: &str) -> Result<bool, PublishError> {
        Ok(log_of(&locate(output, day_folder)?).pending().await?.is_some())
    }

    /// The record of the published day; `None` if there is none, or the last publish was undone.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn published(output: &str, day_folder: &str) -> Result<Option<Manifest>, PublishError> {
        log_of(&locate(output, day_folder)?).published().await
    }

    /// Prepares the staging of a job: carries out earlier decisions, aborts uploads that an earlier leader began for the
    /// job, and probes whether a day can be published there (`probe`).
    ///
    /// # Errors
    /// [`PublishError`]. The job's objects are removed, as far as permissions allow.
    pub async fn prepare(
        output: &str,
        day_folder: &str,
        job: &JobId,
        epoch: u64,
        target_file_size: u64,
    ) -> Result<Self, PublishError> {
        let location = locate(output, day_folder)?;
        let replaces = probe::listing(&location.bucket, &location.day).await?;
        let log = log_of(&location);
        log.settle().await?;
        let DayLocation { bucket, day, state } = location;
        let objects = StoreStaging {
            bucket,
            job: job.clone(),
            epoch,
            day,
            records: state.join("jobs").join(job.as_str()),
            log,
            part_bytes: target_file_size.div_ceil(TARGET_PARTS).next_multiple_of(1 << 20).max(MIN_PART),
            begins: Arc::default(),
        };
        abort_all(&objects.bucket, &objects.records, epoch).await?;
        if let Err(error) = objects.probe(replaces).await {
            objects.discard().await;
            return Err(error);
        }
        Ok(objects)
    }

    /// Tries the requests of the publish, and records the job. `replaces`: there is an old day.
    async fn probe(&self, replaces: bool) -> Result<(), PublishError> {
        let record = serde_json::json!({ "job": self.job.as_str(), "epoch": self.epoch });
        // The key looks like that of a part file, so that `sweep` recognises it.
        let key = self.key(None, PROBE, 0);
        let begun = Begun { key: key.to_string(), upload: None };
        let (record, begun) = (to_json(&record), to_json(&begun));
        let probe = Probe {
            bucket: &self.bucket,
            record: &self.record("job"),
            spare: &self.record("probe"),
            key: &key,
            replaces,
        };
        probe.objects(&record).await?;
        probe.uploads(&begun, &record).await
    }

    /// Carries out the decision of an earlier leader; false if there is none, and none of an earlier epoch follows.
    ///
    /// The earlier leader may still be trying to publish. Its uploads are aborted, so that its decision is undone if it
    /// comes after this call.
    ///
    /// # Errors
    /// [`PublishError`]: the decision is unknown, or not carried out yet; another try may succeed.
    pub async fn finish(
        output: &str,
        day_folder: &str,
        job: &JobId,
        epoch: u64,
    ) -> Result<bool, PublishError> {
        let location = locate(output, day_folder)?;
        let (log, records) = (log_of(&location), location.state.clone().join("jobs").join(job.as_str()));
        let is_decided = |settled: Settled| settled.jobs.iter().any(|decided| decided == job.as_str());
        let decided = is_decided(log.settle().await?);
        abort_all(&location.bucket, &records, if decided { u64::MAX } else { epoch }).await?;
        // A decision before the uploads were aborted may have completed them.
        Ok(decided || is_decided(log.settle().await?))
    }

    /// The key of a record of this term. The records of later leaders are kept.
    fn record(&self, name: &str) -> Path {
        self.records.clone().join(format!("{:010}-{name}", self.epoch))
    }

    /// The day's folder as a URL.
    pub fn url(&self) -> String {
        self.bucket.name_of(&self.day)
    }

    fn failed<'a>(&'a self, key: &'a Path, what: &'static str) -> impl FnOnce(Error) -> PublishError + 'a {
        move |error| PublishError::store(self.bucket.name_of(key), what, &error)
    }

    async fn put(&self, key: &Path, record: &impl Serialize) -> Result<(), PublishError> {
        let put = self.bucket.objects.put(key, to_json(record)).await;
        put.map(drop).map_err(self.failed(key, "the output's records cannot be written"))
    }

    /// The key of an attempt's part file, in a folder of the day if one is given. No other attempt uses it.
    pub fn key(&self, folder: Option<&str>, index: u32, attempt: u32) -> Path {
        let folder = folder.map_or_else(|| self.day.clone(), |folder| self.day.clone().join(folder));
        folder.join(format!("part-{index:05}-{}-{attempt}.snappy.parquet", self.job))
    }

    /// Records the upload of an attempt's part file, and begins it. `folder` is the file's folder within the day.
    ///
    /// # Errors
    /// [`PublishError`]; also if the job has ended.
    pub async fn begin(
        &self,
        folder: Option<&str>,
        index: u32,
        attempt: u32,
    ) -> Result<v1::Upload, PublishError> {
        let _beginning = self.begins.enter().await;
        let key = self.key(folder, index, attempt);
        if self.begins.is_closed() {
            let url = self.bucket.name_of(&key);
            return Err(PublishError::lasting(url, "the upload cannot begin", "the job has ended".into()));
        }
        let record = self.record(&format!("{index:05}-{attempt}"));
        let begun = self.begin_recorded(&key, &record).await;
        if self.begins.is_closed() {
            abort_all(&self.bucket, &self.records, self.epoch).await?;
        }
        let id = begun?;
        Ok(v1::Upload { url: self.bucket.name_of(&key), id, part_bytes: self.part_bytes })
    }

    /// The id of an upload. It is recorded before it begins, and again when its id is known.
    async fn begin_recorded(&self, key: &Path, record: &Path) -> Result<String, PublishError> {
        self.put(record, &Begun { key: key.to_string(), upload: None }).await?;
        let id = self.bucket.uploads.create_multipart(key).await;
        let id = id.map_err(self.failed(key, "the upload cannot begin"))?;
        self.put(record, &Begun { key: key.to_string(), upload: Some(id.clone()) }).await?;
        Ok(id)
    }

    /// Publishes the day, and aborts all other uploads of the job.
    ///
    /// # Errors
    /// [`PublishError`]. The publish may be decided: another call continues it, and no upload is aborted.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Decided, PublishError> {
        let decided = self.log.publish(manifest, self.epoch).await?;
        self.discard().await;
        Ok(decided)
    }

    /// Ends a publish that failed for good. The uploads are aborted if the day was certainly not decided. Returns what
    /// happens to the day.
    pub async fn abandon(&self) -> String {
        match self.log.is_decided(self.job.as_str()).await {
            Ok(false) => {
                self.discard().await;
                "the old day stays".into()
            }
            Ok(true) => format!("{} is decided: the next job or `tally gc` carries it out", self.url()),
            Err(_) => format!("if {} was decided, the next job or `tally gc` carries it out", self.url()),
        }
    }

    /// Aborts all uploads of the job that are not part of a decision, and removes their records. What cannot be removed is
    /// left to `sweep`.
    pub async fn discard(&self) {
        self.begins.close().await;
        if let Err(error) = abort_all(&self.bucket, &self.records, self.epoch).await {
            tracing::warn!(job = %self.job, %error, "the staged files cannot be removed: run `tally gc` to remove them");
        }
    }
}

fn to_json(record: &impl Serialize) -> PutPayload {
    PutPayload::from(serde_json::to_vec(record).unwrap_or_default())
}

/// Aborts the uploads in a job's records of terms up to `epoch`, and removes the records.
async fn abort_all(bucket: &Bucket, records: &Path, epoch: u64) -> Result<(), PublishError> {
    let listed = list_below(&*bucket.objects, records).await.map_err(|error| {
        PublishError::store(bucket.name_of(records), "the output's records cannot be listed", &error)
    })?;
    let ours = |record: &Path| {
        let term = record.filename().and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
        term.is_none_or(|term| term <= epoch)
    };
    let listed = listed.into_iter().map(|object| object.location).filter(ours);
    let aborted =
        listed.map(|record| async move { abort_recorded(bucket, &record).await }).collect::<Vec<_>>();
    futures::stream::iter(aborted).buffer_unordered(CONCURRENT).try_collect::<()>().await
}

/// Aborts the upload in a record, and removes the record.
pub(super) async fn abort_recorded(bucket: &Bucket, record: &Path) -> Result<(), PublishError> {
    let failed = |error| PublishError::store(bucket.name_of(record), "an upload cannot be aborted", &error);
    let Some(found) = read(&*bucket.objects, record).await.map_err(failed)? else { return Ok(()) };
    if let Ok(Begun { key, upload }) = serde_json::from_slice::<Begun>(&found) {
        let ids = match upload {
            Some(id) => vec![id],
            // The process that began it died before it recorded the id.
            None => {
                let open = bucket.open_uploads(&key).await.unwrap_or_else(|reason| {
                    tracing::warn!(key, %reason, "an upload may stay open");
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;
    use object_store::memory::InMemory;
    use object_store::multipart::{MultipartStore, PartId};
    use object_store::{MultipartId, PutResult};
    use tally_common::stores::{self, BucketError, OpenUpload, Service, UploadLister};
    use tokio::sync::Semaphore;

    use super::*;

    /// Multipart uploads that begin when the test permits it, and are refused then.
    #[derive(Debug)]
    struct Refusing {
        memory: InMemory,
        /// From now on uploads wait and are refused.
        refuses: AtomicBool,
        waiting: AtomicUsize,
        permits: Semaphore,
    }

    impl Default for Refusing {
        fn default() -> Self {
            let (memory, refuses, waiting) = (InMemory::new(), AtomicBool::default(), AtomicUsize::default());
            Refusing { memory, refuses, waiting, permits: Semaphore::new(0) }
        }
    }

    #[async_trait]
    impl MultipartStore for Refusing {
        async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
            if !self.refuses.load(Ordering::Acquire) {
                return self.memory.create_multipart(path).await;
            }
            self.waiting.fetch_add(1, Ordering::AcqRel);
            self.permits.acquire().await.unwrap().forget();
            Err(Error::PermissionDenied { path: path.to_string(), source: "AccessDenied".into() })
        }

        async fn put_part(
            &self,
            path: &Path,
            id: &MultipartId,
            index: usize,
            data: PutPayload,
        ) -> object_store::Result<PartId> {
            self.memory.put_part(path, id, index, data).await
        }

        async fn complete_multipart(
            &self,
            path: &Path,
            id: &MultipartId,
            parts: Vec<PartId>,
        ) -> object_store::Result<PutResult> {
            self.memory.complete_multipart(path, id, parts).await
        }

        async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
            self.memory.abort_multipart(path, id).await
        }
    }

    #[async_trait]
    impl UploadLister for Refusing {
        async fn list(&self, _: &str) -> Result<Vec<OpenUpload>, BucketError> {
            Ok(vec![])
        }
    }

    /// The staging of a job in a bucket, and that bucket's objects and uploads.
    async fn staging(bucket: &str) -> (StoreStaging, Arc<InMemory>, Arc<Refusing>) {
        let (objects, uploads) = (Arc::new(InMemory::new()), Arc::new(Refusing::default()));
        let lister = Box::new(Refusing::default());
        stores::install(Bucket::new(Service::S3, bucket, objects.clone(), uploads.clone(), lister));
        let job = JobId::parse("20170227-0-1-0").unwrap();
        let output = format!("s3://{bucket}/agg");
        let staging = StoreStaging::prepare(&output, "day=1", &job, 1, 1 << 20).await.unwrap();
        uploads.refuses.store(true, Ordering::Release);
        (staging, objects, uploads)
    }

    async fn keys(objects: &InMemory) -> Vec<Path> {
        let listed = list_below(objects, &Path::default()).await.unwrap();
        listed.into_iter().map(|object| object.location).collect()
    }

    /// Begins an upload, and returns once the store has its request.
    async fn beginning(
        staging: &StoreStaging,
        uploads: &Refusing,
    ) -> tokio::task::JoinHandle<Result<v1::Upload, PublishError>> {
        let begun = tokio::spawn({
            let staging = staging.clone();
            async move { staging.begin(None, 0, 0).await }
        });
        while uploads.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        begun
    }

    #[tokio::test]
    async fn the_end_of_a_job_waits_for_uploads_that_are_beginning() {
        let (staging, objects, uploads) = staging("beginning").await;
        let begun = beginning(&staging, &uploads).await;
        let discarded = tokio::spawn({
            let staging = staging.clone();
            async move { staging.discard().await }
        });
        while !staging.begins.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(!discarded.is_finished());
        uploads.permits.add_permits(1);
        begun.await.unwrap().unwrap_err();
        discarded.await.unwrap();
        assert_eq!(keys(&objects).await, []);
        let late = staging.begin(None, 1, 0).await.unwrap_err();
        assert!(late.to_string().contains("the job has ended"), "{late}");
        assert_eq!(keys(&objects).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_begins_late_removes_its_record() {
        let (staging, objects, uploads) = staging("late").await;
        let begun = beginning(&staging, &uploads).await;
        staging.discard().await;
        uploads.permits.add_permits(1);
        begun.await.unwrap().unwrap_err();
        assert_eq!(keys(&objects).await, []);
    }

    #[test]
    fn records_are_stored_beside_the_output() {
        let (_, root, state) = root("s3://b/agg/v1").unwrap();
        assert_eq!((root.as_ref(), state.as_ref()), ("agg/v1", "agg/.v1.tally-staging"));
        assert_eq!(super::root("s3://b/out").unwrap().2.as_ref(), ".out.tally-staging");
        for bad in ["s3://b", "s3://b/", "/tmp/x"] {
            assert!(super::root(bad).is_err(), "{bad}");
        }
    }
}
