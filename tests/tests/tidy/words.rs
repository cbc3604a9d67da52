//! Words that no file may have, and numbers with their nouns. Not here: the words of docs alone (`tests/deploy/test_docs.py`).

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

/// Nouns that are counted, in the plural.
const NOUNS: [&str; 23] = [
    "attempts",
    "clients",
    "columns",
    "days",
    "errors",
    "failures",
    "files",
    "jobs",
    "keys",
    "objects",
    "outputs",
    "partitions",
    "pings",
    "problems",
    "records",
    "rows",
    "shards",
    "slots",
    "tables",
    "tasks",
    "threads",
    "values",
    "workers",
];
/// Words between a number and its noun.
const BETWEEN: [&str; 8] = ["add-on", "map", "more", "part", "reduce", "running", "write", "input"];

/// Whether a text has a number from elsewhere and then a noun in the plural, which is wrong for one.
fn counts_in_the_plural(line: &str) -> bool {
    line.match_indices("} ").any(|(at, _)| {
        let (before, name) = line[..at].rsplit_once('{').unwrap_or(("", ""));
        // A limit, a list, or the name of a stage.
        let no_number = name.starts_with(|c: char| c.is_ascii_uppercase())
            || name.contains(":?")
            || before.trim_end_matches('$').to_lowercase().ends_with("pending ");
        let mut words = line[at + 2..].split(|c: char| !c.is_ascii_alphabetic() && c != '-');
        let noun = words.next().filter(|word| !BETWEEN.contains(word)).or_else(|| words.next());
        !no_number && noun.is_some_and(|noun| NOUNS.contains(&noun))
    })
}

/// `tally_common::counts` has the rule. Not checked: what the readers of Parquet files say about damaged bytes.
#[test]
fn counts_agree_with_their_nouns() -> Result<()> {
    assert!(counts_in_the_plural("{n} tasks") && counts_in_the_plural("x {} part files, {y}"));
    assert!(!counts_in_the_plural("{MAX_TASKS} tasks") && !counts_in_the_plural("{} of the tasks"));
    let mut found = Vec::new();
    for file in files()? {
        let is_tests =
            file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        let is_shown = ["coordinator", "worker/src", "common/src"].iter().any(|root| file.starts_with(root));
        let is_code = file.extension().is_some_and(|kind| kind == "rs" || kind == "js");
        if is_tests || !is_shown || !is_code {
            continue;
        }
        let text = std::fs::read_to_string(top().join(&file))?;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//"));
        let plural = lines.filter(|(line, _)| counts_in_the_plural(line));
        found.extend(plural.map(|(line, at)| format!("{}:{at}: {}", file.display(), line.trim())));
    }
    assert!(found.is_empty(), "use counted():\n{}", found.join("\n"));
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
            if line.to_lowercase().contains("second attempt") {
                found.push(format!("{}:{}: speculative attempt", file.display(), at + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
