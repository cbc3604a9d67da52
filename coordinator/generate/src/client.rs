//! The values of a client, of one of its pings, and of one of its add-on rows. Not here: how they are drawn
//! ([`crate::population`]), written to columns ([`crate::block`]) and counted ([`crate::totals`]).

use crate::draw::Draw;
use crate::ids::Uuid;

/// The traits of a client, the same in all of its pings.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The key of the client's random streams.
    pub(crate) key: u64,
    /// `None` is the null client.
    pub(crate) id: Option<Uuid>,
    /// Day of the profile's creation, in days since 1970-01-01.
    pub(crate) created: i64,
    pub(crate) default_theme: bool,
    /// The add-ons in each of its pings.
    pub(crate) addons: Vec<Addon>,
}

/// An add-on as a client has it. Days are days since 1970-01-01.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addon {
    /// Index into the dictionary of add-on ids.
    pub(crate) code: u32,
    pub(crate) foreign_install: bool,
    pub(crate) user_disabled: bool,
    pub(crate) app_disabled: bool,
    pub(crate) is_system: bool,
    pub(crate) install_day: i32,
    pub(crate) update_day: i32,
}

/// One ping, without its client and add-ons.
#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) profile_creation_date: Option<i64>,
    /// Index into the dictionary of themes; `None` is a null `active_theme`.
    pub(crate) theme: Option<u32>,
    pub(crate) document_id: Uuid,
    pub(crate) channel: usize,
    pub(crate) system: usize,
    pub(crate) country: u64,
    /// Seconds.
    pub(crate) subsession_length: i64,
}

/// The nullable fields of an add-on row, as they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) foreign_install: Option<bool>,
    pub(crate) user_disabled: Option<bool>,
    pub(crate) app_disabled: Option<bool>,
    pub(crate) is_system: Option<bool>,
    pub(crate) install_day: Option<i32>,
}

/// Bits of a draw that decide whether one field is null.
const LANE: u32 = 21;
/// A flag is null in 0.0005 of the rows,
const FLAG_NULLS: u64 = 1049;
/// an install day in 0.001.
const DAY_NULLS: u64 = 2097;

impl Addon {
    /// The next row of this add-on from the draws of a ping: each field is null independently of the others.
    pub(crate) fn row(&self, draw: &mut Draw) -> Row {
        let (first, second) = (draw.bits(), draw.bits());
        let written = |bits: u64, lane: u32, nulls: u64| (bits >> (lane * LANE)) & ((1 << LANE) - 1) >= nulls;
        let foreign_install = written(first, 0, FLAG_NULLS).then_some(self.foreign_install);
        let user_disabled = written(first, 1, FLAG_NULLS).then_some(self.user_disabled);
        let app_disabled = written(first, 2, FLAG_NULLS).then_some(self.app_disabled);
        let is_system = written(second, 0, FLAG_NULLS).then_some(self.is_system);
        let install_day = written(second, 1, DAY_NULLS).then_some(self.install_day);
        Row { foreign_install, user_disabled, app_disabled, is_system, install_day }
    }
}
