//! A simulated coordinator process: it takes part in the election, claims an epoch with the real journal, leads with the
//! real driver, and ends its term as the real process does.
//!
//! `term` is one term. Not here: which processes run (`cluster`).

mod journal;
mod term;

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::path::Path;
use tally_coordinator::driver::{
    AfterRecord, DriverInput, Intervals, Now, Output, Resumed, TermEnd, show_history,
};
use tally_coordinator::history::Registry;
use tally_coordinator::journal::JournalError;
use tally_coordinator::journal::log::{Claimant, EpochLog};
use tally_coordinator::journal::state_dir::StateDir;
use tally_coordinator::notify::delivery::Sinks;
use tally_coordinator::publish::file_system::FileSystem;
use tally_coordinator::service::Timing;
use tally_coordinator::service::lead::{LeadOptions, driver_parts};

use self::journal::JournalTask;
pub use self::term::Term;
use crate::cluster::Shared;
use crate::consul::{Candidate, Standing};
use crate::event::{Done, Event, Wire};
use crate::files::journal::FolderStore;
use crate::files::mount::Mount;
use crate::files::{ROOT, fiber};
use crate::store::client::Client;
use crate::tasks::Owner;
use crate::world::{self, EPOCH_SECONDS, Micros, SECOND, say};

/// The folder of the journal in the bucket.
pub const STATE: &str = "state";
/// Ended jobs that the journal keeps: all of a schedule.
const HISTORY: usize = 100;
/// Jobs at a time.
const MAX_JOBS: usize = 8;
/// The driver's intervals: a status is shown rarely, because no client looks at it.
const INTERVALS: Intervals = Intervals {
    sample: Duration::from_millis(500),
    show: Duration::from_secs(1),
    epoch_checks: Some(Duration::from_secs(2)),
};

/// What a coordinator does.
pub enum Role {
    /// It waits for the election.
    Standby,
    /// It claims an epoch.
    Claiming,
    /// It leads.
    Leading(Box<Term>),
}

/// A coordinator process.
pub struct Coordinator {
    /// This life of the process.
    pub owner: Owner,
    /// What it does.
    pub role: Role,
    /// Its candidacy in the election.
    pub candidate: Candidate,
    /// Its journals: that of the term, and those of earlier terms that still write.
    journals: Vec<JournalTask>,
    consul: bool,
    compact_after: u64,
    /// The next event that it waits for.
    tick_at: Micros,
}

/// The timing of simulated coordinators: that of real ones.
pub fn timing() -> Timing {
    Timing::default()
}

/// The time of a process.
pub fn now(owner: Owner) -> Now {
    world::with(|world| {
        let unix = (EPOCH_SECONDS * 1000 + world.now / 1000).cast_signed();
        let unix = unix + world.processes[owner.process].clock;
        Now { elapsed: Duration::from_micros(world.now), unix_millis: unix.unsigned_abs() }
    })
}

/// The state directory, as a coordinator opens it.
pub fn state_dir(owner: Owner) -> StateDir {
    match world::with(|world| world.folders.journal) {
        true => {
            let (key, folder) = (Path::from(ROOT).join(STATE), std::path::Path::new(ROOT).join(STATE));
            StateDir::in_folder(Arc::new(FolderStore(Mount::of(owner))), &key, &folder, files(owner))
        }
        false => StateDir::of(Arc::new(Client), &Path::from(STATE)),
    }
}

/// The file system of a coordinator.
fn files(owner: Owner) -> Arc<dyn FileSystem> {
    Arc::new(Mount::of(owner))
}

/// Claims an epoch and takes its live jobs over.
async fn claim(owner: Owner, claimant: Claimant) -> Result<(Box<EpochLog>, Vec<Resumed>), JournalError> {
    let log = EpochLog::claim(state_dir(owner), &claimant).await?;
    let (state, epoch) = (log.state().clone(), log.epoch());
    let resume = move |_: Mount| Resumed::all(&state, epoch, &files(owner));
    let resumed = match world::with(|world| world.folders.output) {
        true => Mount::of(owner).run(resume).await.unwrap_or_default(),
        false => resume(Mount::of(owner)),
    };
    Ok((Box::new(log), resumed))
}

/// A coordinator knows its memory; a simulated one needs none.
fn no_memory() -> (u64, u64) {
    (0, 0)
}

