//! Generated days as a reader sees them: totals against a naive recomputation, bytes against the number of threads,
//! where rows are stored, and errors when a day cannot be written. Columns and pages: `format.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tally_generate::{GenerateError, Options, Overactive, Progress, Totals, generate, generate_until};

use crate::support::{addon_rows, day, files, naive_totals, ping_rows};

fn options(output: &Path) -> Options {
    Options { output: output.to_path_buf(), clients: 3000, threads: Some(2), ..Options::default() }
}

/// Generates a changed day in a new folder and passes both to `look`.
fn with_day<T>(change: impl FnOnce(&mut Options), look: impl FnOnce(&Path, Totals) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder.path().join("day"));
    change(&mut options);
    let totals = generate(&options, &|_| ()).unwrap();
    look(&options.output, totals)
}

fn check_totals(name: &str, change: impl FnOnce(&mut Options)) {
    with_day(change, |output, totals| {
        assert_eq!(totals, naive_totals(output, "20170227"), "{name}");
        let written =
            fs::read_to_string(output.with_file_name("day.addon_aggregates.20170227.totals.json")).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&written).unwrap(), totals, "{name}");
        assert!(totals.rows > 0 && totals.sum_of_count > totals.rows, "{name}: {totals:?}");
    });
}

#[test]
fn totals_are_those_of_a_naive_recomputation() {
    let overactive = Some(Overactive { pings: 4000, addons: 15 });
    check_totals("wide", |_| ());
    check_totals("narrow, other seed", |o| (o.narrow, o.seed) = (true, 77));
    check_totals("shuffled", |o| (o.narrow, o.shuffle) = (true, true));
    check_totals("overactive", |o| (o.narrow, o.overactive) = (true, overactive));
    check_totals("overactive and shuffled", |o| {
        (o.narrow, o.shuffle, o.overactive) = (true, true, overactive)
    });
    check_totals("few add-ons, so that clients have one twice", |o| (o.narrow, o.addons) = (true, 2));
    check_totals("many pings a client", |o| (o.narrow, o.clients, o.pings) = (true, 300, 80.0));
    check_totals("hardly any pings", |o| (o.narrow, o.pings) = (true, 0.1));
}

#[test]
fn a_single_client_makes_a_day() {
    with_day(
        |o| o.clients = 1,
        |output, totals| {
            assert_eq!(totals, naive_totals(output, "20170227"));
            assert_eq!(totals.n_clients, 2);
            assert_eq!(files(output).len(), 4, "a file of each table for the client and for the null client");
        },
    );
}

fn bytes(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |path: &Path| (path.display().to_string(), fs::read(output.join(path)).unwrap());
    files(output).iter().map(|path| read(path)).collect()
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    for shuffle in [false, true] {
        let with = |threads, seed| {
            let change = |o: &mut Options| {
                (o.shuffle, o.threads, o.seed) = (shuffle, Some(threads), seed);
                o.overactive = Some(Overactive { pings: 500, addons: 3 });
            };
            with_day(change, |output, totals| (bytes(output), totals))
        };
        let one = with(1, 1);
        assert!(one == with(2, 1) && one == with(7, 1), "threads show, shuffle {shuffle}");
        assert!(one.0 != with(1, 2).0, "the seed shows nowhere, shuffle {shuffle}");
    }
}

#[test]
fn a_sample_holds_the_clients_of_its_checksum_and_only_them() {
    let change = |o: &mut Options| {
        (o.clients, o.narrow) = (30_000, true);
        o.overactive = Some(Overactive { pings: 700, addons: 2 });
    };
    with_day(change, |output, _| {
        let mut odd = 0;
        let mut names = Vec::new();
        for path in files(output).iter().filter(|path| path.starts_with("main_summary")) {
            let mut parts = path.iter().map(|part| part.to_str().unwrap()).skip(2);
            assert_eq!(parts.next(), Some("submission_date_s3=20170227"));
            let sample = parts.next().unwrap().strip_prefix("sample_id=").unwrap();
            let number = sample.parse().unwrap_or(0);
            assert_eq!(parts.next(), Some(format!("part-{number:05}.snappy.parquet").as_str()));
            names.push(sample.to_owned());
            let pings = ping_rows(&output.join(path));
            for id in pings.iter().map(|ping| ping.client.as_ref()) {
                let Some(id) = id else {
                    assert_eq!(sample, "__HIVE_DEFAULT_PARTITION__");
                    continue;
                };
                odd += u32::from(id.bytes().any(|b| b.is_ascii_uppercase()));
                assert_eq!(crc32fast::hash(id.to_ascii_lowercase().as_bytes()) % 100, number);
            }
            check_order_and_busiest(sample, &pings.into_iter().map(|ping| ping.client).collect::<Vec<_>>());
        }
        assert_eq!(names.len(), 101);
        assert!(odd > 0, "no id in upper case");
    });
}

