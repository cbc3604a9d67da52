//! The shape of each file: a head, a limited length, and no test that is switched off. Not here: names of files (`modules`).

use anyhow::Result;

use crate::tree::sources;

/// A file with more lines must be split.
const MAX_LINES: usize = 800;

#[test]
fn every_module_says_what_it_is_for() -> Result<()> {
    let headless = |text: &str| !text.lines().take(5).any(|line| line.starts_with("//!"));
    let found: Vec<_> =
        sources()?.into_iter().filter(|(_, text)| headless(text)).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "no `//!` in the first five lines of {found:?}");
    Ok(())
}

#[test]
fn no_file_is_too_long() -> Result<()> {
    let lines = sources()?.into_iter().map(|(file, text)| (text.lines().count(), file));
    let found: Vec<_> = lines.filter(|(lines, _)| *lines > MAX_LINES).collect();
    assert!(found.is_empty(), "more than {MAX_LINES} lines: {found:?}");
    Ok(())
}

/// A test that is switched off would look like one that passes.
#[test]
fn no_test_is_switched_off() -> Result<()> {
    let mark = ["#[ign", "ore"].concat();
    let found: Vec<_> =
        sources()?.into_iter().filter(|(_, text)| text.contains(&mark)).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}
