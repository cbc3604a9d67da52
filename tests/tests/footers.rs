//! A golden day with footers as other writers, or later versions of the format, might write them: the rows stay the
//! same, or the error names the problem and the file. In folders and in S3, where footers are sent with tasks.
//!
//! Not here: whole files of other writers (`foreign`).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tally_tests::footer::{
    bad, chunks_of, column, each_chunk, each_group, each_node, empty_lists, encryption, footer_key, integer,
    later, own_key, path, rename, rename_bytes, rename_under, strings, text,
};
use tally_tests::golden::{Case, DATE};
use tally_tests::output::Place;
use tally_tests::process::{Outcome, Tally};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{job, read_output};
use tally_tests::table;
use tally_tests::thrift::{BINARY, BYTE, I32, I64, LIST, STRUCT, Value, change_footer};

/// The golden day: nine files in each table, some without rows or of several row groups.
const CASE: &str = "case-05";

type Change = fn(&mut Value);

/// Changes of a footer that do not affect readers of the needed columns.
const SAME: &[(&str, Change)] = &[
    ("chunks the other way round", |footer| each_group(footer, |group| group.field(1).elements().reverse())),
    ("chunks turned by one", |footer| each_group(footer, |group| group.field(1).elements().rotate_left(1))),
    ("chunks without paths", |footer| each_chunk(footer, |chunk| chunk.field(3).remove(3))),
    ("chunks with empty paths", |footer| {
        each_chunk(footer, |chunk| *chunk.field(3).field(3) = Value::List(0, vec![]));
    }),
    ("an unused chunk under a wrong path", |footer| {
        chunks_of(footer, "document_id", |chunk| *path(chunk) = vec![text("elsewhere")]);
    }),
    ("an unused chunk under another's path", |footer| {
        chunks_of(footer, "document_id", |chunk| *path(chunk) = vec![text("extra")]);
    }),
    ("all names in capitals", |footer| rename(footer, str::to_uppercase)),
    ("names with a capital", |footer| {
        rename(footer, |name| name[..1].to_uppercase() + &name[1..]);
    }),
    ("a column that differs from a needed one in case alone", |footer| {
        rename(footer, |name| if name == "document_id" { "Client_ID".into() } else { name.into() });
    }),
    ("a name that is not UTF-8", |footer| {
        rename_bytes(
            footer,
            |name| if name == b"document_id" { b"\xff\x00\xfe".to_vec() } else { name.into() },
        );
    }),
    ("text that is not UTF-8", |footer| {
        footer.set(6, BINARY, Value::Binary(b"\xc3\x28 \xff".to_vec()));
        let pair =
            |key: &[u8]| Value::Struct(vec![(1, BINARY, Value::Binary(key.to_vec())), (2, BINARY, bad())]);
        footer.set(5, LIST, Value::List(STRUCT, vec![pair(b"\xff"), pair(b"k")]));
    }),
    ("no text at all", |footer| {
        footer.remove(5);
        footer.remove(6);
    }),
    ("lists without elements of no type", |footer| empty_lists(footer, 0)),
    ("lists without elements of another type", |footer| empty_lists(footer, BINARY)),
    ("an annotation of later days", |footer| {
        column(footer, "document_id", |node| {
            node.remove(6);
            node.set(10, STRUCT, Value::Struct(vec![(99, STRUCT, later())]));
        });
        column(footer, "active_theme.blocklisted", |node| {
            node.set(10, STRUCT, Value::Struct(vec![(98, STRUCT, later())]));
        });
        column(footer, "active_addons.list.element.name", |node| node.set(6, I32, Value::Number(77)));
    }),
    ("a type of later days", |footer| {
        column(footer, "document_id", |node| {
            node.set(1, I32, Value::Number(11));
            node.remove(6);
            node.remove(10);
        });
        chunks_of(footer, "document_id", |chunk| chunk.field(3).set(1, I32, Value::Number(11)));
    }),
    ("16-bit floats, UUIDs, variants, places, decimals of no digits", |footer| {
        for (name, number) in [("document_id", 15), ("name", 14), ("active_theme.blocklisted", 18)] {
            column(footer, name, |node| {
                node.remove(6);
                node.set(10, STRUCT, Value::Struct(vec![(number, STRUCT, Value::Struct(vec![]))]));
            });
        }
        column(footer, "active_addons.list.element.addon_id", |node| {
            node.remove(10);
            node.set(6, I32, Value::Number(5));
        });
        column(footer, "active_addons.list.element.name", |node| {
            node.remove(6);
            node.set(
                10,
                STRUCT,
                Value::Struct(vec![(16, STRUCT, Value::Struct(vec![(1, BYTE, Value::Byte(1))]))]),
            );
        });
    }),
    ("codecs and encodings of later days", |footer| {
        for name in ["document_id", "active_theme.blocklisted", "active_addons.list.element.name"] {
            chunks_of(footer, name, |chunk| {
                chunk.field(3).set(4, I32, Value::Number(55));
                chunk.field(3).set(2, LIST, Value::List(I32, vec![Value::Number(99), Value::Number(-3)]));
            });
        }
        each_chunk(footer, |chunk| {
            chunk.field(3).set(2, LIST, Value::List(I32, vec![Value::Number(99)]));
            let stats =
                vec![(1, I32, Value::Number(9)), (2, I32, Value::Number(99)), (3, I32, Value::Number(-1))];
            chunk.field(3).set(13, LIST, Value::List(STRUCT, vec![Value::Struct(stats)]));
        });
    }),
    ("statistics that make no sense", |footer| {
        each_chunk(footer, |chunk| {
            let odd = (1..=6).map(|id| match id {
                3 | 4 => (id, I64, Value::Number(-5)),
                _ => (id, BINARY, Value::Binary(vec![0xff])),
            });
            chunk.field(3).set(12, STRUCT, Value::Struct(odd.collect()));
        });
        footer.set(
            7,
            LIST,
            Value::List(STRUCT, vec![Value::Struct(vec![(9, STRUCT, Value::Struct(vec![]))])]),
        );
    }),
    ("strings annotated as JSON", |footer| strings(footer, Some(19), Some(12))),
    ("strings annotated as JSON the old way", |footer| strings(footer, Some(19), None)),
    ("strings annotated as JSON the new way", |footer| strings(footer, None, Some(12))),
    ("strings annotated as enums", |footer| strings(footer, Some(4), Some(4))),
    ("strings annotated as strings the new way", |footer| strings(footer, None, Some(1))),
    ("strings without annotation", |footer| strings(footer, None, None)),
    ("strings of which the annotations contradict each other", |footer| strings(footer, Some(0), Some(99))),
    ("integers with their widths", |footer| {
        column(footer, "profile_creation_date", |node| integer(node, Some(18), Some(64)));
        column(footer, "active_addons.list.element.install_day", |node| integer(node, Some(17), Some(32)));
    }),
    ("integers with their widths the old way", |footer| {
        column(footer, "profile_creation_date", |node| integer(node, Some(18), None));
        column(footer, "active_addons.list.element.install_day", |node| integer(node, Some(17), None));
    }),
    ("integers with their widths the new way", |footer| {
        column(footer, "profile_creation_date", |node| integer(node, None, Some(64)));
        column(footer, "active_addons.list.element.install_day", |node| integer(node, None, Some(32)));
    }),
    ("an unused column encrypted with the file's key", |footer| {
        encryption(footer);
        for name in ["document_id", "active_theme.blocklisted"] {
            chunks_of(footer, name, |chunk| chunk.set(8, STRUCT, footer_key()));
        }
    }),
    ("unused columns encrypted with their own keys", |footer| {
        encryption(footer);
        for name in ["document_id", "active_addons.list.element.name"] {
            chunks_of(footer, name, |chunk| own_key(chunk, true));
        }
    }),
    ("a number of rows that is not that of the row groups", |footer| footer.set(3, I64, Value::Number(1))),
    ("without unused columns", |footer| {
        each_group(footer, |group| [2, 4, 5, 6, 7].into_iter().for_each(|id| group.remove(id)));
        each_chunk(footer, |chunk| {
            [1, 2, 4, 5, 6, 7].into_iter().for_each(|id| chunk.remove(id));
            [2, 6, 8, 10, 12, 13, 14, 15, 16].into_iter().for_each(|id| chunk.field(3).remove(id));
        });
        footer.remove(7);
    }),
    ("fields in another order", |footer| footer.each_struct(&mut |node| node.fields().reverse())),
    ("fields of later days", |footer| {
        // Not in unions, which have one field.
        footer.remove(7);
        each_node(footer, |node| node.remove(10));
        footer.each_struct(&mut |node| {
            let number = node.fields().iter().map(|field| field.0).max().unwrap_or(0).max(1000);
            node.set(number + 1, STRUCT, later());
            node.set(number + 40, 1, Value::Byte(1));
            node.set(number + 41, 7, Value::Double([1; 8]));
            node.set(number + 42, LIST, Value::List(STRUCT, vec![later(), later()]));
        });
    }),
];

