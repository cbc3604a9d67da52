//! Numbers for people: with thousands separators, and with their noun.
//!
//! Not here: sizes in bytes (`size`), durations.

/// A number with thousands separators.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with its noun, which is given in the singular and whose plural ends with an s: "1 task", "1,234 part files".
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 123, 1_234_567].map(grouped), ["0", "123", "1,234,567"]);
    }

    #[test]
    fn one_has_a_singular() {
        assert_eq!(
            [0, 1, 2, 1000].map(|count| counted(count, "part file")),
            ["0 part files", "1 part file", "2 part files", "1,000 part files"]
        );
    }
}
