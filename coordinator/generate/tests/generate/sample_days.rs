//! Generated days of main_summary/v4 as a reader sees them: totals against a naive recomputation, folders, bytes against the
//! number of threads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StructArray};
use tally_generate::samples::{SampleTotals, generate_samples};
use tally_generate::{GenerateError, Options, Overactive};

use crate::support::{batches, files};

const DATE: &str = "20180101";

fn options(output: &Path) -> Options {
    let date = DATE.to_string();
    Options { output: output.to_path_buf(), clients: 3000, date, threads: Some(2), ..Options::default() }
}

fn with_day<T>(change: impl FnOnce(&mut Options), look: impl FnOnce(&Path, SampleTotals) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder.path().join("day"));
    change(&mut options);
    let totals = generate_samples(&options, &|_| (), &AtomicBool::new(false)).unwrap();
    look(&options.output, totals)
}

/// The strings of a column, whether they are stored by dictionary or not.
fn texts(column: &ArrayRef) -> Vec<Option<String>> {
    let strings: &StringArray = column.as_string();
    strings.iter().map(|text| text.map(String::from)).collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap()
}

type Group = [Option<String>; 4];

/// The totals of the files of a day, from sets of whole rows.
fn naive_totals(output: &Path) -> SampleTotals {
    let mut totals = SampleTotals { date: DATE.into(), ..SampleTotals::default() };
    let (mut groups, mut clients, mut rows) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for file in files(output) {
        let sample = file.parent().unwrap().to_string_lossy().into_owned();
        for batch in batches(&output.join(&file)) {
            totals.main_summary_rows += batch.num_rows() as u64;
            let keys = ["client_id", "normalized_channel", "app_version", "locale"];
            let keys = keys.map(|name| texts(column(&batch, name)));
            let created: Vec<_> =
                column(&batch, "profile_creation_date").as_primitive::<Int64Type>().iter().collect();
            let lists = column(&batch, "active_addons").as_list::<i32>();
            for (row, list) in lists.iter().enumerate() {
                let Some(list) = list else { continue };
                let elements: &StructArray = list.as_struct();
                let field = |name: &str| elements.column_by_name(name).unwrap();
                let flag = |name: &str| field(name).as_boolean().iter().collect::<Vec<_>>();
                let [foreign, system, web] = ["foreign_install", "is_system", "is_web_extension"].map(flag);
                let ids = texts(field("addon_id"));
                let days: Vec<_> = field("install_day").as_primitive::<Int32Type>().iter().collect();
                totals.elements += elements.len() as u64;
                for at in 0..elements.len() {
                    let mut group: Group = [0, 1, 2, 3].map(|key: usize| keys[key][row].clone());
                    group[2] = group[2].take().map(|version| version[..2].to_string());
                    let id = ids[at].clone().unwrap_or_else(|| "mozilla of null".into());
                    let excluded = ["mozilla", "cliqz", "@unified-urlbar", "@testpilot-addon"];
                    let own = !excluded.iter().any(|part| id.contains(part))
                        && (system[at], foreign[at]) == (Some(false), Some(false));
                    let (is_system, is_web) = (system[at] == Some(true), web[at] == Some(true));
                    clients.insert((sample.clone(), group[0].clone()));
                    groups.insert((sample.clone(), group.clone()));
                    let identity = (sample.clone(), group, created[row], id.clone(), days[at], foreign[at]);
                    if rows.insert((identity, own, is_system, is_web)) {
                        totals.n_self_installed_addons += u64::from(own);
                        totals.n_shield_addons += u64::from(id.contains("@shield.mozilla"));
                        totals.n_foreign_installed_addons += u64::from(foreign[at] == Some(true));
                        totals.n_system_addons += u64::from(is_system);
                        totals.n_web_extensions += u64::from(is_web);
                    }
                }
            }
        }
    }
    (totals.rows, totals.n_clients) = (groups.len() as u64, clients.len() as u64);
    totals
}

fn check_totals(name: &str, change: impl FnOnce(&mut Options)) {
    with_day(change, |output, totals| {
        assert_eq!(totals, naive_totals(output), "{name}");
        let written = std::fs::read_to_string(
            output.with_file_name(format!("day.addon_aggregates_v2.{}.totals.json", totals.date)),
        )
        .unwrap();
        assert_eq!(serde_json::from_str::<SampleTotals>(&written).unwrap(), totals, "{name}");
        assert!(totals.rows >= totals.n_clients && totals.n_clients > 0, "{name}: {totals:?}");
        assert!(totals.n_self_installed_addons > 0 && totals.n_shield_addons > 0, "{name}: {totals:?}");
    });
}

#[test]
fn totals_of_sample_days_are_those_of_a_naive_recomputation() {
    check_totals("wide", |_| ());
    check_totals("narrow, other seed", |o| (o.narrow, o.seed) = (true, 77));
    check_totals("few add-ons, so that clients have one twice", |o| (o.narrow, o.addons) = (true, 2));
    check_totals("many pings a client", |o| (o.narrow, o.clients, o.pings) = (true, 300, 80.0));
    check_totals("null clients", |o| (o.narrow, o.clients, o.pings) = (true, 60_000, 0.6));
}

#[test]
fn files_are_in_the_folders_of_their_samples() {
    with_day(
        |o| o.clients = 2000,
        |output, _| {
            for file in files(output) {
                let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
                let sample: u32 = folder.strip_prefix("sample_id=").unwrap().parse().unwrap();
                for batch in batches(&output.join(&file)) {
                    for id in texts(column(&batch, "client_id")).into_iter().flatten() {
                        let lower = id.to_ascii_lowercase();
                        assert_eq!(crc32fast::hash(lower.as_bytes()) % 100, sample, "{id}");
                    }
                }
            }
        },
    );
}

#[test]
fn the_number_of_threads_changes_no_byte_of_a_sample_day() {
    let with = |threads, seed| {
        let change = |o: &mut Options| (o.threads, o.seed, o.clients) = (Some(threads), seed, 500);
        with_day(change, |output, totals| {
            let bytes = |path: &std::path::PathBuf| std::fs::read(output.join(path)).unwrap();
            (files(output).iter().map(bytes).collect::<Vec<_>>(), totals)
        })
    };
    let one = with(1, 1);
    assert!(one == with(3, 1), "threads show");
    assert!(one.0 != with(1, 2).0, "the seed shows nowhere");
}

#[test]
fn options_without_meaning_for_samples_are_refused() {
    let refused = |change: &dyn Fn(&mut Options)| {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&folder.path().join("day"));
        change(&mut options);
        match generate_samples(&options, &|_| (), &AtomicBool::new(false)) {
            Err(GenerateError::Option { option, .. }) => option,
            other => panic!("expected a refused option, got {other:?}"),
        }
    };
    assert_eq!(refused(&|o| o.shuffle = true), "shuffle");
    let overactive = Some(Overactive { pings: 1, addons: 1 });
    assert_eq!(refused(&|o| o.overactive = overactive), "overactive-pings");
    assert_eq!(refused(&|o| o.clients = 0), "clients");
}
