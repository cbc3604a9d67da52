//! Settings of long-running processes from a file, below flags and environment: each of the command's
//! long options is a key of a TOML file.
//!
//! Flags > environment > file > default. What is wrong is told with the key and where it came from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

/// The option that names the file.
const CONFIG: &str = "config";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{option} {}: {error}", file.display())]
    Read {
        /// Where it was named.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// It is no TOML.
    #[error("{}: {error}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What and where.
        error: toml::de::Error,
    },
    /// There is no such option.
    #[error("{}: there is no setting {key:?}; there are {known}", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// All keys.
        known: String,
    },
    /// The value cannot be one of an option's.
    #[error("{}: {key}: {what}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
}

/// What is wrong with a process's settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// With the file itself.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// With the settings, wherever they came from; also a wish for help.
    #[error(transparent)]
    Clap(#[from] clap::Error),
}

impl SettingsError {
    /// Tells it, and ends the process: with 2, or with 0 after help.
    pub fn exit(self) -> ! {
        match self {
            SettingsError::Clap(error) => error.exit(),
            SettingsError::File(error) => {
                eprintln!("error: {error}");
                std::process::exit(2)
            }
        }
    }
}

/// The option of the file, for a command that takes one.
pub fn option(variable: &'static str) -> Arg {
    Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .env(variable)
        .value_parser(clap::value_parser!(PathBuf))
        .help("File of settings, as TOML: the long options without the dashes are its keys. Flags and the environment come first")
}

/// Parses `argv`. Where its subcommand `sub` (or the command itself) has the option of a file, that
/// file's settings are its defaults.
///
/// # Errors
/// [`SettingsError`].
pub fn parse(command: Command, sub: Option<&str>, argv: &[OsString]) -> Result<ArgMatches, SettingsError> {
    let found = |command: &Command| match sub {
        None => Some(command.clone()),
        // Anything before it is a global option or its value.
        Some(sub) if argv.iter().skip(1).any(|arg| arg == sub) => command.find_subcommand(sub).cloned(),
        Some(_) => None,
    };
    let Some(inner) = found(&command) else { return Ok(command.try_get_matches_from(argv)?) };
    let Some((option, file)) = named(&inner, argv) else {
        return command.clone().try_get_matches_from(argv).map_err(|e| explain(e, &inner, argv, None).into());
    };
    let settings = read(option, &file, &inner)?;
    let with = |mut command: Command| {
        for (id, value) in settings {
            command = command.mut_arg(id, |arg| arg.default_value(value).required(false));
        }
        command
    };
    let command = match sub {
        None => with(command),
        Some(sub) => command.mut_subcommand(sub, with),
    };
    command.try_get_matches_from(argv).map_err(|e| explain(e, &inner, argv, Some(&file)).into())
}

/// The file that was named, and where.
fn named(command: &Command, argv: &[OsString]) -> Option<(&'static str, PathBuf)> {
    let mut args = argv.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(|file| ("--config", file.into()));
        }
        if let Some(file) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(("--config", file.into()));
        }
    }
    let variable = command.get_arguments().find(|arg| arg.get_id() == CONFIG)?.get_env()?;
    let file = std::env::var_os(variable).filter(|file| !file.is_empty())?;
    Some(("--config (from the environment)", file.into()))
}

/// Ids and values of the options that the file sets.
fn read(option: &'static str, file: &Path, command: &Command) -> Result<Vec<(String, String)>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Read {
        option,
        file: file.into(),
        error,
    })?;
    let table: Table = text.parse().map_err(|error| ConfigError::Syntax { file: file.into(), error })?;
    let options: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !["help", "version", CONFIG].contains(&arg.get_id().as_str()))
        .collect();
    let setting = |(key, value): (String, Value)| {
        let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(&key)) else {
            let known: Vec<&str> = options.iter().filter_map(|arg| arg.get_long()).collect();
            return Err(ConfigError::Unknown { file: file.into(), key, known: known.join(", ") });
        };
        let value = text_of(&value).map_err(|what| ConfigError::Value {
            file: file.into(),
            key: key.clone(),
            what,
        })?;
        Ok((arg.get_id().to_string(), value))
    };
    table.into_iter().map(setting).collect()
}

