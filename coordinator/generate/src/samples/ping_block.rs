//! A block of pings in columns. Not here: which pings a block has, and their values.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, Field, Fields, Schema};

use super::profile::{COUNTRIES, Element, LOCALES, MINORS, PingHead, Profile, STUDIES};

/// A block is full when it has this many pings or elements. A ping is not divided, so a block may have one more.
const BLOCK_ROWS: usize = 1 << 16;
// The columns that the job reads, and that narrow days have.
const NARROW: [&str; 6] =
    ["client_id", "normalized_channel", "app_version", "locale", "profile_creation_date", "active_addons"];
const NARROW_ELEMENT: [&str; 5] =
    ["addon_id", "foreign_install", "is_system", "is_web_extension", "install_day"];
const VERSIONS: [u32; 8] = [57, 56, 52, 58, 59, 55, 54, 48];
const RELEASES: [&str; MINORS as usize] = [".0", ".0.1", ".0.2", ".0.4"];

/// Columns with their names, in the file's order.
type Columns = Vec<(&'static str, ArrayRef)>;

/// Values of the dictionaries; a row's code is its index.
pub(super) struct Words {
    addon_ids: ArrayRef,
    addon_names: ArrayRef,
    addon_versions: ArrayRef,
    addon_type: ArrayRef,
    channels: ArrayRef,
    normalized_channels: ArrayRef,
    versions: ArrayRef,
    locales: ArrayRef,
    systems: ArrayRef,
    countries: ArrayRef,
}

fn values(words: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(words))
}

/// Every third add-on has a GUID, the others have an address, as in production.
fn addon_id(number: u32) -> String {
    if number.is_multiple_of(3) {
        format!("{{{:08x}-0000-4000-8000-{number:012x}}}", number.wrapping_mul(2_654_435_761))
    } else {
        format!("addon{number}@example{}.org", number % 97)
    }
}

impl Words {
    /// The strings of a day with `addons` add-ons besides the special ones.
    pub(super) fn new(addons: u32) -> Self {
        let others =
            ["@testpilot-addon", "@unified-urlbar-shield", "testpilot@cliqz.com", "page-shot@mozilla"];
        let special = (0..STUDIES.start).map(|i| format!("system{i}@mozilla.org"));
        let special = special.chain((0..STUDIES.len()).map(|i| format!("study{i}@shield.mozilla.org")));
        let ids: Vec<String> =
            special.chain(others.map(String::from)).chain((0..addons).map(addon_id)).collect();
        let all = ids.len();
        let channels = |last: &str| values(["release", "beta", "nightly", "esr", last].map(String::from));
        let releases = |version| RELEASES.map(|release| format!("{version}{release}"));
        Words {
            addon_names: values((0..all).map(|i| format!("Add-on number {i}"))),
            addon_versions: values((0..all).map(|i| format!("{}.{}.{}", i % 9, i % 7, i % 11))),
            addon_type: values(["extension".to_owned()]),
            addon_ids: values(ids),
            channels: channels("default"),
            normalized_channels: channels("Other"),
            versions: values(VERSIONS.into_iter().flat_map(releases)),
            locales: values((0..LOCALES).map(|i| match i {
                0 => "en-US".to_owned(),
                _ => format!("l{:02}-XX", i - 1),
            })),
            systems: values(["Windows_NT", "Darwin", "Linux"].map(String::from)),
            countries: values((0..COUNTRIES).map(|i| format!("C{i:02}"))),
        }
    }
}

/// Pings that are not written yet.
pub(super) struct PingBlock<'a> {
    words: &'a Words,
    narrow: bool,
    heads: Heads,
    elements: Elements,
}

/// Columns with a value per ping.
#[derive(Default)]
struct Heads {
    client_id: StringBuilder,
    document_id: StringBuilder,
    channel: Int32Builder,
    version: Int32Builder,
    locale: Int32Builder,
    created: Int64Builder,
    system: Vec<i32>,
    country: Vec<i32>,
    subsession_length: Vec<i64>,
    lengths: Vec<usize>,
    lists: Vec<bool>,
}

/// Columns with a value per element.
#[derive(Default)]
struct Elements {
    code: Int32Builder,
    /// Without nulls.
    number: Vec<i32>,
    foreign: BooleanBuilder,
    system: BooleanBuilder,
    web: BooleanBuilder,
    day: Int32Builder,
    updated: Vec<i32>,
}

/// The text of a UUID, which is ASCII.
fn ascii(id: &[u8]) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}

fn dictionary(codes: Int32Array, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(codes, values.clone())?))
}

/// Splits columns into nullable fields and arrays.
fn fields(columns: Columns) -> (Fields, Vec<ArrayRef>) {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    (columns.iter().map(field).collect(), columns.into_iter().map(|(_, array)| array).collect())
}

impl<'a> PingBlock<'a> {
    pub(super) fn new(words: &'a Words, narrow: bool) -> Self {
        PingBlock { words, narrow, heads: Heads::default(), elements: Elements::default() }
    }

