//! The command that a command line names, with its options.
//!
//! Not here: where the values of the options come from (`config`).

use std::ffi::OsString;

use clap::{Arg, Command};

use super::file::is_setting;

/// The command that `argv` names.
pub(super) struct Addressed {
    /// Its name below the root, such as `["worker", "drain"]`.
    pub(super) path: Vec<String>,
    /// The index in `argv` where its options start.
    pub(super) at: usize,
    /// Its options, with those of all commands.
    pub(super) options: Vec<Arg>,
    /// Long options of commands that share its file of settings.
    pub(super) others: Vec<String>,
}

impl Addressed {
    /// The command; `None` if `argv` names none, or only a group of commands.
    pub(super) fn find(root: &Command, servers: &[&str], argv: &[OsString]) -> Option<Self> {
        let globals: Vec<&Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).collect();
        let is_global = |text: &OsString| globals.iter().any(|arg| text.to_str() == dashed(arg).as_deref());
        let (mut command, mut path, mut at) = (root, vec![], argv.len().min(1));
        while command.has_subcommands() {
            while argv.get(at)?.to_string_lossy().starts_with('-') {
                at += if is_global(&argv[at]) { 2 } else { 1 };
            }
            command = command.find_subcommand(&argv[at])?;
            path.push(command.get_name().to_string());
            at += 1;
        }
        let own = command.get_arguments().filter(|arg| !arg.is_global_set());
        let options = own.chain(globals).cloned().collect();
        let shares = path.first().is_some_and(|name| !servers.contains(&name.as_str()));
        let others = if shares { longs(root, servers) } else { vec![] };
        Some(Addressed { path, at, options, others })
    }
}

/// The long options of all commands below, except those of `servers`.
fn longs(command: &Command, servers: &[&str]) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| is_setting(arg));
    let own = own.filter_map(|arg| arg.get_long().map(str::to_string));
    let below = command.get_subcommands().filter(|sub| !servers.contains(&sub.get_name()));
    own.chain(below.flat_map(|sub| longs(sub, &[]))).collect()
}

fn dashed(arg: &Arg) -> Option<String> {
    arg.get_long().map(|long| format!("--{long}"))
}

/// The command with that name below the root.
pub(super) fn inner<'a>(root: &'a Command, path: &[String]) -> &'a Command {
    path.iter().fold(root, |command, name| command.find_subcommand(name).unwrap_or(command))
}

/// Changes an option of the command with that name below the root.
pub(super) fn mut_arg(root: Command, path: &[String], id: &str, change: impl FnOnce(Arg) -> Arg) -> Command {
    match path {
        _ if root.get_arguments().any(|arg| arg.get_id() == id) => root.mut_arg(id, change),
        [name, below @ ..] => root.mut_subcommand(name.clone(), |sub| mut_arg(sub, below, id, change)),
        [] => root,
    }
}
