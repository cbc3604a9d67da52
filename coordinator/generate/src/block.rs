//! A block of pings in columns: one batch for each table. Not here: which pings a block has, and their values.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StructArray, new_null_array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::ArrowError;

use crate::client::{Client, Ping};
use crate::columns::{BLOCK_ROWS, Columns, ascii, batch, dictionary, fields, keep, lists, modulo};
use crate::draw::Draw;
use crate::strings::Strings;

// The columns that the job reads, and that narrow days have.
const NARROW_MAIN: [&str; 4] = ["client_id", "profile_creation_date", "active_addons", "active_theme"];
const NARROW_ACTIVE_ADDON: [&str; 1] = ["install_day"];
const NARROW_THEME: [&str; 1] = ["addon_id"];
const NARROW_ADDONS: [&str; 6] =
    ["client_id", "addon_id", "user_disabled", "app_disabled", "foreign_install", "is_system"];

/// Rows of both tables that are not written yet.
pub(crate) struct Block<'a> {
    strings: &'a Strings,
    narrow: bool,
    pings: Pings,
    rows: Rows,
}

/// Columns with a value per ping.
#[derive(Default)]
struct Pings {
    client_id: StringBuilder,
    document_id: StringBuilder,
    channel: Vec<i32>,
    system: Vec<i32>,
    country: Vec<i32>,
    created: Int64Builder,
    subsession_length: Vec<i64>,
    theme: Int32Builder,
    addons: Vec<usize>,
}

/// Columns with a value per add-on row.
#[derive(Default)]
struct Rows {
    /// The row's ping in this block.
    ping: Vec<i32>,
    code: Vec<i32>,
    foreign_install: BooleanBuilder,
    user_disabled: BooleanBuilder,
    app_disabled: BooleanBuilder,
    is_system: BooleanBuilder,
    install_day: Int32Builder,
    update_day: Vec<i32>,
}

impl<'a> Block<'a> {
    pub(crate) fn new(strings: &'a Strings, narrow: bool) -> Self {
        Block { strings, narrow, pings: Pings::default(), rows: Rows::default() }
    }

    /// Adds a ping and its add-on rows, whose values are drawn from `draw`.
    pub(crate) fn push(&mut self, client: &Client, ping: &Ping, mut draw: Draw) {
        let number = self.pings.addons.len() as i32;
        self.pings.push(client, ping);
        let rows = &mut self.rows;
        for addon in &client.addons {
            let row = addon.row(&mut draw);
            rows.ping.push(number);
            rows.code.push(addon.code as i32);
            rows.foreign_install.append_option(row.foreign_install);
            rows.user_disabled.append_option(row.user_disabled);
            rows.app_disabled.append_option(row.app_disabled);
            rows.is_system.append_option(row.is_system);
            rows.install_day.append_option(row.install_day);
            rows.update_day.push(addon.update_day);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pings.addons.len() >= BLOCK_ROWS || self.rows.code.len() >= BLOCK_ROWS
    }

    /// Removes and returns the rows: those of `main_summary`, and those of `addons` without the all-null ones.
    pub(crate) fn finish(&mut self) -> Result<(RecordBatch, RecordBatch), ArrowError> {
        let mut rows = std::mem::take(&mut self.rows);
        let of_ping = std::mem::take(&mut rows.ping);
        let addon = rows.columns(self.strings)?;
        let pings = std::mem::take(&mut self.pings).columns(self.strings)?;
        let addons = self.addons_batch(&pings, of_ping, addon.clone())?;
        Ok((self.main_batch(pings, addon)?, addons))
    }

    /// Removes the rows of pings without add-ons and returns the all-null rows that these have in `addons`.
    pub(crate) fn finish_empty(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows).columns(self.strings)?;
        let pings = std::mem::take(&mut self.pings).columns(self.strings)?;
        let count = pings.client_id.len();
        let nulls = rows.into_iter().map(|(name, like)| (name, new_null_array(like.data_type(), count)));
        let nulls = nulls.collect();
        self.addons_batch(&pings, (0..count as i32).collect(), nulls)
    }

