//! The harness of the test files that need tools which may not be installed: a Python with readers, Consul, S3 servers.
//! It behaves like Rust's own, but a test without its tool is *ignored*, with a reason, and so never counted as passed;
//! under `tests/run`, which sets up all tools, it fails.
//!
//! A test is a function that returns a result. Its file (`harness = false` in Cargo.toml) ends in
//! [`tests!`](crate::tests), which lists all tests of the file. The compiler warns about a test that is not listed. Not
//! here: the search for a tool; the code that needs one returns [`Missing`] if it is not found.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed};

/// Options that are followed by a value.
const VALUED: [&str; 6] = ["--test-threads", "--skip", "--color", "--format", "--logfile", "-Z"];

/// The error of a test that needs a tool which is not installed.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipped: this machine has {}", self.0)
    }
}

impl std::error::Error for Missing {}

/// Whether a missing tool fails a test: under `tests/run` it does; under a bare `cargo test` the test is skipped.
fn strict() -> bool {
    std::env::var_os("TALLY_TESTS_STRICT").is_some_and(|value| value == "1")
}

/// What a test returns: nothing, or a result.
pub trait Ending {
    #[doc(hidden)]
    fn result(self) -> Result<()>;
}

impl Ending for () {
    fn result(self) -> Result<()> {
        Ok(())
    }
}

impl Ending for Result<()> {
    fn result(self) -> Result<()> {
        self
    }
}

/// A test by name.
pub fn trial<E: Ending + 'static>(name: &str, test: fn() -> E) -> Trial {
    Trial::ignorable_test(name, move || completion(test().result(), strict()))
}

/// A test that is a future; it runs on a runtime of its own with two threads.
pub fn future<F: Future<Output: Ending> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        completion(
            runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(test()).result()),
            strict(),
        )
    })
}

fn completion(result: Result<()>, strict: bool) -> Result<Completion, Failed> {
    match result {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Missing>() {
            Some(missing) if !strict => Ok(Completion::ignored_with(missing)),
            _ => Err(format!("{error:?}").into()),
        },
    }
}

/// Runs the tests that the command line selects. As in Rust's own harness, several words may be given, and a test runs
/// if its name contains one of them.
pub fn run(tests: impl IntoIterator<Item = Vec<Trial>>) -> ExitCode {
    let (words, others) = split_words(std::env::args_os());
    let args = Arguments::from_iter(others);
    let named = |test: &Trial, word: &String| match args.exact {
        true => test.name() == word,
        false => test.name().contains(word.as_str()),
    };
    let wanted = |test: &Trial| words.is_empty() || words.iter().any(|word| named(test, word));
    libtest_mimic::run(&args, tests.into_iter().flatten().filter(wanted).collect()).exit_code()
}

/// The words of a command line that are not options, and everything else on it.
fn split_words(line: impl Iterator<Item = OsString>) -> (Vec<String>, Vec<OsString>) {
    let (mut words, mut others) = (Vec::new(), Vec::new());
    let mut valued = true;
    for arg in line {
        let text = arg.to_string_lossy();
        if valued || text.starts_with('-') {
            valued = VALUED.contains(&&*text);
            others.push(arg);
        } else {
            words.push(text.into_owned());
        }
    }
    (words, others)
}

/// The tests of a file, and its `main`; in a module of such a file `tests![mod: ...]`, a function that returns them.
/// `async` tests follow `; async:`, or `mod async:` if all are.
#[macro_export]
macro_rules! tests {
    (mod async: $($future:ident),* $(,)?) => {
        $crate::tests![mod: ; async: $($future),*];
    };
    (async: $($future:ident),* $(,)?) => {
        $crate::tests![; async: $($future),*];
    };
    (mod: $($name:ident),* $(,)? $(; async: $($future:ident),* $(,)?)?) => {
        /// The tests of this module.
        pub(crate) fn tests() -> ::std::vec::Vec<$crate::harness::Trial> {
            let module = ::std::module_path!();
            // The names that Rust's own harness uses: without the crate.
            let module = module.split_once("::").map_or(::std::string::String::new(), |(_, path)| {
                ::std::format!("{path}::")
            });
            let name = |test: &str| ::std::format!("{module}{test}");
            ::std::vec![
                $($crate::harness::trial(&name(::std::stringify!($name)), $name),)*
                $($($crate::harness::future(&name(::std::stringify!($future)), $future),)*)?
            ]
        }
    };
    ($($name:ident),* $(,)? $(; async: $($future:ident),* $(,)?)?) => {
        $crate::tests![mod: $($name),* $(; async: $($future),*)?];

        fn main() -> ::std::process::ExitCode {
            $crate::harness::run([tests()])
        }
    };
}

pub use libtest_mimic::Trial;

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn kind(result: Result<()>, strict: bool) -> &'static str {
        match completion(result, strict) {
            Ok(Completion::Completed) => "passed",
            Ok(Completion::Ignored { .. }) => "skipped",
            Err(_) => "failed",
        }
    }

    #[test]
    fn a_missing_tool_is_never_a_pass() {
        let missing = || Err(Missing("no such tool".into()).into());
        let deep = || Err(anyhow::Error::from(Missing("no such tool".into())).context("starting a cluster"));
        for error in [missing, deep] {
            assert_eq!((kind(error(), false), kind(error(), true)), ("skipped", "failed"));
        }
        assert_eq!((kind(Ok(()), false), kind(Ok(()), true)), ("passed", "passed"));
        assert_eq!(kind(Err(anyhow!("skipped: something else")), false), "failed");
    }

    #[test]
    fn words_and_options_are_separated() {
        let line =
            ["program", "--test-threads", "1", "first", "--exact", "--skip", "x", "second", "--color=never"];
        let (words, others) = split_words(line.into_iter().map(Into::into));
        assert_eq!(words, ["first", "second"]);
        assert_eq!(others, ["program", "--test-threads", "1", "--exact", "--skip", "x", "--color=never"]);
    }
}
