//! Sources of settings of a small command. The table over all real options is in `cli`, of the worker and of the
//! coordinator.

use clap::ArgAction;

use super::*;

fn command() -> Command {
    let size = Arg::new("size").long("size").value_name("N");
    let serve = Command::new("serve")
        .arg(option())
        .arg(size.default_value("1").value_parser(clap::value_parser!(u16).range(1..100)))
        .arg(Arg::new("to").long("to").value_delimiter(',').required(true));
    let ask = Command::new("ask").arg(option()).arg(Arg::new("depth").long("depth"));
    let one =
        Command::new("one").arg(option()).arg(Arg::new("table").long("table").action(ArgAction::Append));
    let group = Command::new("group").subcommand(one);
    Command::new("prog").subcommand(serve).subcommand(ask).subcommand(group).subcommand(Command::new("other"))
}

fn parse_with(text: &str, more: &[&str]) -> Result<(u16, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, text).unwrap();
    let mut argv: Vec<OsString> = ["prog", "serve", "--config"].map(OsString::from).into();
    argv.push(file.clone().into());
    argv.extend(more.iter().map(OsString::from));
    let matches = parse(command(), &["serve"], &argv)
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
fn an_error_names_the_key_and_its_source() {
    let wrong = |text| parse_with(text, &[]).unwrap_err();
    let error = wrong("size = 700\nto = \"a\"");
    assert!(error.contains("700") && error.contains("size in FILE"), "{error}");
    let error = wrong("sise = 7");
    assert!(error.contains("FILE: unknown setting \"sise\"; the settings are size, to"), "{error}");
    assert!(wrong("size = 1.5\nto = \"a\"").contains("FILE: size: a setting cannot be a float"));
    assert!(wrong("size = ").contains("FILE: "), "{}", wrong("size = "));
    assert!(wrong("size = 7").contains("--to"), "missing options are still reported");
}

#[test]
fn a_missing_file_is_named() {
    let argv = ["prog", "serve", "--config", "/no/such/file", "--to", "a"].map(OsString::from);
    let error = parse(command(), &["serve"], &argv).unwrap_err().to_string();
    assert!(error.starts_with("--config /no/such/file: "), "{error}");
    // Other subcommands have no file.
    assert!(parse(command(), &["serve"], &["prog", "other"].map(OsString::from)).is_ok());
}

fn who_leads(text: &str, flags: &[&str]) -> Result<Vec<(String, String)>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, text).unwrap();
    let alternative = |name: &'static str| Arg::new(name).long(name);
    let command = Command::new("prog").arg(option());
    let command = command.arg(alternative("coordinator")).arg(alternative("consul"));
    let mut argv: Vec<OsString> = ["prog", "--config"].map(OsString::from).into();
    argv.push(file.into());
    argv.extend(flags.iter().map(OsString::from));
    let matches = parse(command, &[], &argv).map_err(|e| e.to_string())?;
    let value = |name: &str| Some((name.to_string(), matches.get_one::<String>(name)?.clone()));
    Ok(["coordinator", "consul"].into_iter().filter_map(value).collect())
}

#[test]
fn of_two_ways_to_the_cluster_the_flag_counts_before_the_file() {
    let one = |name: &str, value: &str| Ok(vec![(name.to_string(), value.to_string())]);
    assert_eq!(who_leads("coordinator = \"a:1\"", &["--consul", "u"]), one("consul", "u"));
    assert_eq!(who_leads("consul = \"u\"", &["--coordinator=b:1"]), one("coordinator", "b:1"));
    assert_eq!(who_leads("consul = \"u\"", &[]), one("consul", "u"));
    for (text, flags) in
        [("coordinator = \"a:1\"\nconsul = \"u\"", &[][..]), ("", &["--consul", "u", "--coordinator", "b:1"])]
    {
        let error = who_leads(text, flags).unwrap_err();
        assert!(error.contains("give --coordinator or --consul, not both"), "{error}");
    }
}

