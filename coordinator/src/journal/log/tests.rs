//! Claimants that race, crash and are late, with a store in memory that a seed reorders; and the same journal on a disk.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn submitted(job: &str) -> Record {
    Record::Submitted(v1::JobSubmitted { job: job.into(), ..Default::default() })
}

fn claimant(compact_after: u64) -> Claimant {
    Claimant { address: "a:1".into(), history: 9, compact_after }
}

fn jobs(log: &EpochLog) -> Vec<String> {
    log.state().live().iter().map(|job| job.submitted.as_ref().unwrap().job.clone()).collect()
}

/// A store in memory that yields to other tasks before and after each operation, as often as a seed says, so that requests
/// and answers are delayed.
#[derive(Debug)]
struct Shuffled {
    inner: Arc<InMemory>,
    random: Arc<Mutex<StdRng>>,
}

impl fmt::Display for Shuffled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shuffled")
    }
}

impl Shuffled {
    async fn wait(&self) {
        let turns = self.random.lock().random_range(0..6);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl ObjectStore for Shuffled {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.wait().await;
        let done = self.inner.put_opts(to, payload, options).await;
        self.wait().await;
        done
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.wait().await;
        let found = self.inner.get_opts(from, options).await;
        self.wait().await;
        found
    }

    fn delete_stream(
        &self,
        places: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(places)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let all = self.inner.list(prefix);
        let turns = self.random.lock().random_range(0..6);
        let wait = async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        futures::stream::once(wait).flat_map(|()| futures::stream::empty()).chain(all).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.wait().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The view of a claimant: its epoch, the records at its begin, and its acknowledged records.
#[derive(Debug, Default, Clone)]
struct Seen {
    epoch: u64,
    before: Vec<String>,
    acknowledged: Vec<String>,
    fenced: bool,
}

/// Claims, then appends until another claimant leads. Its view survives its death.
async fn lead(dir: StateDir, name: String, appends: usize, seen: Arc<Mutex<Seen>>) {
    let log = EpochLog::claim(dir, &claimant(3)).await;
    let mut log = match log {
        Ok(log) => log,
        Err(JournalError::Fenced { .. }) => {
            seen.lock().fenced = true;
            return;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    {
        let mut seen = seen.lock();
        (seen.epoch, seen.before) = (log.epoch(), jobs(&log));
    }
    for number in 0..appends {
        let job = format!("{name}-{number}");
        match log.append(submitted(&job)).await {
            Ok(()) => seen.lock().acknowledged.push(job),
            Err(JournalError::Fenced { .. }) => {
                seen.lock().fenced = true;
                return;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// Three claimants at once, some of which are killed, and a later one.
async fn race(seed: u64) {
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    let inner = Arc::new(InMemory::new());
    let dir = StateDir::of(Arc::new(Shuffled { inner, random: random.clone() }), &Path::from("state"));
    let seen: Vec<Arc<Mutex<Seen>>> = (0..3).map(|_| Arc::default()).collect();
    let mut claimants = vec![];
    for (number, seen) in seen.iter().enumerate() {
        let (delay, life) = {
            let mut random = random.lock();
            let life = if random.random_bool(0.5) { random.random_range(0..120) } else { usize::MAX };
            (random.random_range(0..60), life)
        };
        let leads = lead(dir.clone(), format!("c{number}"), 8, seen.clone());
        claimants.push(tokio::spawn(async move {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            let killed = async {
                for _ in 0..life {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = leads => {}
                () = killed => {}
            }
        }));
    }
    for claimant in claimants {
        claimant.await.unwrap();
    }
    let last = EpochLog::claim(dir, &claimant(3)).await.unwrap();
    let mut all: Vec<Seen> = seen.iter().map(|seen| seen.lock().clone()).collect();
    all.push(Seen { epoch: last.epoch(), before: jobs(&last), ..Seen::default() });
    all.sort_by_key(|seen| seen.epoch);
    for (at, later) in all.iter().enumerate().filter(|(_, seen)| seen.epoch > 0) {
        for earlier in &all[..at] {
            for job in &earlier.acknowledged {
                let what = format!("seed {seed}: {job} of epoch {} is unknown in {later:?}", earlier.epoch);
                assert!(later.before.contains(job), "{what}");
            }
        }
    }
}

#[test]
fn whatever_was_acknowledged_is_known_to_all_who_lead_later() {
    for seed in 0..3000 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(race(seed));
    }
}

#[tokio::test]
async fn a_later_epoch_ends_an_earlier_one() {
    let dir = StateDir::of(Arc::new(InMemory::new()), &Path::from("state"));
    let mut first = EpochLog::claim(dir.clone(), &claimant(100)).await.unwrap();
    first.append(submitted("a")).await.unwrap();
    let mut second = EpochLog::claim(dir.clone(), &claimant(100)).await.unwrap();
    assert_eq!((first.epoch(), second.epoch(), jobs(&second)), (1, 2, vec!["a".to_string()]));
    assert_eq!(first.append(submitted("b")).await, Err(JournalError::Fenced { epoch: 1 }));
    second.append(submitted("c")).await.unwrap();
    assert_eq!(dir.highest_epoch().await.unwrap(), 2);
    let third = EpochLog::claim(dir, &claimant(100)).await.unwrap();
    assert_eq!(jobs(&third), ["a", "c"]);
}

#[tokio::test]
async fn on_a_disk_it_is_compacted_and_survives_restarts() {
    let root = tempfile::tempdir().unwrap();
    let dir = || StateDir::open(root.path().join("state").to_str().unwrap()).unwrap();
    for round in 0..4 {
        let mut log = EpochLog::claim(dir(), &claimant(5)).await.unwrap();
        assert_eq!(jobs(&log).len(), round * 12);
        for number in 0..12 {
            log.append(submitted(&format!("{round}-{number:02}"))).await.unwrap();
        }
    }
    let count = |epoch: u64| {
        let folder = root.path().join("state/log").join(epoch.to_string());
        std::fs::read_dir(folder).unwrap().count()
    };
    assert!((1..4).all(|epoch| count(epoch) <= 3), "{:?}", (1..4).map(count).collect::<Vec<_>>());
    assert!(count(4) < 16, "{}", count(4));
}

#[tokio::test]
async fn a_foreign_truncated_or_missing_record_is_named() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let dir = || StateDir::open(state.to_str().unwrap()).unwrap();
    let mut log = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    for job in ["a", "b", "c"] {
        log.append(submitted(job)).await.unwrap();
    }
    let record = state.join("log/1/3");
    let whole = std::fs::read(&record).unwrap();
    let claim = async || EpochLog::claim(dir(), &claimant(100)).await.unwrap_err().to_string();
    std::fs::write(&record, &whole[..whole.len() - 1]).unwrap();
    let error = claim().await;
    assert!(error.contains("log/1/3") && error.contains("truncated"), "{error}");
    std::fs::remove_file(&record).unwrap();
    let error = claim().await;
    assert!(error.contains("log/1/3") && error.contains("missing"), "{error}");
    std::fs::write(&record, whole).unwrap();
    let foreign = state.join("log/notes.txt");
    std::fs::write(&foreign, "hello").unwrap();
    let error = claim().await;
    assert!(error.contains("notes.txt") && error.contains("not a record"), "{error}");
    std::fs::remove_file(&foreign).unwrap();
    let log = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    assert_eq!(jobs(&log), ["a", "b", "c"]);
}

/// The files of a state directory, with their content.
fn content(state: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![state.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => drop(found.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
            }
        }
    }
    found
}

/// Replaces the body of a record, and its format.
fn rewrite(record: &std::path::Path, format: u8, body: impl FnOnce(&[u8]) -> Vec<u8>) {
    let old = std::fs::read(record).unwrap();
    let body = body(&old[36..]);
    let mut bytes = old[..24].to_vec();
    bytes[7] = format;
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    std::fs::write(record, bytes).unwrap();
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused_and_not_changed() {
    // A format above this version's, and a kind of record that it does not know; as the last record, as the snapshot, and as
    // the claim of an epoch that has nothing else.
    for (format, number) in [(2, 3), (1, 3), (2, 1), (1, 1), (2, 0)] {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let dir = || StateDir::open(state.to_str().unwrap()).unwrap();
        let mut newer = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
        newer.append(submitted("a")).await.unwrap();
        newer.append(submitted("b")).await.unwrap();
        let record = state.join(format!("log/1/{number}"));
        let whole = std::fs::read(&record).unwrap();
        if number == 0 {
            (1..4).for_each(|number| std::fs::remove_file(state.join(format!("log/1/{number}"))).unwrap());
        }
        rewrite(&record, format, |body| match format {
            // Field 99 of the record.
            1 => b"\x9a\x06\x02\x08\x07".to_vec(),
            _ => body.to_vec(),
        });
        let before = content(&state);
        let what = format!("format {format}, record {number}");
        for error in [
            EpochLog::claim(dir(), &claimant(100)).await.unwrap_err(),
            EpochLog::check(&dir()).await.unwrap_err(),
        ] {
            assert!(matches!(error, JournalError::Newer { .. }), "{what}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("log/1/{number}")) && text.contains("--state-dir"),
                "{what}: {text}"
            );
            let version = concat!("version ", env!("CARGO_PKG_VERSION"));
            assert_eq!(text.contains(version), number > 0, "{what}: {text}");
        }
        assert_eq!(content(&state), before, "{what}");
        if number == 0 {
            continue;
        }
        // The newer version still leads, and its successors have all records.
        std::fs::write(&record, whole).unwrap();
        newer.append(submitted("c")).await.unwrap();
        EpochLog::check(&dir()).await.unwrap();
        assert_eq!(jobs(&EpochLog::claim(dir(), &claimant(100)).await.unwrap()), ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_record_that_becomes_newer_during_a_claim_does_not_end_the_journal() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let dir = || StateDir::open(state.to_str().unwrap()).unwrap();
    let mut newer = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    newer.append(submitted("a")).await.unwrap();
    let (snapshot, record) = (state.join("log/1/1"), state.join("log/1/2"));
    let (first, whole) = (std::fs::read(&snapshot).unwrap(), std::fs::read(&record).unwrap());
    // As if it had been written after the check: the claim exists, and the epoch was sealed.
    let older = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    drop(older);
    std::fs::remove_file(state.join("log/2/1")).unwrap();
    std::fs::write(&snapshot, &first).unwrap();
    std::fs::write(&record, &whole).unwrap();
    rewrite(&record, 2, <[u8]>::to_vec);
    assert!(matches!(EpochLog::claim(dir(), &claimant(100)).await, Err(JournalError::Newer { .. })));
    std::fs::write(&record, &whole).unwrap();
    let log = EpochLog::claim(dir(), &claimant(100)).await;
    assert!(log.is_ok_and(|log| log.epoch() == 3 && jobs(&log) == ["a"]), "the newer version leads again");
}

#[tokio::test]
async fn unknown_fields_of_known_records_are_ignored() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let dir = || StateDir::open(state.to_str().unwrap()).unwrap();
    let mut newer = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    newer.append(submitted("a")).await.unwrap();
    for number in 0..3 {
        // Field 99 of the message beside the record.
        rewrite(&state.join(format!("log/1/{number}")), 1, |body| [body, b"\x98\x06\x01"].concat());
    }
    let mut log = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    log.append(submitted("b")).await.unwrap();
    assert_eq!(jobs(&log), ["a", "b"]);
}
