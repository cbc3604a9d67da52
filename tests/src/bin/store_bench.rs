//! How fast a day is read from an S3 server on this machine, compared with the same day on local disk and a plain GET
//! of the same ranges. The server shares the cores. A proxy counts requests and bytes, in a run of its own.
//!
//!     store_bench DAY ROUNDS
//!
//! DAY holds `addons/v2` and `main_summary/v3` of the date 20170227.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::{Summary, Tally, job_args};
use tally_tests::s3::client::Range;
use tally_tests::s3::proxy::Proxy;
use tally_tests::s3::reach;
use tally_tests::s3::server::{ADMIN, DATA, Kind, Server};

/// Concurrent GETs: as many as two slots of Tally keep in flight.
const CONCURRENT: usize = 8;

fn from_store(endpoint: std::net::SocketAddr, place: &Place) -> Result<Summary> {
    let url = |table: &str| format!("s3://{DATA}/day/{table}");
    let run =
        Tally::new("run").args(["--addons", &url("addons/v2"), "--main-summary", &url("main_summary/v3")]);
    let run = run.args(["--date", DATE, "--output-format", "json", "--output"]).args([place.output()]);
    reach(run.args(["--spill-dir"]).args([place.spill()]), endpoint, ADMIN).run()?.summary()
}

fn from_disk(day: &Path, place: &Place) -> Result<Summary> {
    let run = Tally::new("run").args(job_args(day, &place.output(), &place.spill()));
    run.date(DATE).run()?.summary()
}

/// The ranges that a run requests, recorded by a proxy.
fn ranges(proxy: &Proxy) -> Result<Vec<Range>> {
    let gets = proxy.take().into_iter().filter(|e| e.method == "GET" && e.target.contains(".parquet"));
    gets.map(|get| {
        let path = get.target.split('?').next().unwrap_or_default();
        let key =
            path.strip_prefix(&format!("/{DATA}/")).context("a key of another bucket")?.replace("%3D", "=");
        let range = get.range.context("a whole file was asked for")?;
        let (from, to) =
            range.trim_start_matches("bytes=").split_once('-').context("a range without an end")?;
        Ok(Range { key, bytes: from.parse()?..to.parse::<u64>()? + 1 })
    })
    .collect()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [day, rounds] = &args[..] else { bail!("usage: store_bench DAY ROUNDS") };
    let (day, rounds) = (PathBuf::from(day), rounds.parse::<usize>()?);
    let server = Server::start(Kind::Seaweed)?;
    let client = server.client(DATA)?;
    client.put_tree(&day, "day")?;
    let place = Place::new()?;
    let proxy = Proxy::before(server.address())?;
    let summary = from_store(proxy.address(), &place)?;
    let ranges = ranges(&proxy)?;
    let bytes: u64 = ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum();
    let gib = bytes as f64 / f64::from(1 << 30);
    println!(
        "{} rows from {bytes} bytes in {} GETs: {:.0} GETs per GiB",
        summary.rows,
        ranges.len(),
        ranges.len() as f64 / gib
    );
    let (mut disk, mut store, mut bare) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        disk.push(from_disk(&day, &place)?.seconds);
        store.push(from_store(server.address(), &place)?.seconds);
        let start = Instant::now();
        let got = client.get_ranges(&ranges, CONCURRENT)?;
        bare.push(start.elapsed().as_secs_f64());
        println!(
            "round {round}: disk {:.2} s, store {:.2} s, bare GET of {got} bytes {:.2} s",
            disk[round], store[round], bare[round]
        );
    }
    let (disk, store, bare) = (median(disk), median(store), median(bare));
    println!(
        "medians: disk {disk:.2} s, store {store:.2} s, bare GET {bare:.2} s; store / (disk + bare GET) = {:.2}",
        store / (disk + bare)
    );
    Ok(())
}
