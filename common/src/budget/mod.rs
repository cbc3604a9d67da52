//! The memory budget of a process, in bytes, from which all large buffers are reserved.
//!
//! A task waits for memory that it needs ([`Budget::reserve`]), first come, first served. It does not wait for memory that
//! is optional ([`Budget::try_reserve`]), which is never taken from a waiting task. Each task has an account, so the
//! budget knows what a task holds, and detects when the waiting tasks hold the memory that they wait for. Then it refuses
//! the task that started last, which releases all its memory and is retried later.
//!
//! Not here: what a task does without memory (flush, spill, another pass, an error).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;

use crate::size;
use crate::waits::{self, WaitKind};

/// Why memory cannot be reserved, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The request exceeds the limit, even without other tasks.
    #[error(
        "{} of memory are needed, more than --memory-limit allows for it: set --memory-limit to {raise} or more",
        size::text(*bytes)
    )]
    Never {
        /// Requested bytes.
        bytes: u64,
        /// The value of the option that suffices.
        raise: Box<str>,
    },
    /// Other tasks hold the memory, or the task holds optional memory.
    #[error(
        "{} of memory are needed, which are in use now: run fewer jobs at a time, or set --memory-limit to {raise} or \
         more",
        size::text(*bytes)
    )]
    Now {
        /// Requested bytes.
        bytes: u64,
        /// The value of the option that suffices for all waiting tasks.
        raise: Box<str>,
    },
    /// The task is cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The budget as one task sees it.
#[derive(Debug, Clone)]
pub struct Budget {
    pool: Arc<Pool>,
    /// The account that waits.
    task: Arc<Account>,
    /// The account that holds the memory.
    payer: Arc<Account>,
    _using: Option<Arc<Using>>,
}

/// Bytes that are reserved until the reservation is dropped.
#[derive(Debug)]
pub struct Reservation {
    payer: Arc<Account>,
    bytes: u64,
    optional: bool,
}

/// Called when a task waits: frees unused memory.
type Reclaim = dyn Fn() + Send + Sync;

struct Pool {
    limit: u64,
    /// The value of `--memory-limit`, of which `limit` is a part.
    option: u64,
    state: Mutex<State>,
    reclaim: OnceLock<Box<Reclaim>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} bytes)", self.limit)
    }
}

/// The account of a task, or of memory that several tasks share.
#[derive(Debug)]
struct Account {
    pool: Arc<Pool>,
    /// A task that started earlier has a lower id.
    id: u64,
    /// Cancelled when the task is to stop.
    cancelled: CancellationToken,
}

/// The use of a shared account by a task.
#[derive(Debug)]
struct Using {
    task: Arc<Account>,
    shared: Arc<Account>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    next: u64,
    accounts: BTreeMap<u64, Entry>,
    waiters: VecDeque<Waiter>,
}

/// The memory of an account.
#[derive(Debug, Default)]
struct Entry {
    held: u64,
    /// The optional part of it.
    optional: u64,
    /// The tasks that use a shared account.
    users: Option<BTreeSet<u64>>,
}

/// A waiting request. It has the ids of accounts instead of the accounts: it is dropped under the lock, which the end of
/// an account takes.
#[derive(Debug)]
struct Waiter {
    task: u64,
    payer: u64,
    cancelled: CancellationToken,
    bytes: u64,
    seat: Arc<Seat>,
}

/// Where a waiting thread receives the answer.
#[derive(Debug, Default)]
struct Seat {
    answer: Mutex<Option<Result<(), Shortage>>>,
    answered: Condvar,
}

impl Seat {
    fn answer(&self, answer: Result<(), Shortage>) {
        *self.answer.lock() = Some(answer);
        self.answered.notify_one();
    }

    /// The answer; `None` if there is none by `deadline`.
    fn wait(&self, deadline: Option<Instant>) -> Option<Result<(), Shortage>> {
        let mut answer = self.answer.lock();
        loop {
            if let Some(answer) = answer.take() {
                return Some(answer);
            }
            match deadline {
                None => self.answered.wait(&mut answer),
                Some(deadline) if self.answered.wait_until(&mut answer, deadline).timed_out() => {
                    return answer.take();
                }
                Some(_) => {}
            }
        }
    }
}

impl Budget {
    /// A budget of `limit` bytes, with one account.
    pub fn new(limit: u64) -> Self {
        Budget::part_of(limit, limit)
    }

    /// A budget of `limit` bytes, which is the share for a `--memory-limit` of `option`.
    pub fn part_of(option: u64, limit: u64) -> Self {
        let pool = Pool { limit, option, state: Mutex::default(), reclaim: OnceLock::new() };
        let task = Account::open(&Arc::new(pool), CancellationToken::default(), None);
        Budget { pool: task.pool.clone(), payer: task.clone(), task, _using: None }
    }

    /// Calls `reclaim` whenever a task waits, on the thread of that task, without a lock.
    pub fn on_shortage(&self, reclaim: impl Fn() + Send + Sync + 'static) {
        // Set once, when the budget is made.
        let _ = self.pool.reclaim.set(Box::new(reclaim));
    }

