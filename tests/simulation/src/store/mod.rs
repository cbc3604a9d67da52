//! An object store in memory, with the conditions of real ones: writes that succeed only if a key is absent, entity tags,
//! listings in key order, multipart uploads whose object appears when they are completed.
//!
//! Not here: delays and faults (`ops`), the interfaces of the product (`client`).

pub mod client;
pub mod ops;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use object_store::path::Path;

use crate::world::Micros;

/// The folder of the days.
const OUTPUT_FOLDER: &str = "out/";

/// A stored object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its key.
    pub key: Path,
    /// Its content.
    pub bytes: Bytes,
    /// Its version.
    pub tag: u64,
    /// When it was written.
    pub written: Micros,
}

/// An open multipart upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The key of its object.
    pub key: Path,
    /// When it began.
    pub begun: Micros,
    parts: BTreeMap<usize, (String, Bytes)>,
}

/// A request.
#[derive(Clone)]
pub enum Request {
    /// Writes an object; with `create` only if its key is absent.
    Put { key: Path, bytes: Bytes, create: bool },
    /// Reads an object.
    Get { key: Path },
    /// Removes objects.
    Delete { keys: Vec<Path> },
    /// Lists keys below a folder; with `shallow` only its own objects and folders.
    List { folder: Path, shallow: bool },
    /// Begins an upload.
    Begin { key: Path },
    /// Writes a part of an upload.
    Part { key: Path, upload: String, number: usize, bytes: Bytes },
    /// Makes the object of an upload.
    Complete { key: Path, upload: String, parts: Vec<String> },
    /// Drops an upload.
    Abort { key: Path, upload: String },
    /// Lists open uploads of keys that begin with a text.
    Uploads { prefix: String },
}

impl Request {
    /// The part of a request that is carried out if the service fails in the middle: half of a bulk removal.
    pub fn partly(self) -> Self {
        match self {
            Request::Delete { mut keys } => {
                keys.truncate(keys.len().div_ceil(2));
                Request::Delete { keys }
            }
            other => other,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Put { key, create: false, .. } => write!(f, "put {key}"),
            Request::Put { key, create: true, .. } => write!(f, "create {key}"),
            Request::Get { key } => write!(f, "get {key}"),
            Request::Delete { keys } => {
                let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
                write!(f, "delete {}", keys.join(" "))
            }
            Request::List { folder, .. } => write!(f, "list {folder}"),
            Request::Begin { key } => write!(f, "begin upload {key}"),
            Request::Part { key, upload, number, .. } => write!(f, "put part {number} of {upload} {key}"),
            Request::Complete { key, upload, .. } => write!(f, "complete {upload} {key}"),
            Request::Abort { key, upload } => write!(f, "abort {upload} {key}"),
            Request::Uploads { prefix } => write!(f, "list uploads {prefix}"),
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is done.
    Done,
    /// An object was written in this version.
    Written(u64),
    /// An object.
    Object(Object),
    /// Objects without their content (their sizes are those of `bytes`), and folders.
    Listed { objects: Vec<Object>, folders: Vec<Path> },
    /// The id of an upload.
    Begun(String),
    /// The name of a part.
    Part(String),
    /// Open uploads, with their ids.
    Uploads(Vec<(String, Upload)>),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fail {
    /// The key exists.
    Exists(String),
    /// The key does not exist.
    NotFound(String),
    /// The upload does not exist.
    NoUpload(String),
    /// The service is not available (503).
    Unavailable,
    /// No answer arrived.
    Timeout,
    /// An answer with the status 200 contains an error.
    Internal,
}

/// The objects and uploads.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeMap<Path, Object>,
    uploads: BTreeMap<String, Upload>,
    tags: u64,
    /// Objects of the output were removed since the last check.
    pub removed_output: bool,
}

impl Store {
    /// Carries out a request.
    ///
    /// # Errors
    /// [`Fail`], as a store that works answers.
    pub fn apply(&mut self, now: Micros, request: Request) -> Result<Answer, Fail> {
        match request {
            Request::Put { key, bytes, create } => {
                if create && self.objects.contains_key(&key) {
                    return Err(Fail::Exists(key.to_string()));
                }
                Ok(Answer::Written(self.insert(now, key, bytes)))
            }
            Request::Get { key } => match self.objects.get(&key) {
                Some(object) => Ok(Answer::Object(object.clone())),
                None => Err(Fail::NotFound(key.to_string())),
            },
            Request::Delete { keys } => {
                for key in keys {
                    let removed = self.objects.remove(&key).is_some();
                    self.removed_output |= removed && key.as_ref().starts_with(OUTPUT_FOLDER);
                }
                Ok(Answer::Done)
            }
            Request::List { folder, shallow } => Ok(self.list(&folder, shallow)),
            Request::Begin { key } => {
                self.tags += 1;
                let id = format!("u{}", self.tags);
                self.uploads.insert(id.clone(), Upload { key, begun: now, parts: BTreeMap::new() });
                Ok(Answer::Begun(id))
            }
            Request::Part { key, upload, number, bytes } => {
                self.tags += 1;
                let name = format!("p{}", self.tags);
                let open = self.uploads.get_mut(&upload).filter(|open| open.key == key);
                let open = open.ok_or_else(|| Fail::NoUpload(upload.clone()))?;
                open.parts.insert(number, (name.clone(), bytes));
                Ok(Answer::Part(name))
            }
            Request::Complete { key, upload, parts } => self.complete(now, key, &upload, &parts),
            Request::Abort { upload, .. } => match self.uploads.remove(&upload) {
                Some(_) => Ok(Answer::Done),
                None => Err(Fail::NoUpload(upload)),
            },
            Request::Uploads { prefix } => {
                let open = self.uploads.iter().filter(|(_, open)| open.key.as_ref().starts_with(&prefix));
                Ok(Answer::Uploads(open.map(|(id, open)| (id.clone(), open.clone())).collect()))
            }
        }
    }

    /// Writes an object, and returns its version.
    pub fn insert(&mut self, now: Micros, key: Path, bytes: Bytes) -> u64 {
        self.tags += 1;
        let object = Object { key: key.clone(), bytes, tag: self.tags, written: now };
        self.objects.insert(key, object);
        self.tags
    }

    fn complete(&mut self, now: Micros, key: Path, upload: &str, parts: &[String]) -> Result<Answer, Fail> {
        let open = self.uploads.get(upload).filter(|open| open.key == key);
        let open = open.ok_or_else(|| Fail::NoUpload(upload.into()))?;
        let mut bytes = vec![];
        for (name, (found, part)) in parts.iter().zip(open.parts.values()) {
            if name != found {
                return Err(Fail::NoUpload(upload.into()));
            }
            bytes.extend_from_slice(part);
        }
        if parts.len() != open.parts.len() {
            return Err(Fail::NoUpload(upload.into()));
        }
        self.uploads.remove(upload);
        Ok(Answer::Written(self.insert(now, key, bytes.into())))
    }

    /// The objects below a folder, at any depth.
    pub fn below<'a>(&'a self, folder: &Path) -> impl Iterator<Item = &'a Object> {
        let inside = move |key: &Path| {
            let rest = key.as_ref().strip_prefix(folder.as_ref());
            rest.is_some_and(|rest| folder.as_ref().is_empty() || rest.starts_with('/'))
        };
        let begins = move |key: &Path| key.as_ref().starts_with(folder.as_ref());
        let found = self.objects.range(folder.clone()..).take_while(move |(key, _)| begins(key));
        found.filter(move |(key, _)| inside(key)).map(|(_, object)| object)
    }

