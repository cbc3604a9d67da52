//! `tally verify`: whether a published day is what its job published.
//!
//! Not here: what is checked (`tally_coordinator::audit`).

use clap::Args;
use tally_common::counts::counted;
use tally_common::runtime::block_on;
use tally_coordinator::audit::{self, DayReport};
use tally_coordinator::dates::date_text;
use tally_coordinator::summary::{bytes, figure_line, grouped};

use crate::audit_args::AuditArgs;
use crate::connect::runtime;
use crate::dataset_args::OutputArgs;
use crate::job_args::DateArgs;
use crate::output::{OutputFormat, json, plain};
use crate::{Stop, say};

const HELP: &str = "Exit codes:
  0  the day is what its job published
  1  a value was changed, a file is missing or foreign, or a footer or row is wrong
  2  invalid arguments
  7  the day cannot be read, or does not exist

Examples:
  A day on disk:
    tally verify --output aggregates --date 20170227
  A day in a bucket, for a program:
    tally verify --output s3://bucket/aggregates --date 20170227 --output-format json";

/// Arguments of `tally verify`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct VerifyArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    date: DateArgs,
    #[command(flatten)]
    audit: AuditArgs,
    /// Output format of the report
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &VerifyArgs) -> Result<(), Stop> {
    let (dataset, output) = args.output.place()?;
    let (date, limits) = (date_text(args.date.date()?), args.audit.limits()?);
    let report = block_on(&runtime()?, audit::verify(dataset, &output, &date, &limits))?;
    say(&match args.output_format {
        OutputFormat::Json => json(&report)?,
        OutputFormat::Table => table(&report),
    })?;
    match report.valid {
        true => Ok(()),
        false => {
            let (url, problems) = (&report.url, report.findings_count);
            let noun = if problems == 1 { "problem" } else { "problems" };
            Err(Stop::Failed(format!("{url} is not what its job published: {problems} {noun}")))
        }
    }
}

fn table(report: &DayReport) -> String {
    let mut out = format!("{}\n\n", report.url);
    let mut line = |name: &str, value: String| out.push_str(&figure_line(name, &value));
    line("files", grouped(report.files as u64));
    line("bytes", bytes(report.bytes));
    line("rows", grouped(report.rows));
    line("distinct keys", grouped(report.distinct_keys));
    for (name, value) in &report.totals.0 {
        line(name, grouped(*value));
    }
    line("checksum", report.checksum.clone());
    if let Some(job) = &report.job_id {
        out.push_str(&format!("  written by job {}\n", plain(job)));
    }
    out.push('\n');
    if report.valid {
        out.push_str("valid: the files, their footers and all rows are those that the job published\n");
        return out;
    }
    for finding in &report.findings {
        let subject = finding.file.as_deref().unwrap_or("the day");
        out.push_str(&format!("{}: {}\n", plain(subject), plain(&finding.problem)));
    }
    let more = report.findings_count - report.findings.len();
    if more > 0 {
        out.push_str(&format!("and {}\n", counted(more, "more problem")));
    }
    out
}

#[cfg(test)]
mod tests {
    use tally_coordinator::audit::Finding;
    use tally_coordinator::summary::NamedTotals;

    use super::*;

    #[test]
    fn the_table_names_files_and_problems() {
        let report = DayReport {
            dataset: "addon_aggregates",
            date: "20170227".into(),
            url: "out/submission_date_s3=20170227".into(),
            valid: true,
            job_id: Some("j".into()),
            files: 2,
            bytes: 10,
            rows: 1234,
            distinct_keys: 9,
            checksum: "00000000000000a1".into(),
            totals: NamedTotals(vec![("n_clients".into(), 12)]),
            findings: vec![],
            findings_count: 0,
        };
        let text = table(&report);
        assert!(text.contains("1,234\n") && text.contains("n_clients") && text.contains("valid: "), "{text}");
        let file = Finding { file: Some("part-0\x1b".into()), problem: "it has 1 row".into() };
        let day = Finding { file: None, problem: "missing file".into() };
        let wrong = DayReport { valid: false, findings: vec![file, day], findings_count: 3, ..report };
        let text = table(&wrong);
        let end = "part-0?: it has 1 row\nthe day: missing file\nand 1 more problem\n";
        assert!(text.ends_with(end) && !text.contains("valid: "), "{text}");
    }
}
