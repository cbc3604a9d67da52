//! Publishers of one day on a file system without an exchange: a seed says in which order they do their system calls, and
//! which of them are killed between two of them. Locks do not make them wait: the rules of `replace` must be enough.
//!
//! What is checked: the output has a day at the end. It is never a day whose publish ended before a successful publish of
//! another day began. A new leader never publishes an earlier leader's day in place of one that was published since the
//! decision. Nothing else is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::io::Errno;
use tally_common::retry::RetryPolicy;
use tally_proto::JobId;

use super::file_system::{FileSystem, System};
use super::folder::{DAY, LOCK};
use super::folder_staging::Location;
use super::{Commit, Finished, FolderStaging, PublishError, StagedPart};

const DAY_FOLDER: &str = "submission_date_s3=20170227";
/// Jobs without a journal.
const JOBS: usize = 3;
/// A leader whose job has a successor.
const LEADER: usize = JOBS;
/// The successor. It publishes the leader's day.
const SUCCESSOR: usize = JOBS + 1;
const ACTORS: usize = JOBS + 2;

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Doing {
    /// Anything but waiting.
    Runs,
    /// It waits for its turn to do a system call.
    Waits,
    /// It ended.
    Ended,
}

/// Decides who runs. Only one actor runs at a time.
#[derive(Debug)]
struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    doing: [Doing; ACTORS],
    killed: [bool; ACTORS],
    /// Actors whose next call publishes a staged day.
    publishes: [bool; ACTORS],
    step: usize,
    log: Vec<String>,
}

/// Notes the end of an actor, also by a panic.
struct Ends<'a>(&'a Schedule, usize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.state.lock().doing[self.1] = Doing::Ended;
        self.0.changed.notify_all();
    }
}

/// The system calls of one actor.
#[derive(Debug)]
struct Gated {
    actor: usize,
    schedule: Arc<Schedule>,
}

impl Schedule {
    /// Waits for the actor's turn; an error if it was killed.
    fn gate(&self, actor: usize, publishes: bool, call: impl FnOnce() -> String) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.killed[actor] {
            state.publishes[actor] = publishes;
            state.doing[actor] = Doing::Waits;
            self.changed.notify_all();
            while state.doing[actor] == Doing::Waits {
                self.changed.wait(&mut state);
            }
        }
        let (step, killed) = (state.step, state.killed[actor]);
        state.log.push(format!("{step} actor {actor}{}: {}", if killed { " (killed)" } else { "" }, call()));
        if killed { Err(io::Error::other("killed")) } else { Ok(()) }
    }

    fn now(&self) -> usize {
        self.state.lock().step
    }

    fn is_killed(&self, actor: usize) -> bool {
        self.state.lock().killed[actor]
    }

    /// Runs all actors to their ends. In some worlds, an actor often does several calls in a row, so that the others pause
    /// for long, and many are killed before they publish a staged day, which is half done after the first rename.
    fn run(&self, random: &mut StdRng) {
        let stays = [0.0, 0.5, 0.9][random.random_range(0..3)];
        let killed = [[0.03, 0.03], [0.02, 0.3], [0.0, 0.5]][random.random_range(0..3)];
        let mut last = 0;
        loop {
            let mut state = self.state.lock();
            while state.doing.contains(&Doing::Runs) {
                self.changed.wait(&mut state);
            }
            let waiting: Vec<usize> = (0..ACTORS).filter(|&a| state.doing[a] == Doing::Waits).collect();
            if waiting.is_empty() {
                return;
            }
            let mut next = waiting[random.random_range(0..waiting.len())];
            if waiting.contains(&last) && random.random_bool(stays) {
                next = last;
            }
            last = next;
            state.step += 1;
            state.killed[next] = random.random_bool(killed[usize::from(state.publishes[next])]);
            state.doing[next] = Doing::Runs;
            self.changed.notify_all();
        }
    }
}

impl FileSystem for Gated {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let publishes = from.ends_with(DAY) && to.ends_with(DAY_FOLDER);
        let call = || format!("rename {} {}", from.display(), to.display());
        self.schedule.gate(self.actor, publishes, call)?;
        System.rename(from, to)
    }

    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(Errno::INVAL.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.schedule.gate(self.actor, false, || "list".into())?;
        System.list(folder)
    }

    fn turn_retry(&self) -> RetryPolicy {
        RetryPolicy::listed(&[])
    }
}

/// A publish of a day: its begin, its end, and whether it succeeded.
#[derive(Debug, Clone, Copy)]
struct Publish {
    job: usize,
    begin: usize,
    end: usize,
    done: bool,
    /// By a later leader, of a day that was decided at this step.
    decided: Option<usize>,
}

impl Publish {
    /// Whether the output may have the day of `self` although `other` succeeded.
    fn may_follow(&self, other: &Publish) -> bool {
        let since = self.decided.is_some_and(|at| at < other.begin && other.end < self.begin);
        self.end >= other.begin && !since
    }
}

/// One world.
struct World {
    root: tempfile::TempDir,
    schedule: Arc<Schedule>,
    publishes: Mutex<Vec<Publish>>,
    /// The leader's decision, and its step.
    decision: Mutex<Option<(usize, Commit)>>,
}

fn job(number: usize) -> JobId {
    JobId::parse(&format!("job{number}")).unwrap()
}

impl World {
    fn location(&self, files: Arc<dyn FileSystem>) -> Location {
        let output = self.root.path().join("out");
        Location::with(output.to_str().unwrap(), DAY_FOLDER, files).unwrap()
    }

    fn gated(&self, actor: usize) -> Location {
        self.location(Arc::new(Gated { actor, schedule: self.schedule.clone() }))
    }

