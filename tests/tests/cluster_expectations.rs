//! `tally submit --expect` on a cluster of real processes: the coordinator checks the day before it decides to publish. In
//! one process: `expectations`.

use anyhow::{Result, ensure};
use serde_json::Value;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{Place, check_unchanged, snapshot};

#[test]
fn the_coordinator_publishes_only_a_day_that_meets_its_expectations() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let (client, place, case) = (cluster.client(), Place::new()?, Case::new("case-05"));
        let rows = case.totals()?.rows;
        place.put_old_output(DATE)?;
        let old = snapshot(&place.published())?;
        let more = format!("rows > {rows}");
        let unmet = client.submit_command(&case.dir, &place, &["--expect", &more]).run()?;
        unmet.expect_failure(6, &["does not meet the expectation", &more, &format!("rows is {rows}")])?;
        check_unchanged(&old, &snapshot(&place.published())?)?;
        let job = client.jobs()?.remove(0);
        let shown =
            client.tally("job").args([&job.job_id, "--output-format", "json"]).run()?.expect_code(0)?;
        let shown: Value = serde_json::from_str(&shown.stdout)?;
        ensure!(shown["state"] == "failed" && shown["unmet_expectation"] == true, "{shown}");
        ensure!(shown["expectations"] == serde_json::json!([more]), "{shown}");
        // Other jobs fail as before.
        let failed = client.submit_undated(&case.dir, &place, &["--date", "20170301"]).run()?;
        failed.expect_failure(1, &["no data files"])?;
        // Null shares are counted by the workers.
        let nulls = case.expected_rows()?.iter().filter(|row| row.foreign_install.is_none()).count();
        let share = format!("null_share(foreign_install) <= {}", nulls as f64 / rows as f64 + 0.0001);
        let flags = ["--expect", &share, "--expect", "rows >= previous", "--partitions", "5"];
        let met = client.submit_command(&case.dir, &place, &flags).run()?.expect_code(0)?;
        ensure!(met.stderr.contains("warning: the expectation `rows >= previous` holds"), "{met}");
        place.read_output(DATE)?;
        Ok(())
    })
}
