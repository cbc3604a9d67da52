//! Days that lie in S3 and go to S3, through a real server: results, bytes, and what befalls requests on their way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tally_tests::generated::Generated;
use tally_tests::golden::{CASES, DATE};
use tally_tests::output::Place;
use tally_tests::process::Outcome;
use tally_tests::process::Tally;
use tally_tests::s3::proxy::{Exchange, Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, READER, STRANGER, Server};
use tally_tests::s3::{check_nothing_left, job, put_case, put_old_output, reach, read_output};
use tally_tests::table;

#[test]
fn golden_cases_go_from_s3_to_s3() -> Result<()> {
    for (kind, cases) in [(Kind::Seaweed, &CASES[..]), (Kind::Moto, &CASES[2..5])] {
        let Some(server) = Server::start(kind)? else { continue };
        let (data, out) = (server.client(DATA)?, server.client(OUT)?);
        put_old_output(&out)?;
        let spill = Place::new()?;
        for name in cases {
            let case = put_case(&data, name)?;
            // Several files, and the same again over them.
            for flags in [["--target-file-size", "1KB"], ["--target-file-size", "280MB"]] {
                let context = || format!("{kind:?} {name} {flags:?}");
                let run = job(server.address(), ADMIN, name, &spill.spill()).args(flags).run()?;
                let summary = run.summary().with_context(context)?;
                table::compare(&read_output(&out)?, &case.expected_rows()?).with_context(context)?;
                assert_eq!(summary.rows, case.totals()?.rows, "{}", context());
                check_nothing_left(&out).with_context(context)?;
            }
        }
    }
    Ok(())
}

/// Bytes of the needed columns and of the footers, going by the files themselves.
fn needed_bytes(root: &Path) -> Result<(u64, u64)> {
    let (mut chunks, mut footers) = (0, 0);
    for (folder, needed) in [
        (
            "addons/v2",
            &["client_id", "addon_id", "foreign_install", "is_system", "user_disabled", "app_disabled"][..],
        ),
        (
            "main_summary/v3",
            &["client_id", "profile_creation_date", "active_theme.addon_id", "install_day"][..],
        ),
    ] {
        for file in table::data_files(&root.join(folder).join(format!("submission_date_s3={DATE}")))? {
            let bytes = std::fs::read(&file)?;
            let length = bytes[bytes.len() - 8..][..4].try_into()?;
            footers += u64::from(u32::from_le_bytes(length)) + 8;
            let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
            for group in reader.metadata().row_groups() {
                for column in group.columns() {
                    let path = column.column_path().string();
                    if needed.iter().any(|name| path == *name || path.ends_with(&format!(".{name}"))) {
                        chunks += u64::try_from(column.compressed_size())?;
                    }
                }
            }
        }
    }
    Ok((chunks, footers))
}

#[test]
fn only_needed_bytes_are_fetched_and_each_once() -> Result<()> {
    let Some(server) = Server::start(Kind::Seaweed)? else { return Ok(()) };
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "60000"])?;
    data.put_tree(&day.root, "day")?;
    let (chunks, footers) = needed_bytes(&day.root)?;
    let proxy = Proxy::before(server.address())?;
    for flags in [["--memory-limit", "2GiB"], ["--memory-limit", "256MiB"]] {
        proxy.take();
        let run =
            job(proxy.address(), ADMIN, "day", &place.spill()).args(flags).args(["--threads", "2"]).run()?;
        let summary = run.summary()?;
        assert_eq!((summary.rows, summary.n_clients), (day.totals.rows, day.totals.n_clients));
        let of_files =
            |exchange: &&Exchange| exchange.method == "GET" && exchange.target.contains(".parquet");
        let exchanges = proxy.take();
        let gets: Vec<&Exchange> = exchanges.iter().filter(of_files).collect();
        let fetched: u64 = gets.iter().map(|exchange| exchange.received).sum();
        let most = (chunks + footers) * 103 / 100;
        println!(
            "{flags:?}: {fetched} bytes in {} GETs ({} requests in all), {chunks} of chunks and {footers} of footers: {:.4}; {:.0} GETs per GiB",
            gets.len(),
            exchanges.len(),
            fetched as f64 / (chunks + footers) as f64,
            gets.len() as f64 / (fetched as f64 / f64::from(1 << 30)),
        );
        assert!(gets.iter().all(|exchange| exchange.range.is_some()), "a whole file was asked for");
        assert!(
            fetched >= chunks,
            "{fetched} bytes are too few for {chunks} of chunks: the proxy did not see all"
        );
        assert!(fetched <= most, "{fetched} bytes were fetched, {most} at most may be");
        assert!(summary.bytes_read <= fetched, "{} bytes are said to be read", summary.bytes_read);
    }
    assert_eq!(read_output(&out)?.len() as u64, day.totals.rows);
    Ok(())
}

