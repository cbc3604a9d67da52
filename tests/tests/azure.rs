//! Days that are read from and written to Azure Blob Storage, through Azurite.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tally_tests::azurite::{Azurite, CONTAINER, KEY, reach};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::s3::proxy::{Fault, Proxy};
use tally_tests::s3::{OUTPUT, check_nothing_left, put_case, put_old_output, read_output};
use tally_tests::table;

fn job(address: SocketAddr, folder: &str, place: &Place) -> Tally {
    let url = |below: &str| format!("az://{CONTAINER}/{below}");
    let run = Tally::new("run").args(["--addons", &url(&format!("{folder}/addons/v2")), "--main-summary"]);
    let run = run.args([url(&format!("{folder}/main_summary/v3"))]).args([
        "--output",
        &url(OUTPUT),
        "--date",
        DATE,
    ]);
    let run = run.args(["--output-format", "json", "--target-file-size", "2KB", "--spill-dir"]);
    reach(run.args([place.spill()]), address)
}

fn golden_cases_go_from_azure_to_azure_and_a_kill_is_made_good() -> Result<()> {
    let azurite = Azurite::start()?;
    let (store, place) = (azurite.client()?, Place::new()?);
    put_old_output(&store)?;
    for name in ["case-03", "case-13-legacy-lists"] {
        let case = put_case(&store, name)?;
        for _ in 0..2 {
            job(azurite.address(), name, &place).run()?.summary().context(name)?;
            table::compare(&read_output(&store)?, &case.expected_rows()?).context(name)?;
            check_nothing_left(&store).context(name)?;
        }
    }
    let case = put_case(&store, "case-05")?;
    let proxy = Proxy::before(azurite.address())?;
    // Before the decision, after it, and between two block lists.
    for (part, skip, fault) in [
        ("/commits/", 0, Fault::Hold),
        ("/commits/", 0, Fault::HoldAnswer),
        ("comp=blocklist", 1, Fault::HoldAnswer),
    ] {
        proxy.break_next("PUT", part, skip, 1, fault);
        let running = job(proxy.address(), "case-05", &place).spawn()?;
        proxy.wait_held(1)?;
        drop(running);
        proxy.heal();
        let gc =
            Tally::new("gc").args(["--older-than", "1ms", "--output", &format!("az://{CONTAINER}/{OUTPUT}")]);
        reach(gc, azurite.address()).run()?.expect_code(0)?;
        check_nothing_left(&store).context(part)?;
        job(azurite.address(), "case-05", &place).run()?.summary().context(part)?;
        table::compare(&read_output(&store)?, &case.expected_rows()?).context(part)?;
    }
    let refused = Tally::new("gc").args(["--output", "az://nowhere/agg"]);
    let refused = reach(refused, azurite.address()).run()?.expect_failure(1, &["ContainerNotFound"])?;
    assert!(!refused.stderr.contains(KEY), "{refused}");
    Ok(())
}

tally_tests::tests![golden_cases_go_from_azure_to_azure_and_a_kill_is_made_good,];
