//! A file system in memory: folders, files, links, locks, and what of them is on the disk. Its answers are those of the file
//! systems that outputs and journals are on: errors, exchange of folders, device numbers.
//!
//! Not here: what is on the disk (`disk`), delays and faults (`mount`), coroutines (`fiber`), the journal's store (`journal`).

mod disk;
pub mod fiber;
pub mod journal;
pub mod mount;

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use bytes::Bytes;

use crate::tasks::Owner;
use crate::world::Micros;

/// The folder of all paths of a schedule.
pub const ROOT: &str = "/simulation";
/// The folder of the output.
const OUTPUT_FOLDER: &str = "/simulation/out";

type Inode = u64;
type Names = BTreeMap<String, Inode>;

const ROOT_INODE: Inode = 1;
/// Changes of names after which the older half is on the disk without a sync.
const WRITEBACK: usize = 200;

/// The number of an error of the system.
pub mod errno {
    /// A file or folder does not exist.
    pub const NOENT: i32 = 2;
    /// The disk fails.
    pub const IO: i32 = 5;
    /// It exists.
    pub const EXIST: i32 = 17;
    /// A file is where a folder is needed.
    pub const NOTDIR: i32 = 20;
    /// A folder is where a file is needed.
    pub const ISDIR: i32 = 21;
    /// There is no exchange.
    pub const INVAL: i32 = 22;
    /// The disk is full.
    pub const NOSPC: i32 = 28;
    /// A folder has content.
    pub const NOTEMPTY: i32 = 39;
}

/// An error of the system.
pub fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The kind of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// It exchanges folders.
    pub exchanges: bool,
    /// The error of a rename onto a folder with content.
    pub occupied: i32,
    /// Every process is on a machine of its own, which has a device number of its own. Otherwise all are on one machine.
    pub is_network: bool,
}

#[derive(Debug)]
struct File {
    content: Vec<u8>,
    synced: Option<Vec<u8>>,
    lock: Option<u64>,
}

#[derive(Debug)]
enum Node {
    Folder(Names),
    File(File),
}

/// A change of names: a folder, a name in it, and what it is from now on.
type Change = Vec<(Inode, String, Option<Inode>)>;

/// The file system.
#[derive(Debug)]
pub struct Files {
    kind: Kind,
    nodes: BTreeMap<Inode, (Node, Micros)>,
    /// The names that are on the disk.
    disk: BTreeMap<Inode, Names>,
    /// Changes that are not on the disk yet.
    pending: Vec<Change>,
    inodes: Inode,
    /// The holders of locks.
    holders: BTreeMap<u64, Owner>,
    serial: u64,
    /// A day of the output may have changed since the last check.
    pub output_changed: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The inode.
    pub inode: Inode,
    /// It is a folder.
    pub is_folder: bool,
    /// Bytes of a file.
    pub bytes: u64,
    /// Its last change.
    pub changed: Micros,
}

impl Files {
    /// An empty file system, or one with the folder [`ROOT`].
    pub fn new(kind: Kind, has_root: bool) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(ROOT_INODE, (Node::Folder(Names::new()), 0));
        let mut it = Files {
            kind,
            nodes,
            disk: BTreeMap::new(),
            pending: vec![],
            inodes: ROOT_INODE,
            holders: BTreeMap::new(),
            serial: 0,
            output_changed: false,
        };
        if has_root {
            let _ = it.create_folder(Path::new(ROOT), 0);
        }
        it.settle();
        it
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn names(&self, folder: Inode) -> io::Result<&Names> {
        match self.nodes.get(&folder) {
            Some((Node::Folder(names), _)) => Ok(names),
            Some(_) => Err(error(errno::NOTDIR)),
            None => Err(error(errno::NOENT)),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT_INODE;
        for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
            let name = part.as_os_str().to_str().unwrap_or_default();
            at = *self.names(at)?.get(name).ok_or_else(|| error(errno::NOENT))?;
        }
        Ok(at)
    }

