//! Days of files from many writers give the output of DuckDB, in one process with three workers.

use anyhow::Result;
use tally_tests::golden::DATE;
use tally_tests::process::Tally;
use tally_tests::writers::Days;

fn days_of_many_writers_give_what_duckdb_says() -> Result<()> {
    Days::new("1-20")?.check(|day, place, flags| {
        let job = Tally::job(day, place).date(DATE).args(flags);
        job.args(["--workers", "3", "--threads", "3", "--memory-limit", "1GiB"]).run()?.summary()
    })
}

tally_tests::tests![days_of_many_writers_give_what_duckdb_says];
