//! Sizes in bytes as options have them (`2GiB`, `280MB`, `512k`, `1000000`), and as messages show them. A library's parser
//! would accept 0 and sizes that overflow.
//!
//! Not here: what sizes limit (`budget`, and the options).

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// The unit is unknown.
    #[error("unknown unit {0:?}: use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB")]
    Unit(String),
    /// The number is missing, wrong or too large.
    #[error("{0:?} is not a size: write a number and a unit, for example 512MiB or 2GB")]
    Number(String),
    /// The size is 0.
    #[error("a size must be greater than 0")]
    Zero,
}

/// Parses a size.
///
/// # Errors
/// [`InvalidSize`].
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return Err(InvalidSize::Unit(unit.into())),
    };
    let shape = || InvalidSize::Number(text.into());
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(shape)?,
        Err(_) => {
            let value = number.parse::<f64>().map_err(|_| shape())? * factor as f64;
            if value >= u64::MAX as f64 {
                return Err(shape());
            }
            value as u64
        }
    };
    if bytes == 0 { Err(InvalidSize::Zero) } else { Ok(bytes) }
}

/// A size for display.
pub fn text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A round size of at least `bytes`, as a value for an option.
pub fn option_above(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    let step = match bytes {
        0..0x8000_0000 => 64 * MIB,
        0x8000_0000..0x4_0000_0000 => 256 * MIB,
        _ => 1024 * MIB,
    };
    let mib = bytes.div_ceil(step).saturating_mul(step / MIB);
    if mib % 1024 == 0 { format!("{}GiB", mib / 1024) } else { format!("{mib}MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [
            ("2GiB", 2 << 30),
            ("280MB", 280_000_000),
            ("1.5 GiB", 3 << 29),
            ("512k", 512_000),
            ("4Mi", 4 << 20),
            ("1000", 1000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "2XB", "0", "-1", "1..5GB", "99999999999999TB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_unit_that_fits() {
        assert_eq!(text(1023), "1023 B");
        assert_eq!(text(1536), "1.5 KiB");
        assert_eq!(text(3 << 30), "3.0 GiB");
    }

    #[test]
    fn a_suggested_option_is_round_and_large_enough() {
        let cases = [
            (1, "64MiB"),
            (173_364_565, "192MiB"),
            (1 << 30, "1GiB"),
            ((2 << 30) + 1, "2304MiB"),
            (17 << 30, "17GiB"),
        ];
        for (bytes, option) in cases {
            assert_eq!(option_above(bytes), option);
            assert!(parse(option).is_ok_and(|given| given >= bytes), "{option}");
        }
    }
}
