//! One record as bytes: a head with the format, the writer, the length and the checksum, then the message. Truncated and
//! foreign records, and records of newer versions, are detected.
//!
//! The format of a record is the oldest journal format whose readers understand it completely. A version writes each record
//! with the lowest possible format, so that earlier versions read as much as possible. A reader refuses a record with a
//! higher format than its own. It ignores unknown fields, and loses them in its next snapshot. So a field that must not be
//! ignored or lost, and every new kind of record, needs a higher format: raise [`FORMAT`], and the result of `format_of` for
//! these records. Not here: what follows from a refusal (`log`).

use prost::Message;
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

/// The first bytes of every record.
const MAGIC: [u8; 7] = *b"TALLYJ\0";
/// The highest journal format that this version reads and writes.
pub const FORMAT: u8 = 1;
/// The length of the head: magic, format, writer, length, checksum.
const HEAD: usize = 7 + 1 + 16 + 8 + 4;

/// The writer of a record. Every claimant draws a random id, so that it recognises its own record after the answer to
/// its request was lost.
pub type WriterId = [u8; 16];

/// Bytes that are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another program wrote them.
    #[error("this is not a record of a Tally journal")]
    Foreign,
    /// A newer version wrote them, and this one would misunderstand them.
    #[error("the record has journal format {0}, and this version reads formats up to {FORMAT}")]
    Format(u8),
    /// They are too short or too long.
    #[error("the record is truncated")]
    Truncated,
    /// They were changed.
    #[error("the record's checksum does not match its content")]
    Checksum,
    /// The message in them cannot be decoded.
    #[error("the record cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    /// A newer version wrote them.
    #[error("the record is of a kind that this version does not know")]
    Kind,
}

impl FrameError {
    /// Whether a newer version wrote the record, so that the journal is not damaged.
    pub fn is_newer(&self) -> bool {
        matches!(self, FrameError::Format(_) | FrameError::Kind)
    }
}

/// The lowest format whose readers understand a record.
fn format_of(record: &Record) -> u8 {
    match record {
        Record::Claim(_)
        | Record::Seal(_)
        | Record::Snapshot(_)
        | Record::Submitted(_)
        | Record::Planned(_)
        | Record::Committed(_)
        | Record::Ended(_)
        | Record::Cancelled(_) => 1,
    }
}

/// Encodes a record.
pub fn encode(writer: WriterId, record: &Record) -> Vec<u8> {
    // The message of which the record is the only field. A plan is too large to be copied for it.
    let length = record.encoded_len();
    let mut bytes = Vec::with_capacity(HEAD + length);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(format_of(record));
    bytes.extend_from_slice(&writer);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    record.encode(&mut bytes);
    let checksum = crc32fast::hash(&bytes[HEAD..]).to_le_bytes();
    bytes[HEAD - checksum.len()..HEAD].copy_from_slice(&checksum);
    bytes
}

/// Decodes a record, and returns its writer with it.
///
/// # Errors
/// [`FrameError`].
pub fn decode(bytes: &[u8]) -> Result<(WriterId, Record), FrameError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(FrameError::Foreign)?;
    let (&format, rest) = rest.split_first().ok_or(FrameError::Truncated)?;
    match format {
        0 => return Err(FrameError::Foreign),
        1..=FORMAT => {}
        newer => return Err(FrameError::Format(newer)),
    }
    let (writer, rest) = rest.split_first_chunk::<16>().ok_or(FrameError::Truncated)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Truncated)?;
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    if u64::from_le_bytes(*length) != body.len() as u64 {
        return Err(FrameError::Truncated);
    }
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return Err(FrameError::Checksum);
    }
    let message = v1::JournalRecord::decode(body)?;
    Ok((*writer, message.record.ok_or(FrameError::Kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_every_truncated_or_changed_one_is_detected() {
        let record = Record::Claim(v1::Claim {
            epoch: 7,
            address: "a:1".into(),
            version: "1".into(),
            ..Default::default()
        });
        let bytes = encode([9; 16], &record);
        assert_eq!(decode(&bytes), Ok(([9; 16], record)));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in (0..bytes.len()).filter(|at| !(8..24).contains(at)) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(decode(&changed).is_err(), "changed at {at}");
        }
        assert!(decode(&[bytes.as_slice(), b"x"].concat()).is_err());
        assert_eq!(decode(b"hello, this is a file of another program"), Err(FrameError::Foreign));
    }

    /// Version 0.1.0 wrote these bytes. Later versions write the same, so that version 0.1.0 reads them.
    #[test]
    fn records_keep_their_bytes() {
        let record = Record::Claim(v1::Claim {
            epoch: 7,
            address: "a:1".into(),
            version: "1".into(),
            ..Default::default()
        });
        let mut bytes = b"TALLYJ\0\x01".to_vec();
        bytes.extend([9; 16]);
        bytes.extend([12, 0, 0, 0, 0, 0, 0, 0]);
        let body = b"\x0a\x0a\x08\x07\x12\x03a:1\x1a\x011";
        bytes.extend(crc32fast::hash(body).to_le_bytes());
        bytes.extend(body);
        assert_eq!(encode([9; 16], &record), bytes);
        assert_eq!(decode(&bytes), Ok(([9; 16], record)));
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_and_an_unknown_field_is_ignored() {
        let record = Record::Seal(v1::Seal { by_epoch: 7 });
        let with_body = |format: u8, body: &[u8]| {
            let mut bytes = [&MAGIC[..], &[format], &[9; 16]].concat();
            bytes.extend((body.len() as u64).to_le_bytes());
            bytes.extend(crc32fast::hash(body).to_le_bytes());
            bytes.extend(body);
            bytes
        };
        let body = v1::JournalRecord { record: Some(record.clone()) }.encode_to_vec();
        assert_eq!(decode(&with_body(1, &body)), Ok(([9; 16], record.clone())));
        assert_eq!(decode(&with_body(2, &body)), Err(FrameError::Format(2)));
        assert_eq!(decode(&with_body(0, &body)), Err(FrameError::Foreign));
        // Field 99 of the record, and field 98 of the seal in it.
        assert_eq!(decode(&with_body(1, b"\x12\x05\x08\x07\x90\x06\x01\x98\x06\x01")), Ok(([9; 16], record)));
        // A kind of record with number 99.
        assert_eq!(decode(&with_body(1, b"\x9a\x06\x02\x08\x07")), Err(FrameError::Kind));
    }
}