/// A value as it would stand on the command line.
fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Array(list) => {
            let texts: Result<Vec<_>, _> = list.iter().map(text_of).collect();
            Ok(texts?.join(","))
        }
        other => {
            Err(format!("a {} is no setting: give a text, a number or a list of texts", other.type_str()))
        }
    }
}

/// Adds where a wrong value came from, unless it stands on the command line for all to see.
fn explain(mut error: clap::Error, command: &Command, argv: &[OsString], file: Option<&Path>) -> clap::Error {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return error;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return error };
    let long = shown.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-').to_string();
    let on_line = argv.iter().filter_map(|arg| arg.to_str()).any(|arg| {
        arg.strip_prefix("--").is_some_and(|arg| arg == long || arg.starts_with(&format!("{long}=")))
    });
    if on_line {
        return error;
    }
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(&long));
    let variable = arg.and_then(Arg::get_env).filter(|name| std::env::var_os(name).is_some());
    let source = match (variable, file) {
        (Some(variable), _) => format!("{} in the environment", variable.to_string_lossy()),
        (None, Some(file)) => format!("{long} in {}", file.display()),
        (None, None) => return error,
    };
    error.insert(ContextKind::InvalidArg, ContextValue::String(format!("{shown} (from {source})")));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let size = Arg::new("size").long("size").value_name("N").env("TALLY_TEST_CONFIG_SIZE");
        let serve = Command::new("serve")
            .arg(option("TALLY_TEST_CONFIG_FILE"))
            .arg(size.default_value("1").value_parser(clap::value_parser!(u16).range(1..100)))
            .arg(Arg::new("to").long("to").value_delimiter(',').required(true));
        Command::new("prog").subcommand(serve).subcommand(Command::new("other"))
    }

    fn parse_with(text: &str, more: &[&str]) -> Result<(u16, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        let mut argv: Vec<OsString> = ["prog", "serve", "--config"].map(OsString::from).into();
        argv.push(file.clone().into());
        argv.extend(more.iter().map(OsString::from));
        let matches = parse(command(), Some("serve"), &argv)
            .map_err(|e| e.to_string().replace(&file.display().to_string(), "FILE"))?;
        let (_, matches) = matches.subcommand().unwrap();
        let to = matches.get_many::<String>("to").unwrap().cloned().collect();
        Ok((*matches.get_one::<u16>("size").unwrap(), to))
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let ab = vec!["a".to_string(), "b".to_string()];
        assert_eq!(parse_with("size = 7\nto = [\"a\", \"b\"]", &[]), Ok((7, ab.clone())));
        assert_eq!(parse_with("size = 7\nto = \"x\"", &["--size", "9", "--to", "a,b"]), Ok((9, ab.clone())));
        assert_eq!(parse_with("to = [\"a\", \"b\"]", &[]), Ok((1, ab)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key_and_its_place() {
        let wrong = |text| parse_with(text, &[]).unwrap_err();
        let error = wrong("size = 700\nto = \"a\"");
        assert!(error.contains("700") && error.contains("size in FILE"), "{error}");
        let error = wrong("sise = 7");
        assert!(error.contains("FILE: there is no setting \"sise\"; there are size, to"), "{error}");
        assert!(wrong("size = 1.5\nto = \"a\"").contains("FILE: size: a float is no setting"));
        assert!(wrong("size = ").contains("FILE: "), "{}", wrong("size = "));
        assert!(wrong("size = 7").contains("--to"), "what is missing is still missed");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let argv = ["prog", "serve", "--config", "/no/such/file", "--to", "a"].map(OsString::from);
        let error = parse(command(), Some("serve"), &argv).unwrap_err().to_string();
        assert!(error.starts_with("--config /no/such/file: "), "{error}");
        // Other subcommands have none.
        assert!(parse(command(), Some("serve"), &["prog", "other"].map(OsString::from)).is_ok());
    }
}
