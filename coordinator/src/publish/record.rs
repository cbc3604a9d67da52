//! The record of a decision to publish: the part files of the day, and the objects that it replaces.
//!
//! Not here: which records exist, and what follows from one (`commit_log`).

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::ready_marker::ReadyMarker;

/// An uploaded part file of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Its object's key.
    pub key: String,
    /// The upload that makes it; empty if the store has no upload ids.
    pub upload: String,
    /// The upload's parts, in order.
    pub parts: Vec<String>,
    /// Bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
    /// Checksum of its rows' content, in 16 hexadecimal digits; absent if a version without checksums wrote part of the
    /// day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// The version of an input file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestInput {
    /// Its URL.
    pub url: String,
    /// Bytes.
    pub bytes: u64,
    /// The entity tag.
    pub etag: Option<String>,
}

/// The part files of a day, and the inputs that they were made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job.
    pub job: String,
    /// Version of the program.
    pub version: String,
    /// Its dataset.
    pub dataset: String,
    /// Rows of the day.
    pub rows: u64,
    /// Checksum of their content: the sum of the checksums of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The file that is created once the day is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_marker: Option<ReadyMarker>,
    /// The files read.
    pub inputs: Vec<ManifestInput>,
    /// The files written.
    pub files: Vec<ManifestPart>,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not the JSON of a decision.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It names an object outside of the day's folder.
    #[error("it names {key:?}, which is not an object in {day}")]
    Foreign {
        /// The object.
        key: String,
        /// The day's folder.
        day: String,
    },
    /// Reading the encoded record gives another record.
    #[error("it cannot be read back as it was written")]
    NotReadBack,
}

/// A decision to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Distinguishes this record from one that another process wrote at the same time.
    pub(super) nonce: u64,
    /// The coordinator's term.
    pub(super) epoch: u64,
    /// The day.
    pub(super) manifest: Manifest,
    /// Objects that the day replaces.
    pub(super) old: Vec<String>,
    /// Ready markers of the old day. They are removed before the first new object appears, and created again if the decision
    /// is undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) markers: Vec<String>,
    /// The jobs of the last decisions.
    pub(super) jobs: Vec<String>,
}

impl Record {
    /// Reads a stored record. All objects that it names must be in the day's folder, so a foreign record never affects
    /// other objects.
    ///
    /// Earlier versions took the marker of the day's folder for an old file, so their records may list the day itself as
    /// old. That entry is skipped: the object did not exist.
    pub(super) fn read(bytes: &[u8], day: &Path) -> Result<Self, RecordError> {
        let mut record: Record = serde_json::from_slice(bytes)?;
        record.old.retain(|key| key != day.as_ref());
        let parts = record.manifest.files.iter().map(|part| &part.key);
        let mut keys = parts.chain(&record.old).chain(&record.markers);
        match keys.find(|key| !is_inside(day, key)) {
            None => Ok(record),
            Some(key) => Err(RecordError::Foreign { key: key.clone(), day: day.to_string() }),
        }
    }

    /// Encodes the record, and checks that the bytes can be read back.
    pub(super) fn write(&self, day: &Path) -> Result<Vec<u8>, RecordError> {
        let json = serde_json::to_vec(self)?;
        match Record::read(&json, day)? == *self {
            true => Ok(json),
            false => Err(RecordError::NotReadBack),
        }
    }
}

/// Whether an object is in a folder, at any depth.
fn is_inside(folder: &Path, key: &str) -> bool {
    Path::parse(key).is_ok_and(|key| key.prefix_match(folder).is_some_and(|mut rest| rest.next().is_some()))
}

/// Reads the manifest of a stored decision for the day's folder `day`.
///
/// # Errors
/// [`RecordError`].
pub fn read(bytes: &[u8], day: &str) -> Result<Manifest, RecordError> {
    Record::read(bytes, &key_of(day)).map(|record| record.manifest)
}

/// The key of an object as a record names it.
pub(super) fn key_of(name: &str) -> Path {
    Path::parse(name).unwrap_or_else(|_| Path::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_only_objects_of_its_day() {
        let day = "agg/v1/submission_date_s3=20170227";
        let text = |key: &str, old: &str| {
            let part = ManifestPart {
                key: key.into(),
                upload: "u".into(),
                parts: vec!["p".into()],
                bytes: 9,
                rows: 1,
                crc32: 7,
                checksum: None,
            };
            let manifest = Manifest { files: vec![part], ..Manifest::default() };
            let record =
                Record { nonce: 1, epoch: 2, manifest, old: vec![old.into()], markers: vec![], jobs: vec![] };
            serde_json::to_vec(&record).unwrap()
        };
        let (new, old) = (format!("{day}/part-00000-j-1.snappy.parquet"), format!("{day}/a/old.parquet"));
        assert_eq!(read(&text(&new, &old), day).unwrap().files[0].key, new);
        for stray in [
            day,
            "agg/v1/submission_date_s3=20170228/x",
            "x",
            "",
            &format!("{day}0/x"),
            &format!("{day}/../x"),
        ] {
            assert!(
                read(&text(stray, &old), day).unwrap_err().to_string().contains("not an object in"),
                "{stray}"
            );
            let replaces = read(&text(&new, stray), day);
            match stray == day {
                // Earlier versions wrote the marker of the folder.
                true => assert_eq!(replaces.unwrap().files[0].key, new),
                false => assert!(replaces.unwrap_err().to_string().contains("not an object in"), "{stray}"),
            }
        }
        assert!(read(b"{}", day).is_err() && read(b"", day).is_err());
    }

    #[test]
    fn a_record_is_written_only_if_it_reads_back() {
        let day = key_of("agg/v1/submission_date_s3=20170227");
        let record = |old: String| Record {
            nonce: 1,
            epoch: 2,
            manifest: Manifest::default(),
            old: vec![old],
            markers: vec![],
            jobs: vec!["j".into()],
        };
        let good = record(format!("{day}/old.parquet"));
        assert_eq!(Record::read(&good.write(&day).unwrap(), &day).unwrap(), good);
        for bad in [day.to_string(), format!("{day}//x"), "elsewhere/x".into()] {
            assert!(record(bad.clone()).write(&day).is_err(), "{bad}");
        }
        // Also the markers are objects of the day, and a marker is never a part file.
        let marked = |marker: &str| Record { markers: vec![marker.into()], ..good.clone() };
        let kept = marked(&format!("{day}/_SUCCESS"));
        assert_eq!(Record::read(&kept.write(&day).unwrap(), &day).unwrap(), kept);
        assert!(marked("elsewhere/_SUCCESS").write(&day).is_err());
        let json = String::from_utf8(good.write(&day).unwrap()).unwrap();
        assert!(!json.contains("marker"), "earlier versions wrote the same: {json}");
        let stray = json.replacen("\"inputs\"", "\"ready_marker\":\"part-0\",\"inputs\"", 1);
        assert!(matches!(Record::read(stray.as_bytes(), &day), Err(RecordError::Json(_))), "{stray}");
    }
}
