//! Values by attempt, for the tasks of one stage.

use std::collections::BTreeMap;

use tally_proto::AttemptId;

/// The values of a stage's attempts, in the order of the tasks.
#[derive(Debug)]
pub struct ByAttempt<T>(BTreeMap<(u32, u32), T>);

impl<T> Default for ByAttempt<T> {
    fn default() -> Self {
        ByAttempt(BTreeMap::new())
    }
}

fn key(attempt: &AttemptId) -> (u32, u32) {
    (attempt.task.index, attempt.attempt)
}

impl<T> ByAttempt<T> {
    /// Sets the value of an attempt, and returns the one before.
    pub fn insert(&mut self, attempt: &AttemptId, value: T) -> Option<T> {
        self.0.insert(key(attempt), value)
    }

    /// The value of an attempt.
    pub fn get(&self, attempt: &AttemptId) -> Option<&T> {
        self.0.get(&key(attempt))
    }

    /// Removes the value of an attempt, and returns it.
    pub fn remove(&mut self, attempt: &AttemptId) -> Option<T> {
        self.0.remove(&key(attempt))
    }

    /// The values of a task's attempts, with their numbers.
    pub fn of_task(&self, index: u32) -> impl Iterator<Item = (u32, &T)> {
        self.0.range((index, 0)..=(index, u32::MAX)).map(|(&(_, attempt), value)| (attempt, value))
    }

    /// Keeps only the values of those attempts of a task.
    pub fn retain(&mut self, index: u32, keep: impl Fn(u32) -> bool) {
        let attempts: Vec<u32> = self.of_task(index).map(|(attempt, _)| attempt).collect();
        for attempt in attempts.into_iter().filter(|attempt| !keep(*attempt)) {
            self.0.remove(&(index, attempt));
        }
    }

    /// All values, by the numbers of task and attempt.
    pub fn iter(&self) -> impl Iterator<Item = ((u32, u32), &T)> {
        self.0.iter().map(|(&key, value)| (key, value))
    }

    /// The number of values.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