    /// The same budget for a task with its own account, which can be cancelled.
    #[must_use]
    pub fn for_task(&self, cancelled: CancellationToken) -> Self {
        let task = Account::open(&self.pool, cancelled, None);
        Budget { pool: self.pool.clone(), payer: task.clone(), task, _using: None }
    }

    /// The same budget for memory that several tasks share; each of them reserves it through [`Budget::through`].
    #[must_use]
    pub fn for_shared(&self) -> Self {
        let shared = Account::open(&self.pool, CancellationToken::default(), Some(BTreeSet::new()));
        Budget { pool: self.pool.clone(), payer: shared.clone(), task: shared, _using: None }
    }

    /// The budget of shared memory for this task: the task waits, and the shared account holds the memory.
    #[must_use]
    pub fn through(&self, shared: &Budget) -> Self {
        let (task, payer) = (self.task.clone(), shared.payer.clone());
        if let Some(users) = self.pool.state.lock().users(payer.id) {
            users.insert(task.id);
        }
        let using = Using { task: task.clone(), shared: payer.clone() };
        Budget { pool: self.pool.clone(), task, payer, _using: Some(Arc::new(using)) }
    }

    /// Its limit in bytes.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.pool.limit
    }

    /// Bytes reserved now.
    #[inline]
    pub fn used(&self) -> u64 {
        self.pool.state.lock().used
    }

    /// Whether a task waits.
    pub fn is_contended(&self) -> bool {
        !self.pool.state.lock().waiters.is_empty()
    }

    /// Reserves optional memory; `None` if it is not available or other tasks wait.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes as u64;
        let mut state = self.pool.state.lock();
        if !state.waiters.is_empty() || !state.fits(bytes, self.pool.limit) {
            return None;
        }
        state.take(self.payer.id, bytes, true);
        Some(Reservation { payer: self.payer.clone(), bytes, optional: true })
    }

    /// Reserves memory, and waits for it behind the tasks that already wait. Blocks: do not call it on a thread of the
    /// runtime, or with a lock that another task may need.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Shortage> {
        self.reserve_by(bytes, None)
    }

    /// Reserves memory like [`Budget::reserve`], but waits no longer than `patience`, for a task that others wait for.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn reserve_within(&self, bytes: usize, patience: Duration) -> Result<Reservation, Shortage> {
        self.reserve_by(bytes, Some(Instant::now() + patience))
    }

    fn reserve_by(&self, bytes: usize, deadline: Option<Instant>) -> Result<Reservation, Shortage> {
        let bytes = bytes as u64;
        let granted = || Reservation { payer: self.payer.clone(), bytes, optional: false };
        let pool = &*self.pool;
        let seat = Arc::new(Seat::default());
        {
            let mut state = pool.state.lock();
            if state.waiters.is_empty() && state.fits(bytes, pool.limit) {
                state.take(self.payer.id, bytes, false);
                return Ok(granted());
            }
            let mine = state.owned(&[self.task.id, self.payer.id]);
            if mine.held.saturating_add(bytes) > pool.limit {
                let needed = (mine.held - mine.optional).saturating_add(bytes);
                // Optional memory is at most half of the limit.
                let raise = pool.raise(needed.saturating_mul(2));
                // A retry may hold less optional memory.
                let never = needed > pool.limit;
                return Err(if never {
                    Shortage::Never { bytes, raise }
                } else {
                    Shortage::Now { bytes, raise }
                });
            }
            if self.task.cancelled.is_cancelled() {
                return Err(Shortage::Cancelled);
            }
            let (task, payer, cancelled) = (self.task.id, self.payer.id, self.task.cancelled.clone());
            state.waiters.push_back(Waiter { task, payer, cancelled, bytes, seat: seat.clone() });
            state.settle(pool);
        }
        if let Some(reclaim) = pool.reclaim.get() {
            reclaim();
        }
        let _waiting = waits::begin(WaitKind::Memory, "");
        let answer = seat.wait(deadline).unwrap_or_else(|| pool.leave(&seat, bytes));
        answer.map(|()| granted())
    }

    /// Refuses the waiting requests of cancelled tasks.
    pub fn wake_cancelled(&self) {
        let mut state = self.pool.state.lock();
        state.waiters.retain(|waiter| {
            let cancelled = waiter.cancelled.is_cancelled();
            if cancelled {
                waiter.seat.answer(Err(Shortage::Cancelled));
            }
            !cancelled
        });
        state.settle(&self.pool);
    }
}

impl Pool {
    /// Stops waiting, unless the answer has just arrived.
    fn leave(&self, seat: &Arc<Seat>, bytes: u64) -> Result<(), Shortage> {
        let mut state = self.state.lock();
        let wanted = state.wanted();
        let Some(at) = state.waiters.iter().position(|waiter| Arc::ptr_eq(&waiter.seat, seat)) else {
            drop(state);
            return seat.wait(None).unwrap_or(Err(Shortage::Cancelled));
        };
        state.waiters.remove(at);
        state.settle(self);
        Err(Shortage::Now { bytes, raise: self.raise(wanted) })
    }

