//! The string dictionary of a job in this process. It assigns one code to each distinct string, so that codes of
//! different map outputs can be compared without their strings.
//!
//! Each run has its own dictionary. Its translation to codes of the job is made once, and cached while the budget has
//! room. The tasks of a job share the dictionary and its memory. It is dropped when no task uses it and another job
//! waits for memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Array, BinaryArray};
use parking_lot::{Condvar, Mutex, RwLock};
use tally_common::budget::{Budget, Reservation};
use tally_dataset::interner::Interner;
use tally_dataset::{StringDictionary, checksum};
use tally_proto::AttemptId;

use crate::error::TaskError;

/// Identifies a run: the attempt that made it, and its number in the output.
pub type RunId = (AttemptId, usize);

/// The string dictionary of a job, as one task uses it.
pub struct TaskDictionary {
    shared: Arc<JobDictionary>,
    /// The budget of the task. Its limit applies to all tasks of the job together.
    budget: Budget,
}

/// The string dictionary of a job, shared by its tasks.
pub struct JobDictionary {
    /// The budget that the memory is charged to.
    budget: Budget,
    interner: RwLock<InternedStrings>,
    translations: Mutex<HashMap<RunId, CachedTranslation>>,
    /// Runs whose dictionaries are being fetched, so that a process does not fetch one twice.
    claimed: Mutex<HashSet<RunId>>,
    unclaimed: Condvar,
}

/// Which thread fetches a run's dictionary.
pub enum Claim<'a> {
    /// No fetch is needed.
    Known(Arc<Translation>),
    /// The caller.
    Mine(FetchClaim<'a>),
    /// Another thread, which has started.
    Others,
}

/// The exclusive right to fetch a run's dictionary. Other threads wait until it is dropped.
pub struct FetchClaim<'a> {
    dictionary: &'a JobDictionary,
    run: RunId,
}

impl FetchClaim<'_> {
    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}

impl Drop for FetchClaim<'_> {
    fn drop(&mut self) {
        self.dictionary.claimed.lock().remove(&self.run);
        self.dictionary.unclaimed.notify_all();
    }
}

/// A run's dictionary as codes of the job.
#[derive(Debug, PartialEq, Eq)]
pub struct Translation {
    /// The job's code for each code of the run.
    codes: Vec<u32>,
    /// The fingerprint of the run's dictionary.
    pub dictionary: u64,
}

impl std::ops::Deref for Translation {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.codes
    }
}

/// A cached translation, with its memory reservation.
type CachedTranslation = (Arc<Translation>, Reservation);

#[derive(Default)]
struct InternedStrings {
    interner: Interner,
    held: Vec<Reservation>,
    reserved: usize,
}

/// Bytes reserved at a time as the dictionary grows.
const GROWTH: usize = 1 << 20;
/// How long memory is waited for while inputs are being received. Meanwhile their streams hold memory of other workers,
/// which other readers need.
const MAX_MEMORY_WAIT: Duration = Duration::from_secs(10);

impl TaskDictionary {
    /// An empty dictionary for a single task, charged to its budget.
    pub fn new(task: &Budget) -> Self {
        TaskDictionary::of(&Arc::new(JobDictionary::new(task)), task)
    }

    /// The dictionary of a job for one of its tasks, which has the budget `task`.
    pub fn of(shared: &Arc<JobDictionary>, task: &Budget) -> Self {
        TaskDictionary { shared: shared.clone(), budget: task.through(&shared.budget) }
    }

