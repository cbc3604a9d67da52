//! Days as text, `yyyyMMdd`, as Spark writes them: a number of days times 86,400 seconds, as a date in UTC.
//!
//! The product wraps in the width of the column, and the microseconds wrap at 64 bits. Years are those of the proleptic
//! Gregorian calendar, with four digits at least: a year above 9999 has a `+`, and one below 0 a `-`. Not here: which day
//! is the first one of a group.

use crate::Width;

const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;
/// Days of 400 years.
const CYCLE: i64 = 146_097;
/// The characters in their bytewise order, each by its four bits. 0 is the end.
const SYMBOLS: [u8; 13] = *b"\0+-0123456789";
/// Characters that fit.
const MAX_LENGTH: usize = 16;

/// The text of a day. Texts are ordered bytewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DayText(
    /// Four bits for each character, the first one highest.
    u64,
);

impl DayText {
    /// After all texts.
    pub(super) const NONE: DayText = DayText(u64::MAX);

    /// The text of a number of days since 1970, which came from a column of that width.
    pub(super) fn new(days: i64, width: Width) -> Self {
        let seconds = match width {
            Width::W32 => i64::from((days as i32).wrapping_mul(DAY_SECONDS as i32)),
            Width::W64 => days.wrapping_mul(DAY_SECONDS),
        };
        let micros = seconds.wrapping_mul(SECOND_MICROS);
        DayText::of_date(micros.div_euclid(DAY_SECONDS * SECOND_MICROS))
    }

    /// The date of a number of days since 1970, of at most six digits in its year.
    fn of_date(days: i64) -> Self {
        let days = days + EPOCH;
        let (cycle, of_cycle) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
        let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let of_year = of_cycle - (365 * year + year / 4 - year / 100);
        // Years begin in March.
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = year + cycle * 400 + next;
        let mut text = Packed::default();
        match year {
            ..0 => text.push(b'-'),
            10_000.. => text.push(b'+'),
            _ => (),
        }
        let year = year.unsigned_abs();
        if year >= 100_000 {
            text.digit(year / 100_000);
        }
        if year >= 10_000 {
            text.digit(year / 10_000 % 10);
        }
        [1000, 100, 10, 1].iter().for_each(|unit| text.digit(year / unit % 10));
        for two in [month.unsigned_abs(), day.unsigned_abs()] {
            text.digit(two / 10);
            text.digit(two % 10);
        }
        DayText(text.bits)
    }

    /// Appends the text, unless it is [`Self::NONE`]; whether it is not.
    pub(super) fn append(self, out: &mut Vec<u8>) -> bool {
        if self == DayText::NONE {
            return false;
        }
        let symbols = (0..MAX_LENGTH).map(|at| (self.0 >> (60 - 4 * at) & 15) as usize);
        out.extend(symbols.take_while(|&symbol| symbol > 0).map(|symbol| SYMBOLS[symbol]));
        true
    }
}

/// A text that is being packed.
#[derive(Default)]
struct Packed {
    bits: u64,
    length: u32,
}

impl Packed {
    fn nibble(&mut self, symbol: u64) {
        self.bits |= symbol << (60 - 4 * self.length);
        self.length += 1;
    }

    fn push(&mut self, sign: u8) {
        self.nibble(if sign == b'+' { 1 } else { 2 });
    }

    fn digit(&mut self, digit: u64) {
        self.nibble(3 + digit);
    }
}

/// Whether a text is one that a day can have.
pub(super) fn is_day(text: &str) -> bool {
    let (digits, sign) = match text.as_bytes() {
        [sign @ (b'+' | b'-'), digits @ ..] => (digits, Some(*sign)),
        digits => (digits, None),
    };
    if !(8..=10).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |from: usize, to: usize| {
        digits[from..to].iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    let end = digits.len();
    let (year, month, day) = (number(0, end - 4), number(end - 4, end - 2), number(end - 2, end));
    let signed = match sign {
        Some(b'+') => year > 9999,
        Some(_) => year > 0,
        None => year <= 9999,
    };
    // Only as many digits as it needs, at least four.
    let padded = end == 8 || digits[0] != b'0';
    signed && padded && (1..=12).contains(&month) && (1..=31).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(days: i64, width: Width) -> String {
        let mut out = vec![];
        assert!(DayText::new(days, width).append(&mut out));
        String::from_utf8(out).unwrap()
    }

    /// What Spark wrote.
    const NARROW: [(i64, &str); 9] = [
        (0, "19700101"),
        (-1, "19691231"),
        (17_532, "20180101"),
        (24_855, "20380119"),
        (24_856, "19011214"),
        (30_000, "19160114"),
        (49_711, "19700101"),
        (-24_856, "20380118"),
        (11_016, "20000229"),
    ];
    const WIDE: [(i64, &str); 11] = [
        (0, "19700101"),
        (-1, "19691231"),
        (24_856, "20380120"),
        (106_751_991, "+2942470110"),
        (106_751_992, "-2903081222"),
        (2_932_896, "99991231"),
        (2_932_897, "+100000101"),
        (-719_600, "-00011021"),
        (-719_469, "00000229"),
        (-719_528, "00000101"),
        (-719_529, "-00011231"),
    ];

    #[test]
    fn days_have_the_texts_that_spark_writes() {
        NARROW.iter().for_each(|&(days, expect)| assert_eq!(text(days, Width::W32), expect, "{days}"));
        WIDE.iter().for_each(|&(days, expect)| assert_eq!(text(days, Width::W64), expect, "{days}"));
    }

    #[test]
    fn texts_are_ordered_bytewise_and_the_narrow_ones_as_numbers() {
        let mut all: Vec<i64> = (-40..40).map(|at| at * 2_671_013 + at * at).collect();
        all.extend(WIDE.iter().map(|(days, _)| days));
        all.extend([i64::MIN, i64::MAX, i64::MIN + 1, 1 << 40]);
        for &a in &all {
            assert!(is_day(&text(a, Width::W64)), "{}", text(a, Width::W64));
            assert!(DayText::new(a, Width::W64) < DayText::NONE);
            for &b in &all {
                let (one, other) = (DayText::new(a, Width::W64), DayText::new(b, Width::W64));
                assert_eq!(one.cmp(&other), text(a, Width::W64).cmp(&text(b, Width::W64)), "{a} {b}");
            }
        }
        for days in [i32::MIN, i32::MAX, 24_855, 24_856, -24_855, -24_856, -24_857] {
            let text = text(i64::from(days), Width::W32);
            assert!(("19011213"..="20380119").contains(&&text[..]), "{text}");
        }
        let mut years: Vec<DayText> = (-24_855..=24_855).map(|day| DayText::new(day, Width::W32)).collect();
        let sorted = years.clone();
        years.sort();
        assert_eq!(years, sorted);
    }

    #[test]
    fn a_text_is_a_day_or_it_is_not() {
        let days = ["20180101", "00000229", "-00011021", "+100000101", "+2942470110", "-2903081222"];
        assert!(days.iter().all(|text| is_day(text)));
        let others = [
            "",
            "2018010",
            "020180101",
            "20181301",
            "20180100",
            "2018-01-01",
            "+20180101",
            "-00000101",
            "20180132",
            "100000101",
            "+000000101",
            "2018010a",
        ];
        others.iter().for_each(|text| assert!(!is_day(text), "{text}"));
    }
}