    /// Adds a ping with its elements.
    pub(super) fn push(
        &mut self,
        profile: &Profile,
        head: &PingHead,
        elements: impl Iterator<Item = Element>,
    ) {
        self.heads.push(profile, head);
        for (addon, element) in profile.addons.iter().zip(elements) {
            let into = &mut self.elements;
            into.code.append_option(element.code.map(|code| code as i32));
            into.number.push(addon.code as i32);
            into.foreign.append_option(element.foreign);
            into.system.append_option(element.system);
            into.web.append_option(element.web);
            into.day.append_option(element.day);
            into.updated.push(addon.installed + 30);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.heads.lengths.len() >= BLOCK_ROWS || self.elements.number.len() >= BLOCK_ROWS
    }

    /// Removes and returns the rows.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut heads = std::mem::take(&mut self.heads);
        let elements = std::mem::take(&mut self.elements).columns(self.words)?;
        let (fields_of_element, elements) = fields(self.keep(elements, &NARROW_ELEMENT));
        let elements = StructArray::try_new(fields_of_element, elements, None)?;
        let element = Arc::new(Field::new("element", elements.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut heads.lengths));
        let lists = NullBuffer::from(std::mem::take(&mut heads.lists));
        let lists = ListArray::try_new(element, offsets, Arc::new(elements), Some(lists))?;
        let mut columns = heads.columns(self.words)?;
        columns.push(("active_addons", Arc::new(lists)));
        let (fields, arrays) = fields(self.keep(columns, &NARROW));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }

    /// The columns of this day.
    fn keep(&self, mut columns: Columns, narrow: &[&str]) -> Columns {
        columns.retain(|(name, _)| !self.narrow || narrow.contains(name));
        columns
    }
}

impl Heads {
    fn push(&mut self, profile: &Profile, head: &PingHead) {
        self.client_id.append_option(profile.id.as_ref().map(|id| ascii(id)));
        self.document_id.append_value(ascii(&head.document_id));
        self.channel.append_option(head.channel.map(|channel| channel as i32));
        let version = head.version.map(|(version, minor)| version as i32 * MINORS as i32 + minor as i32);
        self.version.append_option(version);
        self.locale.append_option(head.locale.map(|locale| locale as i32));
        self.created.append_option(head.created);
        self.system.push(head.system as i32);
        self.country.push(head.country as i32);
        self.subsession_length.push(head.subsession_length);
        self.lengths.push(profile.addons.len());
        self.lists.push(!profile.addons.is_empty() || !head.null_list);
    }

    /// All columns but the list.
    fn columns(mut self, words: &Words) -> Result<Columns, ArrowError> {
        let channel = self.channel.finish();
        Ok(vec![
            ("document_id", Arc::new(self.document_id.finish()) as ArrayRef),
            ("client_id", Arc::new(self.client_id.finish())),
            ("channel", dictionary(channel.clone(), &words.channels)?),
            ("normalized_channel", dictionary(channel, &words.normalized_channels)?),
            ("os", dictionary(self.system.into(), &words.systems)?),
            ("country", dictionary(self.country.into(), &words.countries)?),
            ("locale", dictionary(self.locale.finish(), &words.locales)?),
            ("app_version", dictionary(self.version.finish(), &words.versions)?),
            ("profile_creation_date", Arc::new(self.created.finish())),
            ("subsession_length", Arc::new(Int64Array::from(self.subsession_length))),
        ])
    }
}

impl Elements {
    /// The 16 fields of an element.
    fn columns(mut self, words: &Words) -> Result<Columns, ArrowError> {
        let count = self.number.len();
        let modulo = |by: i32| -> ArrayRef {
            Arc::new(Int32Array::from_iter_values(self.number.iter().map(|code| code % by)))
        };
        let even = BooleanArray::from_iter(self.number.iter().map(|code| Some(code % 2 == 0)));
        let (scope, signed_state) = (modulo(4), modulo(3));
        let numbers = Int32Array::from(self.number);
        let no: ArrayRef = Arc::new(BooleanArray::from(vec![false; count]));
        Ok(vec![
            ("addon_id", dictionary(self.code.finish(), &words.addon_ids)?),
            ("blocklisted", no.clone()),
            ("name", dictionary(numbers.clone(), &words.addon_names)?),
            ("user_disabled", no.clone()),
            ("app_disabled", no.clone()),
            ("version", dictionary(numbers, &words.addon_versions)?),
            ("scope", scope),
            ("type", dictionary(Int32Array::from(vec![0; count]), &words.addon_type)?),
            ("foreign_install", Arc::new(self.foreign.finish())),
            ("has_binary_components", no),
            ("install_day", Arc::new(self.day.finish())),
            ("update_day", Arc::new(Int32Array::from(self.updated))),
            ("signed_state", signed_state),
            ("is_system", Arc::new(self.system.finish())),
            ("is_web_extension", Arc::new(self.web.finish())),
            ("multiprocess_compatible", Arc::new(even)),
        ])
    }
}