    /// The open uploads, with their ids.
    pub fn uploads(&self) -> &BTreeMap<String, Upload> {
        &self.uploads
    }

    /// Drops an open upload, as a lifecycle rule of the bucket does.
    pub fn expire_upload(&mut self, at: u64) -> Option<Path> {
        let id = self.uploads.keys().nth(at as usize)?.clone();
        self.uploads.remove(&id).map(|open| open.key)
    }

    fn list(&self, folder: &Path, shallow: bool) -> Answer {
        if !shallow {
            return Answer::Listed { objects: self.below(folder).cloned().collect(), folders: vec![] };
        }
        let (mut objects, mut folders) = (vec![], BTreeSet::new());
        for object in self.below(folder) {
            let mut parts = object.key.prefix_match(folder).into_iter().flatten();
            match (parts.next(), parts.next()) {
                (Some(first), Some(_)) => {
                    folders.insert(folder.clone().join(first));
                }
                _ => objects.push(object.clone()),
            }
        }
        Answer::Listed { objects, folders: folders.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &str, create: bool) -> Result<Answer, Fail> {
        store.apply(1, Request::Put { key: key.into(), bytes: Bytes::from_static(b"x"), create })
    }

    fn keys(answer: Answer) -> Vec<String> {
        let Answer::Listed { objects, folders } = answer else { panic!("not a listing") };
        objects
            .iter()
            .map(|object| object.key.to_string())
            .chain(folders.iter().map(Path::to_string))
            .collect()
    }

    #[test]
    fn a_key_is_created_once_and_listings_are_those_of_folders() {
        let mut store = Store::default();
        assert!(put(&mut store, "a/b", true).is_ok());
        assert_eq!(put(&mut store, "a/b", true).unwrap_err(), Fail::Exists("a/b".into()));
        for key in ["a/c/d", "ab", "a-b/c"] {
            put(&mut store, key, false).unwrap();
        }
        assert_eq!(keys(store.list(&"a".into(), false)), ["a/b", "a/c/d"]);
        assert_eq!(keys(store.list(&"a".into(), true)), ["a/b", "a/c"]);
        assert_eq!(keys(store.list(&Path::default(), true)), ["ab", "a", "a-b"]);
    }

    #[test]
    fn an_upload_makes_its_object_once() {
        let mut store = Store::default();
        let key = Path::from("k");
        let Ok(Answer::Begun(upload)) = store.apply(0, Request::Begin { key: key.clone() }) else {
            panic!("no upload")
        };
        let part = Request::Part { key: key.clone(), upload: upload.clone(), number: 0, bytes: "x".into() };
        let Ok(Answer::Part(name)) = store.apply(0, part) else { panic!("no part") };
        let complete = |parts| Request::Complete { key: key.clone(), upload: upload.clone(), parts };
        assert!(store.apply(0, complete(vec![])).is_err());
        assert!(store.apply(0, complete(vec![name.clone()])).is_ok());
        assert_eq!(store.apply(0, complete(vec![name])).unwrap_err(), Fail::NoUpload(upload));
        assert_eq!(store.below(&Path::default()).count(), 1);
        assert!(store.uploads().is_empty());
    }
}
