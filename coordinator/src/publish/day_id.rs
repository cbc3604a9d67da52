//! The identity of a day in a folder: the same on all machines, and another one for each published day.
//!
//! Device numbers differ between machines on NFS, and inode numbers on some FUSE file systems. The names of part files contain
//! the id of the job, or a random id of Spark.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use super::moves::{is_gone, refresh};

/// The identity of the day in `folder`, by the names and sizes of its files at any depth. Hidden files and markers such as
/// `_SUCCESS` do not count. Empty if there is no file or no folder.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn day_id(folder: &Path) -> io::Result<String> {
    refresh(folder);
    let mut files: Vec<(OsString, u64)> = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(&next) {
            Err(error) if is_gone(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_')) {
                continue;
            }
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => {
                    let path = entry.path();
                    files.push((path.strip_prefix(folder).unwrap_or(&path).into(), found.len()));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return Ok(String::new());
    }
    let mut names = crc32fast::Hasher::new();
    for (path, bytes) in &files {
        names.update(path.as_encoded_bytes());
        names.update(&[0]);
        names.update(&bytes.to_le_bytes());
    }
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    Ok(format!("{}-{bytes}-{:08x}", files.len(), names.finalize()))
}

#[cfg(test)]
mod tests {
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
            day_id(&folder).unwrap()
        };
        let id = day("a", &[("part-0-x", "one"), ("sample_id=1/part-1-x", "two")]);
        assert!(id.starts_with("2-6-"), "{id}");
        assert_eq!(day("b", &[("sample_id=1/part-1-x", "two"), ("part-0-x", "one"), ("_SUCCESS", "")]), id);
        assert_ne!(day("c", &[("part-0-y", "one"), ("sample_id=1/part-1-x", "two")]), id);
        assert_ne!(day("d", &[("part-0-x", "longer"), ("sample_id=1/part-1-x", "")]), id);
        assert_ne!(day("e", &[("part-0-x", "one")]), id);
        assert_eq!(day("f", &[(".part-0.crc", "x")]), "");
        assert_eq!(day_id(&root.path().join("none")).unwrap(), "");
    }
}