/// A client's pings are spread over the file, and the busy samples have their busy client.
fn check_order_and_busiest(sample: &str, clients: &[Option<String>]) {
    let mut pings: BTreeMap<&str, usize> = BTreeMap::new();
    for id in clients.iter().flatten() {
        *pings.entry(id).or_default() += 1;
    }
    let busiest = pings.values().max().copied().unwrap_or(0);
    if matches!(sample, "7" | "42") {
        assert!(busiest > 20 * (pings.len() - 1), "{busiest} pings of {} clients", pings.len());
    } else if !pings.is_empty() && busiest < 700 {
        let neighbours = clients.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(
            neighbours * 10 < clients.len(),
            "{neighbours} of {} pings follow their client's",
            clients.len()
        );
    }
}

#[test]
fn shuffling_spreads_the_same_rows_over_all_files() {
    let sorted = |shuffle| {
        let change = |o: &mut Options| {
            (o.shuffle, o.narrow) = (shuffle, true);
            o.overactive = Some(Overactive { pings: 5000, addons: 2 });
        };
        with_day(change, |output, totals| {
            let (mut addons, mut pings) = day(output);
            addons.sort_unstable();
            pings.sort_unstable();
            let mut places: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
            for path in files(output).iter().filter(|path| path.starts_with("addons")) {
                for row in addon_rows(&output.join(path)) {
                    places.entry(row.client).or_default().insert(path.clone());
                }
            }
            (addons, pings, totals, places)
        })
    };
    let (plain, shuffled) = (sorted(false), sorted(true));
    assert!(plain.0 == shuffled.0 && plain.1 == shuffled.1, "the rows differ");
    assert_eq!(plain.2, shuffled.2);
    assert!(plain.3.values().all(|files| files.len() == 1));
    assert_eq!(
        shuffled.3.values().map(BTreeSet::len).max(),
        Some(100),
        "the overactive client is everywhere"
    );
    let alone = shuffled.3.values().filter(|files| files.len() == 1).count();
    assert!(alone * 3 < shuffled.3.len(), "{alone} clients are in one file");
}

#[test]
fn an_overactive_client_changes_no_other_client() {
    let rows = |overactive| {
        with_day(|o| (o.narrow, o.overactive) = (true, overactive), |output, totals| (day(output).0, totals))
    };
    let (before, totals_before) = rows(None);
    let (mut after, totals_after) = rows(Some(Overactive { pings: 6000, addons: 7 }));
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for row in &after {
        *counts.entry(row.client.clone()).or_default() += 1;
    }
    let (client, rows) = counts.into_iter().max_by_key(|(_, rows)| *rows).unwrap();
    assert_eq!(rows, 6000 * 7);
    let addons: BTreeSet<_> = after.iter().filter(|row| row.client == client).map(|row| &row.addon).collect();
    assert_eq!(addons.len(), 7, "the same add-ons in each ping");
    let active = [Some(false), None];
    assert!(
        after
            .iter()
            .filter(|row| row.client == client)
            .all(|row| row.flags.iter().all(|f| active.contains(f)))
    );
    assert_eq!(totals_after.n_clients, totals_before.n_clients + 1);
    assert!(totals_after.sum_of_count >= totals_before.sum_of_count + 7);
    after.retain(|row| row.client != client);
    let (mut before, mut after) = (before, after);
    before.sort_unstable();
    after.sort_unstable();
    assert!(before == after, "another client's rows changed");
}

