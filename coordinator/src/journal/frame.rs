//! One record as bytes: a head that says whose it is, how long and with which checksum, then the
//! message. What is torn, foreign or of a newer kind is told apart from what is whole.

use prost::Message;
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

/// Begins every record; the last byte is the version of the frame.
const MAGIC: [u8; 8] = *b"TALLYJ\0\x01";
/// Magic, writer, length, checksum.
const HEAD: usize = 8 + 16 + 8 + 4;

/// Who wrote a record: drawn anew by every claimant, so that one can tell its own record, written
/// by a request whose answer was lost, from another's.
pub type WriterId = [u8; 16];

/// The record's bytes.
pub fn encode(writer: WriterId, record: &Record) -> Vec<u8> {
    let body = v1::JournalRecord { record: Some(record.clone()) }.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&writer);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The record, and who wrote it.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<(WriterId, Record), String> {
    let foreign = || "this is no record of a Tally journal".to_string();
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(foreign)?;
    if magic[..7] != MAGIC[..7] {
        return Err(foreign());
    }
    if magic[7] != MAGIC[7] {
        return Err(format!("the record is of frame version {}: upgrade this coordinator", magic[7]));
    }
    let torn = || "the record is torn".to_string();
    let (writer, rest) = rest.split_first_chunk::<16>().ok_or_else(torn)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(torn)?;
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    if u64::from_le_bytes(*length) != body.len() as u64 {
        return Err(torn());
    }
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return Err("the record's checksum does not fit".into());
    }
    let message = v1::JournalRecord::decode(body).map_err(|e| format!("the record cannot be read: {e}"))?;
    let newer = || "the record is of a kind that this version does not know: upgrade this coordinator";
    Ok((*writer, message.record.ok_or_else(newer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_every_torn_or_changed_one_is_told() {
        let record = Record::Claim(v1::Claim { epoch: 7, address: "a:1".into(), version: "1".into() });
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
        assert!(decode(b"hello, this is somebody else's file").unwrap_err().contains("no record"));
    }
}
