//! The command line as a whole: global options, variables of the environment, the file of settings, help and version.
//!
//! Not here: the options of single commands, which source of a setting counts (`tally_common::config`).

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use tally_common::config::{self, SettingsError};
use tally_common::logging::LogFormat;

use crate::output::OutputFormat;
use crate::{Cli, Command, EXIT_CODES};

/// The heading of the options that all commands have; they are the last ones of each help.
pub(crate) const GLOBAL: &str = "Global options";

/// The version, with the commit if the build knows it.
pub(crate) const VERSION: &str = env!("TALLY_VERSION");

const SOURCES: &str = "Settings:
  Each option can also be set by a variable of the environment (--state-dir: TALLY_STATE_DIR) and in the file of --config \
(state-dir = \"...\"). Options come before variables, variables before the file, and the file before defaults.";

const EXAMPLES: &str = "Examples:
  Try Tally with a synthetic day:
    tally demo
  Write a synthetic day, and compute it:
    tally generate --clients 1000 --output day
    tally run --addons day/addons/v2 --main-summary day/main_summary/v3 --output out --date 20170227";

/// Commands whose file of settings has only their own options.
const SERVERS: [&str; 1] = ["coordinator"];

/// The end of `tally --help`.
pub(crate) fn help() -> String {
    format!("{SOURCES}\n\n{EXAMPLES}\n\n{EXIT_CODES}")
}

/// The command with all of its options.
pub(crate) fn command() -> clap::Command {
    let file = config::option().global(true).help_heading(GLOBAL);
    config::with_variables(Cli::command().arg(file))
}

/// The arguments, and the output format that they ask for.
///
/// # Errors
/// [`SettingsError`].
pub(crate) fn parse() -> Result<(Cli, OutputFormat), SettingsError> {
    let argv: Vec<_> = std::env::args_os().collect();
    let matches = config::parse(command(), &SERVERS, &argv)?;
    Ok((Cli::from_arg_matches(&matches)?, format_of(&matches)))
}

/// The output format of the command; a table for those that have no such option.
fn format_of(matches: &ArgMatches) -> OutputFormat {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let format = matches.try_get_one::<OutputFormat>("output_format").ok().flatten();
    format.copied().unwrap_or(OutputFormat::Table)
}

/// The output format that a command line asks for that is not valid.
pub(crate) fn requested_format() -> OutputFormat {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let after = args.windows(2).find(|pair| pair[0] == "--output-format").map(|pair| pair[1].clone());
    let joined = args.iter().find_map(|arg| arg.strip_prefix("--output-format=").map(String::from));
    let variable = || tally_common::environment::text(&config::variable_of("output-format"));
    match after.or(joined).or_else(variable).as_deref() {
        Some("json") => OutputFormat::Json,
        _ => OutputFormat::Table,
    }
}

/// The format of log lines. The messages of a command are text, and with JSON as the output format the log is JSON, too.
pub(crate) fn log_format(cli: &Cli, output: OutputFormat) -> LogFormat {
    match (cli.log_format, &cli.command, output) {
        (LogFormat::Auto, Command::Coordinator(_), _) => LogFormat::Auto,
        (LogFormat::Auto, _, OutputFormat::Table) => LogFormat::Text,
        (LogFormat::Auto, _, OutputFormat::Json) => LogFormat::Json,
        (given, ..) => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands.
    fn commands(command: &clap::Command, above: &[String]) -> Vec<Vec<String>> {
        let below = command.get_subcommands().flat_map(|sub| {
            let name = [above, &[sub.get_name().to_string()]].concat();
            commands(sub, &name)
        });
        let below: Vec<_> = below.collect();
        if below.is_empty() { vec![above.to_vec()] } else { below }
    }

    /// The command of a process that a test starts.
    const TESTED: &str = "TALLY_TESTS_COMMAND";

    #[test]
    fn every_option_of_every_command_is_taken_from_the_first_source_that_has_it() {
        let test =
            "command_line::tests::every_option_of_every_command_is_taken_from_the_first_source_that_has_it";
        let check = |name: &[&str]| {
            tally_tests::settings::check_layers(test, command, name, |command, argv| {
                config::parse(command, &SERVERS, argv).map_err(|e| e.to_string())
            });
        };
        if let Ok(name) = std::env::var(TESTED) {
            return check(&name.split(' ').collect::<Vec<_>>());
        }
        let names = commands(&command(), &[]);
        assert!(names.len() >= 16 && names.contains(&vec!["worker".into(), "drain".into()]), "{names:?}");
        let itself = std::env::current_exe().unwrap();
        for name in names {
            let mut process = std::process::Command::new(&itself);
            let output = process.args([test, "--exact", "--nocapture"]).env(TESTED, name.join(" "));
            let output = output.output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{name:?}: {}", String::from_utf8_lossy(&said));
        }
    }

    #[test]
    fn global_options_are_the_last_ones_of_each_help() {
        for name in commands(&command(), &[]).into_iter().chain([vec![]]) {
            let mut root = command();
            root.build();
            let found = name.iter().fold(&root, |command, name| command.find_subcommand(name).unwrap());
            let help = found.clone().render_long_help().to_string();
            let (own, global) = help.split_once("\nGlobal options:\n").unwrap_or_else(|| panic!("{help}"));
            assert!(own.contains("--help"), "{help}");
            let options: Vec<&str> = global
                .lines()
                .filter_map(|line| line.trim().strip_prefix("--")?.split([' ', '=']).next())
                .collect();
            assert_eq!(options[..3], ["log", "log-format", "config"], "{help}");
            assert!(!global.contains("\nOptions:") && !global.contains("\nSecurity:"), "{help}");
        }
    }
}
