//! Words that no file may have. Not here: the words of docs alone (`tests/deploy/test_docs.py`).

use std::path::Path;

use anyhow::Result;

use crate::tree::{files, top};

#[test]
fn nothing_names_the_machine_it_was_written_on() -> Result<()> {
    // Split, so that this file does not find itself.
    let words = [
        ["/wo", "rk/"],
        ["/fa", "rm/"],
        ["far", "m-"],
        [".lib", "rary/"],
        ["arti", "factory"],
        ["/tmp/", "bench"],
    ];
    let words = words.map(|halves| halves.concat());
    let mut found = Vec::new();
    for file in files()? {
        // Data files are not text.
        let Ok(text) = std::fs::read_to_string(top().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {line}", file.display(), at + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Words and names with a standard term that replaces them, such as `MAX_` for `MOST_`.
const OLD_TERMS: [&str; 13] = [
    "anew",
    "nobody",
    "whoever",
    "reckoned",
    "lacks",
    "bereave",
    "forgetful",
    "spoil",
    "spoils",
    "spoilt",
    "handover",
    "MOST",
    "LEAST",
];

#[test]
fn names_and_texts_use_standard_terms() -> Result<()> {
    // These two files list the words.
    let lists = ["tests/tests/tidy/words.rs", "tests/deploy/test_docs.py"].map(Path::new);
    let mut found = Vec::new();
    for file in files()?.into_iter().filter(|file| !lists.contains(&file.as_path())) {
        let Ok(text) = std::fs::read_to_string(top().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let old = words
                .filter(|word| OLD_TERMS.iter().any(|term| word == term || word.to_lowercase() == *term));
            found.extend(old.map(|word| format!("{}:{}: {word}", file.display(), at + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
