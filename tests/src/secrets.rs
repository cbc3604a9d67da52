//! The secrets of the tests: code that creates or uses one registers it here, and the output of every process is
//! searched for all of them. Not here: what a process does with a secret.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that URLs encode (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Shorter secrets would be found by chance.
const MIN_BYTES: usize = 8;
/// Suffixes of environment variables that hold secrets.
const SECRET_VARIABLES: [&str; 9] = [
    "SECRET_ACCESS_KEY",
    "SESSION_TOKEN",
    "STORAGE_KEY",
    "ACCOUNT_KEY",
    "ACCESS_KEY_SECRET",
    "SAS_KEY",
    "SAS_TOKEN",
    "CLIENT_SECRET",
    "CONSUL_HTTP_TOKEN",
];
/// The context of a secret that is shown.
const AROUND: usize = 120;

/// Registers a secret: from now on, no process may print it.
pub fn register(secret: &str) {
    let secret = secret.trim();
    if secret.len() >= MIN_BYTES {
        SECRETS.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.to_owned());
    }
}

/// Registers the value of a variable whose name marks it as a secret.
pub fn register_variable(name: &OsStr, value: &OsStr) {
    let name = name.to_string_lossy();
    if SECRET_VARIABLES.iter().any(|secret| name.ends_with(secret)) {
        register(&value.to_string_lossy());
    }
}

/// Registers each line of a private key in PEM.
pub fn register_pem(pem: &str) {
    pem.lines().filter(|line| !line.starts_with("-----")).for_each(register);
}

/// Checks that a text contains none of the registered secrets, including JSON or URL-encoded forms.
///
/// # Errors
/// Shows the position of the secret, without the secret.
pub fn check(what: &str, text: &str) -> Result<()> {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for secret in &secrets {
        let in_url = utf8_percent_encode(secret, RESERVED).to_string();
        for form in [secret.clone(), in_url] {
            let Some(at) = text.find(&form) else { continue };
            let from = text.floor_char_boundary(at.saturating_sub(AROUND));
            let to = text.ceil_char_boundary((at + form.len() + AROUND).min(text.len()));
            let before = &text[from..at];
            let after = &text[at + form.len()..to];
            bail!("{what} says a secret of {} bytes: {before}[THE SECRET]{after}", secret.len());
        }
    }
    Ok(())
}

/// The same for callers that cannot return an error: for the output of a process that is dropped.
///
/// # Panics
/// The text contains a secret; if the thread already panics, the error is printed instead.
pub fn check_dropped(what: &str, text: &str) {
    match check(what, text) {
        Err(error) if std::thread::panicking() => eprintln!("{error}"),
        checked => checked.unwrap_or_else(|error| panic!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_where_it_stands() {
        register("found/by+secrets.rs");
        register("short");
        check("a log", "nothing, and a short word").unwrap();
        for said in ["before found/by+secrets.rs after", "?token=found%2Fby%2Bsecrets.rs&x=1"] {
            let error = check("a log", said).unwrap_err().to_string();
            assert!(error.contains("a log says a secret") && !error.contains("secrets.rs"), "{error}");
        }
        let name = OsStr::new("AWS_SECRET_ACCESS_KEY");
        register_variable(name, OsStr::new("by-its-variable"));
        register_variable(OsStr::new("AWS_REGION"), OsStr::new("us-somewhere"));
        assert!(check("", "x by-its-variable").is_err() && check("", "us-somewhere").is_ok());
    }
}
