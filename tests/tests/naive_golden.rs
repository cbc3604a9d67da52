//! The naive reference against what Spark computed for every golden case: whatever it says elsewhere is as good as Spark.

use anyhow::{Context, Result};
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::{naive, table};

#[test]
fn the_naive_reference_agrees_with_spark() -> Result<()> {
    for name in CASES {
        let case = Case::new(name);
        let day = format!("submission_date_s3={DATE}");
        let main = table::read_main(&case.dir.join("main_summary/v3").join(&day))?;
        let addons = table::read_addons(&case.dir.join("addons/v2").join(&day))?;
        let result = naive::aggregate(&main, &addons);
        table::compare(&result.rows, &case.expected_rows()?).context(name)?;
        let totals = case.totals()?;
        assert_eq!(result.rows.len() as u64, totals.rows, "{name}");
        assert_eq!(result.n_clients as u64, totals.n_clients, "{name}");
        assert_eq!(result.n_custom_theme_clients as u64, totals.n_custom_theme_clients, "{name}");
    }
    Ok(())
}
