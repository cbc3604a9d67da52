//! The `tally-worker` command: arguments in, a running agent, exit code out.
//!
//! `args` checks the arguments. Not here: what the agent does.

mod args;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::agent::{self, AgentError, Holdings, Left, Seen, Wish};
use crate::config::{self, SettingsError};
use crate::leader::Leader;
use crate::{logging, traces};
use args::Args;

/// It could not start, or was refused.
const FAILED: u8 = 1;
/// Arguments that make no sense.
const USAGE: u8 = 2;
/// It left, and something that may be needed went with it.
const LOST: u8 = 3;
/// The coordinator speaks another version of the protocol.
const VERSION: u8 = 4;
/// It was told a second time to leave.
const INTERRUPTED: u8 = 130;

/// How long threads of a runtime may take to end with the process.
const LAST_STEPS: Duration = Duration::from_millis(100);

/// Parses the arguments, works, gives the exit code.
pub fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::to_stderr(&args.log, args.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    ExitCode::from(match start(args) {
        Ok(code) => code,
        Err(Stop::Usage(message)) => {
            eprintln!("error: {message}\n\nFor more information, try '--help'.");
            USAGE
        }
        Err(Stop::Failed(message)) => {
            eprintln!("error: {message}");
            FAILED
        }
    })
}

fn parse() -> Result<Args, SettingsError> {
    let command = Args::command().arg(config::option("TALLY_WORKER_CONFIG"));
    let argv: Vec<_> = std::env::args_os().collect();
    Ok(Args::from_arg_matches(&config::parse(command, None, &argv)?)?)
}

/// Why the worker does not start.
#[derive(Debug)]
enum Stop {
    /// Arguments that make no sense.
    Usage(String),
    /// Something that it needs is not to be had.
    Failed(String),
}

fn start(args: Args) -> Result<u8, Stop> {
    let no_runtime = |e| Stop::Failed(format!("the runtime cannot be started: {e}"));
    // The data plane's threads, apart from the agent's, so that beats never wait for bytes.
    let mut io = tokio::runtime::Builder::new_multi_thread();
    let io = io.worker_threads(2).max_blocking_threads(192).thread_name("io").enable_all().build();
    let io = io.map_err(no_runtime)?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    let consul = args.consul()?;
    let security = args.security()?;
    {
        let _runtime = io.enter();
        traces::start(&args.traces, "tally-worker").map_err(Stop::Usage)?;
    }
    let leader = Leader::new(args.source(consul.clone())?, security.dialer());
    let seen = Arc::<Seen>::default();
    let options = args.options(io.handle().clone(), consul, seen.clone(), security)?;
    let _http = args.http(&seen)?;
    let spill_dir = options.spill_dir.clone();
    let ended = control.block_on(async {
        let wish = watch::Sender::new(Wish::Stay);
        let signals =
            Signals::new().map_err(|e| Stop::Failed(format!("signals cannot be waited for: {e}")))?;
        tokio::spawn(signals.forward(wish.clone()));
        tokio::spawn(async move { seen.beat().await });
        Ok(agent::run(options, leader, wish).await)
    })?;
    control.shutdown_timeout(LAST_STEPS);
    traces::stop();
    // What still waits for a disk or a peer is of no use to anybody.
    io.shutdown_background();
    match ended {
        Ok(left) => Ok(code(left)),
        Err(AgentError::Life(error)) => {
            Err(Stop::Failed(format!("{error} (--spill-dir {})", spill_dir.display())))
        }
        Err(error @ AgentError::Version { .. }) => {
            eprintln!("error: {error}");
            Ok(VERSION)
        }
        Err(error @ AgentError::Refused { .. }) => Err(Stop::Failed(error.to_string())),
    }
}

/// Says how it left, and gives the exit code for that.
fn code(left: Left) -> u8 {
    let lost = |why: &str, Holdings { running, outputs, given, untold }: Holdings| {
        tracing::warn!(
            running,
            outputs,
            given,
            untold,
            "left {why}: what was lost is made again elsewhere, if it is needed"
        );
    };
    match left {
        Left::Drained => {
            tracing::info!("drained: nothing that is needed was lost");
            0
        }
        Left::TimedOut(holdings) => {
            lost("as the drain took longer than --drain-timeout", holdings);
            LOST
        }
        Left::GivenUp(holdings) => {
            lost("as the coordinator had given this worker up", holdings);
            LOST
        }
        Left::AtOnce(holdings) => {
            lost("at once, as it was told twice", holdings);
            INTERRUPTED
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The first signal drains, the second one does not wait for that.
    async fn forward(mut self, wish: watch::Sender<Wish>) {
        for next in [Wish::Drain, Wish::Leave] {
            self.next().await;
            wish.send_replace(next);
        }
    }
}
