//! Settings of processes. For each option the first source counts: flags, the environment, the file of `--config`,
//! defaults. Each long option `--some-option` is the variable `TALLY_SOME_OPTION` and the key `some-option` of the file.
//!
//! This module alone decides which source counts. Errors name the key and its source. `file` reads the file, `addressed`
//! finds the command that is meant. Not here: the options (`cli`).

mod addressed;
mod file;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use crate::environment;
use crate::secrets;
use addressed::Addressed;
pub use file::{ConfigError, InvalidValue};
use file::{is_setting, read};

/// The option that names the file.
const CONFIG: &str = "config";
/// The prefix of all variables.
const PREFIX: &str = "TALLY_";

/// The file, or the command line, has two options of which a process takes one.
#[derive(Debug, thiserror::Error)]
#[error("give --{0} or --{1}, not both")]
struct BothGiven(String, String);

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

    /// The redacted message of an error; `None` if it is no error, because the user asks for help or the version.
    pub fn message(&self) -> Option<String> {
        match self {
            SettingsError::Clap(error) if error.use_stderr() => {
                let text = error.render().to_string();
                let text = shown(error, &text).unwrap_or(text);
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                let usage =
                    ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
                Some(text[..usage.unwrap_or(text.len())].trim_end().to_string())
            }
            SettingsError::Clap(_) => None,
            SettingsError::File(error) => Some(secrets::cut(&error.to_string()).into_owned()),
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
pub fn option() -> Arg {
    Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("File of settings, as TOML: the long options without the dashes are its keys")
}

/// The variable that sets a long option.
pub fn variable_of(long: &str) -> String {
    format!("{PREFIX}{}", long.to_uppercase().replace('-', "_"))
}

/// The command, each of whose long options can be set by its variable.
pub fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_long() {
        Some(long) if is_setting(&arg) || arg.get_id() == CONFIG => {
            let name = variable_of(long);
            arg.env(name).hide_env(true)
        }
        _ => arg,
    });
    command.mut_subcommands(with_variables)
}

/// Whether one of these long options is on the command line of this process.
pub fn is_on_command_line(longs: &[&str]) -> bool {
    std::env::args_os().skip(1).any(|arg| longs.iter().any(|long| is_flag(&arg, long)))
}