    /// The folder of a path, and its name there.
    fn place(&self, path: &Path) -> io::Result<(Inode, String)> {
        let folder = self.inode(path.parent().unwrap_or(path))?;
        self.names(folder)?;
        Ok((folder, path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
    }

    /// What a path leads to.
    pub fn find(&self, path: &Path) -> io::Result<Found> {
        let inode = self.inode(path)?;
        let (node, changed) = self.nodes.get(&inode).ok_or_else(|| error(errno::NOENT))?;
        let (is_folder, bytes) = match node {
            Node::Folder(_) => (true, 0),
            Node::File(file) => (false, file.content.len() as u64),
        };
        Ok(Found { inode, is_folder, bytes, changed: *changed })
    }

    fn change(&mut self, change: Change, now: Micros) {
        for (folder, name, inode) in &change {
            let Some((Node::Folder(names), changed)) = self.nodes.get_mut(folder) else { continue };
            *changed = now;
            set(names, name, *inode);
        }
        self.pending.push(change);
        if self.pending.len() > WRITEBACK {
            self.write_back(WRITEBACK / 2);
        }
    }

    fn add(&mut self, node: Node, path: &Path, now: Micros) -> io::Result<Inode> {
        let (folder, name) = self.place(path)?;
        if self.names(folder)?.contains_key(&name) {
            return Err(error(errno::EXIST));
        }
        self.inodes += 1;
        self.nodes.insert(self.inodes, (node, now));
        self.change(vec![(folder, name, Some(self.inodes))], now);
        Ok(self.inodes)
    }

    /// Creates a folder.
    pub fn create_folder(&mut self, path: &Path, now: Micros) -> io::Result<()> {
        self.add(Node::Folder(Names::new()), path, now).map(drop)
    }

    /// Creates a file, and returns its inode. If it exists, it is emptied, or, if it must be new, that is an error.
    pub fn create_file(&mut self, path: &Path, is_new: bool, now: Micros) -> io::Result<Inode> {
        match self.inode(path) {
            Ok(inode) if !is_new => {
                self.file(inode)?.content.clear();
                Ok(inode)
            }
            _ => self.add(Node::File(File { content: vec![], synced: None, lock: None }), path, now),
        }
    }

    fn file(&mut self, inode: Inode) -> io::Result<&mut File> {
        match self.nodes.get_mut(&inode) {
            Some((Node::File(file), _)) => Ok(file),
            Some(_) => Err(error(errno::ISDIR)),
            None => Err(error(errno::NOENT)),
        }
    }

    /// Appends to an open file, wherever it is now.
    pub fn append(&mut self, inode: Inode, content: &[u8]) -> io::Result<()> {
        self.file(inode)?.content.extend_from_slice(content);
        Ok(())
    }

    /// The content of a file.
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.inode(path)?;
        Ok(self.file(inode)?.content.clone())
    }

    /// The inode of a path.
    pub fn open(&self, path: &Path) -> io::Result<Inode> {
        self.inode(path)
    }

    /// Renames a file or folder.
    pub fn rename(&mut self, from: &Path, to: &Path, now: Micros) -> io::Result<()> {
        let moved = self.find(from)?;
        self.output_changed |= [from, to].iter().any(|path| path.starts_with(OUTPUT_FOLDER));
        let ((source, old), (target, new)) = (self.place(from)?, self.place(to)?);
        match self.find(to) {
            Ok(found) if found.inode == moved.inode => return Ok(()),
            Ok(found) if found.is_folder && !moved.is_folder => return Err(error(errno::ISDIR)),
            Ok(found) if !found.is_folder && moved.is_folder => return Err(error(errno::NOTDIR)),
            Ok(found) if found.is_folder && !self.names(found.inode)?.is_empty() => {
                return Err(error(self.kind.occupied));
            }
            _ => {}
        }
        self.change(vec![(source, old, None), (target, new, Some(moved.inode))], now);
        Ok(())
    }

    /// Exchanges two files or folders.
    pub fn exchange(&mut self, a: &Path, b: &Path, now: Micros) -> io::Result<()> {
        let (first, second) = (self.inode(a)?, self.inode(b)?);
        if !self.kind.exchanges {
            return Err(error(errno::INVAL));
        }
        self.output_changed = true;
        let ((one, a), (other, b)) = (self.place(a)?, self.place(b)?);
        self.change(vec![(one, a, Some(second)), (other, b, Some(first))], now);
        Ok(())
    }

    /// Gives a file a second name.
    pub fn link(&mut self, from: &Path, to: &Path, now: Micros) -> io::Result<()> {
        let inode = self.inode(from)?;
        let (folder, name) = self.place(to)?;
        if self.names(folder)?.contains_key(&name) {
            return Err(error(errno::EXIST));
        }
        self.change(vec![(folder, name, Some(inode))], now);
        Ok(())
    }

    /// Removes a file, or an empty folder.
    pub fn remove(&mut self, path: &Path, is_folder: bool, now: Micros) -> io::Result<()> {
        let found = self.find(path)?;
        match (found.is_folder, is_folder) {
            (true, false) => return Err(error(errno::ISDIR)),
            (false, true) => return Err(error(errno::NOTDIR)),
            _ => {}
        }
        if is_folder && !self.names(found.inode)?.is_empty() {
            return Err(error(errno::NOTEMPTY));
        }
        self.output_changed |= path.starts_with(OUTPUT_FOLDER);
        let (folder, name) = self.place(path)?;
        self.change(vec![(folder, name, None)], now);
        Ok(())
    }

    /// The names in a folder.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.names(self.inode(path)?)?.keys().cloned().collect())
    }

