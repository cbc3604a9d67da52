//! Client ids as 16 bytes where they are canonical UUIDs (36 characters, lower case), and back.
//!
//! The two directions are exact inverses, so that an id comes back byte for byte; every other
//! string takes the dictionary's way (see [`crate::interner`]).

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// Characters of a canonical UUID.
pub const TEXT_LEN: usize = 36;

/// Eight hexadecimal digits (first digit in the lowest byte) to 32 bits; `None` unless all are
/// of `0-9a-f`.
#[inline]
fn parse_hex8(text: u64) -> Option<u32> {
    let nibbles = (text & LOW).wrapping_add((text >> 6 & ONES).wrapping_mul(9));
    // Digits that could not be written back as they were are not canonical ones.
    if nibbles & !LOW != 0 || format_nibbles(nibbles) != text {
        return None;
    }
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    Some(((quads | quads >> 16) as u32).swap_bytes())
}

/// Eight nibbles, one a byte, to their digits.
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
            }
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&good[..35]), None);
    }

    proptest! {
        #[test]
        fn every_id_comes_back(id in any::<u128>()) {
            prop_assert_eq!(parse(&format(id)), Some(id));
        }
    }
}
