//! The identity of a day in a folder: the same on all machines, and another one for each published day.
//!
//! Device numbers differ between machines on NFS, and inode numbers on some FUSE file systems. The names of part files contain
//! the id of the job, or a random id of Spark.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::file_system::{FileSystem, is_gone};

/// The identity of the day in `folder`, by the names and sizes of its files at any depth. Hidden files and markers such as
/// `_SUCCESS` do not count. Empty if there is no file or no folder.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn day_id(files: &dyn FileSystem, folder: &Path) -> io::Result<String> {
    let mut found: Vec<(OsString, u64)> = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let paths = match files.list(&next) {
            Err(error) if is_gone(&error) => continue,
            paths => paths?,
        };
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            if matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_')) {
                continue;
            }
            match files.stat(&path) {
                Ok(stat) if stat.is_folder => folders.push(path),
                Ok(stat) => found.push((path.strip_prefix(folder).unwrap_or(&path).into(), stat.bytes)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Ok(String::new());
    }
    let mut names = crc32fast::Hasher::new();
    for (path, bytes) in &found {
        names.update(path.as_encoded_bytes());
        names.update(&[0]);
        names.update(&bytes.to_le_bytes());
    }
    let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    Ok(format!("{}-{bytes}-{:08x}", found.len(), names.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::file_system::System;
    use super::*;

    #[test]
    fn a_copy_has_the_same_identity_and_another_day_has_not() {
        let root = tempfile::tempdir().unwrap();
        let day = |name: &str, files: &[(&str, &str)]| {
            let folder = root.path().join(name);
            for (file, text) in files {
                let path = folder.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            day_id(&System, &folder).unwrap()
        };
        let id = day("a", &[("part-0-x", "one"), ("sample_id=1/part-1-x", "two")]);
        assert!(id.starts_with("2-6-"), "{id}");
        assert_eq!(day("b", &[("sample_id=1/part-1-x", "two"), ("part-0-x", "one"), ("_SUCCESS", "")]), id);
        assert_ne!(day("c", &[("part-0-y", "one"), ("sample_id=1/part-1-x", "two")]), id);
        assert_ne!(day("d", &[("part-0-x", "longer"), ("sample_id=1/part-1-x", "")]), id);
        assert_ne!(day("e", &[("part-0-x", "one")]), id);
        assert_eq!(day("f", &[(".part-0.crc", "x")]), "");
        assert_eq!(day_id(&System, &root.path().join("none")).unwrap(), "");
    }
}
