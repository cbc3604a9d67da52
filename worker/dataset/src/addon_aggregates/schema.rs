//! The columns of `addon_aggregates`: shuffled partials, reduced rows, output.
//!
//! Not here: how they are computed.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

/// Client bits of a partial's `state` column.
pub mod state {
    /// A ping had a custom theme.
    pub const CUSTOM: u8 = 1;
    /// A ping had the default theme, or none.
    pub const DEFAULT: u8 = 1 << 1;
    /// The row carries a group (profile creation date, minimum install day).
    pub const GROUP: u8 = 1 << 2;
    /// The group's profile creation date is not null.
    pub const DATE: u8 = 1 << 3;
    /// The group's install day is not null.
    pub const DAY: u8 = 1 << 4;
    /// The client id is a dictionary code (its first four bytes, little-endian), no UUID.
    pub const CODED: u8 = 1 << 5;
    /// The row is the null client's.
    pub const NULL_CLIENT: u8 = 1 << 6;
    /// Both theme bits.
    pub const THEMES: u8 = CUSTOM | DEFAULT;
}

/// Values of the low two bits of an item of the add-ons' partial.
pub mod install {
    /// `foreign_install` is false: the user installed the add-on.
    pub const SELF: u32 = 0;
    /// `foreign_install` is true: side-loaded.
    pub const FOREIGN: u32 = 1;
    /// `foreign_install` is null.
    pub const UNKNOWN: u32 = 2;
    /// Number of kinds.
    pub const KINDS: usize = 3;
}

/// The code of a null add-on id, which counts as one distinct value.
pub const NULL_ADDON: u32 = crate::interner::MAX_CODES as u32;

fn client() -> Field {
    Field::new("client_id", DataType::FixedSizeBinary(16), false)
}

/// A client's distinct (add-on, install kind) pairs: `items` holds `code << 2 | kind`.
pub fn addons_partial() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    Arc::new(Schema::new(vec![
        client(),
        Field::new("state", DataType::UInt8, false),
        Field::new("items", DataType::List(item), false),
    ]))
}

/// A client's theme bits and one of its groups; further groups are further rows without theme bits.
pub fn main_partial() -> SchemaRef {
    Arc::new(Schema::new(vec![
        client(),
        Field::new("state", DataType::UInt8, false),
        Field::new("profile_creation_date", DataType::Int64, false),
        Field::new("min_install_day", DataType::Int32, false),
    ]))
}

/// The output's columns that do not depend on other partitions.
pub fn reduced() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("client_id", DataType::Utf8, true),
        Field::new("foreign_install", DataType::Boolean, true),
        Field::new("count", DataType::Int64, false),
        Field::new("user_type", DataType::Int64, true),
        Field::new("profile_creation_date", DataType::Int64, true),
        Field::new("min_install_day", DataType::Int32, true),
        Field::new("has_custom_theme", DataType::Int64, true),
    ]))
}

/// The output: the reduced columns, then the day's totals.
pub fn output() -> SchemaRef {
    let mut fields = reduced().fields().to_vec();
    fields.push(Arc::new(Field::new("n_custom_theme_clients", DataType::Int32, false)));
    fields.push(Arc::new(Field::new("n_clients", DataType::Int32, false)));
    Arc::new(Schema::new(fields))
}

/// The meaning of a column of the output.
pub fn meaning(column: &str) -> &'static str {
    match column {
        "client_id" => "the client; the null client never appears",
        "foreign_install" => "true: side-loaded; false: installed by the user; null: unknown",
        "count" => "distinct active add-ons of this client and install type",
        "user_type" => {
            "1: only side-loaded; -1: only self-installed; 0: both; -2: self-installed and unknown"
        }
        "profile_creation_date" => "days since 1970",
        "min_install_day" => "earliest install day of any add-on seen with this profile date",
        "has_custom_theme" => "1: custom; -1: default; 0: changed on that day; null: unknown",
        "n_custom_theme_clients" => "distinct clients of the day with a custom theme at any time",
        "n_clients" => "distinct clients of the day",
        _ => "",
    }
}
