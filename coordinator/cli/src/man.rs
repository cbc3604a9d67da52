//! `tally man DIR`: writes `tally.1`, and a manual page per command.
//!
//! Not here: the commands and options (`command_line`).

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use tally_common::local_dir;

use crate::{Stop, command_line};

const EXAMPLES: &str = "Examples:
  For the current user:
    tally man ~/.local/share/man/man1";

/// Arguments of `tally man`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// Folder for the pages; it is created if it does not exist
    #[arg(value_name = "DIR", value_parser = local_dir::parser())]
    dir: PathBuf,
}

/// Runs the command.
pub(crate) fn main(args: &ManArgs) -> Result<(), Stop> {
    let failed = |path: &Path, e: std::io::Error| Stop::Failed(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(&args.dir).map_err(|e| failed(&args.dir, e))?;
    let mut root = command_line::command();
    root.build();
    for (name, command) in pages("tally", &root) {
        let path = args.dir.join(format!("{name}.1"));
        let mut page = vec![];
        let man = Man::new(command.display_name(name.clone()).name(name));
        man.render(&mut page).map_err(|e| failed(&path, e))?;
        std::fs::write(&path, page).map_err(|e| failed(&path, e))?;
    }
    Ok(())
}

/// The root, and every command that is no group of commands, with the names of their pages. A page of the group
/// `tally worker` would have the name of another program, `tally-worker`.
fn pages(name: &str, command: &Command) -> Vec<(String, Command)> {
    let mut found = vec![];
    if name == "tally" || !command.has_subcommands() {
        found.push((name.to_string(), command.clone()));
    }
    let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    found.extend(below.flat_map(|sub| pages(&format!("{name}-{}", sub.get_name()), sub)));
    found
}
