//! Client and document ids as text: random UUIDs, and UUIDs whose checksum is in a given sample. Not here: the sample of
//! a client.

use crate::draw::Draw;

/// Samples of a day: `sample_id = crc32(client_id) % SAMPLES`.
pub(crate) const SAMPLES: u32 = 100;
/// A UUID in its text form.
pub(crate) type Uuid = [u8; 36];

const HEX: &[u8; 16] = b"0123456789abcdef";
/// The number of last hexadecimal digits of an id that are chosen for its checksum: with three, some of the 4096 values
/// fit.
const STEERED: usize = 3;
const ENDINGS: usize = 1 << (4 * STEERED);

/// A random UUID of version 4.
pub(crate) fn random_uuid(draw: &mut Draw) -> Uuid {
    let high = (draw.bits() & !0xF000) | 0x4000;
    let low = (draw.bits() & !(0b11 << 62)) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let mut at = 0;
    for half in [high, low] {
        for byte in half.to_be_bytes() {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
    }
    text
}

/// The sample that an id belongs to.
pub(crate) fn sample_of(id: &[u8]) -> u32 {
    crc32fast::hash(id) % SAMPLES
}

fn ending(number: usize) -> [u8; STEERED] {
    [HEX[number >> 8], HEX[number >> 4 & 15], HEX[number & 15]]
}

/// Creates ids for a given sample. CRC is linear: a change of the last bytes flips the same checksum bits for all
/// prefixes, so a table of flips replaces a hundred checksums per id.
#[derive(Debug)]
pub(crate) struct Steering {
    flips: Vec<u32>,
}

impl Steering {
    pub(crate) fn new() -> Self {
        let zero = crc32fast::hash(&ending(0));
        Steering { flips: (0..ENDINGS).map(|number| crc32fast::hash(&ending(number)) ^ zero).collect() }
    }

    /// A random UUID of `sample`.
    pub(crate) fn uuid(&self, draw: &mut Draw, sample: u32) -> Uuid {
        loop {
            let mut id = random_uuid(draw);
            let start = draw.below(ENDINGS as u64) as usize;
            id[36 - STEERED..].copy_from_slice(&ending(0));
            let checksum = crc32fast::hash(&id);
            let fits = |&number: &usize| (checksum ^ self.flips[number]) % SAMPLES == sample;
            // About once in 10^17 ids, none fits: then the next UUID is tried.
            if let Some(number) = (start..ENDINGS).chain(0..start).find(fits) {
                id[36 - STEERED..].copy_from_slice(&ending(number));
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn steered_ids_are_distinct_uuids_of_their_sample() {
        let steering = Steering::new();
        let mut draw = Draw::new(9);
        let mut seen = HashSet::new();
        for round in 0..20_000 {
            let sample = round % SAMPLES;
            let id = steering.uuid(&mut draw, sample);
            assert_eq!(sample_of(&id), sample);
            assert_eq!((id[8], id[13], id[14], id[18], id[23]), (b'-', b'-', b'4', b'-', b'-'));
            assert!(b"89ab".contains(&id[19]));
            assert_eq!(id.iter().filter(|b| HEX.contains(b)).count(), 32);
            assert!(seen.insert(id));
        }
        // The chosen digits are nearly uniform.
        let mut last = [0u32; 16];
        for id in &seen {
            last[HEX.iter().position(|&h| h == id[35]).unwrap()] += 1;
        }
        assert!(last.iter().all(|&n| (1000..1500).contains(&n)), "{last:?}");
    }
}