/// Changes of a footer that make the day an error, and words that the error must contain besides the file's name.
const ERRORS: &[(&str, &[&str], Change)] = &[
    ("a needed column without a chunk", &["client_id", "row group", "no column chunk"], |footer| {
        chunks_of(footer, "client_id", |chunk| *path(chunk) = vec![text("elsewhere")]);
    }),
    ("a needed column with two chunks", &["client_id", "row group", "several column chunks"], |footer| {
        chunks_of(footer, "document_id", |chunk| *path(chunk) = vec![text("client_id")]);
    }),
    ("row groups of fewer chunks than columns", &["row group 0", "column chunks"], |footer| {
        each_group(footer, |group| drop(group.field(1).elements().pop()));
    }),
    (
        "several columns that only case tells from the needed one",
        &["CLIENT_ID", "Client_Id", "letter case"],
        |footer| {
            rename(footer, |name| match name {
                "document_id" => "CLIENT_ID".into(),
                "client_id" => "Client_Id".into(),
                other => other.into(),
            });
        },
    ),
    ("two columns of the needed name", &["client_id and client_id"], |footer| {
        rename(footer, |name| if name == "document_id" { "client_id".into() } else { name.into() });
    }),
    ("a needed column encrypted with the file's key", &["client_id", "encrypted"], |footer| {
        encryption(footer);
        chunks_of(footer, "client_id", |chunk| chunk.set(8, STRUCT, footer_key()));
    }),
    ("a needed column encrypted with its own key", &["client_id", "encrypted"], |footer| {
        encryption(footer);
        chunks_of(footer, "client_id", |chunk| own_key(chunk, true));
    }),
    ("a needed column of which nothing can be read without a key", &["client_id", "encrypted"], |footer| {
        encryption(footer);
        chunks_of(footer, "client_id", |chunk| own_key(chunk, false));
    }),
    ("a needed column of an unknown codec", &["client_id", "codec", "55"], |footer| {
        chunks_of(footer, "client_id", |chunk| chunk.field(3).set(4, I32, Value::Number(55)));
    }),
    ("a needed column of an unknown type", &["client_id", "string"], |footer| {
        column(footer, "client_id", |node| node.set(1, I32, Value::Number(11)));
    }),
    ("a needed column of an unknown annotation", &["client_id", "string"], |footer| {
        strings(footer, None, Some(99))
    }),
    ("binary documents for strings", &["client_id", "BSON"], |footer| strings(footer, Some(20), None)),
];

