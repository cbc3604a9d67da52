//! Seeds of random tests, and their number, in environment variables. Not here: what a seed gives.

use anyhow::Result;

/// The seeds of a text like `1-3,77`.
///
/// # Errors
/// A part is neither a number nor a range.
pub fn read(text: &str) -> Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        seeds.extend(first.trim().parse::<u64>()?..=last.trim().parse()?);
    }
    Ok(seeds)
}

/// The number of random cases that `PROPTEST_CASES` asks for.
///
/// # Panics
/// It is no number.
pub fn cases() -> Option<u32> {
    let text = std::env::var("PROPTEST_CASES").ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("PROPTEST_CASES is {text}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_ranges() {
        assert_eq!(read("1-3,77").unwrap(), [1, 2, 3, 77]);
        assert!(read("").is_err() && read("a-3").is_err());
    }
}
