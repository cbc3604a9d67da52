//! Sizes in bytes as people write them (`2GiB`, `280MB`, `512k`, `1000000`), and as they read them.

/// Parses a size.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse(text: &str) -> Result<u64, String> {
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
        _ => return Err(format!("{unit:?} is no unit: use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB")),
    };
    let shape = || format!("{text:?} is no size: write a number and a unit, for example 512MiB or 2GB");
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
    if bytes == 0 { Err("a size must be more than 0".into()) } else { Ok(bytes) }
}

/// A size as people read it.
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
    fn people_read_the_unit_that_fits() {
        assert_eq!(text(1023), "1023 B");
        assert_eq!(text(1536), "1.5 KiB");
        assert_eq!(text(3 << 30), "3.0 GiB");
    }
}
