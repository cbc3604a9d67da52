//! The two references against other programs: both against Spark on every golden case, and the one for large days
//! against the one with nested loops on random small days and against DuckDB on a generated one.

use anyhow::{Context, Result};
use tally_tests::generated::Generated;
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::naive::{self, Aggregates};
use tally_tests::output::Place;
use tally_tests::python::expected_by_duckdb;
use tally_tests::random::{Shape, random_day};
use tally_tests::reference::Reference;
use tally_tests::table;

fn check(found: &Aggregates, case: &Case) -> Result<()> {
    table::compare(&found.rows, &case.expected_rows()?)?;
    let totals = case.totals()?;
    assert_eq!(found.rows.len() as u64, totals.rows);
    assert_eq!(found.n_clients as u64, totals.n_clients);
    assert_eq!(found.n_custom_theme_clients as u64, totals.n_custom_theme_clients);
    Ok(())
}

fn the_references_agree_with_spark() -> Result<()> {
    for name in CASES {
        let case = Case::new(name);
        let day = format!("submission_date_s3={DATE}");
        let main = table::read_main(&case.dir.join("main_summary/v3").join(&day))?;
        let addons = table::read_addons(&case.dir.join("addons/v2").join(&day))?;
        check(&naive::aggregate(&main, &addons), &case).with_context(|| format!("naive, {name}"))?;
        check(&Reference::of_day(&case.dir, DATE)?, &case).with_context(|| format!("reference, {name}"))?;
    }
    Ok(())
}

fn the_references_agree_on_random_days() -> Result<()> {
    for seed in 0..100 {
        let shape = Shape { seed, clients: 20, rows: 9, files: 4, heavy: seed as usize };
        let day = random_day(shape);
        let (main, addons) = (day.main_rows(), day.addon_rows());
        let expected = naive::aggregate(&main, &addons);
        let found = Reference::of_rows(main, addons);
        table::compare(&found.rows, &expected.rows).with_context(|| format!("{shape:?}"))?;
        assert_eq!(found, expected, "{shape:?}");
    }
    Ok(())
}

/// The SQL shares no rule with the Rust code, and DuckDB shares no code with the parquet crate.
fn duckdb_agrees_with_spark_and_the_reference() -> Result<()> {
    let place = Place::new()?;
    let out = place.path().join("expected.parquet");
    for name in CASES {
        let case = Case::new(name);
        let found = expected_by_duckdb(&case.dir, DATE, &out)?;
        table::compare(&found, &case.expected_rows()?).with_context(|| name.to_string())?;
    }
    let day = Generated::new(place.path(), &["--clients", "20000", "--shuffle"])?;
    let expected = Reference::of_day(&day.root, DATE)?;
    assert_eq!(expected.rows.len() as u64, day.totals.rows);
    table::compare(&expected_by_duckdb(&day.root, DATE, &out)?, &expected.rows)
}

tally_tests::tests![
    the_references_agree_with_spark,
    the_references_agree_on_random_days,
    duckdb_agrees_with_spark_and_the_reference,
];