    /// Takes the lock of a file; false if another holder has it.
    pub fn lock(&mut self, inode: Inode, holder: u64, owner: Owner) -> io::Result<bool> {
        let held = self.file(inode)?.lock;
        if held.is_some_and(|other| other != holder && self.holders.contains_key(&other)) {
            return Ok(false);
        }
        self.file(inode)?.lock = Some(holder);
        self.holders.insert(holder, owner);
        Ok(true)
    }

    /// A number for the holder of a lock.
    pub fn new_holder(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Releases the locks of a holder.
    pub fn unlock(&mut self, holder: u64) {
        self.holders.remove(&holder);
    }

    /// A process died: its locks are released.
    pub fn died(&mut self, owner: Owner) {
        self.holders.retain(|_, holder| *holder != owner);
    }

    /// The files below a folder with their content; an empty list if it does not exist.
    pub fn below(&self, folder: &Path) -> Vec<(String, Bytes)> {
        let (mut found, mut folders) = (vec![], vec![]);
        if let Ok(inode) = self.inode(folder) {
            folders.push((folder.display().to_string(), inode));
        }
        while let Some((path, inode)) = folders.pop() {
            match self.nodes.get(&inode) {
                Some((Node::Folder(names), _)) => {
                    folders.extend(names.iter().map(|(name, inode)| (format!("{path}/{name}"), *inode)));
                }
                Some((Node::File(file), _)) => found.push((path, Bytes::copy_from_slice(&file.content))),
                None => {}
            }
        }
        found.sort();
        found
    }

    /// Whether a path exists.
    pub fn exists(&self, path: &Path) -> bool {
        self.inode(path).is_ok()
    }
}

fn set(names: &mut Names, name: &str, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name.into(), inode),
        None => names.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Kind = Kind { exchanges: true, occupied: errno::NOTEMPTY, is_network: false };

    fn path(name: &str) -> std::path::PathBuf {
        Path::new(ROOT).join(name)
    }

    fn number(result: io::Result<()>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn renames_and_exchanges_are_those_of_folders() {
        let mut files = Files::new(Kind { occupied: errno::EXIST, ..LOCAL }, true);
        for folder in ["a", "b", "b/c"] {
            files.create_folder(&path(folder), 0).unwrap();
        }
        assert_eq!(number(files.create_folder(&path("a"), 0)), Some(errno::EXIST));
        assert_eq!(number(files.rename(&path("a"), &path("b"), 0)), Some(errno::EXIST));
        files.exchange(&path("a"), &path("b"), 0).unwrap();
        assert!(files.exists(&path("a/c")));
        files.rename(&path("a"), &path("b"), 0).unwrap();
        assert_eq!(files.list(Path::new(ROOT)).unwrap(), ["b"]);
        assert_eq!(number(files.remove(&path("b"), true, 0)), Some(errno::NOTEMPTY));
        let mut files = Files::new(Kind { exchanges: false, ..LOCAL }, true);
        files.create_folder(&path("a"), 0).unwrap();
        files.create_folder(&path("b"), 0).unwrap();
        assert_eq!(number(files.exchange(&path("a"), &path("b"), 0)), Some(errno::INVAL));
    }
}
