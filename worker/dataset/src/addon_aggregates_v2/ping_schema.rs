//! The columns of `addon_aggregates_v2`: shuffled partials and output.
//!
//! Not here: how they are computed.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::flags;
use crate::partials::malformed;
use crate::{DatasetError, Width};

/// Bits of a partial's `state` column.
pub(super) mod state {
    /// The client id is a dictionary code, no UUID.
    pub(in super::super) const CODED: u8 = 1;
    /// The client is null.
    pub(in super::super) const NULL_CLIENT: u8 = 1 << 1;
    /// The profile creation date is not null.
    pub(in super::super) const DATED: u8 = 1 << 2;
    /// Profile creation dates have 64 bits.
    pub(in super::super) const WIDE_DATES: u8 = 1 << 3;
    /// Install days have 64 bits: an item has the dictionary code of the day's eight bytes, little-endian.
    pub(in super::super) const WIDE_DAYS: u8 = 1 << 4;
}

/// Bits of an add-on's code in an item.
pub(super) const ADDON_BITS: u32 = 64 - DAY_BITS - flags::BITS;
/// Bits of a day, or of its code, in an item.
pub(super) const DAY_BITS: u32 = 32;
/// The code of a null add-on id in an item.
pub(super) const NULL_ADDON: u32 = (1 << ADDON_BITS) - 1;

/// The pings with the same client, channel, version, locale and profile creation date, with their distinct elements:
/// `addon code << 38 | day << 6 | flags`. All codes are those of the run's dictionary.
pub(super) fn partial() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::UInt64, false));
    Arc::new(Schema::new(vec![
        Field::new("client_id", DataType::FixedSizeBinary(16), false),
        Field::new("state", DataType::UInt8, false),
        Field::new("normalized_channel", DataType::UInt32, false),
        Field::new("app_version", DataType::UInt32, false),
        Field::new("locale", DataType::UInt32, false),
        Field::new("profile_creation_date", DataType::Int64, false),
        Field::new("items", DataType::List(item), false),
    ]))
}

/// The columns of a group's key.
pub(super) const KEYS: [&str; 4] = ["client_id", "normalized_channel", "app_version", "locale"];
/// The sums.
pub(super) const SUMS: [&str; 5] = [
    "n_self_installed_addons",
    "n_shield_addons",
    "n_foreign_installed_addons",
    "n_system_addons",
    "n_web_extensions",
];
/// The dates.
pub(super) const DATES: [&str; 2] = ["first_addon_install_date", "profile_creation_date"];

/// The output.
pub(super) fn output() -> SchemaRef {
    let texts = |names: &[&str]| -> Vec<Field> {
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect()
    };
    let mut fields = texts(&KEYS);
    fields.extend(SUMS.map(|name| Field::new(name, DataType::Int64, true)));
    fields.extend(texts(&DATES));
    Arc::new(Schema::new(fields))
}

/// What a column of the output means.
pub(super) fn meaning(column: &str) -> &'static str {
    match column {
        "client_id" => "the client; null is a client of its own",
        "normalized_channel" => "the release channel",
        "app_version" => "the first two characters of the version",
        "locale" => "the locale",
        "n_self_installed_addons" => {
            "add-ons that the user installed, without those of the browser's maker and of tests"
        }
        "n_shield_addons" => "add-ons of Shield studies",
        "n_foreign_installed_addons" => "add-ons that another program installed",
        "n_system_addons" => "add-ons that are part of the browser",
        "n_web_extensions" => "add-ons that are WebExtensions",
        "first_addon_install_date" => "earliest install day of a self-installed add-on, as YYYYMMDD",
        "profile_creation_date" => "earliest creation day of the profile, as YYYYMMDD",
        _ => "",
    }
}

/// Records the width of a column, which is the same in all batches.
pub(super) fn set_width(known: &mut Option<Width>, width: Width) -> Result<(), DatasetError> {
    match known.replace(width) {
        Some(other) if other != width => Err(malformed("integers of two widths in one column")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_one_width() {
        let mut known = None;
        assert!(set_width(&mut known, Width::W32).is_ok() && set_width(&mut known, Width::W32).is_ok());
        assert!(set_width(&mut known, Width::W64).is_err());
    }
}
