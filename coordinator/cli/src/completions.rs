//! `tally completions SHELL`: prints the completions of commands and options for a shell.
//!
//! Not here: the commands and options (`command_line`).

use clap::Args;
use clap_complete::{Shell, generate};

use crate::{Stop, command_line, say};

const EXAMPLES: &str = "Examples:
  For the current user of bash:
    mkdir -p ~/.local/share/bash-completion/completions
    tally completions bash > ~/.local/share/bash-completion/completions/tally
  For zsh, in a folder of $fpath:
    tally completions zsh > _tally
  For fish:
    mkdir -p ~/.config/fish/completions
    tally completions fish > ~/.config/fish/completions/tally.fish";

/// Arguments of `tally completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn main(args: &CompletionsArgs) -> Result<(), Stop> {
    let mut script = vec![];
    generate(args.shell, &mut command_line::command(), "tally", &mut script);
    say(&String::from_utf8_lossy(&script))
}
