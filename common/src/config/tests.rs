//! Sources of settings of a small command. The table over all real options is in `cli`, of the worker and of the
//! coordinator.

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
    let error = parse(command(), Some("serve"), &argv).unwrap_err().to_string();
    assert!(error.starts_with("--config /no/such/file: "), "{error}");
    // Other subcommands have no file.
    assert!(parse(command(), Some("serve"), &["prog", "other"].map(OsString::from)).is_ok());
}

fn who_leads(text: &str, flags: &[&str]) -> Result<Vec<(String, String)>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, text).unwrap();
    let alternative = |name: &'static str| Arg::new(name).long(name);
    let command = Command::new("prog").arg(option("TALLY_TEST_CONFIG_FILE"));
    let command = command.arg(alternative("coordinator")).arg(alternative("consul"));
    let mut argv: Vec<OsString> = ["prog", "--config"].map(OsString::from).into();
    argv.push(file.into());
    argv.extend(flags.iter().map(OsString::from));
    let matches = parse(command, None, &argv).map_err(|e| e.to_string())?;
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
        options(&command, Some("serve"), &argv).map(|(at, _)| at)
    };
    assert_eq!(at(&["prog", "serve", "--to", "a"]), Some(2));
    assert_eq!(at(&["prog", "--log", "serve", "serve"]), Some(4));
    assert_eq!(at(&["prog", "--log=x", "serve"]), Some(3));
    assert_eq!(at(&["prog", "--log", "serve", "other", "serve"]), None);
    assert_eq!(at(&["prog"]), None);
}
