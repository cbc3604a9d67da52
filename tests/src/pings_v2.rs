//! The rows of `main_summary/v4`, the input of `addon_aggregates_v2`: as structs, as the columns of a file that is written,
//! and read back with the parquet crate's own Arrow reader. Not here: their expected output (`naive_v2`).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StructArray};
use arrow_schema::DataType;

use crate::columns::{Columns, Record, extra_columns, fields, shuffle};
use crate::day::{DataFile, OtherWidths};
use crate::shred::{Cell, Column, Field, Get, Kind, ListLayout};
use crate::table::{booleans, data_files, longs, plain_list, read, strings, text};

/// One ping, limited to what the job reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PingV2 {
    pub client_id: Option<String>,
    pub normalized_channel: Option<String>,
    pub app_version: Option<String>,
    pub locale: Option<String>,
    /// Days since 1970-01-01.
    pub profile_creation_date: Option<i64>,
    /// A null list and an empty list are the same to the job; a null element is one of nulls.
    pub active_addons: Option<Vec<Option<AddonV2>>>,
}

/// One element of a ping's `active_addons`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddonV2 {
    pub addon_id: Option<String>,
    pub foreign_install: Option<bool>,
    pub is_system: Option<bool>,
    pub is_web_extension: Option<bool>,
    pub install_day: Option<i64>,
}

/// A ping with the sample of its folder: null, or any number.
pub type Sampled = (Option<i64>, PingV2);

/// The sample of a data file, by the name of its folder; null for a text that is no whole number.
///
/// # Errors
/// No folder of it is one of a sample.
pub fn sample_of(path: &Path) -> Result<Option<i64>> {
    let mut names = path.iter().rev().filter_map(|name| name.to_str()?.strip_prefix("sample_id="));
    let name = names.next().with_context(|| format!("{} has no sample", path.display()))?;
    let number = name.trim().parse::<f64>().ok().filter(|number| number.fract() == 0.0);
    Ok(number.map(|number| number as i64))
}

/// All pings of a day, whose folder is `path`, and the widths of their integers. A column or field that is missing from a
/// file is null there.
///
/// # Errors
/// Those of the reader; files of different widths.
pub fn read_pings(path: &Path) -> Result<(Vec<Sampled>, OtherWidths)> {
    let (mut pings, mut days, mut dates) = (vec![], None, None);
    for file in data_files(path)? {
        let sample = sample_of(&file)?;
        let rows = read(&file, |batch, rows| {
            note(&mut dates, column(batch, "profile_creation_date"))?;
            read_batch(batch, &mut days, rows)
        })?;
        pings.extend(rows.into_iter().map(|row| (sample, row)));
    }
    let widths = OtherWidths {
        wide_days: days == Some(DataType::Int64),
        narrow_dates: dates == Some(DataType::Int32),
    };
    Ok((pings, widths))
}

/// Records the type of a column, which is the same in all files.
fn note(known: &mut Option<DataType>, column: Option<ArrayRef>) -> Result<()> {
    if let Some(column) = column {
        let other = known.replace(column.data_type().clone());
        ensure!(other.is_none_or(|other| Some(&other) == known.as_ref()), "integers of two widths");
    }
    Ok(())
}

/// Column names match in any letter case.
fn column(batch: &RecordBatch, name: &str) -> Option<ArrayRef> {
    let schema = batch.schema();
    let at = schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name))?;
    Some(batch.column(at).clone())
}

fn field(fields: &StructArray, name: &str) -> Option<ArrayRef> {
    let at = fields.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name))?;
    Some(fields.column(at).clone())
}

