//! The rows of the two inputs and of the output, as plain structs with an `Option` wherever the schema allows a null.
//! Not here: reading, writing or judging them (`table`, `day`, `naive`).

use serde::{Deserialize, Serialize};

/// One ping of `main_summary/v3`, limited to what the job reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MainRow {
    pub client_id: Option<String>,
    /// Days since 1970-01-01.
    pub profile_creation_date: Option<i64>,
    pub active_theme: Option<Theme>,
    /// A null list, an empty list, null elements and elements of nulls are four different things.
    pub active_addons: Option<Vec<Option<ActiveAddon>>>,
}

/// The theme struct of a ping.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Theme {
    pub addon_id: Option<String>,
}

/// One element of a ping's `active_addons`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveAddon {
    /// Days since 1970-01-01.
    pub install_day: Option<i32>,
}

/// One row of `addons/v2`: a ping and one of its add-ons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddonRow {
    pub client_id: Option<String>,
    pub addon_id: Option<String>,
    pub foreign_install: Option<bool>,
    pub is_system: Option<bool>,
    pub user_disabled: Option<bool>,
    pub app_disabled: Option<bool>,
}

/// One row of `addon_aggregates`. The order of the fields is the order of the columns, so sorted rows print by client.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    pub client_id: Option<String>,
    pub foreign_install: Option<bool>,
    pub count: i64,
    pub user_type: Option<i64>,
    pub profile_creation_date: Option<i64>,
    pub min_install_day: Option<i32>,
    pub has_custom_theme: Option<i64>,
    pub n_custom_theme_clients: i32,
    pub n_clients: i32,
}
