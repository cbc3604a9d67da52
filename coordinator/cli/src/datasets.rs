//! `tally datasets`: the datasets that this program computes: meaning, inputs, options, output columns, totals, presets.
//!
//! Not here: what a dataset computes (`tally_dataset`).

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use tally_dataset::spec::{FieldRef, type_name};
use tally_dataset::{ColumnSpec, Dataset, FolderSpec, Missing, Preset, TableSpec, registry};
use tally_scan::resolve::kind_name;

use crate::dataset_args::NamedDataset;
use crate::output::{OutputFormat, columns, json};
use crate::table_args::shown_option;
use crate::{Stop, say};

const HELP: &str = "Examples:
  All datasets:
    tally datasets
  One of them, as JSON:
    tally datasets addon_aggregates --output-format json";

/// Arguments of `tally datasets`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DatasetsArgs {
    /// Show only this dataset
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &DatasetsArgs) -> Result<(), Stop> {
    let all: Vec<_> = match &args.name {
        Some(name) => vec![NamedDataset::named(name).map_err(|why| Stop::Usage(why.to_string()))?],
        None => registry::datasets().collect(),
    };
    let default = registry::datasets().next().map(|dataset| dataset.name());
    let report = |dataset: &dyn Dataset| Report::new(dataset, default == Some(dataset.name()));
    let datasets: Vec<Report> = all.iter().map(|dataset| report(&**dataset)).collect();
    match args.output_format {
        OutputFormat::Json => say(&json(&Reports { datasets })?),
        OutputFormat::Table => {
            let texts: Vec<String> = datasets.iter().map(Report::text).collect();
            say(&texts.join("\n"))
        }
    }
}

#[derive(Serialize)]
struct Reports {
    datasets: Vec<Report>,
}

/// A dataset.
#[derive(Serialize)]
struct Report {
    name: &'static str,
    default: bool,
    meaning: &'static str,
    partition_column: &'static str,
    folders: Option<Folders>,
    inputs: Vec<Input>,
    options: Vec<Named>,
    columns: Vec<OutputColumn>,
    totals: Vec<&'static str>,
    presets: Vec<PresetReport>,
}

/// The folders within a day.
#[derive(Serialize)]
struct Folders {
    column: &'static str,
    count: u32,
}

#[derive(Serialize)]
struct Input {
    table: &'static str,
    option: String,
    columns: Vec<InputColumn>,
}

#[derive(Serialize)]
struct InputColumn {
    name: String,
    r#type: &'static str,
    /// A day needs the column in at least one file.
    required: bool,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    meaning: &'static str,
}

#[derive(Serialize)]
struct OutputColumn {
    name: String,
    r#type: String,
    required: bool,
    meaning: &'static str,
}

#[derive(Serialize)]
struct PresetReport {
    name: &'static str,
    inputs: &'static [&'static str],
    output: String,
}

impl Input {
    fn new(table: &TableSpec) -> Self {
        let column = |column: &ColumnSpec| InputColumn {
            name: column.path.join("."),
            r#type: kind_name(column.kind),
            required: column.missing == Missing::Fails,
        };
        let columns = table.columns.iter().map(column).collect();
        Input { table: table.name, option: shown_option(table.name), columns }
    }
}

impl Report {
    fn new(dataset: &dyn Dataset, default: bool) -> Self {
        let schema = dataset.output_schema();
        let column = |field: &FieldRef| OutputColumn {
            name: field.name().clone(),
            r#type: type_name(field.data_type()),
            required: !field.is_nullable(),
            meaning: dataset.column_meaning(field.name()),
        };
        let preset = |preset: &Preset| PresetReport {
            name: preset.name,
            inputs: preset.inputs,
            output: format!("s3://{}/{}", preset.bucket, preset.output),
        };
        Report {
            name: dataset.name(),
            default,
            meaning: dataset.meaning(),
            partition_column: dataset.partition_column(),
            folders: dataset.folders().map(|FolderSpec { column, count }| Folders { column, count }),
            inputs: dataset.tables().iter().map(Input::new).collect(),
            options: dataset
                .options()
                .iter()
                .map(|option| Named { name: option.name, meaning: option.help })
                .collect(),
            columns: schema.fields().iter().map(column).collect(),
            totals: dataset.totals().iter().map(|total| total.name).collect(),
            presets: dataset.presets().iter().map(preset).collect(),
        }
    }

