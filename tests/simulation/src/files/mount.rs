//! The simulated file system as a process uses it: each call takes a while, may fail, and may be the last one of the process.
//!
//! Not here: what a call does (`files`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tally_coordinator::publish::file_system::{FileSystem, LockFile, Stat};
use tally_proto::Failure;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::{Files, Inode, errno, error, fiber};
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, World, say};

/// The pause between two looks at a lock.
const LOCK_PAUSE: Micros = 50 * MILLISECOND;

/// The file system of a process.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// The process.
    pub owner: Owner,
    /// By how much its clock is ahead.
    pub ahead: Micros,
}

/// What a call may need: room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Room,
}

impl Mount {
    /// The file system of a process.
    pub fn of(owner: Owner) -> Self {
        Mount { owner, ahead: 0 }
    }

    /// An error if the process died, or if the schedule is over.
    fn alive(self) -> io::Result<()> {
        let alive = world::try_with(|world| {
            let process = world.processes.get(self.owner.process);
            !world.over && process.is_none_or(|it| it.alive && it.life == self.owner.life)
        });
        if alive == Some(true) { Ok(()) } else { Err(io::Error::other("the process died")) }
    }

    /// Does a call: it takes effect a little later, and its answer comes again a little later.
    fn call<T>(
        self,
        need: Need,
        what: impl FnOnce() -> String,
        apply: impl FnOnce(&mut Files, Micros) -> io::Result<T>,
    ) -> io::Result<T> {
        self.alive()?;
        if fiber::is_inside() {
            let there = world::with(|world| {
                world.count_io();
                latency(world)
            });
            fiber::wait(there);
            self.alive()?;
        }
        let inside = fiber::is_inside();
        if !inside {
            world::violated(|| format!("process {} waits for files while it should run", self.owner.process));
        }
        let (result, late) = world::with(|world| {
            if let Some(error) = refusal(world, need, inside) {
                return (Err(error), 0);
            }
            let now = world.now;
            let result = apply(&mut world.files, now);
            world.count_file_call();
            // The call has its effect, and the process learns of an error, or learns it late.
            if inside && world.rng.chance(world.rates.file_late) {
                let late = world.rng.between(SECOND, 20 * SECOND);
                return (result, late);
            }
            (result, 0)
        });
        let shown = match &result {
            Ok(_) => "done".into(),
            Err(error) => error.to_string(),
        };
        say!("files {} {} -> {shown}{}", self.owner.process, what(), if late > 0 { " (late)" } else { "" });
        crate::check::after_call();
        if late > 0 {
            fiber::wait(late);
            self.alive()?;
        }
        result
    }

    fn change(
        self,
        need: Need,
        what: &str,
        path: &Path,
        apply: impl FnOnce(&mut Files, Micros) -> io::Result<()>,
    ) -> io::Result<()> {
        self.call(need, || format!("{what} {}", path.display()), apply)
    }

    /// Creates a file; an error if it exists. Returns its inode.
    pub fn create_new(self, path: &Path) -> io::Result<Inode> {
        let what = || format!("create {}", path.display());
        self.call(Need::Room, what, |files, now| files.create_file(path, true, now))
    }

    /// Creates or empties a file. Returns its inode.
    pub fn create(self, path: &Path) -> io::Result<Inode> {
        let what = || format!("create or empty {}", path.display());
        self.call(Need::Room, what, |files, now| files.create_file(path, false, now))
    }

    /// Appends to an open file.
    pub fn append(self, inode: Inode, content: &[u8]) -> io::Result<()> {
        let what = || format!("append to {inode}");
        self.call(Need::Room, what, |files, _| files.append(inode, content))
    }

    /// Makes an open file durable.
    pub fn sync_open(self, inode: Inode) -> io::Result<()> {
        self.call(Need::Nothing, || format!("sync {inode}"), |files, _| files.sync(inode))
    }

    /// Gives a file a second name.
    pub fn link(self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Need::Nothing, "link", to, |files, now| files.link(from, to, now))
    }

    /// Runs blocking work, and waits for its result; `None` if the process died.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce(Mount) -> T + Send + 'static) -> Option<T> {
        let (sender, done) = oneshot::channel();
        fiber::spawn(self.owner, Box::new(move || drop(sender.send(work(self)))));
        done.await.ok()
    }
}

fn latency(world: &mut World) -> Micros {
    let slow = world.rates.file_slow;
    match (world.rng.chance(slow), world.files.kind().is_network) {
        (true, _) => world.rng.between(SECOND, 20 * SECOND),
        (false, true) => world.rng.between(200, 2 * MILLISECOND),
        (false, false) => world.rng.between(10, 300),
    }
}

