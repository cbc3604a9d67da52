//! Environment variables. An empty variable counts as not set, except those of `config::EMPTY_COUNTS`.
//!
//! Not here: which variables set which option (`config`).

use std::ffi::OsString;

/// The value of a variable.
pub fn os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.to_string_lossy().trim().is_empty())
}

/// The value of a variable that is valid UTF-8.
pub fn text(name: &str) -> Option<String> {
    os(name).and_then(|value| value.into_string().ok())
}

/// All variables whose names begin with `prefix` and whose names and values are valid UTF-8.
pub fn with_prefix(prefix: &str) -> Vec<(String, String)> {
    let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let named = all.filter(|(name, _)| name.starts_with(prefix));
    named.filter_map(|(name, _)| text(&name).map(|value| (name, value))).collect()
}
