//! The help of `tally` and `tally-worker`: the commands that it lists, and the examples in it.
//!
//! Not here: running the examples (`tests/examples.rs`).

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process::{Tally, tally_bin};

/// So wide that no line is wrapped.
const WIDE: &str = "1000";

/// The help of a command, by its name such as `["worker", "drain"]`, without wrapped lines.
///
/// # Errors
/// The command does not print its help.
pub fn help(program: &Path, name: &[String]) -> Result<String> {
    let help = Tally::wrapped(program, name).args(["--help"]).env("COLUMNS", WIDE);
    Ok(help.run()?.expect_code(0)?.stdout)
}

/// The commands that a help lists, without `help`.
fn listed(help: &str) -> Vec<String> {
    let rest = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(String::from).collect()
}

/// The names of all commands of `tally` that are no group of commands, the root first, in the order of the help.
///
/// # Errors
/// A command does not print its help.
pub fn commands() -> Result<Vec<Vec<String>>> {
    let mut found = vec![vec![]];
    let mut open = vec![vec![]];
    while let Some(name) = open.pop() {
        let below = listed(&help(&tally_bin(), &name)?);
        if below.is_empty() {
            found.push(name.clone());
        }
        open.extend(below.into_iter().rev().map(|last| [name.clone(), vec![last]].concat()));
    }
    ensure!(found.len() > 10, "only {found:?}");
    Ok(found)
}

/// An example: what it does, and its command lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub title: String,
    pub lines: Vec<String>,
}

/// The examples of a help.
///
/// # Errors
/// It has none, or they have another form: a title with two spaces before it, then command lines with four.
pub fn examples(help: &str) -> Result<Vec<Example>> {
    let (_, section) = help.split_once("\nExamples:\n").context("there are no examples")?;
    let mut found: Vec<Example> = Vec::new();
    for line in section.lines().take_while(|line| line.starts_with("  ")) {
        match line.strip_prefix("    ") {
            Some(line) => found.last_mut().context("a command without a title")?.lines.push(line.into()),
            None => found.push(Example { title: line.trim().into(), lines: vec![] }),
        }
    }
    ensure!(!found.is_empty() && found.iter().all(|example| !example.lines.is_empty()), "{found:?}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_examples_are_read_from_the_text() {
        let text = "About\n\nUsage: x\n\nCommands:\n  run   Runs\n  help  Helps\n\nOptions:\n  -h\n\nExamples:\n  \
                    One:\n    x run\n    x end\n  Two:\n    y\n\nExit codes:\n    0  done\n";
        assert_eq!(listed(text), ["run"]);
        let found = examples(text).unwrap();
        let shown: Vec<_> =
            found.iter().map(|example| (example.title.as_str(), example.lines.len())).collect();
        assert_eq!(shown, [("One:", 2), ("Two:", 1)]);
        assert!(examples("About\n").is_err() && examples("\nExamples:\n    x\n").is_err());
    }
}
