//! Canonical UUIDs (36 characters, lower case) as 128 bits, and back.
//!
//! The two directions are exact inverses, so that a key is written byte for byte as it was read. Not here: all other
//! strings, which are stored in a dictionary ([`crate::interner`]).

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// Characters of a canonical UUID.
pub const TEXT_LEN: usize = 36;

/// Eight hexadecimal digits (first digit in the lowest byte) to 32 bits; `None` unless all are
/// of `0-9a-f`.
#[inline]
fn parse_hex8(text: u64) -> Option<u32> {
    let nibbles = (text & LOW).wrapping_add((text >> 6 & ONES).wrapping_mul(9));
    // Digits that are not written back in the same form, such as capitals, are not canonical.
    if nibbles & !LOW != 0 || format_nibbles(nibbles) != text {
        return None;
    }
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    Some(((quads | quads >> 16) as u32).swap_bytes())
}

/// Eight nibbles, one per byte, to their digits.
#[inline]
fn format_nibbles(nibbles: u64) -> u64 {
    let letters = nibbles.wrapping_add(ONES * (128 - 10)) >> 7 & ONES;
    nibbles.wrapping_add(ONES * u64::from(b'0')).wrapping_add(letters * u64::from(b'a' - b'0' - 10))
}

#[inline]
fn format_hex8(value: u32) -> u64 {
    let v = u64::from(value.swap_bytes());
    let pairs = (v | v << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    format_nibbles((bytes >> 4 | bytes << 8) & LOW)
}

#[inline]
fn load(text: &[u8; TEXT_LEN], at: usize, high: usize) -> u64 {
    let half = |from: usize| {
        u64::from(u32::from_le_bytes([text[from], text[from + 1], text[from + 2], text[from + 3]]))
    };
    half(at) | half(high) << 32
}

/// The 128 bits of a canonical UUID, first digit highest; `None` for any other string.
#[inline]
pub fn parse(text: &[u8]) -> Option<u128> {
    let text: &[u8; TEXT_LEN] = text.try_into().ok()?;
    if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
        return None;
    }
    let a = parse_hex8(load(text, 0, 4))?;
    let b = parse_hex8(load(text, 9, 14))?;
    let c = parse_hex8(load(text, 19, 24))?;
    let d = parse_hex8(load(text, 28, 32))?;
    Some(u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d))
}

/// Parses many strings into `ids`, which is as long as `texts` or longer. Returns whether all are canonical UUIDs; if not,
/// the contents of `ids` are unspecified.
///
/// With AVX2, the 32 digits of a UUID are one register: half the time of [`parse`].
pub fn parse_many(texts: &[&[u8]], ids: &mut [u128]) -> bool {
    debug_assert!(texts.len() <= ids.len());
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just checked.
        #[allow(unsafe_code)]
        return unsafe { avx2::parse_many(texts, ids) };
    }
    parse_each(texts, ids)
}

