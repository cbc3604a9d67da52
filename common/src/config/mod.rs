//! Settings of processes. For each option the first source counts: flags, the environment, a file (of servers),
//! defaults. Each long option of the command is a key of the TOML file.
//!
//! This module alone decides which source counts. Errors name the key and its source. Not here: the options (`cli`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

use crate::environment;
use crate::secrets;

/// The option that names the file.
const CONFIG: &str = "config";

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

/// The file, or the command line, has two options of which a process takes one.
#[derive(Debug, thiserror::Error)]
#[error("give --{0} or --{1}, not both")]
struct BothGiven(&'static str, &'static str);

/// Why the settings of a process cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The settings are not valid, or the user asks for help.
    #[error(transparent)]
    Clap(#[from] clap::Error),
}

impl SettingsError {
    /// Prints the message and exits with code 2, or 0 after help.
    pub fn exit(self) -> ! {
        match self {
            SettingsError::Clap(error) => {
                // Errors repeat the value, and help shows values of the environment.
                let text = error.render().to_string();
                match (shown(&error, &text), error.use_stderr()) {
                    (None, _) => error.exit(),
                    (Some(shown), true) => eprint!("{shown}"),
                    (Some(shown), false) => print!("{shown}"),
                }
                std::process::exit(error.exit_code())
            }
            SettingsError::File(error) => {
                eprintln!("error: {}", secrets::cut(&error.to_string()));
                std::process::exit(2)
            }
        }
    }
}

/// The redacted text of an error or of help; `None` if it contains no secrets.
fn shown(error: &clap::Error, text: &str) -> Option<String> {
    let mut shown = text.to_owned();
    // A name and a password before an address that is not a URL.
    if let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidValue)
        && let Some((user, _)) = given.rsplit_once('@').filter(|(user, _)| !user.is_empty())
    {
        shown = shown.replace(user, secrets::CUT);
    }
    let shown = secrets::cut(&shown).into_owned();
    (shown != text).then_some(shown)
}

/// The option that names the file.
pub fn option(variable: &'static str) -> Arg {
    Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .env(variable)
        .value_parser(clap::value_parser!(PathBuf))
        .help("File of settings, as TOML: the long options without the dashes are its keys. Flags and the environment come first")
}

/// Options that locate the cluster. A process takes one of them: the one from the first source.
const ALTERNATIVES: [&str; 2] = ["coordinator", "consul"];
/// Variables of other programs that set the same as an option of Tally. They come before the file.
const SHARED_VARIABLES: [(&str, &str); 2] =
    [("consul_token_file", "CONSUL_HTTP_TOKEN"), ("otlp_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")];

/// Options whose variables count even if they are empty: an empty prefix is Consul's root.
const EMPTY_COUNTS: [&str; 1] = ["consul_prefix"];

/// The sources of a value; the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Flag,
    Environment,
    File,
}

/// A setting of the file.
#[derive(Debug)]
struct Setting {
    id: String,
    /// The setting as a flag; `None` for a switch that is off.
    flag: Option<OsString>,
}

/// Parses `argv`. If its subcommand `sub`, or the command itself, has the option of a file, the settings of the file are
/// added as flags, except for options that a flag or the environment sets.
///
/// # Errors
/// [`SettingsError`].
pub fn parse(command: Command, sub: Option<&str>, argv: &[OsString]) -> Result<ArgMatches, SettingsError> {
    let mut command = without_empty_variables(command);
    let Some((at, options)) = options(&command, sub, argv) else {
        return Ok(command.try_get_matches_from(argv)?);
    };
    let file = named(&options, argv);
    let settings = match &file {
        Some((option, file)) => read(option, file, &options)?,
        None => vec![],
    };
    let origin = |arg: &Arg| {
        let in_file = || settings.iter().any(|setting| setting.id == arg.get_id().as_str());
        if on_line(arg, argv) {
            Some(Origin::Flag)
        } else if variable(arg).is_some() {
            Some(Origin::Environment)
        } else {
            in_file().then_some(Origin::File)
        }
    };
    let dropped = second_choice(&options, origin);
    let dropped = dropped.map_err(|what| command.error(ErrorKind::ArgumentConflict, what))?;
    let counts = |setting: &&Setting| {
        let arg = options.iter().find(|arg| arg.get_id().as_str() == setting.id);
        arg.and_then(origin) == Some(Origin::File) && Some(setting.id.as_str()) != dropped.as_deref()
    };
    let mut whole = argv.to_vec();
    let flags = settings.iter().filter(counts).filter_map(|setting| setting.flag.clone());
    whole.splice(at..at, flags);
    if let Some(id) = dropped {
        command = match sub {
            None => command.mut_arg(id, |arg| arg.env(Resettable::Reset)),
            Some(sub) => command.mut_subcommand(sub, |sub| sub.mut_arg(id, |arg| arg.env(Resettable::Reset))),
        };
    }
    let file = file.as_ref().map(|(_, file)| file.as_path());
    command.try_get_matches_from(whole).map_err(|e| explain(e, &options, argv, file).into())
}