impl Coordinator {
    /// A coordinator that starts.
    pub fn start(owner: Owner, consul: bool, compact_after: u64, shared: &mut Shared) -> Self {
        let mut it = Coordinator {
            owner,
            role: Role::Standby,
            candidate: Candidate::default(),
            journals: vec![],
            consul,
            compact_after,
            tick_at: Micros::MAX,
        };
        it.campaign(shared);
        it
    }

    /// Looks at the election, and follows it.
    pub fn campaign(&mut self, shared: &mut Shared) {
        let standing = match self.consul {
            true => shared.consul.stand(self.owner, &mut self.candidate),
            false => Standing::Lead,
        };
        self.candidate.standing = standing;
        match (&self.role, standing) {
            (Role::Standby, Standing::Lead) => {
                say!("coordinator {} claims an epoch", self.owner.process);
                self.role = Role::Claiming;
                let claimant = Claimant {
                    address: address(self.owner.process),
                    history: HISTORY,
                    compact_after: self.compact_after,
                };
                let owner = self.owner;
                shared.tasks.spawn(owner, async move { Done::Claimed(claim(owner, claimant).await) });
            }
            (Role::Leading(_), Standing::Standby) => self.end_term(TermEnd::Asked, shared),
            _ => {}
        }
    }

    /// An epoch was claimed, or not.
    pub fn claimed(
        &mut self,
        claimed: Result<(Box<EpochLog>, Vec<Resumed>), JournalError>,
        shared: &mut Shared,
    ) {
        if !matches!(self.role, Role::Claiming) {
            return;
        }
        self.role = Role::Standby;
        let (log, resumed) = match claimed {
            Ok(claimed) => claimed,
            Err(JournalError::Fenced { .. }) => return self.depose(shared),
            Err(error) => {
                say!("coordinator {} cannot claim: {error}", self.owner.process);
                return self.exit();
            }
        };
        let epoch = log.epoch();
        if let Some(other) = shared.epochs.insert(epoch, self.owner) {
            world::violated(|| format!("epoch {epoch} has two leaders: {other:?} and {:?}", self.owner));
        }
        let state = log.state().clone();
        let registry = Arc::new(Registry::new(HISTORY));
        show_history(&registry, &state);
        say!("coordinator {} leads in epoch {epoch} with {} jobs", self.owner.process, resumed.len());
        let options = LeadOptions {
            address: address(self.owner.process),
            history: HISTORY,
            max_jobs: MAX_JOBS,
            compact_after: self.compact_after,
            timing: timing(),
            sinks: Sinks::default(),
        };
        let mut parts = driver_parts(epoch, registry.clone(), &options, Instant::now());
        (parts.intervals, parts.resident) = (INTERVALS, no_memory);
        self.journals.retain(|journal| !journal.is_over());
        self.journals.push(JournalTask::new(self.owner, log));
        match Term::begin(self.owner, epoch, registry, parts) {
            Ok(term) => self.role = Role::Leading(Box::new(term)),
            Err(error) => return world::violated(|| format!("a term cannot begin: {error}")),
        }
        let Role::Leading(term) = &mut self.role else { return };
        let outputs = term.resume(resumed, timing().settle);
        self.carry_out(outputs, shared);
        // The election may have moved on meanwhile.
        if self.candidate.standing == Standing::Standby {
            self.end_term(TermEnd::Asked, shared);
        }
    }

    /// Passes an input to the driver.
    pub fn step(&mut self, input: DriverInput, shared: &mut Shared) {
        let Role::Leading(term) = &mut self.role else { return };
        let outputs = term.step(input);
        self.carry_out(outputs, shared);
    }

    /// The driver's work of a term is done.
    pub fn worked(&mut self, epoch: u64, input: DriverInput, shared: &mut Shared) {
        if matches!(&self.role, Role::Leading(term) if term.epoch == epoch) {
            crate::check::worked(&input);
            self.step(input, shared);
        } else if world::with(|world| world.folders.output) {
            // What it holds may remove files when it is dropped: see the driver's shell.
            fiber::spawn(self.owner, Box::new(move || drop(input)));
        }
    }

    /// A record was appended, or not.
    pub fn appended(
        &mut self,
        log: Box<EpochLog>,
        then: AfterRecord,
        result: Result<(), JournalError>,
        shared: &mut Shared,
    ) {
        let epoch = log.epoch();
        let Some(journal) = self.journals.iter_mut().find(|journal| journal.epoch == epoch) else { return };
        let input = journal.appended(log, then, result, shared);
        self.worked(epoch, input, shared);
    }