fn parse_each(texts: &[&[u8]], ids: &mut [u128]) -> bool {
    let mut canonical = true;
    for (&text, id) in texts.iter().zip(ids) {
        match parse(text) {
            Some(parsed) => *id = parsed,
            None => canonical = false,
        }
    }
    canonical
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::TEXT_LEN;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(text: &[u8; TEXT_LEN], low: usize, high: usize) -> __m256i {
        let half = |from: usize| {
            let words = text[from..from + 16].as_chunks::<8>().0;
            _mm_set_epi64x(i64::from_le_bytes(words[1]), i64::from_le_bytes(words[0]))
        };
        _mm256_set_m128i(half(high), half(low))
    }

    /// The text's 128 bits, and whether it is a canonical UUID.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn parse(text: &[u8; TEXT_LEN]) -> (u128, bool) {
        const NONE: i8 = -1;
        // Each 128-bit lane holds half of the digits; loads overlap, because shuffles only work within a lane.
        let (a, b) = (halves(text, 0, 16), halves(text, 2, 20));
        let from_a = _mm256_setr_epi8(
            0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, NONE, NONE, NONE, NONE, 3, 4, 5, 6, NONE, NONE, NONE,
            NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE,
        );
        let from_b = _mm256_setr_epi8(
            NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, 12, 13, 14, 15, NONE,
            NONE, NONE, NONE, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        );
        let digits = _mm256_or_si256(_mm256_shuffle_epi8(a, from_a), _mm256_shuffle_epi8(b, from_b));
        // `a` begins at 0 and at 16: its bytes have the same positions as in the text.
        let dashes = _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, _mm256_set1_epi8(b'-' as i8)));
        const DASHES: i32 = 1 << 8 | 1 << 13 | 1 << 18 | 1 << 23;

        let number = _mm256_sub_epi8(digits, _mm256_set1_epi8(b'0' as i8));
        let letter = _mm256_sub_epi8(digits, _mm256_set1_epi8(b'a' as i8));
        let is_number = _mm256_cmpeq_epi8(_mm256_min_epu8(number, _mm256_set1_epi8(9)), number);
        let is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, _mm256_set1_epi8(5)), letter);
        let known = _mm256_movemask_epi8(_mm256_or_si256(is_number, is_letter));
        let nibbles = _mm256_blendv_epi8(_mm256_add_epi8(letter, _mm256_set1_epi8(10)), number, is_number);

        // Two nibbles form a byte, the first is its upper half; the bytes are then packed into the low half of each lane.
        let bytes = _mm256_maddubs_epi16(nibbles, _mm256_set1_epi16(0x0110));
        let packed = _mm256_packus_epi16(bytes, bytes);
        let half = |bits: i64| u128::from((bits as u64).swap_bytes());
        let id = half(_mm256_extract_epi64::<0>(packed)) << 64 | half(_mm256_extract_epi64::<2>(packed));
        (id, dashes & DASHES == DASHES && known == -1)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn parse_many(texts: &[&[u8]], ids: &mut [u128]) -> bool {
        let mut canonical = true;
        for (&text, id) in texts.iter().zip(ids) {
            let Ok(text) = text.try_into() else { return false };
            let (parsed, good) = parse(text);
            *id = parsed;
            canonical &= good;
        }
        canonical
    }
}

/// The canonical text of 128 bits.
#[inline]
pub fn format(id: u128) -> [u8; TEXT_LEN] {
    let mut text = [b'-'; TEXT_LEN];
    let digits = |shift: u32| format_hex8((id >> shift) as u32).to_le_bytes();
    let (a, b, c, d) = (digits(96), digits(64), digits(32), digits(0));
    text[0..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..36].copy_from_slice(&d);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_keep_their_order() {
        let text = b"01234567-89ab-cdef-fedc-ba9876543210";
        assert_eq!(parse(text), Some(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210));
        assert_eq!(&format(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210), text);
    }

    #[test]
    fn only_the_canonical_form_is_taken() {
        let good = *b"01234567-89ab-cdef-fedc-ba9876543210";
        for at in 0..TEXT_LEN {
            for byte in 0..=255u8 {
                let mut text = good;
                text[at] = byte;
                let digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let fits = if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { digit };
                assert_eq!(parse(&text).is_some(), fits, "{byte} at {at}");
                for way in [parse_many, parse_each] {
                    assert_eq!(way(&[&good, &text], &mut [0; 2]), fits, "{byte} at {at}");
                    assert_eq!(way(&[&text, &good], &mut [0; 2]), fits, "{byte} at {at}, first");
                }
            }
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&good[..35]), None);
        let long = [&good[..], b"0"].concat();
        for way in [parse_many, parse_each] {
            for wrong in [&good[..0], &good[..35], &long] {
                assert!(!way(&[&good, wrong], &mut [0; 2]));
                assert!(!way(&[wrong, &good], &mut [0; 2]));
            }
        }
    }

    proptest! {
        #[test]
        fn every_id_comes_back(id in any::<u128>()) {
            prop_assert_eq!(parse(&format(id)), Some(id));
        }

        #[test]
        fn many_are_parsed_as_each_of_them(ids in prop::collection::vec(any::<u128>(), 0..40)) {
            let texts: Vec<_> = ids.iter().map(|&id| format(id)).collect();
            let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
            for way in [parse_many, parse_each] {
                let mut parsed = vec![0; ids.len()];
                prop_assert!(way(&texts, &mut parsed));
                prop_assert_eq!(&parsed, &ids);
            }
        }
    }
}
