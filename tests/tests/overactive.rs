//! One client with more pings than all others together, which once exhausted the memory of such jobs: the rows are
//! right, within a small limit.

use anyhow::Result;
use tally_tests::cluster::truth::Truth;
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;

const MIB: u64 = 1 << 20;

#[test]
fn an_overactive_client_fits_into_a_small_limit() -> Result<()> {
    let place = Place::new()?;
    let flags =
        ["--clients", "2000", "--overactive-pings", "300000", "--overactive-addons", "30", "--narrow"];
    let day = Truth::new(&flags)?;
    let summary = Tally::job(&day.root, &place)
        .date(DATE)
        .args(["--memory-limit", "256MiB", "--threads", "2"])
        .run()?
        .summary()?;
    day.check_summary(&place, &summary)?;
    // A tenth over the limit and 128 MiB for the program itself.
    let bound = 256 * MIB + 256 * MIB / 10 + 128 * MIB;
    assert!(summary.peak_memory_bytes <= bound, "{} bytes at the peak", summary.peak_memory_bytes);
    Ok(())
}