/// Whether an argument is this long option, with or without a value.
fn is_flag(arg: &OsStr, long: &str) -> bool {
    let rest = arg.to_str().and_then(|arg| arg.strip_prefix("--")?.strip_prefix(long));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// Options that locate the cluster. A process takes one of them: the one from the first source.
const ALTERNATIVES: [&str; 2] = ["coordinator", "consul"];
/// Variables of other programs that set the same as an option of Tally. They come before the file.
const SHARED_VARIABLES: [(&str, &str); 4] = [
    ("consul_token_file", "CONSUL_HTTP_TOKEN"),
    ("otlp_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("date", "date"),
];

/// Options whose variables count even if they are empty: an empty prefix is Consul's root.
const EMPTY_COUNTS: [&str; 1] = ["consul_prefix"];

/// The sources of a value; the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Flag,
    Environment,
    File,
}

/// Parses `argv`. If the command that it names has the option of a file, the settings of the file are added as flags,
/// except for options that a flag or the environment sets. Commands other than `servers` share a file: each ignores the
/// settings of the others.
///
/// # Errors
/// [`SettingsError`].
pub fn parse(command: Command, servers: &[&str], argv: &[OsString]) -> Result<ArgMatches, SettingsError> {
    let mut command = without_empty_variables(command);
    let Some(Addressed { path, at, options, others }) = Addressed::find(&command, servers, argv) else {
        return Ok(command.try_get_matches_from(argv)?);
    };
    let file = named(&options, argv);
    let settings = match &file {
        Some((option, file)) => read(option, file, &options, &others)?,
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
    let dropped = dropped(addressed::inner(&command, &path), &options, origin);
    let dropped = dropped.map_err(|what| command.error(ErrorKind::ArgumentConflict, what))?;
    let counts = |setting: &&file::Setting| {
        let arg = options.iter().find(|arg| arg.get_id().as_str() == setting.id);
        arg.and_then(origin) == Some(Origin::File) && !dropped.contains(&setting.id)
    };
    let mut whole = argv.to_vec();
    let flags = settings.iter().filter(counts).flat_map(|setting| setting.flags.clone());
    whole.splice(at..at, flags);
    for id in dropped {
        command = addressed::mut_arg(command, &path, &id, |arg| arg.env(Resettable::Reset));
    }
    let file = file.as_ref().map(|(_, file)| file.as_path());
    command.try_get_matches_from(whole).map_err(|e| explain(e, &options, argv, file).into())
}

/// Removes the variables of options whose variable is set but empty.
fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty = arg.get_env().is_some() && own_variable(&arg).is_none();
        let set = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        if empty && set { arg.env(Resettable::Reset) } else { arg }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Whether the option is on the command line.
fn on_line(arg: &Arg, argv: &[OsString]) -> bool {
    arg.get_long().is_some_and(|long| argv.iter().any(|word| is_flag(word, long)))
}

/// The variable of the option, if it counts.
fn own_variable(arg: &Arg) -> Option<String> {
    let own = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    own.filter(|name| is_given(arg, name))
}

/// The variable that sets the option.
fn variable(arg: &Arg) -> Option<String> {
    let shared = || {
        let shared = SHARED_VARIABLES.iter().filter(|(id, _)| arg.get_id() == id);
        shared.map(|(_, name)| name.to_string()).find(|name| is_given(arg, name))
    };
    own_variable(arg).or_else(shared)
}

/// Whether the variable is set, and not empty where that counts as not set.
fn is_given(arg: &Arg, name: &str) -> bool {
    match EMPTY_COUNTS.iter().any(|id| arg.get_id() == id) {
        true => std::env::var_os(name).is_some(),
        false => environment::os(name).is_some(),
    }
}

/// Options that do not count, because an option that excludes them comes from an earlier source.
fn dropped(
    command: &Command,
    options: &[Arg],
    origin: impl Fn(&Arg) -> Option<Origin>,
) -> Result<BTreeSet<String>, BothGiven> {
    let mut dropped = BTreeSet::new();
    let given: Vec<(&Arg, Origin)> = options.iter().filter_map(|arg| Some((arg, origin(arg)?))).collect();
    let [first, second] = ALTERNATIVES;
    let of = |id: &str| given.iter().find(|(arg, _)| arg.get_id() == id).map(|(_, origin)| *origin);
    match (of(first), of(second)) {
        (Some(a), Some(b)) if a == b && a != Origin::Environment => {
            return Err(BothGiven(first.into(), second.into()));
        }
        (Some(a), Some(b)) => {
            dropped.insert(if a <= b { second } else { first }.to_string());
        }
        _ => {}
    }
    for (arg, from) in &given {
        for other in command.get_arg_conflicts_with(arg) {
            let later = given.iter().find(|(arg, _)| arg.get_id() == other.get_id());
            if later.is_some_and(|(_, later)| later > from) {
                dropped.insert(other.get_id().to_string());
            }
            if later.is_some_and(|(_, later)| later < from) {
                dropped.insert(arg.get_id().to_string());
            }
        }
    }
    Ok(dropped)
}

/// The file of settings, and the option or variable that names it.
fn named(options: &[Arg], argv: &[OsString]) -> Option<(&'static str, PathBuf)> {
    let config = options.iter().find(|arg| arg.get_id() == CONFIG)?;
    let mut args = argv.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(|file| ("--config", file.into()));
        }
        if let Some(file) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(("--config", file.into()));
        }
    }
    Some(("--config (from the environment)", environment::os(&variable(config)?)?.into()))
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
