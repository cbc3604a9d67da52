//! Days that are read from and written to S3, through a real server: results, bytes, and faults of requests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::day::Format;
use tally_tests::generated::Generated;
use tally_tests::golden::{CASES, DATE};
use tally_tests::output::Place;
use tally_tests::process::Outcome;
use tally_tests::process::Tally;
use tally_tests::reference::Reference;
use tally_tests::refile::refile;
use tally_tests::s3::fetched::Needed;
use tally_tests::s3::proxy::{Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, READER, Server, UNKNOWN};
use tally_tests::s3::{check_nothing_left, job, put_case, put_old_output, reach, read_output};
use tally_tests::table;

fn golden_cases_go_from_s3_to_s3() -> Result<()> {
    for (kind, cases) in [(Kind::Seaweed, &CASES[..]), (Kind::Moto, &CASES[2..5])] {
        let server = Server::start(kind)?;
        let (data, out) = (server.client(DATA)?, server.client(OUT)?);
        put_old_output(&out)?;
        let spill = Place::new()?;
        for name in cases {
            let case = put_case(&data, name)?;
            // Several files, and again over an existing output.
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

fn only_needed_bytes_are_fetched_and_each_once() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let (place, folder) = (Place::new()?, Place::new()?);
    let day = Generated::new(folder.path(), &["--clients", "60000"])?;
    let root = folder.path().join("large");
    let format = Format { extras: true, row_group_rows: 40_000, ..Format::default() };
    refile(&day.root, &root, 3, usize::MAX, &format)?;
    data.put_tree(&root, "day")?;
    let needed = Needed::of(&root)?;
    ensure!(needed.small_files == 0, "{needed:?}");
    let proxy = Proxy::before(server.address())?;
    for flags in [["--memory-limit", "2GiB"], ["--memory-limit", "256MiB"]] {
        proxy.take();
        let run =
            job(proxy.address(), ADMIN, "day", &place.spill()).args(flags).args(["--threads", "2"]).run()?;
        let summary = run.summary()?;
        assert_eq!((summary.rows, summary.n_clients), (day.totals.rows, day.totals.n_clients));
        let exchanges = proxy.take();
        let fetched = needed.check(&exchanges)?;
        println!(
            "{flags:?}: {fetched:?} ({} requests in all), {} bytes of chunks and {} of footers: {:.4}; {:.0} GETs per GiB",
            exchanges.len(),
            needed.chunks,
            needed.footers,
            fetched.bytes as f64 / (needed.chunks + needed.footers) as f64,
            fetched.gets as f64 / (fetched.bytes as f64 / f64::from(1 << 30)),
        );
        assert!(summary.bytes_read <= fetched.bytes, "{} bytes are said to be read", summary.bytes_read);
    }
    table::compare(&read_output(&out)?, &Reference::of_day(&root, DATE)?.rows)
}

/// Files of the day of many files: `TALLY_MANY_FILES`, else few enough for CI.
const MANY: usize = 2_000;
/// Partitions of these files.
const PARTITIONS: usize = 100;
/// The memory that a process with a limit of 256 MiB may use for them.
const MANY_FILES_PEAK: u64 = 384 << 20;

fn a_day_of_many_files_is_listed_and_read_in_bounded_memory() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let many = std::env::var("TALLY_MANY_FILES").ok().map(|files| files.parse()).transpose()?.unwrap_or(MANY);
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let case = put_case(&data, "case-05")?;
    // The same rows repeated change nothing.
    let day = format!("case-05/addons/v2/submission_date_s3={DATE}");
    let whole = data.list(&day)?;
    let file =
        whole.iter().find(|key| key.ends_with(".parquet") && !key.contains("/.")).context("no file")?;
    let bytes = data.get(file)?;
    let copies = (0..many).map(|n| format!("{day}/sample_id={}/copy-{n}.parquet", n % PARTITIONS));
    data.put_all(copies.collect(), &bytes)?;
    let place = Place::new()?;
    let summary = job(server.address(), ADMIN, "case-05", &place.spill())
        .args(["--memory-limit", "256MiB", "--threads", "2"])
        .run()?
        .summary()?;
    table::compare(&read_output(&out)?, &case.expected_rows()?)?;
    let plan = summary.stages.first().context("no stage")?;
    println!(
        "{many} files: planned in {:.2} s, {:.2} s in all, {} MiB at most",
        plan.seconds,
        summary.seconds,
        summary.peak_memory_bytes >> 20
    );
    ensure!(summary.peak_memory_bytes <= MANY_FILES_PEAK, "{} bytes", summary.peak_memory_bytes);
    Ok(())
}

fn the_order_of_a_listing_changes_nothing() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let (place, folder) = (Place::new()?, Place::new()?);
    let day = Generated::new(folder.path(), &["--clients", "3000"])?;
    data.put_tree(&day.root, "day")?;
    let proxy = Proxy::before(server.address())?;
    let right = Reference::of_day(&day.root, DATE)?;
    for reversed in [false, true] {
        if reversed {
            proxy.break_next("GET", "list-type", 0, 1000, Fault::Reverse);
        }
        let run = job(proxy.address(), ADMIN, "day", &place.spill()).args(["--target-file-size", "20KB"]);
        let summary = run.run()?.summary()?;
        assert_eq!(summary.rows, day.totals.rows);
        table::compare(&read_output(&out)?, &right.rows).with_context(|| format!("reversed: {reversed}"))?;
    }
    Ok(())
}

