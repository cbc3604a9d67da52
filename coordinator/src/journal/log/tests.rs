//! Claimants that race, crash and come late, over a store in memory whose answers are reordered
//! by a seed; and the same journal on a disk.

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

/// A store in memory that lets others go first, as often as a seed says, before and after it does
/// what it is asked: as if answers, too, took their time.
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

/// What a claimant saw: its epoch, what was there when it began, what of its own was acknowledged.
#[derive(Debug, Default, Clone)]
struct Seen {
    epoch: u64,
    before: Vec<String>,
    acknowledged: Vec<String>,
    fenced: bool,
}

/// Claims, then appends until it is told that another leads. What it saw outlives its death.
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

/// Three claimants at once, some of them killed in the middle, then one that comes after all.
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
async fn a_foreign_torn_or_missing_record_is_named() {
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
    assert!(error.contains("log/1/3") && error.contains("torn"), "{error}");
    std::fs::remove_file(&record).unwrap();
    let error = claim().await;
    assert!(error.contains("log/1/3") && error.contains("missing"), "{error}");
    std::fs::write(&record, whole).unwrap();
    let foreign = state.join("log/notes.txt");
    std::fs::write(&foreign, "hello").unwrap();
    let error = claim().await;
    assert!(error.contains("notes.txt") && error.contains("no record"), "{error}");
    std::fs::remove_file(&foreign).unwrap();
    let log = EpochLog::claim(dir(), &claimant(100)).await.unwrap();
    assert_eq!(jobs(&log), ["a", "b", "c"]);
}
