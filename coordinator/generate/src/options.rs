//! The options of a day, and their valid values. Not here: any I/O.

use std::path::PathBuf;

use chrono::NaiveDate;

use crate::GenerateError;

/// Maximum number of clients: the output's `n_clients` is a 32-bit integer and counts the null and the overactive client,
/// too.
const MAX_CLIENTS: u64 = i32::MAX as u64 - 2;
/// Maximum number of distinct add-ons; their names are kept in memory (about 80 bytes each).
const MAX_ADDONS: u32 = 1_000_000;
/// Maximum average number of pings per client.
const MAX_PINGS: f64 = 10_000.0;

/// One day to generate. `Default` is a small day without an output folder, so set `output` at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The folder for `main_summary/v3/...` and `addons/v2/...`. The totals are written next to it.
    pub output: PathBuf,
    /// Number of ordinary clients, without the null client and the [`Overactive`] one.
    pub clients: u64,
    /// The day, as YYYYMMDD.
    pub date: String,
    /// The same seed and options give the same bytes, for any number of threads.
    pub seed: u64,
    /// Write only the columns that the job reads. The values are those of the wide day.
    pub narrow: bool,
    /// Mean number of pings per client, before the minimum of one ping and the few overactive clients: slightly below the
    /// actual mean.
    pub pings: f64,
    /// Number of distinct add-ons besides the 8 system add-ons; their popularity is Pareto-distributed.
    pub addons: u32,
    /// An additional, extreme client.
    pub overactive: Option<Overactive>,
    /// Distribute the pings over all files by a hash, so that the day of a client is in many files and folders are not
    /// samples.
    pub shuffle: bool,
    /// Number of threads; `None` for one per core. Each thread needs memory.
    pub threads: Option<usize>,
    /// Whether files of the same day in the output folder are removed first; without it they are an error.
    pub replace: bool,
}

/// A client that sends `pings` pings with the same `addons` active add-ons in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overactive {
    /// Number of pings of this client, at least 1. In an unshuffled day they are in one file, with 8 bytes of memory each.
    pub pings: u32,
    /// Number of distinct add-ons in each ping, 1 to [`Options::addons`].
    pub addons: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            output: PathBuf::new(),
            clients: 100_000,
            date: "20170227".into(),
            seed: 1,
            narrow: false,
            pings: 3.0,
            addons: 20_000,
            overactive: None,
            shuffle: false,
            threads: None,
            replace: false,
        }
    }
}

impl Options {
    /// Checks all options and returns the date.
    ///
    /// # Errors
    /// [`GenerateError::Option`] names the first invalid option and its valid values.
    pub fn validate(&self) -> Result<NaiveDate, GenerateError> {
        let require = |good: bool, option, value: &dyn std::fmt::Display, rule| {
            if good { Ok(()) } else { Err(GenerateError::Option { option, value: value.to_string(), rule }) }
        };
        let output = self.output.display();
        require(!self.output.as_os_str().is_empty(), "output", &output, "name the folder to write into")?;
        let clients = (1..=MAX_CLIENTS).contains(&self.clients);
        require(clients, "clients", &self.clients, "must be from 1 to 2147483645")?;
        let pings = self.pings > 0.0 && self.pings <= MAX_PINGS;
        require(pings, "pings", &self.pings, "must be above 0 and at most 10000")?;
        let addons = (1..=MAX_ADDONS).contains(&self.addons);
        require(addons, "addon-ids", &self.addons, "must be from 1 to 1000000")?;
        if let Some(Overactive { pings, addons }) = self.overactive {
            require(pings > 0, "overactive-pings", &pings, "must be at least 1")?;
            let fits = (1..=self.addons).contains(&addons);
            require(fits, "overactive-addons", &addons, "must be from 1 to the number of add-ons")?;
        }
        require(self.threads != Some(0), "threads", &0, "must be at least 1")?;
        let digits = self.date.len() == 8 && self.date.bytes().all(|b| b.is_ascii_digit());
        let date = NaiveDate::parse_from_str(&self.date, "%Y%m%d").ok().filter(|_| digits);
        date.ok_or_else(|| GenerateError::Option {
            option: "date",
            value: self.date.clone(),
            rule: "must be a date as YYYYMMDD",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> &'static str {
        let mut options = Options { output: "day".into(), ..Options::default() };
        options.validate().unwrap();
        change(&mut options);
        match options.validate() {
            Err(GenerateError::Option { option, .. }) => option,
            other => panic!("expected a refused option, got {other:?}"),
        }
    }

    #[test]
    fn options_that_make_no_day_are_refused_by_name() {
        assert_eq!(refused(|o| o.output = PathBuf::new()), "output");
        assert_eq!(refused(|o| o.clients = 0), "clients");
        assert_eq!(refused(|o| o.clients = 1 << 31), "clients");
        assert_eq!(refused(|o| o.pings = 0.0), "pings");
        assert_eq!(refused(|o| o.pings = f64::NAN), "pings");
        assert_eq!(refused(|o| o.addons = 0), "addon-ids");
        assert_eq!(refused(|o| o.overactive = Some(Overactive { pings: 0, addons: 1 })), "overactive-pings");
        assert_eq!(
            refused(|o| o.overactive = Some(Overactive { pings: 1, addons: 20_001 })),
            "overactive-addons"
        );
        assert_eq!(refused(|o| o.threads = Some(0)), "threads");
        for date in ["2017022", "201702277", "20170229", "20171301", "2017-2-7", "+2017022", ""] {
            assert_eq!(refused(|o| o.date = date.into()), "date", "{date}");
        }
    }
}
