//! The end of a command without a result: the message on standard error, as text or as one JSON object, and the exit
//! code.
//!
//! Not here: why a command fails.

use std::process::ExitCode;

use serde::Serialize;
use tally_common::config::SettingsError;
use tally_common::secrets;

use crate::output::{OutputFormat, json};
use crate::{
    CANCELLED, DEPOSED, FAILED, INTERRUPTED, NO_LEADER, Stop, TIMED_OUT, UNMET, UNREADABLE, USAGE,
    command_line,
};

/// Separates a message from what to do about it.
const HINT: &str = "\nhint: ";

/// A failure in JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    error: Failure<'a>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    /// Stable; see `deploy/docs/json.md`.
    kind: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
    exit_code: u8,
}

impl Stop {
    /// Its name in JSON, and the exit code.
    fn kind(&self) -> (&'static str, u8) {
        match self {
            Stop::Usage(_) => ("usage", USAGE),
            Stop::Failed(_) => ("failed", FAILED),
            Stop::Interrupted | Stop::Detached(_) => ("interrupted", INTERRUPTED),
            Stop::Cancelled(_) => ("cancelled", CANCELLED),
            Stop::TimedOut(_) => ("timed_out", TIMED_OUT),
            Stop::NoLeader(_) => ("no_leader", NO_LEADER),
            Stop::Deposed(_) => ("deposed", DEPOSED),
            Stop::Unmet(_) => ("unmet_expectation", UNMET),
            Stop::Unreadable(_) => ("unreadable", UNREADABLE),
        }
    }

    /// The message, with a hint after [`HINT`] in some cases.
    fn message(self) -> String {
        match self {
            Stop::Interrupted => "the output is unchanged".into(),
            Stop::Deposed(why) => format!("another coordinator leads: {why}"),
            Stop::Usage(why)
            | Stop::Failed(why)
            | Stop::Detached(why)
            | Stop::Cancelled(why)
            | Stop::TimedOut(why)
            | Stop::NoLeader(why)
            | Stop::Unmet(why)
            | Stop::Unreadable(why) => why,
        }
    }

    /// The message for standard error, and the exit code.
    pub(crate) fn report(self) -> (String, u8) {
        let (_, code) = self.kind();
        let before = match self {
            Stop::Interrupted | Stop::Detached(_) => "interrupted",
            Stop::Cancelled(_) => "cancelled",
            Stop::TimedOut(_) => "timed out",
            _ => "error",
        };
        let after = if code == USAGE { "\n\nFor more information, try '--help'." } else { "" };
        (format!("{before}: {}{after}", self.message()), code)
    }
}

/// Prints why a command ended, and returns its exit code.
pub(crate) fn report(stop: Stop, format: OutputFormat) -> ExitCode {
    match format {
        OutputFormat::Table => {
            let (text, code) = stop.report();
            eprintln!("{}", secrets::cut(&text));
            ExitCode::from(code)
        }
        OutputFormat::Json => {
            let (kind, code) = stop.kind();
            print_json(kind, &secrets::cut(&stop.message()), code)
        }
    }
}

/// Prints what is wrong with the arguments, or the requested help, and returns the exit code.
pub(crate) fn invalid(error: SettingsError) -> ExitCode {
    match (command_line::requested_format(), error.message()) {
        (OutputFormat::Json, Some(message)) => print_json("usage", &message, USAGE),
        _ => error.exit(),
    }
}

fn print_json(kind: &'static str, text: &str, exit_code: u8) -> ExitCode {
    let (message, hint) = match text.split_once(HINT) {
        Some((message, hint)) => (message, Some(hint)),
        None => (text, (exit_code == USAGE).then_some("run the command with --help")),
    };
    let report = Report { error: Failure { kind, message, hint, exit_code } };
    // A line of this type can always be built.
    eprint!("{}", json(&report).unwrap_or_default());
    ExitCode::from(exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_with_its_kind_and_ends_with_its_hint() {
        let text = |stop: Stop| stop.report();
        assert_eq!(text(Stop::Failed("a\nhint: b".into())), ("error: a\nhint: b".into(), 1));
        assert_eq!(text(Stop::Interrupted), ("interrupted: the output is unchanged".into(), 130));
        assert_eq!(text(Stop::Detached("job a continues".into())).0, "interrupted: job a continues");
        assert_eq!(text(Stop::Cancelled("a".into())), ("cancelled: a".into(), 3));
        assert_eq!(text(Stop::TimedOut("a".into())), ("timed out: a".into(), 4));
        assert_eq!(text(Stop::NoLeader("a".into())), ("error: a".into(), 5));
        assert_eq!(text(Stop::Deposed("a".into())), ("error: another coordinator leads: a".into(), 20));
        let (usage, code) = text(Stop::Usage("a".into()));
        assert_eq!((usage.as_str(), code), ("error: a\n\nFor more information, try '--help'.", 2));
    }
}
