//! The `tally-worker` command: parses the arguments, runs the agent, and returns the exit code.
//!
//! `args` checks the arguments. Not here: what the agent does.

mod args;
mod error;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Command, CommandFactory, FromArgMatches};
use tally_common::config::{self, SettingsError};
use tally_common::discovery::leader::Leader;
use tally_common::runtime::block_on;
use tally_common::signals::EndSignals;
use tally_common::{logging, memory, open_files, secrets, traces};
use tally_dataset::registry::{self, Constructor};
use tokio::sync::watch;

use crate::agent::{self, AgentError, ExitReason, Holdings, ShutdownRequest, WorkerStatus};
use args::Args;
use error::CommandError;

/// It could not start, or was refused.
const FAILED: u8 = 1;
/// Invalid arguments.
const USAGE: u8 = 2;
/// It exited, and outputs that may be needed were lost.
const LOST: u8 = 3;
/// The coordinator has another version of the protocol.
const VERSION: u8 = 4;
/// It was requested a second time to exit.
const INTERRUPTED: u8 = 130;

/// How long the runtime's threads may take to end.
const LAST_STEPS: Duration = Duration::from_millis(100);

/// Parses the arguments, runs the worker with these datasets, and returns the exit code.
pub fn main(datasets: &'static [Constructor]) -> ExitCode {
    registry::install(datasets);
    memory::keep_freed_memory();
    secrets::register_environment();
    let args = match parse() {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::to_stderr(&args.log, args.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    open_files::raise_limit();
    ExitCode::from(match start(args) {
        Ok(code) => code,
        Err(CommandError::Usage(message)) => {
            eprintln!("error: {}\n\nFor more information, try '--help'.", secrets::cut(&message));
            USAGE
        }
        Err(CommandError::Failed(message)) => {
            eprintln!("error: {}", secrets::cut(&message));
            FAILED
        }
    })
}

/// The command with all its options.
fn command() -> Command {
    config::with_variables(Args::command().arg(config::option()))
}

fn parse() -> Result<Args, SettingsError> {
    let argv: Vec<_> = std::env::args_os().collect();
    Ok(Args::from_arg_matches(&config::parse(command(), &[], &argv)?)?)
}

fn start(args: Args) -> Result<u8, CommandError> {
    let no_runtime = |e| CommandError::Failed(format!("the runtime cannot be started: {e}"));
    // The data plane has its own threads, so that heartbeats do not wait for it.
    let mut io = tokio::runtime::Builder::new_multi_thread();
    let io = io.worker_threads(2).max_blocking_threads(192).thread_name("io").enable_all().build();
    let io = io.map_err(no_runtime)?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    let consul = args.consul()?;
    let security = args.security()?;
    {
        let _runtime = io.enter();
        traces::start(&args.traces, "tally-worker").map_err(|e| CommandError::Usage(e.to_string()))?;
    }
    let leader = Leader::new(args.source(consul.clone())?, security.dialer());
    let status = Arc::<WorkerStatus>::default();
    let options = args.options(io.handle().clone(), consul, status.clone(), security.clone())?;
    let _http = args.http(&status, &security)?;
    let spill_dir = options.spill_dir.clone();
    let ended = block_on(&control, async {
        let request = watch::Sender::new(ShutdownRequest::Stay);
        let signals = EndSignals::new()
            .map_err(|e| CommandError::Failed(format!("signal handlers cannot be installed: {e}")))?;
        tokio::spawn(forward(signals, request.clone()));
        tokio::spawn(async move { status.beat().await });
        Ok(agent::run(options, leader, request).await)
    })?;
    control.shutdown_timeout(LAST_STEPS);
    traces::stop();
    // Remaining waits for a disk or a peer are not needed.
    io.shutdown_background();
    match ended {
        Ok(left) => Ok(code(left)),
        Err(AgentError::Incarnation(error)) => {
            Err(CommandError::Failed(format!("{error} (--spill-dir {})", spill_dir.display())))
        }
        Err(error @ AgentError::Version { .. }) => {
            eprintln!("error: {error}");
            Ok(VERSION)
        }
        Err(error @ AgentError::Refused { .. }) => Err(CommandError::Failed(error.to_string())),
    }
}

/// Logs why the worker exited, and returns the exit code.
fn code(left: ExitReason) -> u8 {
    let lost = |why: &str, Holdings { running, outputs, migrated, unreported }: Holdings| {
        tracing::warn!(
            running,
            outputs,
            migrated,
            unreported,
            "exited {why}: lost outputs are made again elsewhere, if they are needed"
        );
    };
    match left {
        ExitReason::Drained => {
            tracing::info!("drained: nothing that is needed was lost");
            0
        }
        ExitReason::TimedOut(holdings) => {
            lost("because the drain took longer than --drain-timeout", holdings);
            LOST
        }
        ExitReason::GivenUp(holdings) => {
            lost("because the coordinator had declared this worker lost", holdings);
            LOST
        }
        ExitReason::AtOnce(holdings) => {
            lost("at once, because it was requested twice", holdings);
            INTERRUPTED
        }
    }
}

/// The first signal drains, the second one exits at once.
async fn forward(mut signals: EndSignals, request: watch::Sender<ShutdownRequest>) {
    for next in [ShutdownRequest::Drain, ShutdownRequest::Leave] {
        signals.next().await;
        request.send_replace(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_taken_from_the_first_source_that_has_it() {
        tally_tests::settings::check_layers(
            "cli::tests::every_option_is_taken_from_the_first_source_that_has_it",
            command,
            &[],
            |command, argv| config::parse(command, &[], argv).map_err(|e| e.to_string()),
        );
    }
}
