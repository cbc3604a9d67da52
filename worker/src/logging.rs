//! The log of Tally's processes, on standard error: for people, or one JSON object a line. What is logged can be
//! changed while the process runs.

use std::io::IsTerminal;

use clap::ValueEnum;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// The longest filter that is taken, in bytes.
pub const MOST_FILTER: usize = 1024;

/// The filter in use, and the way to change it; none before the log begins.
static FILTER: Mutex<Option<(String, Handle<EnvFilter, Registry>)>> = Mutex::new(None);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON
    Auto,
    /// For people
    Text,
    /// One object a line, for programs
    Json,
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    if filter.len() > MOST_FILTER {
        return Err(format!("a filter has {MOST_FILTER} bytes at most"));
    }
    EnvFilter::try_new(filter).map_err(|e| e.to_string())
}

/// Logs what `filter` lets through, for example `info` or `tally_worker=debug`.
///
/// # Errors
/// A sentence, where the filter is none or somebody logs already.
pub fn to_stderr(filter: &str, format: LogFormat) -> Result<(), String> {
    let parsed = parse(filter).map_err(|e| format!("--log {filter}: {e}"))?;
    let (layer, handle) = reload::Layer::new(parsed);
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text | LogFormat::Auto if terminal || format == LogFormat::Text => {
            let colours = terminal && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colours).with_target(false).boxed()
        }
        _ => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer).with(lines).try_init().map_err(|e| e.to_string())?;
    *FILTER.lock() = Some((filter.to_string(), handle));
    Ok(())
}

/// What is logged now.
pub fn filter() -> Option<String> {
    FILTER.lock().as_ref().map(|(filter, _)| filter.clone())
}

/// From now on this is logged.
///
/// # Errors
/// A sentence, where the filter is none or nothing is logged.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let parsed = parse(filter)?;
    let mut current = FILTER.lock();
    let Some((text, handle)) = current.as_mut() else { return Err("this process does not log".into()) };
    handle.reload(parsed).map_err(|e| e.to_string())?;
    *text = filter.to_string();
    // Under the new filter.
    tracing::info!(filter, "the log's filter was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(parse("info,tally_worker=debug").is_ok());
        assert!(parse("tally_worker=loud").is_err());
        assert!(parse(&"x".repeat(MOST_FILTER + 1)).unwrap_err().contains("at most"));
        assert!(set_filter("info").unwrap_err().contains("does not log"), "nothing logs in this test");
    }
}
