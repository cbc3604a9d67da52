//! Limits of messages and of the lists in them. Lists grow with the input, so each is bounded where it is made: entries
//! are counted by their encoded size, or there is a maximum number of them whose entries fit into a message. A test per
//! list compares its largest form with [`MESSAGE_BYTES`].
//!
//! A receiver that is sent a larger message ends the whole stream. So a sender checks a message before it queues it
//! ([`check`]), and fails only what the message is about. Not here: limits of Flight's messages and of memory.

use std::borrow::Cow;

use prost::Message;

/// The maximum size of a message between coordinators, workers and clients, in bytes. Flight's messages are larger.
pub const MESSAGE_BYTES: usize = 4 << 20;

/// The maximum encoded size of a list that is split: the pages of an inventory, the files of a task message.
pub const LIST_BYTES: usize = 1 << 20;

/// The maximum number of tasks of a stage. The message with the inputs of reduce tasks lists all map tasks, in up to 13
/// bytes each.
pub const MAX_TASKS: usize = 200_000;

/// The maximum number of row groups of a reduce task's output. Its result describes each of them in up to 15 bytes.
pub const MAX_ROW_GROUPS: usize = 200_000;

/// The maximum length of an error's text, in bytes.
pub const MAX_REASON_BYTES: usize = 16 << 10;

/// A message that its receiver would not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has {0} bytes, and a message has at most {MESSAGE_BYTES}")]
pub struct TooLarge(pub usize);

/// Checks the encoded size of a message.
///
/// # Errors
/// [`TooLarge`].
pub fn check(bytes: usize) -> Result<(), TooLarge> {
    if bytes > MESSAGE_BYTES { Err(TooLarge(bytes)) } else { Ok(()) }
}

/// The encoded size of a field with a message of `bytes` bytes.
pub fn field_len(tag: u32, bytes: usize) -> usize {
    prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(bytes as u64) + bytes
}

/// The encoded size of an entry of the list with that tag.
pub fn entry_len(tag: u32, entry: &impl Message) -> usize {
    field_len(tag, entry.encoded_len())
}

/// A text of at most [`MAX_REASON_BYTES`], with the number of bytes that are left out.
pub fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_REASON_BYTES {
        return text.into();
    }
    // Room for the note.
    let kept = text.floor_char_boundary(MAX_REASON_BYTES - 64);
    format!("{} ... ({} more bytes)", &text[..kept], text.len() - kept).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn a_message_of_the_maximum_size_is_sent_and_a_larger_one_is_not() {
        assert_eq!(check(MESSAGE_BYTES - 1), Ok(()));
        assert_eq!(check(MESSAGE_BYTES), Ok(()));
        assert_eq!(check(MESSAGE_BYTES + 1), Err(TooLarge(MESSAGE_BYTES + 1)));
    }

    #[test]
    fn entries_of_a_list_add_up_to_its_encoded_size() {
        let attempt = |length| v1::Attempt { job: "j".repeat(length), stage: 1, index: 7, attempt: 4096 };
        let running: Vec<_> = [0, 1, 64, 119, 120, 20_000].map(attempt).into();
        let bytes: usize = running.iter().map(|attempt| entry_len(2, attempt)).sum();
        assert_eq!(v1::Inventory { running, ..Default::default() }.encoded_len(), bytes);
        assert_eq!(field_len(15, 1), 3);
        assert_eq!(field_len(16, 1), 4, "the key has two bytes");
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        for length in [0, MAX_REASON_BYTES - 1, MAX_REASON_BYTES] {
            let text = "x".repeat(length);
            assert_eq!(shorten(&text), text);
        }
        for letter in ["x", "ü", "€", "𝄞"] {
            let text = letter.repeat(MAX_REASON_BYTES / letter.len() + 1);
            let short = shorten(&text);
            assert!(short.len() <= MAX_REASON_BYTES && short.starts_with(letter), "{}", short.len());
            assert!(short.ends_with("more bytes)"), "{short}");
        }
    }

    #[test]
    fn the_largest_result_of_a_reduce_task_fits_into_a_message() {
        let result = v1::ReduceResult {
            totals: Some(v1::Totals::new(u64::MAX, &[u64::MAX; 8])),
            row_group_rows: vec![1 << 20; MAX_ROW_GROUPS],
            bytes: u64::MAX,
            passes: u32::MAX,
            read: Some(v1::Sums { rows: u64::MAX, checksum: u64::MAX }),
            checksums: vec![u64::MAX; MAX_ROW_GROUPS],
            crc32s: vec![u32::MAX; MAX_ROW_GROUPS],
            footer_crc32: u32::MAX,
            order: Some(u64::MAX),
            objectives: vec![u64::MAX; 256],
            nulls: vec![u64::MAX; 16],
            spilled_bytes: u64::MAX,
            network_bytes: u64::MAX,
        };
        let size = result.encoded_len();
        assert!(size + 1024 <= MESSAGE_BYTES && size > MESSAGE_BYTES / 2, "{size}");
    }
}
