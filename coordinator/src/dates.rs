//! The days of jobs and folders as text.
//!
//! Not here: ranges of days (`tally_cli::dates`).

use chrono::NaiveDate;

/// The date in a text of the form `YYYYMMDD`; `None` if it has another form, or there is no such date.
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    NaiveDate::parse_from_str(text, "%Y%m%d").ok().filter(|_| digits)
}

/// A date as jobs and folders have it, `YYYYMMDD`.
pub fn date_text(date: NaiveDate) -> String {
    date.format("%Y%m%d").to_string()
}

/// The days from 1970-01-01 to a date.
pub fn days_since_1970(date: NaiveDate) -> i64 {
    i64::from(date.to_epoch_days())
}

/// The name of a day's folder, in inputs and output.
pub fn date_folder(partition_column: &str, date: &str) -> String {
    format!("{partition_column}={date}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_eight_digits() {
        let date = parse_date("20170227").unwrap();
        assert_eq!(date_text(date), "20170227");
        for bad in ["2017-02-27", "20170229", "2017022", "", "+2017022", "201702270"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