    /// The journal of the term, unless it is being written.
    pub fn log(&self) -> Option<&EpochLog> {
        let Role::Leading(term) = &self.role else { return None };
        self.journals.iter().find(|journal| journal.epoch == term.epoch)?.log()
    }

    /// What is due at this time.
    pub fn tick(&mut self, shared: &mut Shared) {
        if world::now() < self.tick_at {
            return;
        }
        self.tick_at = Micros::MAX;
        let Role::Leading(term) = &mut self.role else { return };
        let outputs = term.tick();
        self.carry_out(outputs, shared);
    }

    fn carry_out(&mut self, outputs: Vec<Output>, shared: &mut Shared) {
        let Role::Leading(term) = &mut self.role else { return };
        let (epoch, owner) = (term.epoch, self.owner);
        let mut end = None;
        for output in outputs {
            match output {
                Output::Append { record, then } => {
                    if let Some(journal) = self.journals.iter_mut().find(|journal| journal.epoch == epoch) {
                        journal.append(record, then, shared);
                    }
                }
                Output::Work(work) => {
                    let (footers, files) = (term.footers.clone(), files(owner));
                    // The table of an output in a folder is in the real file system.
                    let has_table = world::with(|world| !world.folders.output);
                    let work = async move {
                        let input = match has_table {
                            true => work.run(&footers, &files).await,
                            false => work.run_without_table(&footers, &files).await,
                        };
                        Done::Input(epoch, Box::new(input))
                    };
                    shared.tasks.spawn(owner, work);
                }
                Output::CheckEpoch => {
                    let check = async move {
                        let highest = state_dir(owner).highest_epoch().await;
                        Done::Input(epoch, Box::new(DriverInput::HighestEpoch(highest)))
                    };
                    shared.tasks.spawn(owner, check);
                }
                Output::End(term_end) => end = Some(term_end),
            }
        }
        term.send_waiting(&mut shared.network);
        let due = term.next_wakeup();
        if let Some(end) = end {
            return self.end_term(end, shared);
        }
        let due = due.max(world::now() + 1000);
        if due < self.tick_at {
            self.tick_at = due;
            world::with(|world| world.at(due, Event::Tick(owner)));
        }
    }

    /// Ends the term. What follows is the real process's: see `service::serve`.
    fn end_term(&mut self, end: TermEnd, shared: &mut Shared) {
        let Role::Leading(term) = std::mem::replace(&mut self.role, Role::Standby) else { return };
        say!("coordinator {} ends its term {}: {end:?}", self.owner.process, term.epoch);
        let removed = term.leave(matches!(end, TermEnd::Deposed(_)), &mut shared.network);
        if !removed.is_empty() {
            fiber::spawn(self.owner, Box::new(move || drop(removed)));
        }
        match end {
            TermEnd::Asked => {}
            TermEnd::Deposed(_) => self.depose(shared),
            TermEnd::Journal(_) => self.exit(),
        }
    }

    fn depose(&mut self, shared: &mut Shared) {
        match self.consul {
            true => shared.consul.step_down(&mut self.candidate),
            false => self.exit(),
        }
    }

    /// The process ends, and is started again.
    fn exit(&self) {
        world::after(SECOND / 100, Event::Exit(self.owner));
    }

    /// A message of a worker, or the end of its stream.
    pub fn receive(&mut self, stream: usize, message: Option<Wire>, shared: &mut Shared) {
        match &mut self.role {
            Role::Leading(term) => {
                let outputs = term.receive(stream, message, &mut shared.network);
                self.carry_out(outputs, shared);
            }
            _ => term::refuse(stream, term::not_leading(shared.consul.leader()), &mut shared.network),
        }
    }

    /// Sends a beat.
    pub fn beat(&mut self, stream: usize, shared: &mut Shared) {
        if let Role::Leading(term) = &mut self.role {
            term.beat(stream, &mut shared.network);
        }
    }

    /// Streams have room for more messages.
    pub fn room(&mut self, shared: &mut Shared) {
        if let Role::Leading(term) = &mut self.role {
            term.send_waiting(&mut shared.network);
        }
    }

    /// Records that wait for journals.
    pub fn waiting_records(&self) -> usize {
        self.journals.iter().map(JournalTask::waiting).sum()
    }
}

/// The address of a coordinator process.
pub fn address(process: usize) -> String {
    format!("coordinator-{process}:7070")
}