    /// The value of `--memory-limit` that gives `needed` bytes.
    fn raise(&self, needed: u64) -> Box<str> {
        let option =
            u128::from(needed.max(self.limit)) * u128::from(self.option) / u128::from(self.limit.max(1));
        let option = u64::try_from(option).unwrap_or(u64::MAX).max(self.option);
        size::option_above(option).into()
    }
}

impl State {
    fn fits(&self, bytes: u64, limit: u64) -> bool {
        self.used.checked_add(bytes).is_some_and(|sum| sum <= limit)
    }

    fn take(&mut self, payer: u64, bytes: u64, optional: bool) {
        self.used += bytes;
        let entry = self.accounts.entry(payer).or_default();
        entry.held += bytes;
        entry.optional += if optional { bytes } else { 0 };
    }

    fn users(&mut self, shared: u64) -> Option<&mut BTreeSet<u64>> {
        self.accounts.get_mut(&shared)?.users.as_mut()
    }

    /// The memory of these accounts; an id that occurs twice counts once.
    fn owned(&self, ids: &[u64]) -> Entry {
        let ids: BTreeSet<&u64> = ids.iter().collect();
        let entries = ids.into_iter().filter_map(|id| self.accounts.get(id));
        entries.fold(Entry::default(), |sum, entry| Entry {
            held: sum.held + entry.held,
            optional: sum.optional + entry.optional,
            users: None,
        })
    }

    /// Grants the waiting requests as far as there is memory. If the waiting tasks themselves hold the memory, a request
    /// that fits and whose task holds some goes first. If there is none, the task that started last is refused.
    fn settle(&mut self, pool: &Pool) {
        while let Some(first) = self.waiters.front() {
            let bytes = first.bytes;
            if self.fits(bytes, pool.limit) {
                self.grant(0);
                continue;
            }
            let waiting: BTreeSet<u64> = self.waiters.iter().map(|waiter| waiter.task).collect();
            let free = pool.limit.saturating_sub(self.used);
            if free.saturating_add(self.releasable(&waiting)) >= bytes {
                return;
            }
            let served = |waiter: &Waiter| self.fits(waiter.bytes, pool.limit) && self.holds(waiter.task);
            if let Some(at) = self.waiters.iter().position(served) {
                self.grant(at);
                continue;
            }
            let last = (0..self.waiters.len())
                .filter(|&at| self.holds(self.waiters[at].task))
                .max_by_key(|&at| self.waiters[at].task);
            let wanted = self.wanted();
            // If no waiting task holds memory, all memory will be released.
            let Some(waiter) = last.and_then(|at| self.waiters.remove(at)) else { return };
            let refused = Shortage::Now { bytes: waiter.bytes, raise: pool.raise(wanted) };
            waiter.seat.answer(Err(refused));
        }
    }

    /// The memory that suffices for all.
    fn wanted(&self) -> u64 {
        self.waiters.iter().fold(self.used, |sum, waiter| sum.saturating_add(waiter.bytes))
    }

    fn grant(&mut self, at: usize) {
        let Some(waiter) = self.waiters.remove(at) else { return };
        self.take(waiter.payer, waiter.bytes, false);
        waiter.seat.answer(Ok(()));
    }

    /// The memory that will be released without granting a waiting request.
    fn releasable(&self, waiting: &BTreeSet<u64>) -> u64 {
        let comes = |(id, entry): &(&u64, &Entry)| match &entry.users {
            None => !waiting.contains(id),
            Some(users) => users.is_disjoint(waiting),
        };
        self.accounts.iter().filter(comes).map(|(_, entry)| entry.held).sum()
    }

    /// Whether a task holds memory, alone or shared.
    fn holds(&self, task: u64) -> bool {
        self.accounts.iter().any(|(id, entry)| {
            let uses = entry.users.as_ref().is_some_and(|users| users.contains(&task));
            (*id == task || uses) && entry.held > 0
        })
    }
}

impl Account {
    fn open(pool: &Arc<Pool>, cancelled: CancellationToken, users: Option<BTreeSet<u64>>) -> Arc<Self> {
        let mut state = pool.state.lock();
        let id = state.next;
        state.next += 1;
        state.accounts.insert(id, Entry { users, ..Entry::default() });
        Arc::new(Account { pool: pool.clone(), id, cancelled })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Reservations keep their account alive, so it is empty now.
        self.pool.state.lock().accounts.remove(&self.id);
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut state = self.shared.pool.state.lock();
        if let Some(users) = state.users(self.shared.id) {
            users.remove(&self.task.id);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let pool = &self.payer.pool;
        let mut state = pool.state.lock();
        state.used -= self.bytes;
        if let Some(entry) = state.accounts.get_mut(&self.payer.id) {
            entry.held -= self.bytes;
            entry.optional -= if self.optional { self.bytes } else { 0 };
        }
        state.settle(pool);
    }
}

#[cfg(test)]
mod tests;
