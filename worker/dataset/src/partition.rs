//! Which partition of the shuffle a client belongs to: `crc32(client_id) % partitions`, the
//! function that production lays both tables out by (`sample_id = crc32(client_id) % 100`).
//! With a number of partitions that divides 100, or that 100 divides, a file of one sample falls
//! into few partitions, so that little has to travel; the result never depends on it.
//!
//! Computed from the id, never read from a folder's name.

use crate::client_id;

/// Maps client ids to partitions.
#[derive(Clone)]
pub struct Partitioner {
    partitions: u32,
    base: u32,
    tables: Box<[[u32; 256]; 16]>,
}

impl Partitioner {
    /// A partitioner into `partitions` (at least 1).
    pub fn new(partitions: u32) -> Self {
        // A CRC over texts of one length is affine over GF(2): the checksum of an id is that of
        // the zero id, XOR what each of its 16 bytes changes.
        let base = crc32fast::hash(&client_id::format(0));
        let mut tables = Box::new([[0; 256]; 16]);
        for (at, table) in tables.iter_mut().enumerate() {
            for (byte, entry) in table.iter_mut().enumerate() {
                let id = (byte as u128) << (120 - 8 * at);
                *entry = base ^ crc32fast::hash(&client_id::format(id));
            }
        }
        Partitioner { partitions: partitions.max(1), base, tables }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a canonical UUID, without making its text.
    #[inline]
    pub fn of_uuid(&self, id: u128) -> u32 {
        let bytes = id.to_be_bytes();
        let crc =
            self.tables.iter().zip(bytes).fold(self.base, |crc, (table, b)| crc ^ table[usize::from(b)]);
        crc % self.partitions
    }

    /// The partition of any client id.
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
            prop_assert_eq!(p.of_uuid(id), p.of_text(&client_id::format(id)));
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
