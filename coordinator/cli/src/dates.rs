//! Dates in options: one date, and inclusive ranges of dates.
//!
//! Not here: the default date of a job (`job_args`), which days exist (`tally_coordinator::plan::days`).

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use tally_common::counts::counted;
use tally_coordinator::dates::{date_text, parse_date};

use crate::Stop;

/// The most days of a range: ten years. A longer range is a typing error.
const MAX_DAYS: i64 = 3_660;

/// A text that is not a date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write YYYYMMDD, for example 20170227")]
pub struct InvalidDate;

/// Parses a date.
///
/// # Errors
/// [`InvalidDate`].
pub fn parse(text: &str) -> Result<NaiveDate, InvalidDate> {
    parse_date(text).ok_or(InvalidDate)
}

/// The time for which a CronJob of Kubernetes scheduled a job, according to the job's name: it ends with the minutes since
/// 1970. `None` for a job that was created by hand.
pub(crate) fn scheduled_time(job: &str) -> Option<DateTime<Utc>> {
    let (_, minutes) = job.rsplit_once('-')?;
    // Eight digits: from 1989 to 2160. A shorter number is part of a name.
    let minutes: i64 = minutes.parse().ok().filter(|_| minutes.len() == 8)?;
    DateTime::from_timestamp(minutes * 60, 0)
}

/// A range of dates.
#[derive(Debug, Clone, Copy, Args)]
pub struct RangeArgs {
    /// The first date of a range of days
    #[arg(long, value_name = "YYYYMMDD", value_parser = parse, requires = "to")]
    from: Option<NaiveDate>,
    /// The last date of the range, included
    #[arg(long, value_name = "YYYYMMDD", value_parser = parse, requires = "from")]
    to: Option<NaiveDate>,
}

impl RangeArgs {
    /// The range, if it is given.
    ///
    /// # Errors
    /// [`Stop::Usage`]: it is reversed or too long.
    pub(crate) fn range(self) -> Result<Option<DateRange>, Stop> {
        let range = self.from.zip(self.to).map(|(first, last)| DateRange::new(first, last));
        range.transpose().map_err(|e| Stop::Usage(e.to_string()))
    }

    /// The range of a command that requires it.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn required(self) -> Result<DateRange, Stop> {
        self.range()?.ok_or_else(|| Stop::Usage("give --from and --to".into()))
    }
}

/// A range that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// It ends before it begins.
    #[error("the range ends before it begins: --from {0} is after --to {1}")]
    Reversed(String, String),
    /// It is too long.
    #[error(
        "the range from {first} to {last} has {}, and a range has at most {MAX_DAYS}: give --from and --to",
        counted(*days, "day")
    )]
    TooLong {
        /// The first date.
        first: String,
        /// The last date.
        last: String,
        /// Its days.
        days: i64,
    },
}

/// Consecutive dates, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateRange {
    first: NaiveDate,
    last: NaiveDate,
}

impl DateRange {
    /// The dates from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`InvalidRange`].
    pub fn new(first: NaiveDate, last: NaiveDate) -> Result<Self, InvalidRange> {
        let days = (last - first).num_days() + 1;
        let (from, to) = (date_text(first), date_text(last));
        match days {
            ..=0 => Err(InvalidRange::Reversed(from, to)),
            1..=MAX_DAYS => Ok(DateRange { first, last }),
            _ => Err(InvalidRange::TooLong { first: from, last: to, days }),
        }
    }

    /// A single date.
    pub fn one(date: NaiveDate) -> Self {
        DateRange { first: date, last: date }
    }

    /// The dates in order.
    pub fn dates(self) -> impl Iterator<Item = NaiveDate> {
        self.first.iter_days().take_while(move |date| *date <= self.last)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn range(first: &str, last: &str) -> Result<Vec<String>, String> {
        let (first, last) = (parse(first).unwrap(), parse(last).unwrap());
        let range = DateRange::new(first, last).map_err(|e| e.to_string())?;
        Ok(range.dates().map(date_text).collect())
    }

    #[test]
    fn a_range_has_both_ends_and_all_dates_between() {
        assert_eq!(range("20170227", "20170227").unwrap(), ["20170227"]);
        let leap = ["20160228", "20160229", "20160301"];
        assert_eq!(range("20160228", "20160301").unwrap(), leap);
        assert_eq!(range("20161231", "20170101").unwrap().len(), 2);
        assert_eq!(range("20100101", "20200107").unwrap().len(), 3_659);
        let date = parse("20170227").unwrap();
        assert_eq!(DateRange::one(date).dates().collect::<Vec<_>>(), [date]);
    }

    #[test]
    fn the_name_of_a_job_has_the_time_of_its_schedule() {
        // `date -u -d 2017-02-28T03:30Z +%s` is 1488252600.
        let time = scheduled_time("tally-daily-24804210").unwrap();
        assert_eq!(time.to_rfc3339(), "2017-02-28T03:30:00+00:00");
        for name in [
            "tally-daily",
            "tally-daily-1",
            "again-20170227x",
            "24804210",
            "",
            "tally--2480421",
            "tally-+2480421x",
        ] {
            assert_eq!(scheduled_time(name), None, "{name}");
        }
    }

    #[test]
    fn a_reversed_or_very_long_range_is_an_error() {
        let error = range("20170228", "20170227").unwrap_err();
        assert!(error.contains("--from 20170228 is after --to 20170227"), "{error}");
        assert_eq!(range("20100101", "20200108").unwrap().len(), 3_660);
        let error = range("20100101", "20200109").unwrap_err();
        assert!(error.contains("has 3,661 days") && error.contains("at most 3660"), "{error}");
        assert!(range("00010101", "99991231").is_err());
    }

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        range: RangeArgs,
    }

    #[test]
    fn both_ends_are_given_or_none() {
        let parsed = |line: &[&str]| {
            Program::try_parse_from(["tally"].iter().chain(line)).map(|program| program.range)
        };
        assert_eq!(parsed(&[]).unwrap().range().unwrap(), None);
        assert!(parsed(&[]).unwrap().required().is_err());
        let both = parsed(&["--from", "20170226", "--to", "20170227"]).unwrap();
        assert_eq!(both.required().unwrap().dates().count(), 2);
        assert!(parsed(&["--from", "20170226"]).unwrap_err().to_string().contains("--to"));
        let bad = parsed(&["--from", "2017-02-26", "--to", "20170227"]).unwrap_err().to_string();
        assert!(bad.contains("write YYYYMMDD"), "{bad}");
    }
}
