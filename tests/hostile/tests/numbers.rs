//! Footers with numbers that cannot be true: each is an error that names the file and what is damaged, for files of every
//! kind. Numbers that no reader needs may be anything.
//!
//! Not here: numbers of page headers (`numbers` of the scan), corrupted bytes (`corrupt`).

// A panic fails the test.
#![allow(clippy::unwrap_used)]

use tally_hostile::parquet::{Kind, Reader};
use tally_hostile::seeds::files;
use tally_tests::footer::{chunks_of, each_chunk, each_group, path, text};
use tally_tests::thrift::{I64, Value, change_footer};

const WRONG: [i64; 4] = [-1, i32::MIN as i64, i64::MIN, i64::MAX];

/// The number fields of a chunk's metadata.
const VALUES: i16 = 5;
const UNCOMPRESSED: i16 = 6;
const COMPRESSED: i16 = 7;
const DATA: i16 = 9;
const DICTIONARY: i16 = 11;
/// The number fields of a row group.
const BYTES: i16 = 2;
const ROWS: i16 = 3;

fn file(kind: Kind) -> Vec<u8> {
    files(&format!("{}-dictionary-snappy-sums", kind.name())).remove(0)
}

/// Columns of a kind that are read: a flat one, and one of a list, if there is any.
fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Addons => &["client_id", "addon_id"],
        Kind::MainSummary => &["client_id", "active_addons.list.element.install_day"],
        Kind::Pings => {
            &["locale", "active_addons.list.element.install_day", "active_addons.list.element.addon_id"]
        }
    }
}

fn number(value: &mut Value) -> &mut i64 {
    match value {
        Value::Number(number) => number,
        other => panic!("no number: {other:?}"),
    }
}

/// The error of reading a file with a changed footer.
fn error(reader: &Reader, file: &[u8], what: &str, change: impl FnOnce(&mut Value)) -> String {
    let file = change_footer(file, change).unwrap();
    let said = reader.read(&file).err().unwrap_or_else(|| panic!("{what}: no error"));
    assert!(said.contains("part-0.parquet") && !said.contains("panicked"), "{what}: {said}");
    said
}

fn contains(said: &str, what: &str, words: &[&str]) {
    assert!(words.iter().all(|word| said.contains(word)), "{what}: {said}");
}

/// Changes a number of the last row group only.
fn last_group(footer: &mut Value, change: impl FnOnce(&mut Value)) {
    change(footer.field(4).elements().last_mut().unwrap());
}

#[test]
fn numbers_of_rows() {
    for kind in Kind::ALL {
        let (file, reader) = (file(kind), Reader::new(kind).unwrap());
        for wrong in WRONG {
            let what = format!("{kind:?}, {wrong} rows");
            let said = error(&reader, &file, &what, |footer| {
                last_group(footer, |group| *number(group.field(ROWS)) = wrong);
            });
            contains(&said, &what, &["row group 1", "rows"]);
        }
        for (what, step) in [("a row more", 1), ("a row less", -1)] {
            let said = error(&reader, &file, what, |footer| {
                last_group(footer, |group| *number(group.field(ROWS)) += step);
            });
            contains(&said, what, &["row group 1", "values in a row group of"]);
        }
        let said = error(&reader, &file, "no rows", |footer| {
            last_group(footer, |group| *number(group.field(ROWS)) = 0);
        });
        contains(&said, "no rows", &["row group 1", "its footer states 0 rows, but", "values of"]);
        let said = error(&reader, &file, "too many rows", |footer| {
            each_group(footer, |group| *number(group.field(ROWS)) = i64::MAX / 2 + 1);
        });
        contains(&said, "too many rows", &["row group 1", "more rows than can be counted"]);
    }
}