/// The same for columns of `main_summary` alone.
const MAIN_ERRORS: &[(&str, &[&str], Change)] = &[
    (
        "a field that only case tells from another",
        &["active_theme.Addon_ID and active_theme.ADDON_ID"],
        |footer| {
            let mut seen = 0;
            rename_under(footer, "active_theme", |name| match name {
                "addon_id" => "Addon_ID".into(),
                "blocklisted" => "ADDON_ID".into(),
                other => {
                    seen += 1;
                    other.into()
                }
            });
            assert_eq!(seen, 0);
        },
    ),
    ("a time for a number", &["profile_creation_date", "TIMESTAMP"], |footer| {
        column(footer, "profile_creation_date", |node| integer(node, Some(9), None));
    }),
    ("a number without a sign", &["profile_creation_date", "UINT_64"], |footer| {
        column(footer, "profile_creation_date", |node| integer(node, Some(14), None));
    }),
    ("a date for a number", &["install_day", "DATE"], |footer| {
        column(footer, "active_addons.list.element.install_day", |node| integer(node, Some(6), None));
    }),
    ("a needed field encrypted", &["active_theme.addon_id", "encrypted"], |footer| {
        encryption(footer);
        chunks_of(footer, "active_theme.addon_id", |chunk| own_key(chunk, true));
    }),
];

/// Copies the golden day with changed footers in `tables`, except in the first file of each table.
fn write(case: &Case, to: &Path, tables: &[&str], change: Change) -> Result<()> {
    for table in ["addons/v2", "main_summary/v3"] {
        let day = Path::new(table).join(format!("submission_date_s3={DATE}"));
        let from = case.dir.join(&day);
        for (number, file) in table::data_files(&from)?.into_iter().enumerate() {
            let target = to.join(&day).join(file.strip_prefix(&from)?);
            std::fs::create_dir_all(target.parent().context("no folder")?)?;
            let mut bytes = std::fs::read(&file)?;
            if number > 0 && tables.contains(&table) {
                bytes = change_footer(&bytes, change)?;
            }
            std::fs::write(target, bytes)?;
        }
    }
    Ok(())
}

