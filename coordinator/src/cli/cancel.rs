//! `tally cancel ID`: asks for a job's end. Not here: waiting for it.

use super::connect::runtime;
use super::job::JobIdArgs;
use super::{Stop, say, show};

/// Runs the command.
pub(super) fn main(args: &JobIdArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let job = runtime()?.block_on(client.cancel(&args.id))?;
    show::cancelled(&job)?;
    say(&show::job(&job, args.output_format)?)
}
