//! `tally cancel ID`: cancels a job. Not here: waiting for its end.

use tally_common::runtime::block_on;

use crate::connect::runtime;
use crate::job::JobIdArgs;
use crate::{Stop, say, show};

/// Runs the command.
pub(crate) fn main(args: &JobIdArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let job = block_on(&runtime()?, client.cancel(&args.id))?;
    show::cancelled(&job)?;
    say(&show::job(&job, args.output_format)?)
}
