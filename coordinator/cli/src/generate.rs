//! `tally generate`: the command line of the generator.
//!
//! Not here: the generator (`tally-generate`).

use std::path::PathBuf;

use clap::Args;
use tally_common::local_dir;
use tally_coordinator::summary::grouped;
use tally_generate::{Options, Overactive};

use crate::{Stop, say};

/// Arguments of `tally generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Number of clients, not counting the null client
    #[arg(long, value_name = "N")]
    clients: u64,
    /// Local folder for addons/v2 and main_summary/v3; the totals are written to DIR.totals.json
    #[arg(long, value_name = "DIR", value_parser = local_dir::parser())]
    output: PathBuf,
    /// The date of the day
    #[arg(long, value_name = "YYYYMMDD", default_value = "20170227")]
    date: String,
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
    addons: u32,
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
        addons: args.addons,
        overactive: overactive.map(|(pings, addons)| Overactive { pings, addons }),
        shuffle: args.shuffle,
        threads: args.threads,
    };
    options.validate().map_err(|e| Stop::Usage(e.to_string()))?;
    let totals = tally_generate::generate(&options, &|_| ()).map_err(|e| Stop::Failed(e.to_string()))?;
    say(&format!(
        "{} pings and {} add-on rows of {} in {}; a correct result has {} rows\n",
        grouped(totals.main_summary_rows),
        grouped(totals.addons_rows),
        totals.date,
        args.output.display(),
        grouped(totals.rows)
    ))
}
