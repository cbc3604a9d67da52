//! The file of settings: each of its keys is a long option of a command.
//!
//! Not here: which source of a setting counts (`config`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Arg;
use toml::{Table, Value};

/// A file of settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{option} {}: {error}", file.display())]
    Read {
        /// The option or variable that names it.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// It is not TOML.
    #[error("{}: {error}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The parser's message.
        error: toml::de::Error,
    },
    /// A key is not an option.
    #[error("{}: unknown setting {key:?}; the settings are {known}", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// All keys.
        known: String,
    },
    /// A value does not fit its option.
    #[error("{}: {key}: {what}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        what: InvalidValue,
    },
}

/// A value of the file that its option cannot have.
#[derive(Debug, thiserror::Error)]
pub enum InvalidValue {
    /// A switch is on or off.
    #[error("{0:?} is neither true nor false")]
    Switch(String),
    /// No option takes a value of this type.
    #[error("a setting cannot be a {0}: give a string, a number or a list of strings")]
    Type(&'static str),
}

/// A setting of the file.
#[derive(Debug)]
pub(super) struct Setting {
    /// The option.
    pub(super) id: String,
    /// The setting as flags; none for a switch that is off.
    pub(super) flags: Vec<OsString>,
}

/// The settings of the file for these options. Keys that are in `others` are settings of other commands.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn read(
    option: &'static str,
    file: &Path,
    options: &[Arg],
    others: &[String],
) -> Result<Vec<Setting>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Read {
        option,
        file: file.into(),
        error,
    })?;
    let table: Table = text.parse().map_err(|error| ConfigError::Syntax { file: file.into(), error })?;
    let options: Vec<&Arg> = options.iter().filter(|arg| is_setting(arg)).collect();
    let mut settings = vec![];
    for (key, value) in table {
        let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(&key)) else {
            if others.contains(&key) {
                continue;
            }
            let own = options.iter().filter_map(|arg| arg.get_long().map(str::to_string));
            let mut known: Vec<String> = own.chain(others.iter().cloned()).collect();
            known.sort_unstable();
            known.dedup();
            return Err(ConfigError::Unknown { file: file.into(), key, known: known.join(", ") });
        };
        let flags =
            flags(arg, &key, &value).map_err(|what| ConfigError::Value { file: file.into(), key, what })?;
        settings.push(Setting { id: arg.get_id().to_string(), flags });
    }
    Ok(settings)
}

/// Whether users may set the option in the file and in the environment.
pub(super) fn is_setting(arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    arg.get_long().is_some() && !arg.is_hide_set() && !["help", "version", super::CONFIG].contains(&id)
}

/// A setting as flags.
fn flags(arg: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>, InvalidValue> {
    let flag = |text: String| OsString::from(format!("--{key}={text}"));
    if arg.get_action().takes_values() {
        return match value {
            // Without a delimiter, each element is a value of its own.
            Value::Array(list) if arg.get_value_delimiter().is_none() => {
                list.iter().map(|value| text_of(value).map(flag)).collect()
            }
            value => Ok(vec![flag(text_of(value)?)]),
        };
    }
    match text_of(value)?.as_str() {
        "true" => Ok(vec![format!("--{key}").into()]),
        "false" => Ok(vec![]),
        other => Err(InvalidValue::Switch(other.into())),
    }
}

/// A value as the value of a flag.
fn text_of(value: &Value) -> Result<String, InvalidValue> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Array(list) => {
            let texts: Result<Vec<_>, _> = list.iter().map(text_of).collect();
            Ok(texts?.join(","))
        }
        other => Err(InvalidValue::Type(other.type_str())),
    }
}