#[test]
fn a_value_before_the_subcommand_is_no_subcommand() {
    let log = Arg::new("log").long("log").global(true);
    let command = command().arg(log);
    let at = |argv: &[&str]| {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        Addressed::find(&command, &[], &argv).map(|found| (found.path.join(" "), found.at))
    };
    let found = |path: &str, at: usize| Some((path.to_string(), at));
    assert_eq!(at(&["prog", "serve", "--to", "a"]), found("serve", 2));
    assert_eq!(at(&["prog", "--log", "serve", "serve"]), found("serve", 4));
    assert_eq!(at(&["prog", "--log=x", "serve"]), found("serve", 3));
    assert_eq!(at(&["prog", "--log", "serve", "other", "serve"]), found("other", 4));
    assert_eq!(at(&["prog", "group", "one", "--table", "a"]), found("group one", 3));
    assert_eq!(at(&["prog", "group"]), None);
    assert_eq!(at(&["prog", "unknown"]), None);
    assert_eq!(at(&["prog"]), None);
}

/// What a command finds in a file that it shares with others.
fn shared(text: &str, words: &[&str]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, text).unwrap();
    let mut argv: Vec<OsString> = ["prog"].iter().chain(words).map(OsString::from).collect();
    argv.extend(["--config".into(), file.into()]);
    let matches = parse(command(), &["serve"], &argv).map_err(|e| e.to_string())?;
    let mut matches = &matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let values = |id: &str| matches.try_get_many::<String>(id).ok().flatten().into_iter().flatten().cloned();
    Ok(["depth", "table"].into_iter().flat_map(values).collect())
}

#[test]
fn commands_share_a_file_and_servers_do_not() {
    let text = "depth = 3\ntable = [\"a=b,c\", \"d=e\"]";
    assert_eq!(shared(text, &["ask"]).unwrap(), ["3"]);
    assert_eq!(shared(text, &["group", "one"]).unwrap(), ["a=b,c", "d=e"]);
    let error = shared("size = 7", &["ask"]).unwrap_err();
    assert!(error.contains("unknown setting \"size\"; the settings are depth, table"), "{error}");
    let error = shared(text, &["serve", "--to", "a"]).unwrap_err();
    assert!(error.contains("unknown setting \"depth\"; the settings are size, to"), "{error}");
}

#[test]
fn an_option_of_an_earlier_source_excludes_its_opposite() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, "last = \"2\"").unwrap();
    let first = Arg::new("first").long("first").conflicts_with("last");
    let command = Command::new("prog").arg(option()).arg(first).arg(Arg::new("last").long("last"));
    let mut argv: Vec<OsString> = ["prog", "--first=1", "--config"].map(OsString::from).into();
    argv.push(file.into());
    let matches = parse(command.clone(), &[], &argv).unwrap();
    assert_eq!(matches.get_one::<String>("first").unwrap(), "1");
    assert_eq!(matches.get_one::<String>("last"), None);
    argv.push("--last=3".into());
    assert!(parse(command, &[], &argv).unwrap_err().to_string().contains("cannot be used with"));
}

#[test]
fn the_variable_of_an_option_follows_from_its_name() {
    assert_eq!(variable_of("state-dir"), "TALLY_STATE_DIR");
    let command = with_variables(command().arg(Arg::new("secret").long("secret").hide(true)));
    let serve = command.find_subcommand("serve").unwrap();
    let variable = |command: &Command, id: &str| {
        let arg = command.get_arguments().find(|arg| arg.get_id() == id).unwrap();
        arg.get_env().map(|name| name.to_string_lossy().into_owned())
    };
    assert_eq!(variable(serve, "size").as_deref(), Some("TALLY_SIZE"));
    assert_eq!(variable(serve, "config").as_deref(), Some("TALLY_CONFIG"));
    assert_eq!(variable(&command, "secret"), None);
}
