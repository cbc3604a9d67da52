//! The keys of `tally top`, apart from the terminal's events.
//!
//! Not here: what a key does (`app`), reading them (`screen`).

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A letter or sign.
    Char(char),
    /// The key with that name.
    Enter,
    /// The key with that name.
    Escape,
    /// The key with that name.
    Tab,
    /// Tab with Shift.
    BackTab,
    /// An arrow.
    Up,
    /// An arrow.
    Down,
    /// An arrow, or Backspace.
    Left,
    /// The key with that name.
    PageUp,
    /// The key with that name.
    PageDown,
    /// The key with that name.
    Home,
    /// The key with that name.
    End,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-L: other output is on the screen.
    Redraw,
    /// No key: the size of the terminal has changed, or a key without a meaning.
    Other,
}

/// The keys and their meanings, for the help.
pub const HELP: [(&str, &str); 10] = [
    ("Up Down  k j", "move"),
    ("PgUp PgDn Home End  g G", "move further"),
    ("Tab  Shift-Tab", "next list, or next section of a job"),
    ("Enter  Right  l", "open the selected job"),
    ("Esc  Left  h", "back to the lists"),
    ("c", "cancel the job, after a question"),
    ("Ctrl-L", "draw the screen again"),
    ("?", "these keys"),
    ("q  Ctrl-C", "leave; jobs continue"),
    ("NO_COLOR=1", "variable for a screen without colours"),
];

/// The key of an event.
pub fn of(event: &Event) -> Key {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { return Key::Other };
    if *kind == KeyEventKind::Release {
        return Key::Other;
    }
    if modifiers.contains(KeyModifiers::CONTROL) {
        return match code {
            KeyCode::Char('c') => Key::Interrupt,
            KeyCode::Char('l') => Key::Redraw,
            _ => Key::Other,
        };
    }
    match code {
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => Key::Enter,
        KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => Key::Left,
        KeyCode::Char(sign) => Key::Char(*sign),
        KeyCode::Esc => Key::Escape,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_named_keys_have_the_same_meaning_as_documented() {
        let key = |code| of(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        assert_eq!(key(KeyCode::Char('l')), key(KeyCode::Right));
        assert_eq!(key(KeyCode::Char('h')), key(KeyCode::Left));
        assert_eq!(key(KeyCode::Char('?')), Key::Char('?'));
        assert_eq!(key(KeyCode::F(1)), Key::Other);
        let control = |sign| of(&Event::Key(KeyEvent::new(KeyCode::Char(sign), KeyModifiers::CONTROL)));
        assert_eq!((control('c'), control('l'), control('q')), (Key::Interrupt, Key::Redraw, Key::Other));
        assert_eq!(of(&Event::Resize(80, 24)), Key::Other);
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(of(&Event::Key(released)), Key::Other, "some terminals also report the release");
    }
}
