//! Days with files of foreign shapes on a cluster of three real workers: they give the output of Spark, or the expected
//! error, from folders and from S3. In one process: `foreign`.

use anyhow::Result;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::foreign::all;
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{check_nothing_left, day_folder, read_output, submit};

/// Many small tasks, so that all workers take part.
const SMALL_TASKS: [&str; 4] = ["--shard-bytes", "512", "--partitions", "7"];

fn foreign_files_are_read_as_spark_reads_them() -> Result<()> {
    with_cluster(Setup::quick(), |cluster| {
        let client = cluster.client();
        all(|case| {
            let place = Place::new()?;
            let outcome = client.submit_command(&case.day, &place, &SMALL_TASKS).run()?;
            case.check(outcome, || place.read_output(DATE))
        })
    })
}

fn foreign_files_in_s3_are_read_as_spark_reads_them() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let environment = ADMIN.environment(server.address()).to_vec();
    with_cluster(Setup { environment, ..Setup::quick() }, |cluster| {
        let client = cluster.client();
        all(|case| {
            data.put_tree(&case.day, &case.name)?;
            for key in out.list(&day_folder())? {
                out.remove(&key)?;
            }
            let outcome = submit(&client, &case.name).args(SMALL_TASKS).run()?;
            case.check(outcome, || read_output(&out))?;
            check_nothing_left(&out)
        })
    })
}

tally_tests::tests![
    foreign_files_are_read_as_spark_reads_them,
    foreign_files_in_s3_are_read_as_spark_reads_them,
];
