//! `--watch`: shows an answer again and again until it is final. On a terminal the screen is drawn each second; elsewhere
//! a block is printed when something changed.
//!
//! Not here: the answers (`job`, `jobs`, `workers`).

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::sleep;

use crate::{Stop, say, unread};

const INTERVAL: Duration = Duration::from_secs(1);
/// Clears the screen and moves the cursor to its begin.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// One answer.
pub struct Shown {
    /// The text for standard output.
    pub text: String,
    /// What a change of counts as a change: without times, which always pass.
    pub key: String,
    /// The answer does not change any more.
    pub last: bool,
}

/// Shows the answer once, or with `watch` until it is final or nothing reads it.
///
/// # Errors
/// Those of `ask`, or standard output cannot be written.
pub async fn show(watch: bool, mut ask: impl AsyncFnMut() -> Result<Shown, Stop>) -> Result<(), Stop> {
    let terminal = std::io::stdout().is_terminal();
    let mut key: Option<String> = None;
    loop {
        let shown = ask().await?;
        if !watch {
            return say(&shown.text);
        }
        if terminal {
            say(&format!("{CLEAR}{}", shown.text))?;
        } else if key.as_ref() != Some(&shown.key) {
            let gap = if key.is_some() && shown.text.lines().count() > 1 { "\n" } else { "" };
            say(&format!("{gap}{}", shown.text))?;
            key = Some(shown.key);
        }
        if shown.last || unread() {
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
}