/// The error of a disk that fails or is full.
fn refusal(world: &mut World, need: Need, inside: bool) -> Option<io::Error> {
    let is_full = need == Need::Room && world.now < world.files_full_until;
    let fails = !is_full && inside && world.rng.chance(world.rates.file_error);
    world.files_failed |= is_full || fails;
    (is_full || fails).then(|| error(if is_full { errno::NOSPC } else { errno::IO }))
}

impl FileSystem for Mount {
    fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), JoinError>> {
        let mount = *self;
        // The work of a process that died ends without an answer; so does its future.
        async move {
            match mount.run(|_| work()).await {
                Some(()) => Ok(()),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn pause(&self, time: Duration) {
        if self.alive().is_ok() {
            fiber::wait(u64::try_from(time.as_micros()).unwrap_or(Micros::MAX));
        }
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(Need::Room, "create folder", folder, |files, now| files.create_folder(folder, now))
    }

    fn create_folders(&self, folder: &Path) -> io::Result<()> {
        match self.create_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_folders(folder.parent().unwrap_or(folder))?;
                self.create_folders(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_folder = self.stat(folder).is_ok_and(|found| found.is_folder);
                if is_folder { Ok(()) } else { Err(error) }
            }
            done => done,
        }
    }

    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let inode = self.create(file)?;
        self.append(inode, content)
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.call(Need::Nothing, || format!("read {}", file.display()), |files, _| files.read(file))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.change(Need::Nothing, "sync", path, |files, _| {
            let inode = files.open(path)?;
            files.sync(inode)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let what = || format!("rename {} {}", from.display(), to.display());
        self.call(Need::Nothing, what, |files, now| files.rename(from, to, now))
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let what = || format!("exchange {} {}", a.display(), b.display());
        self.call(Need::Nothing, what, |files, now| files.exchange(a, b, now))
    }

    fn remove_file(&self, file: &Path) -> io::Result<()> {
        self.change(Need::Nothing, "remove", file, |files, now| files.remove(file, false, now))
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(Need::Nothing, "remove folder", folder, |files, now| files.remove(folder, true, now))
    }

    fn remove_all(&self, folder: &Path) -> io::Result<()> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        for path in self.list(folder)? {
            let removed = match self.stat(&path) {
                Ok(found) if found.is_folder => self.remove_all(&path),
                Ok(_) => self.remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        self.remove_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let what = || format!("list {}", folder.display());
        let names = self.call(Need::Nothing, what, |files, _| files.list(folder))?;
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.stat(path).is_ok()
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let (process, ahead) = (self.owner.process as u64, self.ahead);
        self.call(
            Need::Nothing,
            || format!("stat {}", path.display()),
            |files, now| {
                let found = files.find(path)?;
                // Every machine numbers its mounts.
                let device = if files.kind().is_network { 100 + process } else { 1 };
                let age = Some(Duration::from_micros((now + ahead).saturating_sub(found.changed)));
                Ok(Stat { is_folder: found.is_folder, bytes: found.bytes, device, inode: found.inode, age })
            },
        )
    }

    fn stat_target(&self, path: &Path) -> io::Result<Stat> {
        self.stat(path)
    }

    fn is_mount(&self, _: &Path) -> bool {
        false
    }

    fn refresh(&self, _: &Path) {}

    fn open_lock(&self, file: &Path, create: bool) -> io::Result<Box<dyn LockFile>> {
        let inode = match create {
            true => self.create(file)?,
            false => {
                let what = || format!("open {}", file.display());
                self.call(Need::Nothing, what, |files, _| files.open(file))?
            }
        };
        let holder = world::try_with(|world| world.files.new_holder()).unwrap_or_default();
        Ok(Box::new(Lock { mount: *self, inode, holder }))
    }
}

#[derive(Debug)]
struct Lock {
    mount: Mount,
    inode: Inode,
    holder: u64,
}

impl LockFile for Lock {
    fn lock(&self) -> io::Result<()> {
        while !self.try_lock()? {
            fiber::wait(LOCK_PAUSE);
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let Lock { mount, inode, holder } = *self;
        let what = || format!("lock {inode}");
        mount.call(Need::Nothing, what, |files, _| files.lock(inode, holder, mount.owner))
    }

    fn is_at(&self, path: &Path) -> bool {
        self.mount.stat(path).is_ok_and(|found| found.inode == self.inode)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        world::try_with(|world| world.files.unlock(self.holder));
    }
}

/// Writes a part file as a worker does.
///
/// # Errors
/// The failure of the task.
pub async fn write_part(owner: Owner, path: String, content: Vec<u8>) -> Result<(), Failure> {
    let written = Mount::of(owner).run(move |mount| {
        let inode = mount.create(Path::new(&path))?;
        let (first, second) = content.split_at(content.len() / 2);
        mount.append(inode, first)?;
        mount.append(inode, second)?;
        mount.sync_open(inode)
    });
    match written.await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Failure::Retryable { reason: error.to_string() }),
        None => std::future::pending().await,
    }
}
