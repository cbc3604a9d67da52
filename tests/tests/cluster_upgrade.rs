//! A rolling upgrade in the middle of a job: the coordinator first, then every worker in turn. `TALLY_BEFORE` names the
//! folder with the binaries of the previous release, which run until they are replaced; without it every process is
//! replaced by the same binary.
//!
//! Not here: the journal and messages of the previous release (the coordinator's own tests cover both).

use anyhow::{Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::output::Place;

#[test]
fn every_process_is_replaced_during_a_job() -> Result<()> {
    let before = std::env::var_os("TALLY_BEFORE").map(Into::into);
    with_cluster(Setup { before, ..Setup::quick() }, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.2))?;
        let id = job.id.clone();
        cluster.coordinators[0].process.terminate()?;
        cluster.coordinators[0].process.wait_done(DEADLINE)?;
        cluster.coordinators[0].restart()?;
        cluster.release()?;
        for at in 0..3 {
            cluster.workers[at].process.terminate()?;
            cluster.workers[at].process.wait_done(DEADLINE)?;
            cluster.workers[at].restart()?;
        }
        DAY.check_summary(&place, &job.done()?)?;
        let over = cluster.client().job(&id)?;
        ensure!(over.reruns() == 0, "finished tasks were done again: {over:?}");
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}