const BOTH: [&str; 2] = ["addons/v2", "main_summary/v3"];

/// Runs a job over each day that a change makes.
fn each_day(
    mut run: impl FnMut(&Path) -> Result<Outcome>,
    read: impl Fn() -> Result<Vec<tally_tests::rows::Row>>,
) -> Result<()> {
    let case = Case::new(CASE);
    let rows = case.expected_rows()?;
    let mut failed = vec![];
    let mut day =
        |name: &str, tables: &[&str], change, check: &dyn Fn(Outcome) -> Result<()>| -> Result<()> {
            let place = Place::new()?;
            write(&case, place.path(), tables, change)?;
            if let Err(error) = check(run(place.path())?) {
                failed.push(format!("{name} in {tables:?}: {error:?}"));
            }
            Ok(())
        };
    for (name, change) in SAME {
        day(name, &BOTH, *change, &|outcome| {
            outcome.summary()?;
            table::compare(&read()?, &rows)
        })?;
    }
    let errors = ERRORS.iter().flat_map(|error| BOTH.map(|table| (table, error)));
    for (table, (name, words, change)) in errors.chain(MAIN_ERRORS.iter().map(|error| (BOTH[1], error))) {
        day(name, &[table], *change, &|outcome| {
            outcome.expect_failure(1, words)?.expect_failure(1, &[".parquet"]).map(drop)
        })?;
    }
    ensure!(failed.is_empty(), "{} days are wrong:\n{}", failed.len(), failed.join("\n\n"));
    Ok(())
}

fn footers_of_other_writers_and_later_days_are_read_or_the_error_says_why_not() -> Result<()> {
    let place = Place::new()?;
    each_day(|day| Tally::job(day, &place).date(DATE).run(), || place.read_output(DATE))
}

fn the_same_in_s3() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    let spill = Place::new()?;
    each_day(
        |day| {
            for table in BOTH {
                data.put_tree(&day.join(table), &format!("day/{table}"))?;
            }
            job(server.address(), ADMIN, "day", &spill.spill()).run()
        },
        || read_output(&out),
    )
}

/// Files without rows do not affect types, whatever they contain.
fn files_without_rows_may_say_anything() -> Result<()> {
    let case = Case::new(CASE);
    let rows = case.expected_rows()?;
    let changes: [(&str, Change); 5] = [
        ("no row groups, the list of no type", |footer| *footer.field(4) = Value::List(0, vec![])),
        ("row groups of no rows", |footer| {
            each_group(footer, |group| *group.field(3) = Value::Number(0));
            each_chunk(footer, |chunk| {
                for id in [5, 6, 7, 9] {
                    chunk.field(3).set(id, I64, Value::Number(0));
                }
                chunk.field(3).remove(11);
            });
        }),
        ("row groups of no rows whose needed columns are encrypted", |footer| {
            each_group(footer, |group| *group.field(3) = Value::Number(0));
            each_chunk(footer, |chunk| own_key(chunk, false));
        }),
        ("columns of other types", |footer| {
            *footer.field(4) = Value::List(STRUCT, vec![]);
            each_node(footer, |node| {
                if node.has(1) {
                    node.set(1, I32, Value::Number(1));
                    node.remove(6);
                    node.set(10, STRUCT, Value::Struct(vec![(11, STRUCT, Value::Struct(vec![]))]));
                }
            });
        }),
        ("no columns", |footer| {
            *footer.field(4) = Value::List(0, vec![]);
            footer.field(2).elements().truncate(1);
            footer.field(2).elements()[0].set(5, I32, Value::Number(0));
        }),
    ];
    for (name, change) in changes {
        let place = Place::new()?;
        let day = place.path().join("day");
        write(&case, &day, &[], |_| {})?;
        for table in BOTH {
            let folder = day.join(table).join(format!("submission_date_s3={DATE}"));
            for file in table::data_files(&folder)? {
                let name = format!("zero-{}", file.file_name().unwrap_or_default().to_string_lossy());
                std::fs::write(file.with_file_name(name), change_footer(&std::fs::read(&file)?, change)?)?;
            }
        }
        let outcome = Tally::job(&day, &place).date(DATE).run()?.expect_code(0).context(name)?;
        ensure!(!outcome.stderr.contains("zero-"), "{name}: a warning\n{outcome}");
        table::compare(&place.read_output(DATE)?, &rows).context(name)?;
    }
    Ok(())
}

tally_tests::tests![
    footers_of_other_writers_and_later_days_are_read_or_the_error_says_why_not,
    the_same_in_s3,
    files_without_rows_may_say_anything,
];
