//! The boolean fields of elements, a byte for each element: what [`super::elements`] tells apart, and what is counted.
//!
//! Bits of whole words are spread to bytes, eight at a time. Not here: the add-on's own marks (`test_pilots`).

use crate::{Batch, Bits};

/// `foreign_install` of an element, in the two low bits: true. False is 0.
pub(super) const FOREIGN: u32 = 1;
/// `foreign_install` is null.
pub(super) const FOREIGN_NULL: u32 = 2;
/// `foreign_install` is false, and the add-on is self-installed.
pub(super) const OWN: u32 = 3;
/// The two bits.
pub(super) const FOREIGN_BITS: u32 = 3;
/// The add-on is of a Shield study.
pub(super) const SHIELD: u32 = 1 << 2;
/// `is_system` is true.
pub(super) const SYSTEM: u32 = 1 << 3;
/// `is_web_extension` is true.
pub(super) const WEB: u32 = 1 << 4;
/// `install_day` is null.
pub(super) const NO_DAY: u32 = 1 << 5;
/// Number of bits.
pub(super) const BITS: u32 = 6;
/// In a byte of [`element_flags`]: `is_system` and `foreign_install` are both false, and neither is null.
pub(super) const MAYBE_OWN: u32 = 1 << 6;

/// Places of the fields among the columns of a batch.
pub(super) struct Fields {
    pub(super) foreign: usize,
    pub(super) system: usize,
    pub(super) web: usize,
    pub(super) day: usize,
}

/// Spreads the bits of a byte to eight bytes.
const SPREAD: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte] |= ((byte >> bit & 1) as u64) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Word `at` of a bitmap; zeros beyond its end.
#[inline]
fn word(bits: &Bits, at: usize) -> u64 {
    bits.words().get(at).copied().unwrap_or(0)
}

/// Writes a byte for each element of the batch: [`FOREIGN`] and [`FOREIGN_NULL`], [`SYSTEM`], [`WEB`], [`NO_DAY`] and
/// [`MAYBE_OWN`]. `out` has a few bytes more than elements.
pub(super) fn element_flags(batch: &Batch, fields: &Fields, out: &mut Vec<u8>) {
    let (foreign_valid, foreign) = batch.bool(fields.foreign);
    let (system_valid, system) = batch.bool(fields.system);
    let (web_valid, web) = batch.bool(fields.web);
    let (day_valid, ..) = batch.int(fields.day);
    out.clear();
    for at in 0..batch.elements().div_ceil(64) {
        let (known, is_foreign) = (word(foreign_valid, at), word(foreign, at));
        let (system_known, is_system) = (word(system_valid, at), word(system, at));
        let columns = [
            (known & is_foreign, FOREIGN),
            (!known, FOREIGN_NULL),
            (system_known & is_system, SYSTEM),
            (word(web_valid, at) & word(web, at), WEB),
            (!word(day_valid, at), NO_DAY),
            (known & !is_foreign & system_known & !is_system, MAYBE_OWN),
        ];
        for byte in 0..8 {
            let spread = columns.iter().fold(0, |all, &(bits, flag)| {
                let flags = SPREAD[(bits >> (8 * byte) & 255) as usize] * u64::from(flag);
                all | flags
            });
            out.extend_from_slice(&spread.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, Width};

    const FIELDS: Fields = Fields { foreign: 0, system: 1, web: 2, day: 3 };

    #[test]
    fn a_byte_has_the_bits_of_its_element() {
        // Every combination of three booleans, each true, false or null, and a day or none.
        let elements = 27 * 2 * 3;
        let of = |at: usize, unit: usize| [None, Some(false), Some(true)][at / unit % 3];
        let bits = |of: &dyn Fn(usize) -> bool| {
            let mut bits = Bits::default();
            (0..elements).for_each(|at| bits.push_word(u64::from(of(at)), 1));
            bits
        };
        // The values of nulls are unspecified.
        let column = |unit: usize| Column::Bool {
            valid: bits(&|at| of(at, unit).is_some()),
            value: bits(&|at| of(at, unit).unwrap_or(at.is_multiple_of(2))),
        };
        let has_day = |at: usize| (at / 27).is_multiple_of(2);
        let days = Column::Int { valid: bits(&has_day), value: vec![7; elements], width: Width::W32 };
        let columns = vec![column(1), column(3), column(9), days];
        let batch = Batch { rows: 1, columns, ends: vec![elements as u32] };
        let mut flags = vec![9];
        element_flags(&batch, &FIELDS, &mut flags);
        assert!(flags.len() >= elements);
        for (at, &found) in flags.iter().enumerate().take(elements) {
            let (foreign, system, web) = (of(at, 1), of(at, 3), of(at, 9));
            let mut expect = match foreign {
                None => FOREIGN_NULL,
                Some(true) => FOREIGN,
                Some(false) => 0,
            };
            let mut set = |is: bool, flag| expect |= if is { flag } else { 0 };
            set(system == Some(true), SYSTEM);
            set(web == Some(true), WEB);
            set(!has_day(at), NO_DAY);
            set(foreign == Some(false) && system == Some(false), MAYBE_OWN);
            assert_eq!(u32::from(found), expect, "{at}");
        }
    }
}