/// Removes the variables of options whose variable is set but empty.
fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty = arg.get_env().is_some() && variable(&arg).is_none();
        let set = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        if empty && set { arg.env(Resettable::Reset) } else { arg }
    });
    command.mut_subcommands(without_empty_variables)
}

/// The options of the command in `argv`, and the index in `argv` where they start; `None` for other subcommands.
fn options(command: &Command, sub: Option<&str>, argv: &[OsString]) -> Option<(usize, Vec<Arg>)> {
    let Some(sub) = sub else { return Some((argv.len().min(1), command.get_arguments().cloned().collect())) };
    let globals: Vec<&Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    let is_global = |text: &OsString| globals.iter().any(|arg| text.to_str() == dashed(arg).as_deref());
    let mut at = 1;
    while argv.get(at)?.to_string_lossy().starts_with('-') {
        at += if is_global(&argv[at]) { 2 } else { 1 };
    }
    let inner = command.find_subcommand(sub).filter(|_| argv[at] == *sub)?;
    Some((at + 1, inner.get_arguments().chain(globals).cloned().collect()))
}

fn dashed(arg: &Arg) -> Option<String> {
    arg.get_long().map(|long| format!("--{long}"))
}

/// Whether the option is on the command line.
fn on_line(arg: &Arg, argv: &[OsString]) -> bool {
    let Some(long) = dashed(arg) else { return false };
    let with_value = format!("{long}=");
    argv.iter().filter_map(|arg| arg.to_str()).any(|arg| arg == long || arg.starts_with(&with_value))
}

/// The variable that sets the option.
fn variable(arg: &Arg) -> Option<String> {
    let own = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let shared =
        SHARED_VARIABLES.iter().filter(|(id, _)| arg.get_id() == id).map(|(_, name)| name.to_string());
    let given = |name: &String| match EMPTY_COUNTS.iter().any(|id| arg.get_id() == id) {
        true => std::env::var_os(name).is_some(),
        false => environment::os(name).is_some(),
    };
    own.into_iter().chain(shared).find(given)
}

/// The alternative that does not count, if there are two.
fn second_choice(
    options: &[Arg],
    origin: impl Fn(&Arg) -> Option<Origin>,
) -> Result<Option<String>, BothGiven> {
    let of = |id: &str| options.iter().find(|arg| arg.get_id() == id).and_then(&origin);
    let [first, second] = ALTERNATIVES;
    match (of(first), of(second)) {
        (Some(a), Some(b)) if a == b && a != Origin::Environment => Err(BothGiven(first, second)),
        (Some(a), Some(b)) => Ok(Some(if a <= b { second } else { first }.to_string())),
        _ => Ok(None),
    }
}

/// The file of settings, and the option or variable that names it.
fn named(options: &[Arg], argv: &[OsString]) -> Option<(&'static str, PathBuf)> {
    let mut args = argv.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(|file| ("--config", file.into()));
        }
        if let Some(file) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(("--config", file.into()));
        }
    }
    let variable = options.iter().find(|arg| arg.get_id() == CONFIG).and_then(variable)?;
    Some(("--config (from the environment)", environment::os(&variable)?.into()))
}

/// The settings of the file.
fn read(option: &'static str, file: &Path, options: &[Arg]) -> Result<Vec<Setting>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Read {
        option,
        file: file.into(),
        error,
    })?;
    let table: Table = text.parse().map_err(|error| ConfigError::Syntax { file: file.into(), error })?;
    let options: Vec<&Arg> = options
        .iter()
        .filter(|arg| !arg.is_hide_set() && !["help", "version", CONFIG].contains(&arg.get_id().as_str()))
        .collect();
    let setting = |(key, value): (String, Value)| {
        let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(&key)) else {
            let known: Vec<&str> = options.iter().filter_map(|arg| arg.get_long()).collect();
            return Err(ConfigError::Unknown { file: file.into(), key, known: known.join(", ") });
        };
        let flag =
            flag(arg, &key, &value).map_err(|what| ConfigError::Value { file: file.into(), key, what })?;
        Ok(Setting { id: arg.get_id().to_string(), flag })
    };
    table.into_iter().map(setting).collect()
}

/// A setting as a flag.
fn flag(arg: &Arg, key: &str, value: &Value) -> Result<Option<OsString>, InvalidValue> {
    if arg.get_action().takes_values() {
        return Ok(Some(format!("--{key}={}", text_of(value)?).into()));
    }
    match text_of(value)?.as_str() {
        "true" => Ok(Some(format!("--{key}").into())),
        "false" => Ok(None),
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

/// Adds the source of an invalid value, unless it is on the command line.
fn explain(mut error: clap::Error, options: &[Arg], argv: &[OsString], file: Option<&Path>) -> clap::Error {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return error;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return error };
    let long = shown.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-').to_string();
    let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(&long)) else { return error };
    if on_line(arg, argv) {
        return error;
    }
    let source = match (variable(arg), file) {
        (Some(variable), _) => format!("{variable} in the environment"),
        (None, Some(file)) => format!("{long} in {}", file.display()),
        (None, None) => return error,
    };
    error.insert(ContextKind::InvalidArg, ContextValue::String(format!("{shown} (from {source})")));
    error
}

#[cfg(test)]
mod tests;
