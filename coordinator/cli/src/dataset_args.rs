//! The dataset of a command, and the locations of its inputs and its output: options of their own, or a preset. No
//! location is a default, so that a command reads and writes only places that were named.
//!
//! Not here: the roots of single tables (`table_args`), the day and the other options of a job (`job_args`).

use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tally_common::config::variable_of;
use tally_common::environment;
use tally_coordinator::plan::days::Roots;
use tally_dataset::{Dataset, Preset, registry};

use crate::Stop;
use crate::table_args::{TableArgs, shown_option};

/// A dataset, its inputs and its output.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    #[command(flatten)]
    tables: TableArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A dataset by its name.
#[derive(Debug, Args)]
pub struct NamedDataset {
    /// The name of the dataset
    #[arg(long, value_name = "NAME", default_value_t = default_text(|dataset| dataset.name().into()))]
    dataset: String,
}

/// There is no dataset of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no dataset {name:?}; the datasets are: {names}")]
pub(crate) struct UnknownDataset {
    name: String,
    names: String,
}

/// A dataset and its output.
#[derive(Debug, Args)]
pub struct OutputArgs {
    #[command(flatten)]
    named: NamedDataset,
    #[arg(
        long,
        value_name = "URL",
        value_parser = NonEmptyStringValueParser::new(),
        help = default_text(output_help)
    )]
    output: Option<String>,
    #[arg(long, value_name = "NAME", help = default_text(preset_help))]
    preset: Option<String>,
}

/// A dataset with the URLs of its inputs, in its order, and of its output.
pub(crate) struct DatasetPlace {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) inputs: Vec<String>,
    pub(crate) output: String,
}

impl DatasetPlace {
    /// The roots of inputs and output.
    pub(crate) fn roots(&self) -> Roots<'_> {
        Roots { dataset: &*self.dataset, inputs: &self.inputs, output: &self.output }
    }
}

/// A text about the default dataset.
pub(crate) fn default_text(text: impl Fn(&dyn Dataset) -> String) -> String {
    registry::datasets().next().map(|dataset| text(&*dataset)).unwrap_or_default()
}

fn output_help(dataset: &dyn Dataset) -> String {
    let column = dataset.partition_column();
    format!("Root of the output; the day is stored below it, in the folder {column}=YYYYMMDD")
}

fn preset_help(dataset: &dyn Dataset) -> String {
    let locations = |preset: &Preset| {
        let Preset { name, inputs, output, bucket } = preset;
        let inputs = inputs.join(" and ");
        format!("{name}: {inputs}, output s3://$bucket/{output}, where $bucket defaults to {bucket}")
    };
    let all: Vec<String> = dataset.presets().iter().map(locations).collect();
    format!("Locations that are not given otherwise. {}", all.join("; "))
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    environment::text(name)
}

impl DatasetArgs {
    /// The dataset and its URLs, which are not checked.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn place(&self) -> Result<DatasetPlace, Stop> {
        let dataset = self.output.named.get()?;
        let preset = self.output.preset(&*dataset)?;
        let given = self.tables.roots(&*dataset)?;
        let mut missing = vec![];
        let mut inputs = vec![];
        for (at, (table, root)) in dataset.tables().iter().zip(given).enumerate() {
            let root = root.or_else(|| preset?.inputs.get(at).map(|root| root.to_string()));
            match root {
                Some(root) => inputs.push(root),
                None => missing.push((shown_option(table.name), format!("root of the table {}", table.name))),
            }
        }
        match self.output.url(preset) {
            Some(output) if missing.is_empty() => Ok(DatasetPlace { dataset, inputs, output }),
            Some(_) => Err(nowhere(&*dataset, &missing)),
            None => {
                missing.push(missing_output());
                Err(nowhere(&*dataset, &missing))
            }
        }
    }
}

/// The option of the output, and its meaning.
fn missing_output() -> (String, String) {
    ("--output URL".into(), "root of the output".into())
}

impl NamedDataset {
    /// The dataset.
    ///
    /// # Errors
    /// [`Stop::Usage`]: there is no such dataset.
    pub(crate) fn get(&self) -> Result<Arc<dyn Dataset>, Stop> {
        Self::named(&self.dataset).map_err(|why| Stop::Usage(format!("--dataset: {why}")))
    }

    /// The dataset of that name.
    ///
    /// # Errors
    /// [`UnknownDataset`].
    pub(crate) fn named(name: &str) -> Result<Arc<dyn Dataset>, UnknownDataset> {
        registry::dataset(name).ok_or_else(|| {
            let names: Vec<_> = registry::datasets().map(|dataset| dataset.name()).collect();
            UnknownDataset { name: name.into(), names: names.join(", ") }
        })
    }
}

