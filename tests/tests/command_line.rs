//! The command line as a whole: version, suggestions, the width of the help, completions, manual pages, and settings from a
//! file and the environment. Sources of single options are in the crates' own tests; examples are in `examples`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tally_tests::golden::DATE;
use tally_tests::help::{commands, help};
use tally_tests::output::Place;
use tally_tests::process::{Tally, output, tally_bin};
use tally_tests::scene::{GROUP_ROWS, Scene};
use tally_tests::scratch::Scratch;

/// The commit of the source tree, if it is a repository.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let done = git.output().ok().filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).ok()?.trim().to_string())
}

#[test]
fn the_version_has_the_commit() -> Result<()> {
    let said = Tally::new("--version").run()?.expect_code(0)?.stdout;
    let version = env!("CARGO_PKG_VERSION");
    let rest = said.trim().strip_prefix(&format!("tally {version}")).with_context(|| said.clone())?;
    match (std::env::var_os("TALLY_BIN"), commit()) {
        // The binary may be that of another tree.
        (None, Some(commit)) => {
            let short = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
            let short = short.with_context(|| said.clone())?;
            ensure!(short.len() >= 7 && commit.starts_with(short), "{said} is not {commit}");
        }
        _ => ensure!(rest.is_empty() || rest.starts_with(" ("), "{said}"),
    }
    let below = Tally::new("run").args(["--version"]).run()?.expect_code(0)?.stdout;
    ensure!(below.contains(&format!("{version}{rest}")), "{below}");
    Ok(())
}

#[test]
fn mistyped_commands_and_options_are_answered_with_similar_ones() -> Result<()> {
    let check = |words: &[&str], similar: &str| -> Result<()> {
        let outcome = Tally::new(words[0]).args(&words[1..]).run()?.expect_code(2)?;
        ensure!(outcome.stderr.contains("similar") && outcome.stderr.contains(similar), "{outcome}");
        Ok(())
    };
    check(&["sumbit"], "'submit'")?;
    check(&["wokers"], "'workers'")?;
    check(&["run", "--memory-limits", "1GiB"], "'--memory-limit'")?;
    check(&["worker", "drian"], "'drain'")
}

#[test]
fn help_is_wrapped_at_the_width_of_the_terminal() -> Result<()> {
    for name in commands()? {
        for width in [60, 100] {
            let help =
                Tally::wrapped(&tally_bin(), &name).args(["--help"]).env("COLUMNS", &width.to_string());
            let help = help.run()?.expect_code(0)?.stdout;
            let long = |line: &&str| {
                // A name and its value are not separated, and a long word is not cut.
                let text = line.trim_start();
                line.chars().count() > width
                    && text.contains(' ')
                    && !text.starts_with("--")
                    && !text.starts_with("Usage: ")
                    && !text.contains("://")
            };
            let long: Vec<_> = help.lines().filter(long).collect();
            ensure!(long.is_empty(), "{name:?} at {width}: {long:#?}");
        }
    }
    Ok(())
}

#[test]
fn completions_name_commands_and_options() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let script = Tally::new("completions").args([shell]).run()?.expect_code(0)?.stdout;
        for name in ["backfill", "memory-limit", "drain"] {
            ensure!(script.contains(name), "{shell} does not complete {name}");
        }
    }
    let folder = Scratch::new("tally completions ")?;
    let script = Tally::new("completions").args(["bash"]).run()?.expect_code(0)?.stdout;
    std::fs::write(folder.path().join("tally"), script)?;
    let completed = |words: &str, at: usize| {
        let mut bash = Command::new("bash");
        let ask = format!(
            "source ./tally; COMP_WORDS=({words}); COMP_CWORD={at}; _tally tally \"${{COMP_WORDS[{at}]}}\" \
             \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            at - 1
        );
        bash.args(["-c", &ask]).current_dir(folder.path());
        output(bash).map(|done| String::from_utf8_lossy(&done.stdout).trim().to_string())
    };
    assert_eq!(completed("tally back", 1)?, "backfill");
    assert_eq!(completed("tally run --memory", 2)?, "--memory-limit");
    Ok(())
}

#[test]
fn each_command_has_a_manual_page() -> Result<()> {
    let folder = Scratch::new("tally man ")?;
    let pages = folder.path().join("man1");
    Tally::new("man").args([&pages]).run()?.expect_code(0)?;
    let mut written: Vec<String> = std::fs::read_dir(&pages)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    written.sort_unstable();
    let name = |name: Vec<String>| [vec!["tally".to_string()], name].concat().join("-") + ".1";
    let mut expected: Vec<String> = commands()?.into_iter().map(name).collect();
    expected.sort_unstable();
    assert_eq!(written, expected);
    let page = std::fs::read_to_string(pages.join("tally-worker-drain.1"))?;
    let title = page.lines().find(|line| line.starts_with(".TH ")).context("no title")?;
    ensure!(title.to_lowercase().contains("tally-worker-drain"), "{page}");
    ensure!(page.contains("\\-\\-coordinator"), "{page}");
    Ok(())
}

#[test]
fn locations_come_from_options_the_environment_or_the_file() -> Result<()> {
    let scene = Scene::new()?;
    let (file, place) = (Scratch::new("tally settings ")?, Place::new()?);
    let toml = file.path().join("tally.toml");
    let table = |name: &str| scene.root.join(name).display().to_string();
    let text = |addons: &str| {
        let (main, output) = (table("main_summary/v3"), place.output());
        // Settings of other commands are ignored.
        let rest = "coordinator = \"localhost:1\"\noutput-format = \"json\"\n";
        format!(
            "addons = {addons:?}\nmain-summary = {main:?}\noutput = {:?}\n{rest}",
            output.display().to_string()
        )
    };
    let run = || Tally::new("run").date(DATE).args(["--spill-dir"]).args([place.spill()]);
    std::fs::write(&toml, text(&table("addons/v2")))?;
    let path = toml.display().to_string();
    let rows = 6 * GROUP_ROWS as u64;
    assert_eq!(run().args(["--config", &path]).run()?.summary()?.rows, rows);
    assert_eq!(run().env("TALLY_CONFIG", &path).run()?.summary()?.rows, rows);
    std::fs::write(&toml, text("/no/such/table"))?;
    run().args(["--config", &path]).run()?.expect_failure(1, &["/no/such/table"])?;
    let with_variable = || run().args(["--config", &path]).env("TALLY_ADDONS", &table("addons/v2"));
    assert_eq!(with_variable().run()?.summary()?.rows, rows);
    with_variable().args(["--addons", "/nothing/here"]).run()?.expect_failure(1, &["/nothing/here"])?;
    std::fs::write(&toml, "adons = \"x\"\n")?;
    run().args(["--config", &path]).run()?.expect_failure(2, &[&path, "unknown setting \"adons\""])?;
    Ok(())
}

#[test]
fn no_location_is_a_default() -> Result<()> {
    for command in ["run", "submit", "days", "plan"] {
        let outcome = Tally::new(command).run()?.expect_code(2)?;
        for words in
            ["--addons URL", "--main-summary URL", "--output URL", "TALLY_OUTPUT", "--preset (telemetry)"]
        {
            ensure!(outcome.stderr.contains(words), "{words}: {outcome}");
        }
        let help = help(&tally_bin(), &[command.to_string()])?;
        let preset = "telemetry: s3://telemetry-parquet/addons/v2 and s3://telemetry-parquet/main_summary/v3";
        ensure!(help.contains(preset) && help.contains("$bucket/addons/agg/v1"), "{help}");
    }
    Ok(())
}
