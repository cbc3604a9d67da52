//! Counts which files of a table have its needed columns. Used by the planner, and by the map tasks that read the
//! footers of small files.
//!
//! Not here: the meaning of a missing column (the planner).

use tally_dataset::{TableSpec, Width};
use tally_proto::limits::shorten;
use tally_proto::v1;

use crate::resolve::{Leaf, Lookup};

/// Counts a file, given the lookup of each of the table's columns and its number of rows.
pub fn note(presence: &mut v1::Presence, table: &TableSpec, found: &[Lookup], file: &str, rows: u64) {
    let columns = if rows > 0 { &mut presence.with_rows } else { &mut presence.without_rows };
    columns.resize(table.columns.len(), v1::ColumnPresence::default());
    for (column, lookup) in columns.iter_mut().zip(found) {
        if *lookup != Lookup::Missing {
            column.found += 1;
            if let Lookup::Found(Leaf { width: Some(width), .. }) = lookup {
                let example = match width {
                    Width::W32 => &mut column.narrow_example,
                    Width::W64 => &mut column.wide_example,
                };
                if example.is_empty() {
                    *example = file.into();
                }
            }
            if let Some(what) = incompatible(lookup) {
                if column.unfit == 0 {
                    column.unfit_example = shorten(&format!("{what} in {file}")).into_owned();
                }
                column.unfit += 1;
            }
            continue;
        }
        if column.missing == 0 {
            column.example = file.into();
        }
        column.missing += 1;
        column.missing_rows = column.missing_rows.saturating_add(rows);
    }
}

/// Describes a column that exists and cannot be read as required.
fn incompatible(lookup: &Lookup) -> Option<String> {
    match lookup {
        Lookup::WrongType(found) => Some(found.clone()),
        Lookup::Ambiguous(names) => {
            Some(format!("any of {names} (names match without regard to letter case)"))
        }
        Lookup::Found(_) | Lookup::Missing => None,
    }
}

/// Adds the counts of files that come later.
pub fn add(presence: &mut v1::Presence, others: &v1::Presence) {
    let pairs =
        [(&mut presence.with_rows, &others.with_rows), (&mut presence.without_rows, &others.without_rows)];
    for (columns, others) in pairs {
        columns.resize(columns.len().max(others.len()), v1::ColumnPresence::default());
        for (column, other) in columns.iter_mut().zip(others) {
            if column.missing == 0 {
                column.example.clone_from(&other.example);
            }
            if column.unfit == 0 {
                column.unfit_example.clone_from(&other.unfit_example);
            }
            let widths = [
                (&mut column.narrow_example, &other.narrow_example),
                (&mut column.wide_example, &other.wide_example),
            ];
            for (example, other) in widths {
                if example.is_empty() {
                    example.clone_from(other);
                }
            }
            column.unfit = column.unfit.saturating_add(other.unfit);
            column.found = column.found.saturating_add(other.found);
            column.missing = column.missing.saturating_add(other.missing);
            column.missing_rows = column.missing_rows.saturating_add(other.missing_rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_dataset::Dataset;
    use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates};

    #[test]
    fn counts_of_parts_add_up_to_the_count_of_all() {
        let dataset = AddonAggregates::new();
        let table = &dataset.tables()[ADDONS];
        let there = |width| Lookup::Found(Leaf { index: 0, element_def: 0, width });
        let files: Vec<(String, Vec<Lookup>, u64)> = (0..20u64)
            .map(|file| {
                let lookup = |at: u64| match (file + at) % 3 {
                    0 => Lookup::Missing,
                    1 if file % 2 == 0 => Lookup::WrongType("INT32".into()),
                    // The last columns are integers of either width.
                    _ if at < 4 => there(None),
                    _ if file > 11 => there(Some(Width::W32)),
                    _ => there(Some(Width::W64)),
                };
                (format!("f{file}"), (0..table.columns.len() as u64).map(lookup).collect(), file % 4 * 10)
            })
            .collect();
        let count = |files: &[(String, Vec<Lookup>, u64)]| {
            let mut presence = v1::Presence::default();
            files.iter().for_each(|(name, found, rows)| note(&mut presence, table, found, name, *rows));
            presence
        };
        let all = count(&files);
        assert_eq!((all.with_rows[0].found, all.with_rows[0].missing), (10, 5));
        assert_eq!((all.with_rows[0].missing_rows, &*all.with_rows[0].example), (110, "f3"));
        assert_eq!((all.with_rows[0].unfit, &*all.with_rows[0].unfit_example), (1, "INT32 in f10"));
        let widths = [&*all.with_rows[4].narrow_example, &*all.with_rows[4].wide_example];
        assert_eq!((widths, &*all.with_rows[3].narrow_example), (["f13", "f1"], ""));
        for cut in 0..=files.len() {
            let mut parts = count(&files[..cut]);
            add(&mut parts, &count(&files[cut..]));
            assert_eq!(parts, all, "cut at {cut}");
        }
    }
}