    fn main_batch(&self, pings: PingColumns, addon: Columns) -> Result<RecordBatch, ArrowError> {
        let count = pings.client_id.len();
        let theme_addon = dictionary(pings.theme.clone(), &self.strings.themes)?;
        let theme_name = dictionary(Int32Array::from(vec![0; count]), &self.strings.theme_name)?;
        let theme = addon.iter().map(|(name, like)| {
            let column = match *name {
                "addon_id" => theme_addon.clone(),
                "name" => theme_name.clone(),
                _ => new_null_array(like.data_type(), count),
            };
            (*name, column)
        });
        let theme = self.keep(theme.collect(), &NARROW_THEME);
        let (theme_fields, theme) = fields(theme);
        let theme =
            StructArray::try_new_with_length(theme_fields, theme, pings.theme.nulls().cloned(), count)?;

        let active_addons = lists(self.keep(addon, &NARROW_ACTIVE_ADDON), pings.addons, None)?;
        let columns = vec![
            ("document_id", pings.document_id),
            ("client_id", pings.client_id),
            ("channel", pings.channel),
            ("os", pings.system),
            ("country", pings.country),
            ("profile_creation_date", pings.created),
            ("subsession_length", pings.subsession_length),
            ("active_addons", active_addons),
            ("active_theme", Arc::new(theme)),
        ];
        batch(self.keep(columns, &NARROW_MAIN))
    }

    fn addons_batch(
        &self,
        pings: &PingColumns,
        of_ping: Vec<i32>,
        addon: Columns,
    ) -> Result<RecordBatch, ArrowError> {
        let start_date = Int32Array::from(vec![0; of_ping.len()]);
        let has_client = pings.client_id.nulls().map(|clients| {
            of_ping.iter().map(|&ping| clients.is_valid(ping as usize)).collect::<NullBuffer>()
        });
        let document = Int32Array::from(of_ping);
        let client = Int32Array::try_new(document.values().clone(), has_client)?;
        let mut columns = vec![
            ("document_id", dictionary(document, &pings.document_id)?),
            ("client_id", dictionary(client, &pings.client_id)?),
            ("subsession_start_date", dictionary(start_date, &self.strings.start_date)?),
        ];
        columns.extend(addon);
        batch(self.keep(columns, &NARROW_ADDONS))
    }

    /// The columns of this day.
    fn keep(&self, columns: Columns, narrow: &[&str]) -> Columns {
        keep(columns, self.narrow.then_some(narrow))
    }
}

/// The arrays of [`Pings`].
struct PingColumns {
    client_id: ArrayRef,
    document_id: ArrayRef,
    channel: ArrayRef,
    system: ArrayRef,
    country: ArrayRef,
    created: ArrayRef,
    subsession_length: ArrayRef,
    theme: Int32Array,
    addons: Vec<usize>,
}

impl Pings {
    fn push(&mut self, client: &Client, ping: &Ping) {
        self.client_id.append_option(client.id.as_ref().map(|id| ascii(id)));
        self.document_id.append_value(ascii(&ping.document_id));
        self.channel.push(ping.channel as i32);
        self.system.push(ping.system as i32);
        self.country.push(ping.country as i32);
        self.created.append_option(ping.profile_creation_date);
        self.subsession_length.push(ping.subsession_length);
        self.theme.append_option(ping.theme.map(|code| code as i32));
        self.addons.push(client.addons.len());
    }

    fn columns(mut self, strings: &Strings) -> Result<PingColumns, ArrowError> {
        Ok(PingColumns {
            client_id: Arc::new(self.client_id.finish()),
            document_id: Arc::new(self.document_id.finish()),
            channel: dictionary(self.channel.into(), &strings.channels)?,
            system: dictionary(self.system.into(), &strings.systems)?,
            country: dictionary(self.country.into(), &strings.countries)?,
            created: Arc::new(self.created.finish()),
            subsession_length: Arc::new(Int64Array::from(self.subsession_length)),
            theme: self.theme.finish(),
            addons: self.addons,
        })
    }
}

impl Rows {
    /// The 14 fields of an add-on.
    fn columns(mut self, strings: &Strings) -> Result<Columns, ArrowError> {
        let count = self.code.len();
        let (scope, signed_state) = (modulo(&self.code, 4), modulo(&self.code, 3));
        let codes = Int32Array::from(self.code);
        let no: ArrayRef = Arc::new(BooleanArray::from(vec![false; count]));
        Ok(vec![
            ("addon_id", dictionary(codes.clone(), &strings.addons.ids)?),
            ("blocklisted", no.clone()),
            ("name", dictionary(codes.clone(), &strings.addons.names)?),
            ("user_disabled", Arc::new(self.user_disabled.finish())),
            ("app_disabled", Arc::new(self.app_disabled.finish())),
            ("version", dictionary(codes, &strings.addons.versions)?),
            ("scope", scope),
            ("type", dictionary(Int32Array::from(vec![0; count]), &strings.addons.kind)?),
            ("foreign_install", Arc::new(self.foreign_install.finish())),
            ("has_binary_components", no),
            ("install_day", Arc::new(self.install_day.finish())),
            ("update_day", Arc::new(Int32Array::from(self.update_day))),
            ("signed_state", signed_state),
            ("is_system", Arc::new(self.is_system.finish())),
        ])
    }
}