    /// The dataset for people.
    fn text(&self) -> String {
        let mut out = format!("{}{}\n", self.name, if self.default { " (default)" } else { "" });
        // Writing to a string does not fail.
        let mut add = |text: &str| {
            let _ = writeln!(out, "  {text}");
        };
        if !self.meaning.is_empty() {
            add(self.meaning);
        }
        let mut section = |title: String, rows: Vec<[String; 3]>| {
            add("");
            add(&title);
            columns(&rows).lines().for_each(|line| add(&format!("  {line}")));
        };
        let required = |is: bool| if is { "required" } else { "" }.to_string();
        for input in &self.inputs {
            let row =
                |column: &InputColumn| [column.name.clone(), column.r#type.into(), required(column.required)];
            section(
                format!("input {}, {}", input.table, input.option),
                input.columns.iter().map(row).collect(),
            );
        }
        if !self.options.is_empty() {
            let row = |option: &Named| [option.name.into(), option.meaning.into(), String::new()];
            section("options, --dataset-option NAME=FILE".into(), self.options.iter().map(row).collect());
        }
        let row = |column: &OutputColumn| {
            let kind = format!("{}{}", column.r#type, if column.required { ", required" } else { "" });
            [column.name.clone(), kind, column.meaning.into()]
        };
        section(format!("output {}", self.place()), self.columns.iter().map(row).collect());
        if !self.totals.is_empty() {
            let row = |total: &&str| [total.to_string(), String::new(), String::new()];
            section("totals of a day".into(), self.totals.iter().map(row).collect());
        }
        for preset in &self.presets {
            let input = |(input, url): (&Input, &&str)| [input.table.into(), url.to_string(), String::new()];
            let mut rows: Vec<[String; 3]> = self.inputs.iter().zip(preset.inputs).map(input).collect();
            rows.push(["output".into(), preset.output.clone(), String::new()]);
            section(format!("preset {}", preset.name), rows);
        }
        out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// Where part files are below the root of the output.
    fn place(&self) -> String {
        let folder = self.folders.as_ref().map(|Folders { column, count }| {
            let last = count.saturating_sub(1);
            format!("{column}=N/ for each N from 0 to {last}")
        });
        format!("{}=YYYYMMDD/{}", self.partition_column, folder.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    #[test]
    fn a_dataset_is_shown_with_all_that_a_job_needs_and_makes() {
        let report = Report::new(&AddonAggregates::new(), true);
        let text = report.text();
        assert!(text.starts_with("addon_aggregates (default)\n  One row per client"), "{text}");
        for words in [
            "\n  input addons, --addons URL\n    client_id ",
            "active_addons.install_day",
            "\n  output submission_date_s3=YYYYMMDD/\n",
            "count                   long, required     distinct active add-ons",
            "\n  totals of a day\n    n_clients\n",
            "\n  preset telemetry\n",
        ] {
            assert!(text.contains(words), "{words:?}: {text}");
        }
        assert!(!text.contains("options") && !text.lines().any(|line| line.ends_with(' ')), "{text}");
        let folders = Some(Folders { column: "sample_id", count: 100 });
        let options = vec![Named { name: "list", meaning: "a list" }];
        let text = Report { folders, options, default: false, ..report }.text();
        let place = "output submission_date_s3=YYYYMMDD/sample_id=N/ for each N from 0 to 99\n";
        assert!(text.contains(place) && text.contains("NAME=FILE\n    list  a list\n"), "{text}");
    }

    #[test]
    fn every_column_of_the_built_in_datasets_has_a_meaning() {
        for dataset in registry::datasets() {
            let report = Report::new(&*dataset, false);
            assert!(!report.meaning.is_empty(), "{}", report.name);
            let silent = report.columns.iter().find(|column| column.meaning.is_empty());
            assert!(silent.is_none(), "{}: {:?}", report.name, silent.map(|column| &column.name));
        }
    }
}