#[test]
fn a_day_that_exists_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { narrow: true, clients: 50, ..options(&folder.path().join("day")) };
    fs::create_dir_all(options.output.join("addons/v2/submission_date_s3=20170227/sample_id=5")).unwrap();
    generate(&options, &|_| ()).unwrap();
    let before = bytes(&options.output);
    options.seed = 2;
    let error = generate(&options, &|_| ()).unwrap_err();
    assert!(matches!(&error, GenerateError::Exists(path) if path.ends_with("submission_date_s3=20170227")));
    assert!(error.to_string().contains("already holds files"), "{error}");
    assert!(before == bytes(&options.output));
    (options.seed, options.date) = (1, "20170228".into());
    let totals = generate(&options, &|_| ()).unwrap();
    assert_eq!((totals.date.as_str(), bytes(&options.output).len()), ("20170228", 2 * before.len()));
}

#[test]
fn each_day_of_a_folder_keeps_its_totals() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { clients: 10, narrow: true, ..options(&folder.path().join("day")) };
    let days = ["20170226", "20170227"].map(|date| {
        let totals = generate(&Options { date: date.into(), ..options.clone() }, &|_| ()).unwrap();
        (folder.path().join(format!("day.addon_aggregates.{date}.totals.json")), totals)
    });
    for (file, totals) in days {
        let written = fs::read_to_string(file).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&written).unwrap(), totals);
    }
}

#[test]
fn a_day_that_exists_is_replaced_if_the_caller_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { narrow: true, clients: 50, ..options(&folder.path().join("day")) };
    generate(&options, &|_| ()).unwrap();
    let first = bytes(&options.output);
    let left = options.output.join("addons/v2/submission_date_s3=20170227/left");
    fs::write(&left, "of the old day").unwrap();
    (options.seed, options.replace) = (2, true);
    generate(&options, &|_| ()).unwrap();
    assert!(!left.exists());
    let second = bytes(&options.output);
    assert!(first != second);
    // The same bytes as in an empty folder.
    let fresh = Options { output: folder.path().join("fresh"), replace: false, ..options };
    generate(&fresh, &|_| ()).unwrap();
    assert!(bytes(&fresh.output) == second);
}

#[test]
fn a_stopped_day_leaves_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { narrow: true, ..options(&folder.path().join("new/day")) };
    let stop = AtomicBool::new(false);
    let error = generate_until(&options, &|_| stop.store(true, Ordering::Relaxed), &stop).unwrap_err();
    assert!(matches!(error, GenerateError::Stopped), "{error}");
    assert!(files(folder.path()).is_empty() && !options.output.exists());
    fs::create_dir_all(options.output.join("addons")).unwrap();
    fs::write(options.output.join("addons/other"), "").unwrap();
    let stop = AtomicBool::new(false);
    generate_until(&options, &|_| stop.store(true, Ordering::Relaxed), &stop).unwrap_err();
    assert_eq!(files(folder.path()), [Path::new("new/day/addons/other")]);
    assert!(!options.output.join("main_summary").exists());
}

#[test]
fn a_failed_day_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { narrow: true, ..options(&folder.path().join("day")) };
    fs::create_dir_all(&options.output).unwrap();
    fs::write(options.output.join("addons"), "in the way").unwrap();
    let error = generate(&options, &|_| ()).unwrap_err();
    assert!(error.to_string().contains("addons/v2/submission_date_s3=20170227"), "{error}");
    assert_eq!(files(folder.path()), [Path::new("day/addons")]);
}

#[test]
fn progress_ends_at_the_totals() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { narrow: true, ..options(&folder.path().join("day")) };
    let last: Mutex<Vec<Progress>> = Mutex::default();
    let totals = generate(&options, &|progress| last.lock().unwrap().push(progress)).unwrap();
    let most = last.into_inner().unwrap().into_iter().max_by_key(|p| (p.files, p.addons_rows)).unwrap();
    let expect = Progress {
        files: 101,
        all_files: 101,
        main_summary_rows: totals.main_summary_rows,
        addons_rows: totals.addons_rows,
    };
    assert_eq!(most, expect);
}
