//! Generated files as the format sees them: columns, nesting, nulls, pages and row groups. The expected schemas are those
//! that the reference generator writes with pyarrow. Values: `day.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_select::concat::concat_batches;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::printer::print_schema;
use tally_generate::{Options, Overactive, generate};

use crate::support::{batches, files};

const ADDON: &str = "OPTIONAL BYTE_ARRAY addon_id (STRING);
OPTIONAL BOOLEAN blocklisted;
OPTIONAL BYTE_ARRAY name (STRING);
OPTIONAL BOOLEAN user_disabled;
OPTIONAL BOOLEAN app_disabled;
OPTIONAL BYTE_ARRAY version (STRING);
OPTIONAL INT32 scope;
OPTIONAL BYTE_ARRAY type (STRING);
OPTIONAL BOOLEAN foreign_install;
OPTIONAL BOOLEAN has_binary_components;
OPTIONAL INT32 install_day;
OPTIONAL INT32 update_day;
OPTIONAL INT32 signed_state;
OPTIONAL BOOLEAN is_system;";

const MAIN: &str = "message schema {
OPTIONAL BYTE_ARRAY document_id (STRING);
OPTIONAL BYTE_ARRAY client_id (STRING);
OPTIONAL BYTE_ARRAY channel (STRING);
OPTIONAL BYTE_ARRAY os (STRING);
OPTIONAL BYTE_ARRAY country (STRING);
OPTIONAL INT64 profile_creation_date;
OPTIONAL INT64 subsession_length;
OPTIONAL group active_addons (LIST) {
REPEATED group list {
OPTIONAL group element {
ADDON
}
}
}
OPTIONAL group active_theme {
ADDON
}
}";

const ADDONS: &str = "message schema {
OPTIONAL BYTE_ARRAY document_id (STRING);
OPTIONAL BYTE_ARRAY client_id (STRING);
OPTIONAL BYTE_ARRAY subsession_start_date (STRING);
ADDON
}";

const NARROW_MAIN: &str = "message schema {
OPTIONAL BYTE_ARRAY client_id (STRING);
OPTIONAL INT64 profile_creation_date;
OPTIONAL group active_addons (LIST) {
REPEATED group list {
OPTIONAL group element {
OPTIONAL INT32 install_day;
}
}
}
OPTIONAL group active_theme {
OPTIONAL BYTE_ARRAY addon_id (STRING);
}
}";

const NARROW_ADDONS: &str = "message schema {
OPTIONAL BYTE_ARRAY client_id (STRING);
OPTIONAL BYTE_ARRAY addon_id (STRING);
OPTIONAL BOOLEAN user_disabled;
OPTIONAL BOOLEAN app_disabled;
OPTIONAL BOOLEAN foreign_install;
OPTIONAL BOOLEAN is_system;
}";

struct Day {
    folder: tempfile::TempDir,
}

impl Day {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options {
            output: folder.path().join("day"),
            clients: 4000,
            threads: Some(2),
            ..Options::default()
        };
        change(&mut options);
        generate(&options, &|_| ()).unwrap();
        Day { folder }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("day")
    }

    fn paths(&self, table: &str) -> Vec<PathBuf> {
        let output = self.output();
        let all = files(&output);
        all.into_iter().filter(|path| path.starts_with(table)).map(|path| output.join(path)).collect()
    }
}

fn open(path: &Path) -> SerializedFileReader<File> {
    SerializedFileReader::new(File::open(path).unwrap()).unwrap()
}

