//! The terminal of `tally top`: a screen of its own while it is in use, and the terminal as it was afterwards, whatever
//! happens.
//!
//! Not here: what is drawn (`paint`), what keys do (`app`).

use std::io::{self, IsTerminal, Stdout};
use std::panic;
use std::sync::Once;
use std::thread;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{event, execute};
use tally_common::{environment, logging};
use tokio::sync::mpsc;

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
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
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
    terminal: Terminal<CrosstermBackend<Stdout>>,
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
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        // From here on, dropping the value undoes it.
        let screen = Screen { terminal, filter };
        if screen.filter.is_some() {
            let _ = logging::set_filter("off", "tally top");
        }
        restore_in_a_panic();
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }

    /// Draws into the cells of the whole screen, which is as large as the terminal is now.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn draw<T>(&mut self, paint: impl FnOnce(&mut Buffer) -> T) -> io::Result<Option<T>> {
        let mut painted = None;
        self.terminal.draw(|frame| painted = Some(paint(frame.buffer_mut())))?;
        Ok(painted)
    }

    /// Draws all cells in the next drawing, because something else wrote to the terminal.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn clear(&mut self) -> io::Result<()> {
        execute!(io::stdout(), Clear(ClearType::All))?;
        // Not `Terminal::clear`: it asks the terminal for the cursor, and the thread of the keys would get the answer.
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
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
