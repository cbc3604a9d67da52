//! `tally generate`: the command line of the generator.

use std::path::PathBuf;

use clap::Args;
use tally_generate::{Options, Overactive};

use super::{Stop, say};
use crate::summary::grouped;

/// Arguments of `tally generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Clients of the day; the null client comes on top
    #[arg(long, value_name = "N")]
    clients: u64,
    /// Folder that gets addons/v2 and main_summary/v3; the totals go beside it, into DIR.totals.json
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The day
    #[arg(long, value_name = "YYYYMMDD", default_value = "20170227")]
    date: String,
    /// The same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write only the columns that the job reads
    #[arg(long)]
    narrow: bool,
    /// Pings a client, on average
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    pings: f64,
    /// Add-ons that exist
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    addons: u32,
    /// Pings of one extreme client more
    #[arg(long, value_name = "N", requires = "overactive_addons")]
    overactive_pings: Option<u32>,
    /// Add-ons in each ping of that client
    #[arg(long, value_name = "N", requires = "overactive_pings")]
    overactive_addons: Option<u32>,
    /// Spread the rows over all files, so that no client's are together
    #[arg(long)]
    shuffle: bool,
    /// Threads to write with [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
pub(super) fn main(args: &GenerateArgs) -> Result<(), Stop> {
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
        "{} pings and {} add-on rows of {} in {}; a right result has {} rows\n",
        grouped(totals.main_summary_rows),
        grouped(totals.addons_rows),
        totals.date,
        args.output.display(),
        grouped(totals.rows)
    ))
}
