//! Settings files of processes.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, value_parser};
use tally_common::{config, duration, size};
use tally_tests::scratch::Scratch;

/// A command with an option of each kind that the real commands have.
fn command() -> Command {
    let option = |name: &'static str| Arg::new(name).long(name);
    Command::new("program")
        .arg(config::option())
        .arg(option("listen"))
        .arg(option("slots").value_parser(value_parser!(u16).range(1..=1024)))
        .arg(option("memory-limit").value_parser(size::parse))
        .arg(option("drain-timeout").value_parser(duration::parse))
        .arg(option("coordinator").value_delimiter(',').action(ArgAction::Append))
        .arg(option("verbose").value_parser(value_parser!(bool)))
}

thread_local! {
    static FOLDER: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Reads a settings file: each option has its value, or the error names the file.
pub fn settings(bytes: &[u8]) {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| Scratch::new("tally settings ").expect("a folder"));
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, bytes).expect("a file");
        let argv: Vec<OsString> = vec!["program".into(), "--config".into(), file.clone().into()];
        match config::parse(command(), &[], &argv) {
            Ok(matches) => {
                let slots = matches.get_one::<u16>("slots");
                assert!(slots.is_none_or(|slots| (1..=1024).contains(slots)), "{slots:?} slots");
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("settings.toml"), "it does not name the file: {said}");
            }
        }
    });
}