    /// Claims the fetch of a run's dictionary.
    pub fn claim(&self, run: RunId) -> Claim<'_> {
        let mut claimed = self.shared.claimed.lock();
        if let Some(known) = self.known(&run) {
            return Claim::Known(known);
        }
        if !claimed.insert(run.clone()) {
            return Claim::Others;
        }
        Claim::Mine(FetchClaim { dictionary: &self.shared, run })
    }

    /// Waits until a claim ends, or until `patience` is over.
    pub fn wait(&self, patience: Duration) {
        let mut claimed = self.shared.claimed.lock();
        if !claimed.is_empty() {
            self.shared.unclaimed.wait_for(&mut claimed, patience);
        }
    }

    /// Whether new translations are cached: half of the budget is kept free for data that cannot be made again.
    pub fn roomy(&self) -> bool {
        self.budget.used() < self.budget.limit() / 2
    }

    /// The translation of a run, if it is cached.
    pub fn known(&self, id: &RunId) -> Option<Arc<Translation>> {
        self.shared.translations.lock().get(id).map(|(known, _)| known.clone())
    }

    /// The translation of a run; `dictionary` returns the run's strings.
    ///
    /// # Errors
    /// The error of `dictionary`, the budget, or the dataset's limit on strings.
    pub fn translation(
        &self,
        id: &RunId,
        dictionary: impl FnOnce() -> Result<BinaryArray, TaskError>,
    ) -> Result<Arc<Translation>, TaskError> {
        match self.known(id) {
            Some(known) => Ok(known),
            None => self.translate(id, &dictionary()?),
        }
    }

    /// Makes the translation of a run, and caches it if there is room. The memory of new strings is reserved by
    /// [`TaskDictionary::account`], which may wait and so must not be called while others wait for this.
    ///
    /// # Errors
    /// The dataset's limit on strings.
    pub fn translate(&self, id: &RunId, dictionary: &BinaryArray) -> Result<Arc<Translation>, TaskError> {
        let mut codes = Vec::with_capacity(dictionary.len());
        if dictionary.len() > 0 {
            let mut interned = self.shared.interner.write();
            for text in dictionary.iter().flatten() {
                codes.push(interned.interner.intern(text)?);
            }
        }
        let codes = Arc::new(Translation { codes, dictionary: checksum::dictionary(dictionary) });
        if self.roomy()
            && let Some(held) = self.budget.try_reserve(codes.len() * 4 + 128)
        {
            self.shared.translations.lock().insert(id.clone(), (codes.clone(), held));
        }
        Ok(codes)
    }

    /// Reserves the memory that the strings have grown to. It may wait, but not longer than the holders of a reduce
    /// task's inputs do. It waits without a lock, and callers must hold no claim, because the other tasks of the job
    /// need both.
    ///
    /// # Errors
    /// The budget.
    pub fn account(&self) -> Result<(), TaskError> {
        let missing =
            |interned: &InternedStrings| interned.interner.memory().saturating_sub(interned.reserved);
        if missing(&self.shared.interner.read()) == 0 {
            return Ok(());
        }
        let bytes = {
            let mut interned = self.shared.interner.write();
            let bytes = missing(&interned).next_multiple_of(GROWTH);
            interned.reserved += bytes;
            bytes
        };
        if self.budget.used().saturating_add(bytes as u64) > self.budget.limit() {
            self.shared.forget_translations();
        }
        let held = self.budget.reserve_within(bytes, MAX_MEMORY_WAIT);
        let mut interned = self.shared.interner.write();
        match held {
            Ok(held) => interned.held.push(held),
            Err(why) => {
                interned.reserved -= bytes;
                let what = "the day's distinct strings (add-on ids, and client ids that are no UUIDs)";
                return Err(TaskError::memory(what)(why));
            }
        }
        Ok(())
    }
}

impl JobDictionary {
    /// An empty dictionary whose memory comes from `budget`.
    pub fn new(budget: &Budget) -> Self {
        JobDictionary {
            budget: budget.for_shared(),
            interner: RwLock::default(),
            translations: Mutex::default(),
            claimed: Mutex::default(),
            unclaimed: Condvar::new(),
        }
    }

    /// Drops the cached translations, which can be made again.
    pub fn forget_translations(&self) {
        let all = std::mem::take(&mut *self.translations.lock());
        drop(all);
    }
}

impl StringDictionary for TaskDictionary {
    fn append(&self, code: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.shared.interner.read().interner.get(code));
    }

    fn crc32s(&self, codes: &mut [u32]) {
        let interned = self.shared.interner.read();
        codes.iter_mut().for_each(|code| *code = interned.interner.crc32(*code));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    fn run(index: u32) -> RunId {
        let task = TaskId { job: JobId::parse("strings").unwrap(), stage: StageId(0), index };
        (AttemptId { task, attempt: 1 }, index as usize % 3)
    }

    /// Strings and their codes, as a thread received them.
    type Translated = Vec<(Vec<u8>, u32)>;

    fn translated(strings: &TaskDictionary, at: u32, dictionary: &[Vec<u8>]) -> Translated {
        let all = || BinaryArray::from_iter_values(dictionary);
        let codes = strings.translation(&run(at), || Ok(all())).unwrap();
        let again = strings.translate(&run(at), &all()).unwrap();
        assert_eq!(codes, again);
        assert!(strings.known(&run(at)).is_none_or(|known| known == codes));
        assert_eq!(codes.len(), dictionary.len());
        dictionary.iter().cloned().zip(codes.iter().copied()).collect()
    }

    proptest! {
        /// With several threads, and with and without room for the cache.
        #[test]
        fn codes_are_equal_where_strings_are(
            dictionaries in prop::collection::vec(prop::collection::hash_set(prop::collection::vec(0..4u8, 0..7), 0..300), 1..12),
            roomy: bool,
        ) {
            let dictionaries: Vec<Vec<_>> = dictionaries.into_iter().map(|d| d.into_iter().collect()).collect();
            let strings = TaskDictionary::new(&Budget::new(if roomy { 64 << 20 } else { 2 << 20 }));
            let mine = |thread: usize| -> Translated {
                let all = (0..).zip(&dictionaries).cycle().skip(thread).take(dictionaries.len());
                all.flat_map(|(at, dictionary)| translated(&strings, at, dictionary)).collect()
            };
            let translations: Translated = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|at| scope.spawn(move || mine(at))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            let (mut of, mut back): (HashMap<Vec<u8>, u32>, HashMap<u32, Vec<u8>>) = Default::default();
            for (text, code) in translations {
                prop_assert_eq!(*of.entry(text.clone()).or_insert(code), code);
                prop_assert_eq!(back.entry(code).or_insert_with(|| text.clone()), &text);
                let (mut out, mut crc32) = (b"-".to_vec(), [code]);
                strings.append(code, &mut out);
                strings.crc32s(&mut crc32);
                prop_assert_eq!(&out[1..], &text);
                prop_assert_eq!(crc32, [crc32fast::hash(&text)]);
            }
        }
    }
}
