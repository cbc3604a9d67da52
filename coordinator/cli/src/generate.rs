//! `tally generate`: the command line of the generator, and its progress. Other commands that generate a day use
//! [`generated`].
//!
//! Not here: the generator (`tally-generate`).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use tally_common::counts::counted;
use tally_common::local_dir;
use tally_generate::samples::{self, SampleTotals, generate_samples};
use tally_generate::{GenerateError, Options, Overactive, Progress, Totals, generate_until};

use crate::output::{OutputFormat, json};
use crate::{Stop, progress, run, say};

const EXAMPLES: &str = "Examples:
  A day of 1,000 clients with only the columns that the job reads:
    tally generate --clients 1000 --narrow --output day --date 20170226
  Another day in the same folder, as JSON:
    tally generate --clients 1000 --narrow --output day --date 20170227 --output-format json
  The same day again, with other random numbers:
    tally generate --clients 1000 --narrow --output day --date 20170227 --seed 2 --replace
  A day of the inputs of another dataset:
    tally generate --clients 1000 --dataset addon_aggregates_v2 --output day2 --date 20180101";

/// The datasets that a day can be generated for, the default first.
const DATASETS: [&str; 2] = [tally_generate::DATASET, samples::DATASET];

/// Arguments of `tally generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    /// Number of clients, not counting the null client
    #[arg(long, value_name = "N")]
    clients: u64,
    /// The dataset whose inputs are generated
    #[arg(long, value_name = "NAME", default_value = DATASETS[0], value_parser = DATASETS)]
    dataset: String,
    /// Local folder for addons/v2 and main_summary/v3, or main_summary/v4; the totals of the day are written
    /// to DIR.DATASET.YYYYMMDD.totals.json
    #[arg(long, value_name = "DIR", value_parser = local_dir::parser())]
    output: PathBuf,
    /// The date of the day
    #[arg(long, value_name = "YYYYMMDD", default_value = "20170227")]
    date: String,
    /// Remove the files of that day in the folder first; without this option they are an error
    #[arg(long)]
    replace: bool,
    /// Seed of the random numbers; the same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write only the columns that the job reads
    #[arg(long)]
    narrow: bool,
    /// Average number of pings per client
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    pings: f64,
    /// Number of distinct add-ons
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    addon_ids: u32,
    /// Number of pings of one additional, extreme client
    #[arg(long, value_name = "N", requires = "overactive_addons")]
    overactive_pings: Option<u32>,
    /// Number of add-ons in each ping of that client
    #[arg(long, value_name = "N", requires = "overactive_pings")]
    overactive_addons: Option<u32>,
    /// Distribute the rows over all files, so that the rows of a client are in many files
    #[arg(long)]
    shuffle: bool,
    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Output format of the totals
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// The totals in JSON.
#[derive(Serialize)]
struct Report<'a, T: Serialize> {
    output: &'a Path,
    #[serde(flatten)]
    totals: &'a T,
}

/// Runs the command.
pub(crate) fn main(args: &GenerateArgs) -> Result<(), Stop> {
    let overactive = args.overactive_pings.zip(args.overactive_addons);
    let options = Options {
        output: args.output.clone(),
        clients: args.clients,
        date: args.date.clone(),
        seed: args.seed,
        narrow: args.narrow,
        pings: args.pings,
        addons: args.addon_ids,
        overactive: overactive.map(|(pings, addons)| Overactive { pings, addons }),
        shuffle: args.shuffle,
        threads: args.threads,
        replace: args.replace,
    };
    if args.dataset != DATASETS[0] {
        return sample_day(args, &options);
    }
    let totals = generated(&options, args.output_format)?;
    match args.output_format {
        OutputFormat::Json => say(&json(&Report { output: &args.output, totals: &totals })?),
        OutputFormat::Table => say(&format!(
            "{} and {} of {} in {}; a correct result has {}\n",
            counted(totals.main_summary_rows, "ping"),
            counted(totals.addons_rows, "add-on row"),
            totals.date,
            args.output.display(),
            counted(totals.rows, "row")
        )),
    }
}

/// Generates a day of `addon_aggregates_v2`.
fn sample_day(args: &GenerateArgs, options: &Options) -> Result<(), Stop> {
    let totals: SampleTotals = shown(options, args.output_format, generate_samples)?;
    match args.output_format {
        OutputFormat::Json => say(&json(&Report { output: &args.output, totals: &totals })?),
        OutputFormat::Table => say(&format!(
            "{} with {} of {} in {}; a correct result has {}\n",
            counted(totals.main_summary_rows, "ping"),
            counted(totals.elements, "add-on"),
            totals.date,
            args.output.display(),
            counted(totals.rows, "row")
        )),
    }
}

/// Generates a day of `addon_aggregates`, and shows the progress.
///
/// # Errors
/// [`Stop`]; in each case the files are removed.
pub(crate) fn generated(options: &Options, format: OutputFormat) -> Result<Totals, Stop> {
    shown(options, format, generate_until)
}

/// Runs a generator, and shows the progress. A request to end the process ends the generator, which removes its files.
///
/// # Errors
/// [`Stop`]; in each case the files are removed.
fn shown<T>(
    options: &Options,
    format: OutputFormat,
    generate: impl FnOnce(&Options, &(dyn Fn(Progress) + Sync), &AtomicBool) -> Result<T, GenerateError>,
) -> Result<T, Stop> {
    options.validate().map_err(|e| Stop::Usage(e.to_string()))?;
    let stop = Arc::<AtomicBool>::default();
    let signals = run::engine_runtime()?;
    let asked = stop.clone();
    signals.spawn(async move {
        run::interrupted().await;
        asked.store(true, Ordering::Relaxed);
    });
    let display = Display::new(format);
    let totals = generate(options, &|progress| display.show(progress), &stop);
    display.clear();
    signals.shutdown_background();
    totals.map_err(|error| match error {
        GenerateError::Stopped => Stop::Detached("the files of the unfinished day are removed".into()),
        error => Stop::Failed(error.to_string()),
    })
}

/// The progress of the generator, on standard error: a bar on a terminal, otherwise a line per quarter.
struct Display {
    bar: Option<ProgressBar>,
    format: OutputFormat,
    /// Quarters that were shown.
    quarters: AtomicU32,
}

/// A line of progress in JSON.
#[derive(Serialize)]
struct Line {
    files: u32,
    all_files: u32,
    main_summary_rows: u64,
    addons_rows: u64,
}

impl Display {
    fn new(format: OutputFormat) -> Self {
        let bar = std::io::stderr().is_terminal().then(progress::bar);
        Display { bar, format, quarters: AtomicU32::new(0) }
    }

    fn show(&self, progress: Progress) {
        let Progress { files, all_files, main_summary_rows, addons_rows } = progress;
        let (rows, addons) = (counted(main_summary_rows, "ping"), counted(addons_rows, "add-on row"));
        let text = format!("{files}/{}  {rows}  {addons}", counted(all_files, "file"));
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(files) * progress::STEPS / u64::from(all_files.max(1)));
            bar.set_message(text);
            return;
        }
        let quarter = files * 4 / all_files.max(1);
        if quarter > self.quarters.fetch_max(quarter, Ordering::Relaxed) {
            let line = Line { files, all_files, main_summary_rows, addons_rows };
            match self.format {
                OutputFormat::Table => eprintln!("generating: {text}"),
                OutputFormat::Json => eprint!("{}", json(&line).unwrap_or_default()),
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
