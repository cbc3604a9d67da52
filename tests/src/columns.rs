//! The columns of the two tables as one file spells them: which are left out, which unused ones are added, and in which
//! order. Not here: levels and schemas (`shred`), pages and files (`day`).

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::day::{DataFile, ListLayout};
use crate::rows::{AddonRow, MainRow};
use crate::shred::{Cell, Column, Field, Get, Kind};

/// A row that can be written: it knows the columns of its table.
pub trait Record: Clone {
    /// `<table>/<version>`, the folder of the table under a day's root.
    const TABLE: &'static str;

    /// The client of the row.
    fn client_id(&self) -> Option<&str>;

    /// Removes what `file` can't hold: the columns that are missing from it, and null elements in the two-level layout.
    fn mask(&mut self, file: &DataFile<Self>);

    #[doc(hidden)]
    fn columns(file: &DataFile<Self>) -> Columns<Self>;
}

/// The columns of a table in one file; opaque outside of the testkit.
pub struct Columns<R>(pub(crate) Vec<Column<R>>);

impl Record for MainRow {
    const TABLE: &'static str = "main_summary/v3";

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    fn mask(&mut self, file: &DataFile<Self>) {
        for column in &file.missing {
            match *column {
                "client_id" => self.client_id = None,
                "profile_creation_date" => self.profile_creation_date = None,
                "active_theme" => self.active_theme = None,
                "active_theme.addon_id" => {
                    self.active_theme.iter_mut().for_each(|theme| theme.addon_id = None);
                }
                // Observed with Spark 4.0.1: where the only requested field is missing from the elements, the whole list reads as
                // null, so its ping adds no group of install days.
                "active_addons" | "active_addons.install_day" => self.active_addons = None,
                other => panic!("main_summary has no column {other}"),
            }
        }
        if file.format.list == ListLayout::TwoLevel {
            let elements = self.active_addons.iter_mut().flatten();
            elements.for_each(|element| *element = Some(element.take().unwrap_or_default()));
        }
    }

    fn columns(file: &DataFile<Self>) -> Columns<Self> {
        let mut theme = fields(file, "active_theme", [("addon_id", Kind::Text, theme_of as fn(&_, _) -> _)]);
        let mut addon = fields(file, "active_addons", [("install_day", Kind::Int, day_of as fn(&_, _) -> _)]);
        shuffle(file, 1, &mut theme);
        shuffle(file, 2, &mut addon);
        let list = Column::List {
            name: "active_addons",
            layout: file.format.list,
            len: |row: &Self| row.active_addons.as_ref().map(Vec::len),
            element_present: |row, at| row.active_addons.as_ref().is_some_and(|list| list[at].is_some()),
            fields: addon,
            required: false,
            element_required: false,
        };
        let group = Column::Group {
            name: "active_theme",
            present: |row: &Self| row.active_theme.is_some(),
            fields: theme,
            required: false,
        };
        let client =
            Field::new("client_id", Kind::Text, |row: &Self, _| row.client_id.clone().map(Cell::Text));
        let date = Field::new("profile_creation_date", Kind::Long, |row: &Self, _| {
            row.profile_creation_date.map(Cell::Long)
        });
        let mut columns = vec![Column::Flat(client), Column::Flat(date), list, group];
        columns.retain(|column| !file.missing.contains(column.name()));
        extra_columns(file, &mut columns);
        Columns(columns)
    }
}

impl Record for AddonRow {
    const TABLE: &'static str = "addons/v2";

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    fn mask(&mut self, file: &DataFile<Self>) {
        for column in &file.missing {
            match *column {
                "client_id" => self.client_id = None,
                "addon_id" => self.addon_id = None,
                "foreign_install" => self.foreign_install = None,
                "is_system" => self.is_system = None,
                "user_disabled" => self.user_disabled = None,
                "app_disabled" => self.app_disabled = None,
                other => panic!("addons has no column {other}"),
            }
        }
    }

    fn columns(file: &DataFile<Self>) -> Columns<Self> {
        let fields = [
            Field::new("client_id", Kind::Text, |row: &Self, _| row.client_id.clone().map(Cell::Text)),
            Field::new("addon_id", Kind::Text, |row: &Self, _| row.addon_id.clone().map(Cell::Text)),
            Field::new("foreign_install", Kind::Flag, |row: &Self, _| row.foreign_install.map(Cell::Flag)),
            Field::new("is_system", Kind::Flag, |row: &Self, _| row.is_system.map(Cell::Flag)),
            Field::new("user_disabled", Kind::Flag, |row: &Self, _| row.user_disabled.map(Cell::Flag)),
            Field::new("app_disabled", Kind::Flag, |row: &Self, _| row.app_disabled.map(Cell::Flag)),
        ];
        let present = fields.into_iter().filter(|field| !file.missing.contains(field.name.as_str()));
        let mut columns = present.map(Column::Flat).collect();
        extra_columns(file, &mut columns);
        Columns(columns)
    }
}

fn theme_of(row: &MainRow, _: usize) -> Option<Cell> {
    row.active_theme.as_ref().and_then(|theme| theme.addon_id.clone()).map(Cell::Text)
}

fn day_of(row: &MainRow, at: usize) -> Option<Cell> {
    let element = row.active_addons.as_ref().and_then(|list| list[at].as_ref());
    element.and_then(|addon| addon.install_day).map(Cell::Int)
}

/// The fields of a struct: those that are wanted and not missing, and another one if the struct would otherwise be empty.
pub(crate) fn fields<R, const N: usize>(
    file: &DataFile<R>,
    parent: &str,
    wanted: [(&'static str, Kind, Get<R>); N],
) -> Vec<Field<R>> {
    let missing = |name: &str| file.missing.contains(format!("{parent}.{name}").as_str());
    let present = wanted.into_iter().filter(|(name, ..)| !missing(name));
    let mut fields: Vec<_> = present.map(|(name, kind, get)| Field::new(name, kind, get)).collect();
    if file.format.extras || fields.is_empty() {
        fields.push(Field::new("name", Kind::Text, |_, at| {
            (at % 3 != 1).then(|| Cell::Text(format!("n{at}")))
        }));
        fields.push(Field::new("blocklisted", Kind::Flag, |_, at| Some(Cell::Flag(at % 2 == 0))));
    }
    fields
}

/// Adds unused columns and puts all columns into the file's order.
pub(crate) fn extra_columns<R>(file: &DataFile<R>, columns: &mut Vec<Column<R>>) {
    if file.format.extras {
        let (kind, get): (_, fn(&R, usize) -> Option<Cell>) = match file.format.order % 3 {
            0 => (Kind::Int, |_, _| Some(Cell::Int(7))),
            1 => (Kind::Text, |_, _| Some(Cell::Text("seven".into()))),
            _ => (Kind::Long, |_, _| None),
        };
        columns.push(Column::Flat(Field::new("document_id", Kind::Text, |_, _| {
            Some(Cell::Text("d".repeat(36)))
        })));
        columns.push(Column::Flat(Field::new("extra", kind, get)));
        columns.push(Column::List {
            name: "experiments",
            layout: file.format.list,
            len: |_| Some(2),
            element_present: |_, _| true,
            fields: vec![Field::new("id", Kind::Int, |_, at| Some(Cell::Int(at as i32)))],
            required: false,
            element_required: false,
        });
    }
    shuffle(file, 3, columns);
}

pub(crate) fn shuffle<R, T>(file: &DataFile<R>, salt: u64, items: &mut [T]) {
    if file.format.order != 0 {
        items.shuffle(&mut StdRng::seed_from_u64(file.format.order.wrapping_mul(salt)));
    }
}