#[test]
fn requests_that_fail_for_a_moment_change_nothing() -> Result<()> {
    let Some(server) = Server::start(Kind::Seaweed)? else { return Ok(()) };
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let case = put_case(&data, "case-05")?;
    let place = Place::new()?;
    let proxy = Proxy::before(server.address())?;
    let faults = [
        ("GET", "main_summary", Fault::Refuse(503, "SlowDown")),
        ("GET", "addons", Fault::Refuse(500, "InternalError")),
        ("GET", "list-type", Fault::Refuse(503, "SlowDown")),
        ("GET", "part-", Fault::Cut),
        ("GET", "part-", Fault::CutAnswer(100)),
        ("GET", "part-", Fault::Slow(Duration::from_millis(20))),
        ("PUT", "partNumber", Fault::Refuse(503, "SlowDown")),
        ("PUT", "partNumber", Fault::LoseAnswer),
        ("POST", "uploads", Fault::Refuse(500, "InternalError")),
        ("POST", "uploadId", Fault::Refuse(503, "SlowDown")),
        ("POST", "uploadId", Fault::LoseAnswer),
        ("PUT", "commits", Fault::Refuse(503, "SlowDown")),
        ("PUT", "commits", Fault::LoseAnswer),
        ("POST", "delete", Fault::LoseAnswer),
    ];
    for (method, part, fault) in faults {
        let context = format!("{method} {part} {fault:?}");
        proxy.heal();
        proxy.break_next(method, part, 1, 2, fault.clone());
        proxy.break_next(method, part, 0, 1, fault);
        proxy.take();
        let flags = ["--target-file-size", "2KB"];
        job(proxy.address(), ADMIN, "case-05", &place.spill())
            .args(flags)
            .run()?
            .summary()
            .context(context.clone())?;
        table::compare(&read_output(&out)?, &case.expected_rows()?).context(context.clone())?;
        let hit = proxy.exchanges().iter().any(|e| e.method == method && e.target.contains(part));
        ensure!(hit, "{context}: no request was broken");
    }
    Ok(())
}

#[test]
fn a_file_that_changes_during_the_job_fails_it_and_the_old_day_stays() -> Result<()> {
    let Some(server) = Server::start(Kind::Seaweed)? else { return Ok(()) };
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    put_case(&data, "case-05")?;
    let old = put_old_output(&out)?;
    let place = Place::new()?;
    let proxy = Proxy::before(server.address())?;
    let listed = data.list("case-05/addons/v2")?;
    let victim =
        listed.iter().find(|key| key.ends_with(".parquet") && !key.contains("/.")).context("no file")?;
    let name = victim.rsplit_once("submission_date_s3=").map_or("", |(_, name)| name);
    // The first GET of it is its footer's; the second waits until it is another file.
    let part = format!("addons/v2/submission_date_s3%3D{name}");
    let sent = proxy_target(&part);
    proxy.break_next("GET", &sent, 1, 1, Fault::Hold);
    let running = job(proxy.address(), ADMIN, "case-05", &place.spill()).spawn()?;
    proxy.wait_held(1)?;
    let mut bytes = data.get(victim)?;
    bytes.push(0);
    data.put(victim, bytes)?;
    proxy.heal();
    let outcome = running.wait()?.expect_failure(1, &["changed while the job ran", "run the job again"])?;
    ensure!(outcome.stderr.contains(victim), "{outcome}");
    assert_eq!(out.list("agg")?, old, "the old day was touched");
    check_nothing_left(&out)
}

/// A key as requests have it: `=` is escaped in the last place only by some clients.
fn proxy_target(key: &str) -> String {
    key.rsplit('/').next().unwrap_or(key).to_string()
}

/// Fails in time, says each word, and shows no secret.
fn fails(run: Outcome, words: &[&str]) -> Result<()> {
    let outcome = run.expect_failure(1, words)?;
    for keys in [ADMIN, READER, STRANGER] {
        ensure!(!outcome.stderr.contains(keys.secret) && !outcome.stdout.contains(keys.secret), "{outcome}");
    }
    Ok(())
}

#[test]
fn what_is_refused_is_named_with_what_to_do() -> Result<()> {
    let Some(server) = Server::start(Kind::Seaweed)? else { return Ok(()) };
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    put_case(&data, "case-03")?;
    let old = put_old_output(&out)?;
    let (place, address) = (Place::new()?, server.address());
    let spill = place.spill();
    let check = |keys, folder: &str, words: &[&str]| {
        fails(job(address, keys, folder, &spill).run()?, words).with_context(|| folder.to_string())?;
        assert_eq!(out.list("agg")?, old, "the old day was touched");
        Ok::<_, anyhow::Error>(())
    };
    let refused = ["s3://data/case-03/addons/v2", "InvalidAccessKeyId", "check the credentials"];
    check(STRANGER, "case-03", &refused)?;
    // The output may not be written by who may only read the input.
    check(READER, "case-03", &["s3://out/agg", "AccessDenied", "no leave"])?;
    check(ADMIN, "case-99", &["s3://data/case-99/addons/v2", "no data files"])?;
    let run = |addons: &str, output: &str, date: &str| {
        let run = Tally::new("run").args([
            "--addons",
            addons,
            "--main-summary",
            "s3://data/case-03/main_summary/v3",
        ]);
        let run = run.args(["--output", output, "--date", date, "--spill-dir"]).args([&spill]);
        reach(run, address, ADMIN).run()
    };
    let (addons, output) = ("s3://data/case-03/addons/v2", "s3://out/agg/v1");
    fails(run(addons, output, "20170301")?, &["the days there are: 20170227"])?;
    fails(run("s3://nowhere/a", output, DATE)?, &["s3://nowhere/a", "NoSuchBucket", "create the bucket"])?;
    fails(run(addons, "s3://nowhere/agg/v1", DATE)?, &["nowhere", "NoSuchBucket", "create the bucket"])?;
    for wrong in ["s3://user:secret@b/x", "s3://", "s4://b/x"] {
        run(addons, wrong, DATE)?.expect_code(2)?;
    }
    check_nothing_left(&out)
}
