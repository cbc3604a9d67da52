//! The log of Tally's processes on standard error: text, or one JSON object per line. The filter can change while the
//! process runs. Known secrets are redacted in each line (`secrets`), whatever the filter is.
//!
//! Not here: the permission to change the filter (`http`), traces (`traces`).

use std::io::IsTerminal;

use clap::ValueEnum;
use parking_lot::Mutex;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::environment;
use crate::secrets::CutStderr;

/// The maximum length of a filter, in bytes.
pub const MAX_FILTER: usize = 1024;

/// The current filter and the handle to change it; `None` before the log starts.
static FILTER: Mutex<Option<(String, Handle<EnvFilter, Registry>)>> = Mutex::new(None);

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON
    Auto,
    /// Text for people
    Text,
    /// One JSON object per line, for programs
    Json,
}

/// Why the log cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is too long.
    #[error("a filter has at most {MAX_FILTER} bytes")]
    TooLong,
    /// The filter cannot be parsed.
    #[error(transparent)]
    Filter(#[from] ParseError),
    /// The filter of the option cannot be used.
    #[error("--log {filter}: {reason}")]
    Option {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: Box<LogError>,
    },
    /// Another subscriber is installed.
    #[error(transparent)]
    Installed(#[from] TryInitError),
    /// The process has no log.
    #[error("this process does not log")]
    Off,
    /// The subscriber no longer exists.
    #[error(transparent)]
    Reload(#[from] reload::Error),
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    if filter.len() > MAX_FILTER {
        return Err(LogError::TooLong);
    }
    Ok(EnvFilter::try_new(filter)?)
}

/// Starts the log with a filter such as `info` or `tally=debug`.
///
/// # Errors
/// [`LogError`].
pub fn to_stderr(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let parsed =
        parse(filter).map_err(|e| LogError::Option { filter: filter.into(), reason: Box::new(e) })?;
    let (layer, handle) = reload::Layer::new(parsed);
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(|| CutStderr);
    let lines = match format {
        LogFormat::Text | LogFormat::Auto if terminal || format == LogFormat::Text => {
            let colours = terminal && environment::os("NO_COLOR").is_none();
            lines.with_ansi(colours).with_target(false).boxed()
        }
        _ => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer).with(lines).try_init()?;
    *FILTER.lock() = Some((filter.to_string(), handle));
    Ok(())
}

/// The current filter.
pub fn filter() -> Option<String> {
    FILTER.lock().as_ref().map(|(filter, _)| filter.clone())
}

/// Changes the filter; `by` is the identity that asked for it.
///
/// # Errors
/// [`LogError`].
pub fn set_filter(filter: &str, by: &str) -> Result<(), LogError> {
    let parsed = parse(filter)?;
    let mut current = FILTER.lock();
    let Some((text, handle)) = current.as_mut() else { return Err(LogError::Off) };
    handle.reload(parsed)?;
    *text = filter.to_string();
    tracing::info!(filter, by, "the log's filter was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(parse("info,tally=debug").is_ok());
        assert!(parse("tally_worker=loud").is_err());
        assert!(parse(&"x".repeat(MAX_FILTER + 1)).unwrap_err().to_string().contains("at most"));
        assert!(
            set_filter("info", "a test").unwrap_err().to_string().contains("does not log"),
            "nothing logs in this test"
        );
    }
    #[test]
    fn one_word_means_all_crates() {
        let subscriber = tracing_subscriber::registry().with(parse("info,tally=debug").unwrap());
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::enabled!(target: "tally_shuffle::flight", tracing::Level::DEBUG));
            assert!(!tracing::enabled!(target: "hyper::proto", tracing::Level::DEBUG));
        });
    }
}
