//! The mutations of the tests of tests. Not here: whether a test finds them (`tests/mutations/run`, the simulator).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree::{files, sources, top};

/// The patches of `tests/mutations` and of the simulator still apply, and the tests that the former name exist.
#[test]
fn each_mutation_applies_and_names_a_test() -> Result<()> {
    let sources = sources()?;
    let patches: Vec<_> =
        files()?.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "patch")).collect();
    ensure!(patches.len() >= 50, "only {} patches were found", patches.len());
    for patch in patches {
        let shown = patch.display();
        if patch.starts_with("tests/mutations") {
            let text = std::fs::read_to_string(top().join(&patch))?;
            let test = text.lines().find_map(|line| line.strip_prefix("Test: "));
            let name = test.and_then(|test| test.rsplit([' ', ':']).next()).context("no line `Test: `")?;
            let defined = format!("fn {name}(");
            ensure!(
                sources.iter().any(|(_, text)| text.contains(&defined)),
                "{shown}: there is no test {name}"
            );
        }
        let tried = ["-p1", "-s", "-f", "--dry-run", "-i"];
        let tried = Command::new("patch").args(tried).arg(&patch).current_dir(top()).output()?;
        ensure!(tried.status.success(), "{shown}: {}", String::from_utf8_lossy(&tried.stdout));
    }
    Ok(())
}
