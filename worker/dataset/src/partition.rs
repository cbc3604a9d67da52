//! The partition of the shuffle that a key belongs to: `crc32(key) % partitions`.
//!
//! The tables of `addon_aggregates` are laid out by the same function (`sample_id = crc32(client_id) % 100`). If the
//! number of partitions divides 100, or is a multiple of it, the clients of one sample belong to few partitions, and
//! little data crosses the network. The result does not depend on it: partitions are computed from the key, never read
//! from a folder's name.

use crate::uuid;

/// Maps keys to partitions.
#[derive(Clone)]
pub struct Partitioner {
    partitions: u32,
    base: u32,
    tables: Box<[[u32; 256]; 16]>,
}

impl Partitioner {
    /// A partitioner into `partitions` (at least 1).
    pub fn new(partitions: u32) -> Self {
        // A CRC over strings of one length is affine over GF(2): the checksum of an id is that of
        // the zero id, XOR the change that each of its 16 bytes makes.
        let base = crc32fast::hash(&uuid::format(0));
        let mut tables = Box::new([[0; 256]; 16]);
        for (at, table) in tables.iter_mut().enumerate() {
            for (byte, entry) in table.iter_mut().enumerate() {
                let id = (byte as u128) << (120 - 8 * at);
                *entry = base ^ crc32fast::hash(&uuid::format(id));
            }
        }
        Partitioner { partitions: partitions.max(1), base, tables }
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a canonical UUID, without its text.
    #[inline]
    pub fn of_uuid(&self, id: u128) -> u32 {
        let bytes = id.to_be_bytes();
        let crc =
            self.tables.iter().zip(bytes).fold(self.base, |crc, (table, b)| crc ^ table[usize::from(b)]);
        crc % self.partitions
    }

    /// The partition of any key.
    pub fn of_text(&self, id: &[u8]) -> u32 {
        crc32fast::hash(id) % self.partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_agree(id in any::<u128>(), partitions in 1..1000u32) {
            let p = Partitioner::new(partitions);
            prop_assert_eq!(p.of_uuid(id), p.of_text(&uuid::format(id)));
        }
    }

    #[test]
    fn it_is_productions_sample_id() {
        // zlib.crc32(b"00000000-0000-4000-8000-000000000000") % 100, as Python has it.
        let id = b"00000000-0000-4000-8000-000000000000";
        assert_eq!(Partitioner::new(100).of_text(id), PYTHON);
    }

    const PYTHON: u32 = 67;
}