    fn note(&self, job: usize, begin: usize, done: bool, decided: Option<usize>) {
        let end = self.schedule.now();
        self.publishes.lock().push(Publish { job, begin, end, done, decided });
    }

    /// A job from its begin to its end. The leader tells its decision.
    fn publisher(&self, actor: usize) -> Result<(), PublishError> {
        let gone = |_| PublishError::Replaced { path: String::new() };
        self.schedule.gate(actor, false, || "begins".into()).map_err(gone)?;
        let epoch = u64::from(actor == LEADER);
        let staging = FolderStaging::prepare(self.gated(actor), &job(actor), epoch)?;
        fs::write(staging.part(0, 1), job(actor).as_str()).unwrap();
        let commit = staging.commit(&[StagedPart { index: 0, attempt: 1, folder: None }], None);
        let decided = self.schedule.gate(actor, false, || "decides".into()).is_ok();
        if let Ok(commit) = commit
            && decided
        {
            if actor == LEADER {
                *self.decision.lock() = Some((self.schedule.now(), commit.clone()));
            }
            let begin = self.schedule.now();
            let done = staging.replace(&commit);
            self.note(actor, begin, done.is_ok(), None);
        }
        if self.schedule.is_killed(actor) {
            staging.leave();
        }
        Ok(())
    }

    /// A later leader, which carries out the leader's decision.
    fn successor(&self) {
        if self.schedule.gate(SUCCESSOR, false, || "takes over".into()).is_err() {
            return;
        }
        let decision = self.decision.lock().clone();
        if let Some(decision) = decision {
            self.finish(&self.gated(SUCCESSOR), 2, &decision);
        }
    }

    fn finish(&self, location: &Location, epoch: u64, (decided, commit): &(usize, Commit)) {
        let begin = self.schedule.now();
        let finished = FolderStaging::finish_commit(location, &job(LEADER), epoch, commit);
        self.note(LEADER, begin, matches!(finished, Ok(Finished::Done)), Some(*decided));
    }

    /// The job whose day the output has.
    fn published(&self) -> Option<usize> {
        let day = self.root.path().join("out").join(DAY_FOLDER);
        let part = fs::read_dir(day).ok()?.next()?.unwrap().path();
        let text = fs::read_to_string(part).unwrap();
        Some(text.trim_start_matches("job").parse().unwrap())
    }

    fn check(&self, seed: u64) {
        let log = || format!("seed {seed}:\n{}", self.schedule.state.lock().log.join("\n"));
        let publishes = self.publishes.lock().clone();
        let any = publishes.iter().any(|publish| publish.done);
        let Some(published) = self.published() else {
            assert!(!any, "no day is left: {publishes:?}\n{}", log());
            return;
        };
        let of_published = || publishes.iter().filter(|publish| publish.job == published);
        for other in publishes.iter().filter(|publish| publish.done && publish.job != published) {
            let may_follow = of_published().any(|publish| publish.may_follow(other));
            assert!(may_follow, "the day is that of job {published}: {publishes:?}\n{}", log());
        }
        // A job that was killed before its folder had a lock leaves it for an hour: it could be that of a live job.
        let is_unfinished = |path: PathBuf| {
            path.file_name().unwrap().as_encoded_bytes().starts_with(b".") && !path.join(LOCK).exists()
        };
        let has_more = |path: &PathBuf| entries(path).into_iter().any(|path| !is_unfinished(path));
        let left: Vec<_> = entries(self.root.path()).into_iter().filter(has_more).collect();
        assert_eq!(left.len(), 1, "{left:?}\n{}", log());
    }
}

/// What a folder has.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}

fn simulate(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let state = State {
        doing: [Doing::Runs; ACTORS],
        killed: [false; ACTORS],
        publishes: [false; ACTORS],
        step: 1,
        log: vec![],
    };
    let schedule = Arc::new(Schedule { state: Mutex::new(state), changed: Condvar::new() });
    let world = World {
        root: tempfile::tempdir_in(scratch()).unwrap(),
        schedule: schedule.clone(),
        publishes: Mutex::default(),
        decision: Mutex::default(),
    };
    if random.random_bool(0.7) {
        let old = ACTORS;
        let day = world.root.path().join("out").join(DAY_FOLDER);
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join("part-old"), job(old).as_str()).unwrap();
        world.publishes.lock().push(Publish { job: old, begin: 0, end: 0, done: true, decided: None });
    }
    std::thread::scope(|scope| {
        for actor in 0..ACTORS {
            let world = &world;
            scope.spawn(move || {
                let _ends = Ends(&world.schedule, actor);
                if actor == SUCCESSOR {
                    world.successor();
                } else {
                    // An error that another actor caused: its day is not published.
                    let _ = world.publisher(actor);
                }
            });
        }
        schedule.run(&mut random);
    });
    // A last leader and another job clean up.
    schedule.state.lock().step += 1;
    let decision = world.decision.lock().clone();
    let last = world.location(Arc::new(NoExchange));
    match decision {
        Some(decision) => world.finish(&last, 9, &decision),
        None => drop(FolderStaging::adopt(&last, &job(LEADER), 9)),
    }
    drop(FolderStaging::prepare(last, &job(ACTORS + 1), 0).unwrap());
    world.check(seed);
}

/// The system calls after all actors ended.
#[derive(Debug)]
struct NoExchange;

impl FileSystem for NoExchange {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(Errno::INVAL.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        System.list(folder)
    }
}

/// A folder in memory, if there is one: the schedules sync often.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

#[test]
fn no_earlier_day_takes_the_place_of_a_later_one() {
    for seed in 0..1_000 {
        simulate(seed);
    }
}