impl OutputArgs {
    /// The dataset and the URL of its output, which is not checked.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn place(&self) -> Result<(Arc<dyn Dataset>, String), Stop> {
        let dataset = self.named.get()?;
        let output = self.url(self.preset(&*dataset)?);
        let output = output.ok_or_else(|| nowhere(&*dataset, &[missing_output()]))?;
        Ok((dataset, output))
    }

    /// The URL of the output, from the option or the preset.
    fn url(&self, preset: Option<&Preset>) -> Option<String> {
        let bucket = |preset: &Preset| variable("bucket").unwrap_or_else(|| preset.bucket.into());
        let of_preset = || preset.map(|preset| format!("s3://{}/{}", bucket(preset), preset.output));
        self.output.clone().or_else(of_preset)
    }

    fn preset<'a>(&self, dataset: &'a dyn Dataset) -> Result<Option<&'a Preset>, Stop> {
        let Some(wanted) = &self.preset else { return Ok(None) };
        let found = dataset.presets().iter().find(|preset| preset.name == wanted.as_str());
        let name = dataset.name();
        let unknown = || match names(dataset) {
            names if names.is_empty() => format!("--preset {wanted:?}: {name} has no presets"),
            names => format!("--preset: {name} has no preset {wanted:?}; its presets are: {names}"),
        };
        found.map(Some).ok_or_else(|| Stop::Usage(unknown()))
    }
}

/// The names of the presets.
fn names(dataset: &dyn Dataset) -> String {
    let names: Vec<_> = dataset.presets().iter().map(|preset| preset.name).collect();
    names.join(", ")
}

/// The error for locations that no source gives: options and their meaning.
fn nowhere(dataset: &dyn Dataset, missing: &[(String, String)]) -> Stop {
    let width = missing.iter().map(|(option, _)| option.len()).max().unwrap_or(0);
    let lines: String =
        missing.iter().map(|(option, what)| format!("\n  {option:<width$}  {what}")).collect();
    let variables: Vec<String> = missing
        .iter()
        .filter_map(|(option, _)| option.strip_prefix("--")?.split(' ').next())
        .map(variable_of)
        .collect();
    let variables = variables.join(", ");
    let preset = match names(dataset) {
        names if names.is_empty() => String::new(),
        names => format!(", or name a set of locations with --preset ({names})"),
    };
    Stop::Usage(format!(
        "the locations of {} are not given:{lines}\nhint: give paths or URLs as options, in the environment \
         ({variables}) or in the file of --config{preset}",
        dataset.name()
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        place: DatasetArgs,
    }

    fn place(line: &[&str]) -> Result<(Vec<String>, String), String> {
        let place = Program::parse_from(["tally"].iter().chain(line)).place.place();
        place.map(|place| (place.inputs, place.output)).map_err(|stop| stop.report().0)
    }

    #[test]
    fn no_location_is_a_default() {
        let error = place(&[]).unwrap_err();
        for words in ["--addons URL", "--main-summary URL", "--output URL", "--preset (telemetry)"] {
            assert!(error.contains(words), "{error}");
        }
        assert!(error.contains("TALLY_ADDONS, TALLY_MAIN_SUMMARY, TALLY_OUTPUT"), "{error}");
        let error = place(&["--addons", "/a", "--output", "/o"]).unwrap_err();
        assert!(error.contains("--main-summary URL  root of the table main_summary"), "{error}");
        assert!(!error.contains("--addons URL") && !error.contains("--output URL"), "{error}");
    }

    #[test]
    fn an_empty_location_is_an_error_that_names_the_option() {
        for option in ["--addons", "--output"] {
            let error = Program::try_parse_from(["tally", option, ""]).err().unwrap().to_string();
            assert!(error.contains(option), "{error}");
        }
    }

    /// The locations of the seed's program.
    #[test]
    fn a_preset_gives_what_is_not_given_otherwise() {
        let [addons, main] = ["s3://telemetry-parquet/addons/v2", "s3://telemetry-parquet/main_summary/v3"];
        let output = "s3://telemetry-parquet/addons/agg/v1";
        let both = |inputs: [&str; 2], output: &str| Ok((inputs.map(String::from).to_vec(), output.into()));
        assert_eq!(place(&["--preset", "telemetry"]), both([addons, main], output));
        assert_eq!(place(&["--preset", "telemetry", "--addons", "/a"]), both(["/a", main], output));
        assert_eq!(place(&["--output", "/o", "--preset", "telemetry"]), both([addons, main], "/o"));
        let error = place(&["--preset", "production"]).unwrap_err();
        assert!(error.contains("no preset \"production\"; its presets are: telemetry"), "{error}");
    }
}
