//! One numbering of strings a job in this process, so that codes of different map outputs can be
//! compared without their strings.
//!
//! Each run brings its own dictionary; its translation is made once and kept while the budget has
//! room, else made again when it is needed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Array;
use parking_lot::{Mutex, RwLock};
use tally_dataset::Texts;
use tally_dataset::interner::Interner;
use tally_proto::AttemptId;

use crate::budget::{Budget, Reservation};
use crate::error::TaskError;
use crate::store::Run;

/// A run's place: whose output, and which of its runs.
pub type RunId = (AttemptId, usize);

/// The strings of a job.
pub struct JobTexts {
    budget: Budget,
    interner: RwLock<Interned>,
    translations: Mutex<HashMap<RunId, Kept>>,
}

/// A translation, and the memory that it holds.
type Kept = (Arc<Vec<u32>>, Reservation);

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
        JobTexts { budget, interner: RwLock::default(), translations: Mutex::default() }
    }

    /// The job's codes of a run's codes.
    ///
    /// # Errors
    /// The run's disk, the budget, or the dataset's limit on strings.
    pub fn translation(&self, id: &RunId, run: &Run) -> Result<Arc<Vec<u32>>, TaskError> {
        if let Some((known, _)) = self.translations.lock().get(id) {
            return Ok(known.clone());
        }
        let dictionary = run.dictionary()?;
        let mut codes = Vec::with_capacity(dictionary.len());
        if dictionary.len() > 0 {
            let mut interned = self.interner.write();
            for text in dictionary.iter().flatten() {
                codes.push(interned.interner.intern(text)?);
            }
            interned.account(&self.budget)?;
        }
        let codes = Arc::new(codes);
        // Kept only as far as half of the budget stays for what cannot be made again.
        let roomy = self.budget.used() < self.budget.limit() / 2;
        if roomy && let Some(held) = self.budget.reserve(codes.len() * 4 + 128) {
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
}
