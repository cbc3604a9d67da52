//! One numbering of strings a job in this process, so that codes of different map outputs can be
//! compared without their strings.
//!
//! Each run brings its own dictionary; its translation is made once and kept while the budget has
//! room, else made again when it is needed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, BinaryArray};
use parking_lot::{Condvar, Mutex, RwLock};
use tally_dataset::interner::Interner;
use tally_dataset::{Texts, checksum};
use tally_proto::AttemptId;

use crate::budget::{Budget, Reservation};
use crate::error::TaskError;

/// A run's place: whose output, and which of its runs.
pub type RunId = (AttemptId, usize);

/// The strings of a job.
pub struct JobTexts {
    budget: Budget,
    interner: RwLock<Interned>,
    translations: Mutex<HashMap<RunId, Kept>>,
    /// Runs whose dictionaries are being fetched, so that a process fetches none twice.
    claimed: Mutex<HashSet<RunId>>,
    unclaimed: Condvar,
}

/// Who fetches a run's dictionary.
pub enum Claim<'a> {
    /// Nobody needs to.
    Known(Arc<Translation>),
    /// The caller does.
    Mine(Claimed<'a>),
    /// Another thread does already.
    Others,
}

/// The right to fetch a run's dictionary; others wait until it is dropped.
pub struct Claimed<'a> {
    texts: &'a JobTexts,
    run: RunId,
}

impl Claimed<'_> {
    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.texts.claimed.lock().remove(&self.run);
        self.texts.unclaimed.notify_all();
    }
}

/// A run's dictionary as the job's codes.
#[derive(Debug, PartialEq, Eq)]
pub struct Translation {
    /// The job's code of each of the run's.
    codes: Vec<u32>,
    /// The fingerprint of the dictionary that it was made of.
    pub dictionary: u64,
}

impl std::ops::Deref for Translation {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.codes
    }
}

/// A translation, and the memory that it holds.
type Kept = (Arc<Translation>, Reservation);

#[derive(Default)]
struct Interned {
    interner: Interner,
    held: Vec<Reservation>,
    reserved: usize,
}

/// Bytes reserved at a time as the interner grows.
const GROWTH: usize = 1 << 20;

impl JobTexts {
    /// An empty numbering whose memory comes from `budget`.
    pub fn new(budget: Budget) -> Self {
        JobTexts {
            budget,
            interner: RwLock::default(),
            translations: Mutex::default(),
            claimed: Mutex::default(),
            unclaimed: Condvar::new(),
        }
    }

    /// Asks for the right to fetch a run's dictionary.
    pub fn claim(&self, run: RunId) -> Claim<'_> {
        let mut claimed = self.claimed.lock();
        if let Some(known) = self.known(&run) {
            return Claim::Known(known);
        }
        if !claimed.insert(run.clone()) {
            return Claim::Others;
        }
        Claim::Mine(Claimed { texts: self, run })
    }

    /// Waits until somebody has ended a claim, or `patience` is over.
    pub fn wait(&self, patience: Duration) {
        let mut claimed = self.claimed.lock();
        if !claimed.is_empty() {
            self.unclaimed.wait_for(&mut claimed, patience);
        }
    }

    /// Whether translations made now are kept: as far as half of the budget stays for what cannot
    /// be made again.
    pub fn roomy(&self) -> bool {
        self.budget.used() < self.budget.limit() / 2
    }

    /// The job's codes of a run's codes, if they are kept.
    pub fn known(&self, id: &RunId) -> Option<Arc<Translation>> {
        self.translations.lock().get(id).map(|(known, _)| known.clone())
    }

    /// The job's codes of a run's codes; `dictionary` has the run's strings.
    ///
    /// # Errors
    /// What `dictionary` says, the budget, or the dataset's limit on strings.
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

    /// Makes the translation of a run's codes, and keeps it if there is room.
    ///
    /// # Errors
    /// The budget, or the dataset's limit on strings.
    pub fn translate(&self, id: &RunId, dictionary: &BinaryArray) -> Result<Arc<Translation>, TaskError> {
        let mut codes = Vec::with_capacity(dictionary.len());
        if dictionary.len() > 0 {
            let mut interned = self.interner.write();
            for text in dictionary.iter().flatten() {
                codes.push(interned.interner.intern(text)?);
            }
            interned.account(&self.budget)?;
        }
        let codes = Arc::new(Translation { codes, dictionary: checksum::dictionary(dictionary) });
        if self.roomy()
            && let Some(held) = self.budget.reserve(codes.len() * 4 + 128)
        {
            self.translations.lock().insert(id.clone(), (codes.clone(), held));
        }
        Ok(codes)
    }
}

impl Interned {
    fn account(&mut self, budget: &Budget) -> Result<(), TaskError> {
        let memory = self.interner.memory();
        while self.reserved < memory {
            let bytes = (memory - self.reserved).next_multiple_of(GROWTH);
            let what = "the day's distinct strings (add-on ids, and client ids that are no UUIDs)";
            self.held.push(budget.reserve(bytes).ok_or(TaskError::Memory { what, bytes })?);
            self.reserved += bytes;
        }
        Ok(())
    }
}

impl Texts for JobTexts {
    fn append(&self, code: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.interner.read().interner.get(code));
    }

    fn crc32s(&self, codes: &mut [u32]) {
        let interned = self.interner.read();
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
        let task = TaskId { job: JobId::parse("texts").unwrap(), stage: StageId(0), index };
        (AttemptId { task, attempt: 1 }, index as usize % 3)
    }

    /// What a thread was told of strings.
    type Told = Vec<(Vec<u8>, u32)>;

    fn translated(texts: &JobTexts, at: u32, dictionary: &[Vec<u8>]) -> Told {
        let all = || BinaryArray::from_iter_values(dictionary);
        let codes = texts.translation(&run(at), || Ok(all())).unwrap();
        let again = texts.translate(&run(at), &all()).unwrap();
        assert_eq!(codes, again);
        assert!(texts.known(&run(at)).is_none_or(|known| known == codes));
        assert_eq!(codes.len(), dictionary.len());
        dictionary.iter().cloned().zip(codes.iter().copied()).collect()
    }

    proptest! {
        /// Several threads at once, with and without room for what is kept.
        #[test]
        fn codes_are_equal_where_strings_are(
            dictionaries in prop::collection::vec(prop::collection::hash_set(prop::collection::vec(0..4u8, 0..7), 0..300), 1..12),
            roomy: bool,
        ) {
            let dictionaries: Vec<Vec<_>> = dictionaries.into_iter().map(|d| d.into_iter().collect()).collect();
            let texts = JobTexts::new(Budget::new(if roomy { 64 << 20 } else { 2 << 20 }));
            let mine = |thread: usize| -> Told {
                let all = (0..).zip(&dictionaries).cycle().skip(thread).take(dictionaries.len());
                all.flat_map(|(at, dictionary)| translated(&texts, at, dictionary)).collect()
            };
            let told: Told = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|at| scope.spawn(move || mine(at))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            let (mut of, mut back): (HashMap<Vec<u8>, u32>, HashMap<u32, Vec<u8>>) = Default::default();
            for (text, code) in told {
                prop_assert_eq!(*of.entry(text.clone()).or_insert(code), code);
                prop_assert_eq!(back.entry(code).or_insert_with(|| text.clone()), &text);
                let (mut out, mut crc32) = (b"-".to_vec(), [code]);
                texts.append(code, &mut out);
                texts.crc32s(&mut crc32);
                prop_assert_eq!(&out[1..], &text);
                prop_assert_eq!(crc32, [crc32fast::hash(&text)]);
            }
        }
    }
}
