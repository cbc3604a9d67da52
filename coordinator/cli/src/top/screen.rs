//! The terminal of `tally top`: a screen of its own while it is in use, and the terminal as it was afterwards, whatever
//! happens.
//!
//! Not here: what is drawn (`paint`), what keys do (`app`).

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::Once;
use std::thread;

use crossterm::cursor::{Hide, Show};
use crossterm::terminal::{
    Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{event, execute};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use tally_common::{environment, logging};
use tokio::sync::mpsc;

use super::ansi::changes;
use super::keys::{self, Key};

/// Keys that were not handled yet. If there are more, the terminal keeps them.
const KEYS: usize = 64;

/// Whether standard input and output are a terminal that can show a screen.
pub fn is_possible() -> bool {
    let dumb = environment::text("TERM").is_none_or(|kind| kind.is_empty() || kind == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb
}

/// Leaves the screen. It is no error if it is not in use, or if the terminal is gone.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), EndSynchronizedUpdate, LeaveAlternateScreen, Show);
}

/// A panic restores the terminal before its message is written.
fn restore_in_a_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// The screen. Dropping it restores the terminal.
pub struct Screen {
    /// What is on it.
    shown: Buffer,
    /// The filter of the log, if its lines would be written into the screen.
    filter: Option<String>,
}

impl Screen {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// The terminal cannot be read or written.
    pub fn enter() -> io::Result<Self> {
        let filter = io::stderr().is_terminal().then(logging::filter).flatten();
        // From here on, dropping the value undoes it.
        let screen = Screen { shown: Buffer::empty(Rect::ZERO), filter };
        if screen.filter.is_some() {
            let _ = logging::set_filter("off", "tally top");
        }
        restore_in_a_panic();
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws into the cells of the whole screen, which is as large as the terminal is now.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn draw<T>(&mut self, paint: impl FnOnce(&mut Buffer) -> T) -> io::Result<T> {
        let (columns, rows) = size()?;
        let area = Rect::new(0, 0, columns, rows);
        if *self.shown.area() != area {
            self.clear()?;
            self.shown = Buffer::empty(area);
        }
        let mut next = Buffer::empty(area);
        let painted = paint(&mut next);
        let changes = changes(&self.shown, &next);
        self.shown = next;
        let mut out = io::stdout().lock();
        out.write_all(changes.as_bytes())?;
        out.flush()?;
        Ok(painted)
    }

    /// Draws all cells in the next drawing, because something else wrote to the terminal.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn clear(&mut self) -> io::Result<()> {
        self.shown.reset();
        execute!(io::stdout(), Clear(ClearType::All))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
        if let Some(filter) = &self.filter {
            let _ = logging::set_filter(filter, "tally top");
        }
    }
}

/// The keys of the terminal from now on, and changes of its size. The channel closes when the terminal is gone.
///
/// # Errors
/// The system starts no thread.
pub fn keys() -> io::Result<mpsc::Receiver<Key>> {
    let (send, receive) = mpsc::channel(KEYS);
    // It waits for the terminal until the process exits.
    thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(event) = event::read() {
            if send.blocking_send(keys::of(&event)).is_err() {
                return;
            }
        }
    })?;
    Ok(receive)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use super::*;

    /// Set in the process that panics.
    const PANICS: &str = "TALLY_TEST_PANICS";
    const MESSAGE: &str = "this is the panic";
    const ENTERED: &str = "\x1b[?1049h";
    const LEFT: &str = "\x1b[?1049l";
    const SHOWN: &str = "\x1b[?25h";

    /// The test starts itself in a pseudo-terminal, and then asks that terminal for its modes.
    #[test]
    fn a_panic_restores_the_terminal_before_its_message() {
        if env::var_os(PANICS).is_some() {
            let _screen = Screen::enter().unwrap();
            panic!("{MESSAGE}");
        }
        let test = "top::screen::tests::a_panic_restores_the_terminal_before_its_message";
        let again =
            format!("'{}' --exact {test} --nocapture; stty -a", env::current_exe().unwrap().display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--command", &again, "/dev/null"]).env(PANICS, "1").env("TERM", "xterm");
        let output = script.output().expect("script is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?}: {said:?}"));
        assert!(at(ENTERED) < at(LEFT) && at(LEFT) < at(MESSAGE) && at(SHOWN) < at(MESSAGE), "{said:?}");
        let modes = &said[at("speed ")..];
        assert!(modes.contains(" icanon") && modes.contains(" echo "), "{modes}");
    }
}
