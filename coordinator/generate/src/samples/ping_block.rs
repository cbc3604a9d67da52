//! A block of pings in columns. Not here: which pings a block has, and their values.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::ArrowError;

use super::profile::{Element, LOCALES, MINORS, PingHead, Profile, STUDIES};
use crate::columns::{BLOCK_ROWS, Columns, ascii, batch, dictionary, keep, lists, modulo};
use crate::strings::{AddonStrings, countries, systems, values};

// The columns that the job reads, and that narrow days have.
const NARROW: [&str; 6] =
    ["client_id", "normalized_channel", "app_version", "locale", "profile_creation_date", "active_addons"];
const NARROW_ELEMENT: [&str; 5] =
    ["addon_id", "foreign_install", "is_system", "is_web_extension", "install_day"];
const VERSIONS: [u32; 8] = [57, 56, 52, 58, 59, 55, 54, 48];
const RELEASES: [&str; MINORS as usize] = [".0", ".0.1", ".0.2", ".0.4"];

/// Values of the dictionaries; a row's code is its index.
pub(super) struct Words {
    addons: AddonStrings,
    channels: ArrayRef,
    normalized_channels: ArrayRef,
    versions: ArrayRef,
    locales: ArrayRef,
    systems: ArrayRef,
    countries: ArrayRef,
}

impl Words {
    /// The strings of a day with `addons` add-ons besides the special ones.
    pub(super) fn new(addons: u32) -> Self {
        let others =
            ["@testpilot-addon", "@unified-urlbar-shield", "testpilot@cliqz.com", "page-shot@mozilla"];
        let studies = (0..STUDIES.len()).map(|i| format!("study{i}@shield.mozilla.org"));
        let channels = |last: &str| values(["release", "beta", "nightly", "esr", last].map(String::from));
        let releases = |version| RELEASES.map(|release| format!("{version}{release}"));
        Words {
            addons: AddonStrings::new(addons, studies.chain(others.map(String::from))),
            channels: channels("default"),
            normalized_channels: channels("Other"),
            versions: values(VERSIONS.into_iter().flat_map(releases)),
            locales: values((0..LOCALES).map(|i| match i {
                0 => "en-US".to_owned(),
                _ => format!("l{:02}-XX", i - 1),
            })),
            systems: systems(),
            countries: countries(),
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
        let lengths = std::mem::take(&mut heads.lengths);
        let valid = NullBuffer::from(std::mem::take(&mut heads.lists));
        let active_addons = lists(self.keep(elements, &NARROW_ELEMENT), lengths, Some(valid))?;
        let mut columns = heads.columns(self.words)?;
        columns.push(("active_addons", active_addons));
        batch(self.keep(columns, &NARROW))
    }

    /// The columns of this day.
    fn keep(&self, columns: Columns, narrow: &[&str]) -> Columns {
        keep(columns, self.narrow.then_some(narrow))
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
        let even = BooleanArray::from_iter(self.number.iter().map(|code| Some(code % 2 == 0)));
        let (scope, signed_state) = (modulo(&self.number, 4), modulo(&self.number, 3));
        let numbers = Int32Array::from(self.number);
        let no: ArrayRef = Arc::new(BooleanArray::from(vec![false; count]));
        Ok(vec![
            ("addon_id", dictionary(self.code.finish(), &words.addons.ids)?),
            ("blocklisted", no.clone()),
            ("name", dictionary(numbers.clone(), &words.addons.names)?),
            ("user_disabled", no.clone()),
            ("app_disabled", no.clone()),
            ("version", dictionary(numbers, &words.addons.versions)?),
            ("scope", scope),
            ("type", dictionary(Int32Array::from(vec![0; count]), &words.addons.kind)?),
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
