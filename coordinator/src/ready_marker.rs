//! The name of a ready marker: an empty file in a day's folder of the output, which exists only while the day is whole.
//!
//! Not here: when the marker appears (`publish`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const MAX_BYTES: usize = 64;
/// Names with a meaning of their own for readers or writers of tables: Parquet's summary files, folders of Hadoop's
/// committers and of table formats.
const TAKEN: [&str; 6] =
    ["_metadata", "_common_metadata", "_temporary", "_delta_log", "_committed", "_started"];
/// What the names of Tally's own folders contain.
const OWN: &str = "tally-staging";

/// The name of a ready marker, which no reader takes for data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReadyMarker(String);

/// A name that a ready marker cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    /// Readers take the file for data.
    #[error("readers take it for data: begin the name with _ or ., for example _SUCCESS")]
    Data,
    /// It is not a plain file name.
    #[error("a name has letters, digits, `.`, `_` and `-`, and at least one letter or digit")]
    Characters,
    /// It is too long.
    #[error("a name has at most {MAX_BYTES} characters")]
    Long,
    /// It has another meaning.
    #[error("the name has another meaning for readers, or for Tally: take another one, for example _SUCCESS")]
    Taken,
}

impl ReadyMarker {
    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReadyMarker {
    type Err = MarkerError;

    fn from_str(name: &str) -> Result<Self, MarkerError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !name.starts_with(['_', '.']) {
            return Err(MarkerError::Data);
        }
        if !name.bytes().all(is_plain) || !name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(MarkerError::Characters);
        }
        if name.len() > MAX_BYTES {
            return Err(MarkerError::Long);
        }
        let lower = name.to_ascii_lowercase();
        // Hadoop names its checksums so.
        let is_checksum = lower.ends_with(".crc");
        if TAKEN.iter().any(|taken| lower.starts_with(taken)) || lower.contains(OWN) || is_checksum {
            return Err(MarkerError::Taken);
        }
        Ok(ReadyMarker(name.to_owned()))
    }
}

impl TryFrom<String> for ReadyMarker {
    type Error = MarkerError;

    fn try_from(name: String) -> Result<Self, MarkerError> {
        name.parse()
    }
}

impl From<ReadyMarker> for String {
    fn from(marker: ReadyMarker) -> Self {
        marker.0
    }
}

impl fmt::Display for ReadyMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_a_hidden_file_name_without_another_meaning() {
        for name in ["_SUCCESS", "_READY", "_ready-2", ".done", "_x.y"] {
            assert_eq!(name.parse::<ReadyMarker>().unwrap().name(), name);
        }
        for (name, why) in [
            ("", MarkerError::Data),
            ("READY", MarkerError::Data),
            ("part-00000.snappy.parquet", MarkerError::Data),
            ("_", MarkerError::Characters),
            ("..", MarkerError::Characters),
            ("_a/b", MarkerError::Characters),
            ("../_a", MarkerError::Characters),
            // Spark takes such a folder for a partition.
            ("_a=1", MarkerError::Characters),
            ("_é", MarkerError::Characters),
            ("_a b", MarkerError::Characters),
            ("_metadata", MarkerError::Taken),
            ("_common_metadata", MarkerError::Taken),
            ("_Temporary", MarkerError::Taken),
            ("._SUCCESS.crc", MarkerError::Taken),
            (".out.tally-staging", MarkerError::Taken),
        ] {
            assert_eq!(name.parse::<ReadyMarker>(), Err(why), "{name}");
        }
        assert_eq!(format!("_{}", "x".repeat(64)).parse::<ReadyMarker>(), Err(MarkerError::Long));
    }
}
