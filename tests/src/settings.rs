//! The table of a program's options and their sources: flags, the environment, a file, defaults. The options come from
//! the program's own description, so that new ones are covered automatically.
//!
//! Values are strings here: parsing is tested with each option.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::Path;
use std::process::Command as Process;

use clap::builder::{Resettable, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// The environment variable that sets the round of a child process.
const ROUND: &str = "TALLY_TESTS_ROUND";
/// Options of which a process accepts only one.
const ALTERNATIVES: [&str; 2] = ["coordinator", "consul"];
/// Sources, in order of precedence.
const SOURCES: [&str; 3] = ["flag", "env", "file"];

/// The sources of an option in a round: the first of [`SOURCES`] that has it, and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All options from this source on.
    From(usize),
    /// Each option from another source on, so that dependent options come from different ones.
    Mixed(usize),
}

const ROUNDS: [Round; 7] = [
    Round::From(0),
    Round::From(1),
    Round::From(2),
    Round::From(3),
    Round::Mixed(0),
    Round::Mixed(1),
    Round::Mixed(2),
];

/// Checks every option of `command`, or of its subcommand with the name `sub` (such as `["worker", "drain"]`), in
/// processes of the test `test` (its full name): which of a flag, a variable and a line of the file takes effect, and
/// that the variable is named as the option.
///
/// # Panics
/// The wrong source takes effect, or an option has no variable.
pub fn check_layers(
    test: &str,
    command: impl Fn() -> Command,
    sub: &[&str],
    parse: impl Fn(Command, &[OsString]) -> Result<ArgMatches, String>,
) {
    if let Ok(setting) = std::env::var(ROUND) {
        let (round, without) = setting.split_once(' ').expect("a round and an option");
        return check_round(
            &command(),
            sub,
            ROUNDS[round.parse::<usize>().expect("a number")],
            without,
            &parse,
        );
    }
    let options = options(&command(), sub);
    assert!(options.len() >= 2, "only {} options", options.len());
    let itself = std::env::current_exe().expect("this program");
    for (number, round) in ROUNDS.into_iter().enumerate() {
        for without in ALTERNATIVES {
            let mut process = Process::new(&itself);
            process
                .args([test, "--exact", "--nocapture"])
                .env_remove("CONSUL_HTTP_TOKEN")
                .env(ROUND, format!("{number} {without}"));
            for (at, arg) in options.iter().enumerate() {
                let name = arg.get_env().unwrap_or_else(|| panic!("--{} has no variable", id(arg)));
                let long = arg.get_long().expect("a long option");
                let expect = format!("TALLY_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(name, OsStr::new(&expect), "--{long} of {sub:?}");
                let given = id(arg) != without && first(round, at) <= 1;
                // A variable that is set but empty counts as not set, except a prefix that may be empty.
                match id(arg) {
                    "consul_prefix" if !given => process.env_remove(name),
                    _ => process.env(name, if given { value(arg, 1) } else { String::new() }),
                };
            }
            let output = process.output().expect("this program again");
            let text = String::from_utf8_lossy(&output.stdout);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{round:?} without {without}: {text}\n{said}");
            assert!(text.contains("1 passed"), "{test} is no test here: {text}");
        }
    }
}

/// An option that variables of other programs set, too.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// The option, without the dashes.
    pub long: &'a str,
    /// The variables, in order of precedence.
    pub variables: &'a [&'a str],
    /// What values start with; a digit follows.
    pub prefix: &'a str,
    /// The value without any source.
    pub default: Option<&'a str>,
}

/// The environment variable that sets the variables of a child process of [`check_shared`].
const GIVEN: &str = "TALLY_TESTS_GIVEN";

/// Checks in processes of the test `test` (its full name), for each combination of sources, that the first one counts:
/// the flag, the option's own variable, those of other programs, the file, the default. Variables that do not count are
/// empty. `value` returns the value that takes effect for arguments after the program's name.
///
/// # Panics
/// The wrong source takes effect.
pub fn check_shared(test: &str, shared: Shared<'_>, value: impl Fn(&[OsString]) -> Option<String>) {
    let own = format!("TALLY_{}", shared.long.to_uppercase().replace('-', "_"));
    let variables: Vec<&str> = std::iter::once(&*own).chain(shared.variables.iter().copied()).collect();
    if let Ok(given) = std::env::var(GIVEN) {
        return check_given(shared, variables.len(), given.parse().expect("a number"), &value);
    }
    let itself = std::env::current_exe().expect("this program");
    for given in 0..1_usize << variables.len() {
        let mut process = Process::new(&itself);
        process.args([test, "--exact", "--nocapture"]).env(GIVEN, given.to_string());
        process.env_remove("TALLY_CONFIG");
        for (at, name) in variables.iter().enumerate() {
            let counts = given & (1 << at) != 0;
            // The flag is source 0.
            process.env(name, if counts { format!("{}{}", shared.prefix, at + 1) } else { String::new() });
        }
        let output = process.output().expect("this program again");
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "variables {given:b} of {variables:?}: {text}\n{said}");
        assert!(text.contains("1 passed"), "{test} is no test here: {text}");
    }
}

