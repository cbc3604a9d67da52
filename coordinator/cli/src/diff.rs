//! `tally diff`: whether two published days have the same rows, and the first keys that differ.
//!
//! Not here: the comparison (`tally_coordinator::audit`).

use std::fmt::Write;

use chrono::NaiveDate;
use clap::Args;
use tally_common::counts::counted;
use tally_common::runtime::block_on;
use tally_coordinator::audit::{self, Comparison, DayLocation, RowValues, Side};
use tally_coordinator::dates::date_text;
use tally_coordinator::summary::{bytes, grouped};

use crate::audit_args::AuditArgs;
use crate::connect::runtime;
use crate::dataset_args::NamedDataset;
use crate::dates;
use crate::output::{OutputFormat, json, plain};
use crate::{Stop, say};

const HELP: &str =
    "Days are compared as multisets: the number, size and order of files and rows do not matter.

Exit codes:
  0  the days have the same rows
  1  they differ
  2  invalid arguments
  7  a day cannot be read, or does not exist

Examples:
  One date in two outputs:
    tally diff aggregates aggregates-new --date 20170227
  Two folders of days, for example the output of Spark and of Tally:
    tally diff spark/submission_date_s3=20170227 s3://bucket/aggregates/submission_date_s3=20170227";

/// Arguments of `tally diff`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DiffArgs {
    /// The first day: the URL of its folder, or with --date the root of an output
    #[arg(value_name = "A")]
    a: String,
    /// The second day
    #[arg(value_name = "B")]
    b: String,
    /// Compare this date of the outputs A and B
    #[arg(long, value_name = "YYYYMMDD", value_parser = dates::parse)]
    date: Option<NaiveDate>,
    #[command(flatten)]
    dataset: NamedDataset,
    /// Number of differing keys to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    limit: u16,
    #[command(flatten)]
    audit: AuditArgs,
    /// Output format of the result
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &DiffArgs) -> Result<(), Stop> {
    let dataset = args.dataset.get()?;
    let day = |url: &str| match args.date {
        Some(date) => DayLocation::of_date(&*dataset, url, &date_text(date)),
        None => DayLocation::of_folder(url),
    };
    let (a, b, limits) = (day(&args.a), day(&args.b), args.audit.limits()?);
    let compared = audit::compare(dataset, [&a, &b], &limits, usize::from(args.limit));
    let compared = block_on(&runtime()?, compared)?;
    say(&match args.output_format {
        OutputFormat::Json => json(&compared)?,
        OutputFormat::Table => table(&compared),
    })?;
    match compared.equal {
        true => Ok(()),
        false => Err(Stop::Failed(format!("the days differ: {}", sizes(&compared)))),
    }
}

/// The size of a difference.
fn sizes(found: &Comparison) -> String {
    let mut parts = vec![];
    if found.differing_keys > 0 {
        let (a, b) = (counted(found.rows_only_in_a, "row"), counted(found.rows_only_in_b, "row"));
        let (keys, column) = (counted(found.differing_keys, "value"), found.key_column);
        parts.push(format!("{a} only in A, {b} only in B, of {keys} of {column}"));
    }
    if !found.constants.is_empty() {
        let columns: Vec<&str> = found.constants.iter().map(|constant| constant.column.as_str()).collect();
        parts.push(format!("other {}", columns.join(", ")));
    }
    parts.join("; ")
}

fn table(found: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let side = |name: &str, side: &Side| {
        let Side { url, files, bytes: size, rows } = side;
        let (files, rows) = (counted(*files, "file"), counted(*rows, "row"));
        format!("{name}: {}  {files}, {}, {rows}", plain(url), bytes(*size))
    };
    line(side("A", &found.a));
    line(side("B", &found.b));
    if found.equal {
        line("equal".into());
        return out;
    }
    line(format!("different: {}", sizes(found)));
    for constant in &found.constants {
        line(format!("\n{} of the day: {} in A, {} in B", constant.column, constant.a, constant.b));
    }
    for key in &found.first {
        line(format!("\n{} {}", found.key_column, plain(&key.key.to_string())));
        let rows =
            key.only_in_a.iter().map(|row| ("A", row)).chain(key.only_in_b.iter().map(|row| ("B", row)));
        for (name, row) in rows {
            line(format!("  only in {name}: {}", plain(&values(row, found.key_column))));
        }
    }
    let more = found.differing_keys.saturating_sub(found.first.len() as u64);
    if more > 0 {
        line(format!("\nand {} more: --limit shows them", grouped(more)));
    }
    out
}

/// The values of a row without the key.
fn values(row: &RowValues, key: &str) -> String {
    let values = row.0.iter().filter(|(column, _)| column != key);
    values.map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tally_coordinator::audit::{ConstantDifference, KeyDifference};

    use super::*;

    #[test]
    fn the_table_shows_the_first_keys_that_differ() {
        let side = |rows| Side { url: "out/day".into(), files: 2, bytes: 10, rows };
        let row = |count: i64| {
            let values = [("client_id", json!("c")), ("count", json!(count)), ("user_type", json!(null))];
            RowValues(values.map(|(name, value)| (name.to_string(), value)).to_vec())
        };
        let equal = Comparison {
            dataset: "addon_aggregates",
            key_column: "client_id",
            equal: true,
            a: side(7),
            b: side(7),
            constants: vec![],
            rows_only_in_a: 0,
            rows_only_in_b: 0,
            differing_keys: 0,
            first: vec![],
        };
        assert!(table(&equal).ends_with("7 rows\nequal\n"));
        let constant = ConstantDifference { column: "n_clients".into(), a: json!(5), b: json!(6) };
        let key = KeyDifference { key: json!("c"), only_in_a: vec![row(1)], only_in_b: vec![row(2)] };
        let different = Comparison {
            equal: false,
            constants: vec![constant],
            rows_only_in_a: 2,
            rows_only_in_b: 1,
            differing_keys: 2,
            first: vec![key],
            ..equal
        };
        let expect = "different: 2 rows only in A, 1 row only in B, of 2 values of client_id; other n_clients

n_clients of the day: 5 in A, 6 in B

client_id \"c\"
  only in A: count=1 user_type=null
  only in B: count=2 user_type=null

and 1 more: --limit shows them
";
        let text = table(&different);
        assert!(text.ends_with(expect), "{text}");
    }
}
