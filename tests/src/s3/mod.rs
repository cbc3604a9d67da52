//! S3 on loopback, for tests: real servers (SeaweedFS, and moto as a second opinion), a client that uploads days and
//! reads objects, a proxy that counts, delays and breaks requests, and jobs from a bucket to a bucket.

pub mod client;
pub mod fetched;
mod http;
pub mod identity;
pub mod proxy;
pub mod raw;
pub mod scene;
pub mod server;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::golden::{Case, DATE};
use crate::output::{Place, is_part_name};
use crate::process::Tally;
use crate::rows::Row;
use crate::{objectives, table};
use client::{Client, Keys};
use server::{DATA, OUT};

/// The root of outputs in the bucket [`OUT`].
pub const OUTPUT: &str = "agg/v1";

/// The day's folder in the bucket [`OUT`].
pub fn day_folder() -> String {
    format!("{OUTPUT}/submission_date_s3={DATE}")
}

/// `tally run` over the day under `folder` of the bucket [`DATA`] into the bucket [`OUT`], both reached at `endpoint`.
pub fn job(endpoint: SocketAddr, keys: Keys, folder: &str, spill: &Path) -> Tally {
    reach(bare_job(folder, spill), endpoint, keys)
}

/// The same, without the address of the store and without keys.
pub fn bare_job(folder: &str, spill: &Path) -> Tally {
    let url = |table: &str| format!("s3://{DATA}/{folder}/{table}");
    let job =
        Tally::new("run").args(["--addons", &url("addons/v2"), "--main-summary", &url("main_summary/v3")]);
    let job = job.args(["--output", &output_url(), "--date", DATE, "--output-format", "json"]);
    job.args(["--spill-dir"]).args([spill])
}

/// `tally submit` of the same job to a cluster.
pub fn submit(client: &crate::cluster::client::Client, folder: &str) -> Tally {
    let url = |table: &str| format!("s3://{DATA}/{folder}/{table}");
    let submit = client.tally("submit").args([
        "--addons",
        &url("addons/v2"),
        "--main-summary",
        &url("main_summary/v3"),
    ]);
    submit.args(["--output", &output_url(), "--date", DATE, "--output-format", "json"])
}

/// Sets a command's environment so that it reaches the store.
pub fn reach(command: Tally, endpoint: SocketAddr, keys: Keys) -> Tally {
    keys.environment(endpoint).into_iter().fold(command, |command, (name, value)| command.env(name, &value))
}

/// The URL of outputs.
pub fn output_url() -> String {
    format!("s3://{OUT}/{OUTPUT}")
}

/// Puts a golden case's day under a folder of its name in the bucket [`DATA`].
pub fn put_case(client: &Client, name: &str) -> Result<Case> {
    let case = Case::new(name);
    for table in ["addons/v2", "main_summary/v3"] {
        let day = format!("{table}/submission_date_s3={DATE}");
        client.put_tree(&case.dir.join(&day), &format!("{name}/{day}"))?;
    }
    Ok(case)
}

/// Writes an output of another kind, as may be present before.
pub fn put_old_output(client: &Client) -> Result<Vec<String>> {
    let keys = ["part-00000-old.snappy.parquet", "_SUCCESS"].map(|name| format!("{}/{name}", day_folder()));
    for key in &keys {
        client.put(key, vec![0xA5; 7000])?;
    }
    client.list(&day_folder())
}

/// The key of the day in the objectives table.
pub fn objectives_key() -> String {
    format!("{OUTPUT}_objectives/submission_date_s3={DATE}/objectives.parquet")
}

/// The current rows of the output, after a check that it contains only part files, and that the objectives table has no other
/// day. The day is missing there if a process was killed while it published.
///
/// # Errors
/// There is another object, or a file cannot be read.
pub fn read_output(client: &Client) -> Result<Vec<Row>> {
    let fetched = Place::new()?;
    for key in client.list(OUTPUT)? {
        let below =
            key.strip_prefix(&format!("{}/", day_folder())).with_context(|| format!("{key} is there"))?;
        ensure!(is_part_name(Path::new(below)), "{key} is no part file");
    }
    let partition = fetched.partition(DATE);
    client.get_tree(&day_folder(), &partition)?;
    let rows = table::read_aggregates(&partition)?;
    if client.list(&format!("{OUTPUT}_objectives"))? == [objectives_key()] {
        let file = objectives::file_of(&partition);
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        std::fs::write(file, client.get(&objectives_key())?)?;
        objectives::check(&partition, &rows)?;
    }
    Ok(rows)
}

/// Checks that nothing is left of any job except the last decision to publish.
///
/// # Errors
/// Names what is left.
pub fn check_nothing_left(client: &Client) -> Result<()> {
    let open = client.open_uploads()?;
    ensure!(open == 0, "{open} uploads are open");
    let parent = OUTPUT.rsplit_once('/').map_or("", |(parent, _)| parent);
    let published = |key: &String| key.starts_with(&format!("{OUTPUT}/")) || *key == objectives_key();
    let others: Vec<String> = client.list(parent)?.into_iter().filter(|key| !published(key)).collect();
    let decisions = format!("{parent}/.v1.tally-staging/submission_date_s3={DATE}/commits/");
    let decided: Vec<&str> = others.iter().filter_map(|key| key.strip_prefix(&decisions)).collect();
    ensure!(decided.len() == others.len(), "the output also has {others:?}");
    match &decided[..] {
        [] => Ok(()),
        [record, mark, outcome]
            if mark.strip_suffix(".done") == Some(record)
                && outcome.strip_suffix(".outcome") == Some(record) =>
        {
            Ok(())
        }
        other => anyhow::bail!("decisions {other:?} instead of one that is done"),
    }
}