fn long(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

fn read_batch(batch: &RecordBatch, days: &mut Option<DataType>, rows: &mut Vec<PingV2>) -> Result<()> {
    let n = batch.num_rows();
    let texts = ["client_id", "normalized_channel", "app_version", "locale"];
    let texts = texts.map(|name| strings(column(batch, name), n)).into_iter().collect::<Result<Vec<_>>>()?;
    let dates = longs(column(batch, "profile_creation_date"), n)?;
    let lists = column(batch, "active_addons").map(|list| plain_list(&list)).transpose()?;
    let elements = lists.as_ref().map(|lists| elements(lists, days)).transpose()?;
    for row in 0..n {
        let list = lists.as_ref().zip(elements.as_ref()).filter(|(lists, _)| lists.is_valid(row));
        let active_addons = list.map(|(lists, elements)| {
            let ends = lists.value_offsets();
            elements[ends[row] as usize..ends[row + 1] as usize].to_vec()
        });
        rows.push(PingV2 {
            client_id: text(&texts[0], row),
            normalized_channel: text(&texts[1], row),
            app_version: text(&texts[2], row),
            locale: text(&texts[3], row),
            profile_creation_date: long(&dates, row),
            active_addons,
        });
    }
    Ok(())
}

/// The elements of all lists.
fn elements(lists: &ListArray, days: &mut Option<DataType>) -> Result<Vec<Option<AddonV2>>> {
    let structs: &StructArray = lists.values().as_struct();
    let n = structs.len();
    note(days, field(structs, "install_day"))?;
    let ids = strings(field(structs, "addon_id"), n)?;
    let flags = ["foreign_install", "is_system", "is_web_extension"];
    let flags =
        flags.map(|name| booleans(field(structs, name), n)).into_iter().collect::<Result<Vec<_>>>()?;
    let installed = longs(field(structs, "install_day"), n)?;
    let flag = |flag: usize, at: usize| flags[flag].is_valid(at).then(|| flags[flag].value(at));
    let element = |at: usize| {
        structs.is_valid(at).then(|| AddonV2 {
            addon_id: text(&ids, at),
            foreign_install: flag(0, at),
            is_system: flag(1, at),
            is_web_extension: flag(2, at),
            install_day: long(&installed, at),
        })
    };
    Ok((0..n).map(element).collect())
}

fn of_element(row: &PingV2, at: usize) -> Option<&AddonV2> {
    row.active_addons.as_ref().and_then(|list| list[at].as_ref())
}

impl Record for PingV2 {
    const TABLE: &'static str = "main_summary/v4";

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    fn mask(&mut self, file: &DataFile<Self>) {
        for column in &file.missing {
            let each = |addons: &mut Option<Vec<Option<AddonV2>>>, clear: fn(&mut AddonV2)| {
                addons.iter_mut().flatten().flatten().for_each(clear);
            };
            match *column {
                "client_id" => self.client_id = None,
                "normalized_channel" => self.normalized_channel = None,
                "app_version" => self.app_version = None,
                "locale" => self.locale = None,
                "profile_creation_date" => self.profile_creation_date = None,
                "active_addons" => self.active_addons = None,
                "active_addons.addon_id" => each(&mut self.active_addons, |it| it.addon_id = None),
                "active_addons.foreign_install" => {
                    each(&mut self.active_addons, |it| it.foreign_install = None)
                }
                "active_addons.is_system" => each(&mut self.active_addons, |it| it.is_system = None),
                "active_addons.is_web_extension" => {
                    each(&mut self.active_addons, |it| it.is_web_extension = None)
                }
                "active_addons.install_day" => each(&mut self.active_addons, |it| it.install_day = None),
                other => panic!("main_summary has no column {other}"),
            }
        }
        if file.format.list == ListLayout::TwoLevel {
            let elements = self.active_addons.iter_mut().flatten();
            elements.for_each(|element| *element = Some(element.take().unwrap_or_default()));
        }
    }

    fn columns(file: &DataFile<Self>) -> Columns<Self> {
        let OtherWidths { wide_days, narrow_dates } = file.format.widths;
        let day: (Kind, Get<Self>) = if wide_days { (Kind::Long, wide_day) } else { (Kind::Int, narrow_day) };
        let mut addon = fields(
            file,
            "active_addons",
            [
                ("addon_id", Kind::Text, |row: &Self, at| {
                    of_element(row, at)?.addon_id.clone().map(Cell::Text)
                }),
                ("foreign_install", Kind::Flag, |row, at| {
                    of_element(row, at)?.foreign_install.map(Cell::Flag)
                }),
                ("is_system", Kind::Flag, |row, at| of_element(row, at)?.is_system.map(Cell::Flag)),
                ("is_web_extension", Kind::Flag, |row, at| {
                    of_element(row, at)?.is_web_extension.map(Cell::Flag)
                }),
                ("install_day", day.0, day.1),
            ],
        );
        shuffle(file, 2, &mut addon);
        let list = Column::List {
            name: "active_addons",
            layout: file.format.list,
            len: |row: &Self| row.active_addons.as_ref().map(Vec::len),
            element_present: |row, at| of_element(row, at).is_some(),
            fields: addon,
            required: false,
            element_required: false,
        };
        let date = if narrow_dates {
            Field::new("profile_creation_date", Kind::Int, |row: &Self, _| {
                row.profile_creation_date.map(|days| Cell::Int(days as i32))
            })
        } else {
            Field::new("profile_creation_date", Kind::Long, |row: &Self, _| {
                row.profile_creation_date.map(Cell::Long)
            })
        };
        let flat = [
            Field::new("client_id", Kind::Text, |row: &Self, _| row.client_id.clone().map(Cell::Text)),
            Field::new("normalized_channel", Kind::Text, |row: &Self, _| {
                row.normalized_channel.clone().map(Cell::Text)
            }),
            Field::new("app_version", Kind::Text, |row: &Self, _| row.app_version.clone().map(Cell::Text)),
            Field::new("locale", Kind::Text, |row: &Self, _| row.locale.clone().map(Cell::Text)),
            date,
        ];
        let mut columns: Vec<Column<Self>> = flat.into_iter().map(Column::Flat).chain([list]).collect();
        columns.retain(|column| !file.missing.contains(column.name()));
        extra_columns(file, &mut columns);
        Columns(columns)
    }
}

fn wide_day(row: &PingV2, at: usize) -> Option<Cell> {
    of_element(row, at)?.install_day.map(Cell::Long)
}

fn narrow_day(row: &PingV2, at: usize) -> Option<Cell> {
    of_element(row, at)?.install_day.map(|day| Cell::Int(day as i32))
}
