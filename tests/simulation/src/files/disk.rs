//! What of the file system is on the disk. After a power failure, a change of the names in a folder is lost unless the folder
//! was synced since, and all changes that depend on a lost one are lost, too. A rename is one change. Content that was not synced
//! may be lost or cut short.
//!
//! Not here: the calls (`files`).

use std::collections::BTreeSet;
use std::io;

use super::{Files, Inode, Node, errno, error, set};
use crate::rng::Rng;

impl Files {
    /// Everything is on the disk.
    pub fn settle(&mut self) {
        self.write_back(0);
        for (node, _) in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.synced = Some(file.content.clone());
            }
        }
    }

    /// Writes the oldest changes to the disk, except the last ones.
    pub(super) fn write_back(&mut self, except: usize) {
        let count = self.pending.len().saturating_sub(except);
        for change in self.pending.drain(..count) {
            for (folder, name, inode) in change {
                set(self.disk.entry(folder).or_default(), &name, inode);
            }
        }
    }

    /// Makes the content of a file, or the names in a folder, durable.
    pub fn sync(&mut self, inode: Inode) -> io::Result<()> {
        match self.nodes.get_mut(&inode) {
            None => return Err(error(errno::NOENT)),
            Some((Node::File(file), _)) => {
                file.synced = Some(file.content.clone());
                return Ok(());
            }
            Some(_) => {}
        }
        // All changes on which the last one of this folder depends.
        let mut folders = BTreeSet::from([inode]);
        let mut kept = vec![];
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if change.iter().any(|(folder, ..)| folders.contains(folder)) {
                folders.extend(change.iter().map(|(folder, ..)| *folder));
                kept.push((true, change));
            } else {
                kept.push((false, change));
            }
        }
        for (is_durable, change) in kept.into_iter().rev() {
            if !is_durable {
                self.pending.push(change);
                continue;
            }
            for (folder, name, inode) in change {
                set(self.disk.entry(folder).or_default(), &name, inode);
            }
        }
        Ok(())
    }

    /// The machine loses its power. Some of what was not synced is lost.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        self.output_changed = true;
        let lost = *rng.pick(&[1000, 500, 100]).unwrap_or(&1000);
        let mut without = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let depends = change.iter().any(|(folder, ..)| without.contains(folder));
            if depends || rng.chance(lost) {
                without.extend(change.iter().map(|(folder, ..)| *folder));
                continue;
            }
            for (folder, name, inode) in change {
                set(self.disk.entry(folder).or_default(), &name, inode);
            }
        }
        self.holders.clear();
        for (inode, (node, _)) in &mut self.nodes {
            match node {
                Node::Folder(names) => *names = self.disk.get(inode).cloned().unwrap_or_default(),
                Node::File(file) => {
                    let synced = file.synced.clone().unwrap_or_default();
                    if file.content != synced && rng.chance(700) {
                        file.content = match rng.chance(500) {
                            true => synced,
                            false => file.content[..file.content.len() / 2].to_vec(),
                        };
                    }
                    file.synced = Some(file.content.clone());
                    file.lock = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::{Kind, ROOT};
    use super::*;

    const LOCAL: Kind = Kind { exchanges: true, occupied: errno::NOTEMPTY, is_network: false };

    fn path(name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }

    #[test]
    fn what_was_synced_survives_a_power_failure() {
        for seed in 0..50 {
            let mut files = Files::new(LOCAL, true);
            files.create_folder(&path("a"), 0).unwrap();
            let file = files.create_file(&path("a/f"), true, 0).unwrap();
            files.append(file, b"text").unwrap();
            files.sync(file).unwrap();
            files.rename(&path("a/f"), &path("g"), 0).unwrap();
            let root = files.open(Path::new(ROOT)).unwrap();
            files.sync(root).unwrap();
            files.remove(&path("a"), true, 0).unwrap();
            files.lose_power(&mut Rng::new(seed, 0));
            assert_eq!(files.read(&path("g")).unwrap(), b"text");
            assert!(!files.exists(&path("a/f")));
        }
    }

    #[test]
    fn what_was_not_synced_may_be_lost() {
        let survives = |seed| {
            let mut files = Files::new(LOCAL, true);
            files.create_folder(&path("a"), 0).unwrap();
            files.lose_power(&mut Rng::new(seed, 0));
            files.exists(&path("a"))
        };
        assert!((0..50).any(survives) && !(0..50).all(survives));
    }
}