fn schema(path: &Path) -> String {
    let mut text = Vec::new();
    print_schema(&mut text, open(path).metadata().file_metadata().schema());
    let text = String::from_utf8(text).unwrap();
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn schemas_are_those_of_the_reference_generator() {
    for (narrow, main, addons) in [(false, MAIN, ADDONS), (true, NARROW_MAIN, NARROW_ADDONS)] {
        let day = Day::new(|o| o.narrow = narrow);
        for (table, expect) in [("main_summary/v3", main), ("addons/v2", addons)] {
            for path in day.paths(table) {
                assert_eq!(
                    schema(&path),
                    expect.replace("ADDON\n", &format!("{ADDON}\n")),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

/// A table's leaf columns, whole, by dotted name; `active_addons` as the children of all its elements.
fn columns(paths: &[PathBuf]) -> BTreeMap<String, ArrayRef> {
    fn flatten(name: &str, array: &ArrayRef, into: &mut BTreeMap<String, ArrayRef>) {
        if let Some(list) = array.as_list_opt::<i32>() {
            return flatten(name, list.values(), into);
        }
        let Some(children) = array.as_struct_opt() else {
            into.insert(name.to_owned(), array.clone());
            return;
        };
        for (field, child) in children.fields().iter().zip(children.columns()) {
            flatten(&format!("{name}.{}", field.name()), child, into);
        }
    }
    let all: Vec<_> = paths.iter().flat_map(|path| batches(path)).collect();
    let whole = concat_batches(&all[0].schema(), &all).unwrap();
    let mut into = BTreeMap::new();
    for (field, column) in whole.schema().fields().iter().zip(whole.columns()) {
        flatten(field.name(), column, &mut into);
    }
    into
}

#[test]
fn a_narrow_day_is_a_wide_one_with_fewer_columns() {
    let (wide, narrow) = (Day::new(|_| ()), Day::new(|o| o.narrow = true));
    for table in ["main_summary/v3", "addons/v2"] {
        let (wide, narrow) = (columns(&wide.paths(table)), columns(&narrow.paths(table)));
        assert!(narrow.len() < wide.len());
        for (name, column) in narrow {
            assert!(wide[&name] == column, "{table} {name} differs");
        }
    }
}

fn check_nulls(columns: &BTreeMap<String, ArrayRef>, name: &str, expect: f64) {
    let column = &columns[name];
    let share = column.null_count() as f64 / column.len() as f64;
    assert!((share - expect).abs() <= expect * 0.25, "{name}: {share} of the values are null, not {expect}");
}

#[test]
fn fields_are_null_as_often_as_in_the_reference() {
    let day = Day::new(|o| o.clients = 20_000);
    let main = columns(&day.paths("main_summary/v3"));
    check_nulls(&main, "profile_creation_date", 0.01);
    check_nulls(&main, "active_theme.addon_id", 0.03);
    check_nulls(&main, "active_theme.name", 0.03);
    check_nulls(&main, "active_theme.version", 1.0);
    check_nulls(&main, "active_theme.is_system", 1.0);
    for flag in ["user_disabled", "app_disabled", "foreign_install", "is_system"] {
        check_nulls(&main, &format!("active_addons.{flag}"), 0.0005);
    }
    check_nulls(&main, "active_addons.install_day", 0.001);
    for never in ["addon_id", "blocklisted", "name", "version", "scope", "type", "update_day", "signed_state"]
    {
        check_nulls(&main, &format!("active_addons.{never}"), 0.0);
    }
    check_nulls(&main, "document_id", 0.0);
    let documents: BTreeSet<_> = main["document_id"].as_string::<i32>().iter().collect();
    assert_eq!(documents.len(), main["document_id"].len(), "a ping has a document id of its own");
}

#[test]
fn a_ping_without_addons_leaves_one_row_of_nulls() {
    let day = Day::new(|_| ());
    let addons = columns(&day.paths("addons/v2"));
    let main = columns(&day.paths("main_summary/v3"));
    let named: BTreeSet<_> = addons["document_id"].as_string::<i32>().iter().collect();
    let sent: BTreeSet<_> = main["document_id"].as_string::<i32>().iter().collect();
    assert!(named == sent, "every ping has rows in addons");
    let elements = main["active_addons.addon_id"].len();
    let empty = addons["addon_id"].null_count();
    assert!(empty > 10);
    assert_eq!(addons["addon_id"].len(), elements + empty);
    assert_eq!(addons["update_day"].null_count(), empty);
    assert_eq!(addons["subsession_start_date"].null_count(), 0);
    assert_eq!(addons["subsession_start_date"].as_string::<i32>().value(0), "2017-02-27T00:00:00.0+00:00");
    for row in (0..addons["addon_id"].len()).filter(|&row| addons["addon_id"].is_null(row)) {
        let nulls = addons.values().filter(|column| column.is_null(row)).count();
        assert!(nulls == 14 || nulls == 15, "{nulls} nulls in row {row}");
    }
}

#[test]
fn large_chunks_leave_the_dictionary_halfway_and_row_groups_are_full() {
    let day = Day::new(|o| (o.clients, o.overactive) = (100, Some(Overactive { pings: 60_000, addons: 20 })));
    let largest =
        |table| day.paths(table).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let addons = open(&largest("addons/v2"));
    let groups = addons.metadata().row_groups();
    assert_eq!(groups[0].num_rows(), 1 << 20);
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().flat_map(|g| g.columns()).all(|c| c.compression() == Compression::SNAPPY));
    assert!(
        groups[0].columns().iter().all(|c| c.statistics().is_some() && c.column_index_offset().is_none())
    );
    assert!(addons.metadata().file_metadata().key_value_metadata().is_none());

    let main = open(&largest("main_summary/v3"));
    let group = main.get_row_group(0).unwrap();
    let mut encodings = Vec::new();
    for page in group.get_column_page_reader(0).unwrap() {
        match page.unwrap() {
            Page::DictionaryPage { buf, .. } => assert!(buf.len() < (1 << 20) + 50_000, "{}", buf.len()),
            Page::DataPage { encoding, .. } => encodings.push(encoding),
            Page::DataPageV2 { .. } => panic!("data pages are v1"),
        }
    }
    encodings.dedup();
    assert_eq!(encodings, [Encoding::RLE_DICTIONARY, Encoding::PLAIN], "document_id");
}
