//! Task messages that state the number of inputs: a worker makes no output of a part of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tally_proto::packed::pack;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::ended::Outcome;
use tally_proto::v1::failure::Kind;
use tally_proto::v1::task_dispatch::Work;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::v1::write_work::Target;

use crate::fake::{Attached, Fake};
use crate::rig::{Agent, golden_file, short};

const MINUTE: Duration = Duration::from_secs(60);

fn attempt(stage: u32, index: u32) -> v1::Attempt {
    v1::Attempt { job: "job".into(), stage, index, attempt: 4096 }
}

/// A map task over one golden file.
pub fn map(index: u32, table: u32, file: &Path) -> Result<v1::TaskDispatch> {
    let url = file.canonicalize()?.to_str().context("the path is not UTF-8")?.to_string();
    let piece =
        v1::InputPiece { url, size: file.metadata()?.len(), row_groups: vec![0], ..Default::default() };
    let work = Work::Map(v1::MapWork { table, partitions: 1, pieces: vec![piece], ..Default::default() });
    Ok(v1::TaskDispatch { attempt: Some(attempt(0, index)), work: Some(work), ..short(0) })
}

async fn run(stream: &mut Attached, dispatch: v1::TaskDispatch) -> Result<Outcome> {
    stream.say(Down::Start(dispatch)).await?;
    stream.ended().await?.outcome.context("no outcome")
}

/// Sends the inputs of reduce tasks: outputs of these map tasks, by table, all held by the worker itself.
async fn tell(stream: &mut Attached, version: u64, indices: [&[u32]; 2]) -> Result<()> {
    let output = |&index: &u32| v1::OutputRef { location: 0, stage: 0, index, attempt: 4096 };
    let table = |indices: &[u32]| v1::TableOutputs { outputs: indices.iter().map(output).collect() };
    let tables = indices.iter().map(|indices| pack(&table(indices))).collect();
    let address = stream.hello.flight_address.clone();
    let locations = vec![v1::Location { worker: stream.hello.worker.clone(), address }];
    stream
        .say(Down::Inputs(v1::ReduceInputs { job: "job".into(), version, stage: 0, tables, locations }))
        .await
}

fn reduce(index: u32, inputs_version: u64, map_tasks: &[u32]) -> v1::TaskDispatch {
    let work = v1::ReduceWork {
        row_group_rows: 1000,
        inputs_version,
        map_tasks: map_tasks.to_vec(),
        ..Default::default()
    };
    v1::TaskDispatch { attempt: Some(attempt(1, index)), work: Some(Work::Reduce(work)), ..short(0) }
}

/// A write task over one row group of a reduce task, which should have these numbers of rows.
fn write(index: u32, path: &Path, worker: &str, rows: &[u64]) -> v1::TaskDispatch {
    let output = Some(v1::OutputRef { location: 0, stage: 1, index: 0, attempt: 4096 });
    let work = v1::WriteWork {
        target: Some(Target::Path(path.display().to_string())),
        pieces: vec![v1::RowGroups {
            output,
            row_groups: vec![0],
            rows: rows.to_vec(),
            ..Default::default()
        }],
        totals: Some(v1::Totals::new(1, &[1, 0])),
        locations: vec![v1::Location { worker: worker.into(), address: String::new() }],
        ..Default::default()
    };
    v1::TaskDispatch { attempt: Some(attempt(2, index)), work: Some(Work::Write(work)), ..short(0) }
}

fn refused(outcome: &Outcome, named: &str) {
    let Outcome::Failure(v1::Failure { kind: Some(Kind::Retryable(reason)) }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("not complete") && reason.contains(named), "{reason}");
}

fn done(outcome: Outcome) -> Result<Done> {
    match outcome {
        Outcome::Done(v1::TaskResult { result: Some(done), usage: Some(_) }) => Ok(done),
        other => bail!("{other:?}"),
    }
}

async fn tasks_with_incomplete_inputs_are_refused() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let addons = golden_file();
    let main = addons.display().to_string().replace("addons/v2", "main_summary/v3");
    done(run(&mut stream, map(0, 0, &addons)?).await?)?;
    done(run(&mut stream, map(1, 1, Path::new(&main))?).await?)?;

    tell(&mut stream, 1, [&[0], &[1]]).await?;
    let Done::Reduce(whole) = done(run(&mut stream, reduce(0, 1, &[1, 1])).await?)? else {
        bail!("no reduce")
    };
    assert!(whole.row_group_rows.len() == 1 && whole.row_group_rows[0] > 1, "{whole:?}");
    // A coordinator of an earlier release does not state the number of inputs.
    let Done::Reduce(unsaid) = done(run(&mut stream, reduce(1, 1, &[])).await?)? else { bail!("no reduce") };
    assert_eq!(unsaid.row_group_rows, whole.row_group_rows);
    refused(&run(&mut stream, reduce(2, 1, &[1, 2])).await?, "1 output of the 2 map tasks of input table 1");
    refused(&run(&mut stream, reduce(3, 1, &[0, 1])).await?, "input table 0");
    refused(&run(&mut stream, reduce(4, 1, &[1])).await?, "2 input tables instead of 1");
    tell(&mut stream, 2, [&[0], &[]]).await?;
    refused(&run(&mut stream, reduce(5, 2, &[1, 1])).await?, "0 outputs of the 1 map task ");
    tell(&mut stream, 3, [&[0], &[1, 1]]).await?;
    refused(&run(&mut stream, reduce(6, 3, &[1, 2])).await?, "each to be listed once");

    let rows = whole.row_group_rows[0];
    let worker = stream.hello.worker.clone();
    let path = |name: &str| agent.spill_dir.path().join(name);
    let whole = done(run(&mut stream, write(0, &path("a"), &worker, &[rows])).await?)?;
    assert!(
        matches!(whole, Done::Write(v1::WriteResult { rows: written, .. }) if written == rows),
        "{whole:?}"
    );
    done(run(&mut stream, write(1, &path("b"), &worker, &[])).await?)?;
    refused(&run(&mut stream, write(2, &path("c"), &worker, &[rows + 1])).await?, "job-s1-t0-a4096");
    refused(&run(&mut stream, write(3, &path("d"), &worker, &[rows, 1])).await?, "row groups [0]");
    Ok(())
}

tally_tests::tests![
    mod async:
    tasks_with_incomplete_inputs_are_refused,
];
