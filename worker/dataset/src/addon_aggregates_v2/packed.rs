//! The elements of a batch as numbers of 64 bits: add-on code, day, and flags.
//!
//! What depends on the add-on alone comes with its code. Days of 64 bits are numbered like strings. Not here: the sets of
//! elements (`elements`).

use std::sync::Arc;

use super::flags::{self, FOREIGN_BITS, MAYBE_OWN, OWN, element_flags};
use super::ping_schema::{DAY_BITS, NULL_ADDON, set_width};
use super::test_pilots::{self, EXCLUDED, TestPilots};
use super::{ADDON, FIELDS};
use crate::batch::{Batch, NULL_CODE, Width};
use crate::interner::Interner;
use crate::keys::grown;
use crate::{Bits, DatasetError};

/// Bits of the marks below the code of an add-on, in what [`Packer::resolve`] returns.
const MARK_BITS: u32 = 2;
/// Marks of an add-on that are not known yet.
const UNKNOWN: u8 = u8::MAX;

/// Packs elements.
pub(super) struct Packer {
    pilots: Arc<TestPilots>,
    /// The marks of strings that are add-on ids, by code.
    marks: Vec<u8>,
    /// The width of install days, once it is known.
    days: Option<Width>,
    /// Scratch: flags, packed elements and codes of days of a batch.
    flags: Vec<u8>,
    packed: Vec<u64>,
    day_codes: Vec<i64>,
}

impl Packer {
    pub(super) fn new(pilots: Arc<TestPilots>) -> Self {
        let (marks, flags, packed, day_codes) = (vec![], vec![], vec![], vec![]);
        Packer { pilots, marks, days: None, flags, packed, day_codes }
    }

    /// The width of install days, if there was one.
    pub(super) fn days(&self) -> Option<Width> {
        self.days
    }

    /// The codes of add-on ids, with their marks in the lowest bits.
    pub(super) fn resolve(
        &mut self,
        strings: &mut Interner,
        values: &[&[u8]],
        codes: &mut [u32],
    ) -> Result<(), DatasetError> {
        for (value, resolved) in values.iter().zip(codes) {
            let code = strings.intern(value)?;
            if code >= NULL_ADDON {
                return Err(DatasetError::TooManyStrings);
            }
            let at = code as usize;
            if at >= self.marks.len() {
                self.marks.resize(strings.len(), UNKNOWN);
            }
            if self.marks[at] == UNKNOWN {
                self.marks[at] = self.pilots.marks(value) as u8;
            }
            *resolved = code << MARK_BITS | u32::from(self.marks[at]);
        }
        Ok(())
    }

    /// The elements of a batch.
    pub(super) fn pack(&mut self, batch: &Batch, strings: &mut Interner) -> Result<&[u64], DatasetError> {
        let elements = batch.elements();
        let (valid, days, width) = batch.int(FIELDS.day);
        let mut days = &days[..elements];
        if valid.count() > 0 {
            set_width(&mut self.days, width)?;
            if width == Width::W64 {
                code_days(valid, days, strings, &mut self.day_codes)?;
                days = &self.day_codes;
            }
        }
        element_flags(batch, &FIELDS, &mut self.flags);
        let codes = batch.text(ADDON)[..elements].iter();
        self.packed.clear();
        let packed = codes.zip(days).zip(&self.flags).map(|((&code, &day), &flags)| pack(code, day, flags));
        self.packed.extend(packed);
        Ok(&self.packed)
    }

    /// Forgets the codes of a run.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.days = None;
    }

    /// Upper bound of the bytes held after a batch of this number of elements.
    pub(super) fn footprint(&self, elements: usize) -> usize {
        let more = |held: usize| (elements + 64).saturating_sub(held);
        grown(&self.marks, elements)
            + grown(&self.flags, more(self.flags.len()))
            + grown(&self.packed, more(self.packed.len()))
            + grown(&self.day_codes, more(self.day_codes.len()))
    }
}

/// One element, from the resolved code of its add-on, its day or the code of it, and its byte of [`element_flags`].
#[inline]
fn pack(addon: u32, day: i64, flags: u8) -> u64 {
    let flags = u32::from(flags);
    let addon = if addon == NULL_CODE { NULL_ADDON << MARK_BITS | EXCLUDED } else { addon };
    let own = u32::from((flags & MAYBE_OWN != 0) & (addon & EXCLUDED == 0)) * OWN;
    let shield = (addon & test_pilots::SHIELD) * flags::SHIELD;
    let day = if flags & flags::NO_DAY == 0 { day as u32 } else { 0 };
    let low = (flags & (flags::NO_DAY | flags::WEB | flags::SYSTEM | FOREIGN_BITS)) | own | shield;
    u64::from(addon >> MARK_BITS) << (DAY_BITS + flags::BITS) | u64::from(day) << flags::BITS | u64::from(low)
}

/// The codes of days of 64 bits; those of nulls are 0.
fn code_days(
    valid: &Bits,
    days: &[i64],
    strings: &mut Interner,
    codes: &mut Vec<i64>,
) -> Result<(), DatasetError> {
    codes.clear();
    codes.resize(days.len(), 0);
    for at in valid.ones(0, days.len()) {
        codes[at] = i64::from(strings.intern(&days[at].to_le_bytes())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_own_if_its_flags_and_its_addon_allow_it() {
        let day = -5i64;
        let plain = 7 << MARK_BITS;
        let at = |code: u64| code << 38 | u64::from(day as u32) << 6;
        let maybe = MAYBE_OWN as u8;
        assert_eq!(pack(plain, day, maybe), at(7) | u64::from(OWN));
        assert_eq!(pack(plain, day, 0), at(7));
        assert_eq!(pack(plain | EXCLUDED, day, maybe), at(7));
        let shield = plain | EXCLUDED | test_pilots::SHIELD;
        assert_eq!(pack(shield, day, maybe), at(7) | u64::from(flags::SHIELD));
        let all = flags::WEB | flags::SYSTEM | flags::FOREIGN_NULL;
        assert_eq!(pack(shield, day, all as u8), at(7) | u64::from(flags::SHIELD | all));
        assert_eq!(
            pack(NULL_CODE, day, maybe | flags::NO_DAY as u8),
            at(u64::from(NULL_ADDON)) & !(u64::from(u32::MAX) << 6) | u64::from(flags::NO_DAY)
        );
    }
}
