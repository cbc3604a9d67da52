//! Days of files from many writers give the output of DuckDB, on a cluster of three workers.

use anyhow::Result;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::writers::Days;

fn days_of_many_writers_give_what_duckdb_says_on_a_cluster() -> Result<()> {
    let days = Days::new("101-106")?;
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        days.check(|day, place, flags| {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            client.submit_command(day, place, &flags).run()?.summary()
        })
    })
}

tally_tests::tests![days_of_many_writers_give_what_duckdb_says_on_a_cluster];