/// Runs in a process of its own, whose environment is set.
fn check_given(
    shared: Shared<'_>,
    variables: usize,
    given: usize,
    value: &impl Fn(&[OsString]) -> Option<String>,
) {
    let Shared { long, prefix, default, .. } = shared;
    let of = |source: usize| format!("{prefix}{source}");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.toml");
    for (flag, file) in [(false, false), (false, true), (true, false), (true, true)] {
        let last = variables + 1;
        let text = if file { format!("{long} = {:?}\n", of(last)) } else { String::new() };
        std::fs::write(&path, text).expect("the file of settings");
        let mut argv: Vec<OsString> = vec!["--config".into(), path.clone().into()];
        argv.extend(flag.then(|| format!("--{long}={}", of(0)).into()));
        let variable = (0..variables).find(|at| given & (1 << at) != 0).map(|at| at + 1);
        let first = flag.then_some(0).or(variable).or(file.then_some(last));
        let expected = first.map(of).or_else(|| default.map(str::to_string));
        assert_eq!(value(&argv), expected, "--{long}: flag {flag}, variables {given:b}, file {file}");
    }
}

fn id(arg: &Arg) -> &str {
    arg.get_id().as_str()
}

fn first(round: Round, at: usize) -> usize {
    match round {
        Round::From(first) => first,
        Round::Mixed(more) => (at + more) % SOURCES.len(),
    }
}

/// All options that users may set, except the one that names the file.
fn options(command: &Command, sub: &[&str]) -> Vec<Arg> {
    let inner =
        sub.iter().fold(command, |command, name| command.find_subcommand(name).expect("the subcommand"));
    let globals = command.get_arguments().filter(|arg| !sub.is_empty() && arg.is_global_set());
    let named = |arg: &&Arg| arg.get_long().is_some() && !["help", "version", "config"].contains(&id(arg));
    let ours = |arg: &&Arg| !arg.is_hide_set() && named(arg);
    inner.get_arguments().chain(globals).filter(ours).cloned().collect()
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The value from a source: every source has another value, as far as the option has so many.
fn value(arg: &Arg, source: usize) -> String {
    if !takes_value(arg) {
        return (source != 1).to_string();
    }
    let possible = arg.get_possible_values();
    match possible.len() {
        0 => format!("{}-by-{}", id(arg), SOURCES[source]),
        some => possible[source % some].get_name().to_string(),
    }
}

/// Runs in a process of its own, whose environment is set: passes flags and the file, and checks the parsed values.
fn check_round(
    command: &Command,
    sub: &[&str],
    round: Round,
    without: &str,
    parse: &impl Fn(Command, &[OsString]) -> Result<ArgMatches, String>,
) {
    let options = options(command, sub);
    let (mut flags, mut file) = (vec![], String::new());
    let mut expected = BTreeMap::new();
    for (at, arg) in options.iter().enumerate() {
        let long = arg.get_long().expect("a long option");
        // An option without a default is always set in some source.
        let first = if arg.is_required_set() { first(round, at) % SOURCES.len() } else { first(round, at) };
        if id(arg) == without {
            continue;
        }
        if first == 0 {
            flags.push(format!("--{long}").into());
            flags.extend(takes_value(arg).then(|| OsString::from(value(arg, 0))));
        }
        if first <= 2 {
            writeln!(file, "{long} = {:?}", value(arg, 2)).expect("a text takes it");
        }
        expected.insert(id(arg), (first < SOURCES.len()).then(|| value(arg, first)));
    }
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.toml");
    std::fs::write(&path, &file).expect("the file of settings");
    let matches = parse(as_texts(command.clone(), sub), &argv(command, sub, &path, flags));
    let matches = matches.unwrap_or_else(|error| panic!("{error}\n{file}"));
    let mut matches = &matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    for (id, expected) in expected {
        let Some(expected) = expected else {
            let set = matches.value_source(id).filter(|source| *source != ValueSource::DefaultValue);
            assert_eq!(set, None, "--{id} is set by a variable that is empty");
            continue;
        };
        let arg = options.iter().find(|arg| arg.get_id() == id).expect("one of them");
        let got = if takes_value(arg) {
            let raw = matches.get_raw(id).unwrap_or_else(|| panic!("--{id} is not set\n{file}"));
            raw.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
        } else {
            matches.get_flag(id).to_string()
        };
        assert_eq!(got, expected, "--{id} in {round:?}");
    }
}

fn argv(command: &Command, sub: &[&str], file: &Path, flags: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["program".into()];
    argv.extend(sub.iter().map(OsString::from));
    argv.extend(["--config".into(), file.into()]);
    argv.extend(flags);
    let inner =
        sub.iter().fold(command, |command, name| command.find_subcommand(name).expect("the subcommand"));
    argv.extend(inner.get_positionals().map(|arg| OsString::from(value(arg, 0))));
    argv
}

/// The command, which accepts any string as a value, and options that exclude each other.
fn as_texts(command: Command, sub: &[&str]) -> Command {
    let loose = |arg: Arg| {
        let arg = arg.conflicts_with(Resettable::Reset);
        let closed = !arg.get_possible_values().is_empty();
        if takes_value(&arg) && !closed { arg.value_parser(ValueParser::os_string()) } else { arg }
    };
    let command = command.mut_args(loose);
    match sub {
        [] => command,
        [name, below @ ..] => command.mut_subcommand(name, |sub| as_texts(sub, below)),
    }
}