fn requests_that_fail_for_a_moment_change_nothing() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
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

fn a_file_that_changes_during_the_job_fails_it_and_the_old_day_stays() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    put_case(&data, "case-05")?;
    let old = put_old_output(&out)?;
    let place = Place::new()?;
    let proxy = Proxy::before(server.address())?;
    let listed = data.list("case-05/addons/v2")?;
    let victim =
        listed.iter().find(|key| key.ends_with(".parquet") && !key.contains("/.")).context("no file")?;
    // The only GET of it waits until the file is replaced. The other table has files of the same names.
    let sent = victim.replace('=', "%3D");
    proxy.break_next("GET", &sent, 0, 1, Fault::Hold);
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

/// Fails in time, with each word, and shows no secret.
fn fails(run: Outcome, words: &[&str]) -> Result<()> {
    let outcome = run.expect_failure(1, words)?;
    for keys in [ADMIN, READER, UNKNOWN] {
        ensure!(!outcome.stderr.contains(keys.secret) && !outcome.stdout.contains(keys.secret), "{outcome}");
    }
    Ok(())
}

fn what_is_refused_is_named_with_what_to_do() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
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
    check(UNKNOWN, "case-03", &refused)?;
    // A client that may only read the input may not write the output.
    check(READER, "case-03", &["s3://out/agg", "AccessDenied", "permission is missing"])?;
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
    fails(run(addons, output, "20170301")?, &["the existing days are: 20170227"])?;
    fails(run("s3://nowhere/a", output, DATE)?, &["s3://nowhere/a", "NoSuchBucket", "create the bucket"])?;
    fails(run(addons, "s3://nowhere/agg/v1", DATE)?, &["nowhere", "NoSuchBucket", "create the bucket"])?;
    for wrong in ["s3://user:secret@b/x", "s3://", "s4://b/x"] {
        run(addons, wrong, DATE)?.expect_code(2)?;
    }
    check_nothing_left(&out)
}

fn the_demo_makes_its_day_in_a_bucket_and_removes_it() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let data = server.client(DATA)?;
    let place = Place::new()?;
    let demo = |dir: &str, flags: &[&str]| {
        let demo = Tally::new("demo").args(["--clients", "2000", "--dir", dir, "--spill-dir"]);
        reach(demo.args([place.spill()]).args(flags), server.address(), ADMIN).run()
    };
    let kept = format!("s3://{DATA}/some/demo");
    let said = demo(&kept, &[])?.expect_code(0)?.stdout;
    ensure!(said.contains("The result matches the generator's totals"), "{said}");
    let there = data.list("")?;
    for part in ["telemetry/addons/v2/", "telemetry/main_summary/v3/", "addon_aggregates/submission_date_s3="]
    {
        let below = format!("some/demo/{part}");
        ensure!(there.iter().any(|key| key.starts_with(&below)), "nothing below {below}: {there:?}");
    }
    demo(&kept, &[])?.expect_failure(2, &["there are objects below s3://data/some/demo", "another --dir"])?;
    demo(&format!("s3://{DATA}"), &[])?.expect_failure(2, &["is a bucket: give a folder in it"])?;
    demo("s3://nowhere/demo", &[])?.expect_failure(1, &["s3://nowhere/demo", "create the bucket"])?;
    demo(&format!("s3://{DATA}/other"), &["--remove"])?.expect_code(0)?;
    assert_eq!(data.list("")?, there, "what another demo left, or removed");
    let copies: Vec<_> = std::fs::read_dir(place.spill())?.collect();
    ensure!(copies.is_empty(), "{copies:?}");
    Ok(())
}

tally_tests::tests![
    golden_cases_go_from_s3_to_s3,
    only_needed_bytes_are_fetched_and_each_once,
    a_day_of_many_files_is_listed_and_read_in_bounded_memory,
    the_order_of_a_listing_changes_nothing,
    requests_that_fail_for_a_moment_change_nothing,
    a_file_that_changes_during_the_job_fails_it_and_the_old_day_stays,
    what_is_refused_is_named_with_what_to_do,
    the_demo_makes_its_day_in_a_bucket_and_removes_it,
];