/// The rows of a file without any needed column consist of nulls: as many as the other columns have values.
#[test]
fn numbers_of_rows_without_needed_columns() {
    for kind in Kind::ALL {
        let (file, reader) = (file(kind), Reader::new(kind).unwrap());
        let rename = |footer: &mut Value| {
            // The names of the first level; the root comes first.
            footer.field(2).elements().iter_mut().skip(1).for_each(|node| *node.field(4) = text("other"));
            each_chunk(footer, |chunk| path(chunk).iter_mut().for_each(|part| *part = text("other")));
        };
        // Chunks without a path are at the positions of their columns.
        let anonymous = |footer: &mut Value| {
            rename(footer);
            each_chunk(footer, |chunk| chunk.field(3).remove(3));
        };
        for wrong in [0, 1, 100_000, i64::MAX / 2] {
            let what = format!("{kind:?}, {wrong} rows");
            let said = error(&reader, &file, &what, |footer| {
                anonymous(footer);
                last_group(footer, |group| *number(group.field(ROWS)) = wrong);
            });
            contains(&said, &what, &["row group 1", &format!("{wrong} rows")]);
        }
    }
}

#[test]
fn numbers_of_column_chunks() {
    for kind in Kind::ALL {
        let (file, reader) = (file(kind), Reader::new(kind).unwrap());
        let size = file.len() as i64;
        for column in columns(kind) {
            let check = |what: &str, id: i16, change: &dyn Fn(i64) -> i64| {
                let what = format!("{column} of {kind:?}, {what}");
                let said = error(&reader, &file, &what, |footer| {
                    chunks_of(footer, column, |chunk| {
                        let number = number(chunk.field(3).field(id));
                        *number = change(*number);
                    });
                });
                // The needed name of a field in a list has no names of the layout. Of two fields that disagree, both are named.
                let name = column.replace(".list.element", "");
                contains(&said, &what, &["row group 0, column ", &name]);
                said
            };
            for wrong in WRONG {
                check(&format!("{wrong} values"), VALUES, &|_| wrong);
                let said = check(&format!("the size {wrong}"), COMPRESSED, &|_| wrong);
                contains(&said, column, &["its column chunk"]);
            }
            for wrong in WRONG.into_iter().filter(|&wrong| wrong < 0) {
                let said = check(&format!("the offset {wrong}"), DATA, &|_| wrong);
                contains(&said, column, &["its column chunk"]);
            }
            for (what, step) in [("a value more", 1), ("a value less", -1)] {
                check(what, VALUES, &|values| values + step);
            }
            check("no values", VALUES, &|_| 0);
            check("no bytes", COMPRESSED, &|_| 0);
            check("half of its bytes", COMPRESSED, &|bytes| bytes / 2);
            check("the size of the file", COMPRESSED, &|_| size);
            // No dictionary is read then.
            WRONG.iter().for_each(|&wrong| drop(check("a dictionary's offset", DICTIONARY, &|_| wrong)));
        }
    }
}

/// As in Spark, the rows of the file are those of its row groups, and sizes that nothing is read by are ignored.
#[test]
fn numbers_that_are_not_needed() {
    for kind in Kind::ALL {
        let (file, reader) = (file(kind), Reader::new(kind).unwrap());
        let right = reader.read(&file).unwrap().rows();
        // A chunk begins with its dictionary.
        let changed = change_footer(&file, |footer| {
            columns(kind).iter().for_each(|column| {
                chunks_of(footer, column, |chunk| *number(chunk.field(3).field(DATA)) = i64::MAX);
            });
        });
        assert_eq!(reader.read(&changed.unwrap()).unwrap().rows(), right, "{kind:?}, data offsets");
        for wrong in WRONG {
            let changed = change_footer(&file, |footer| {
                *number(footer.field(3)) = wrong;
                each_group(footer, |group| group.set(BYTES, I64, Value::Number(wrong)));
                each_chunk(footer, |chunk| *number(chunk.field(3).field(UNCOMPRESSED)) = wrong);
            });
            assert_eq!(reader.read(&changed.unwrap()).unwrap().rows(), right, "{kind:?}, {wrong}");
        }
    }
}
