//! The HTTP client of a [`Client`](crate::Client), with its token and certificates. Files are read again when they
//! change. After a change that cannot be used the old credentials stay in use, and the errors of refused calls report it.
//!
//! Not here: requests and the meaning of answers (`client`).

use std::error::Error as _;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::tls;
use crate::token::Token;

/// How long a connection is idle before the system probes the other side.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of bytes of a file that are compared.
const MAX_COMPARED: u64 = 4 << 20;

/// What changes with a file. The content counts, because times and sizes of files can be the same after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    /// A hash of its permissions and its content.
    Content(u64),
    /// A pipe or another special file, which can be read only once.
    Special(u64, u64, i64),
    /// It cannot be read.
    Unreadable(std::io::ErrorKind),
}

impl Signature {
    fn of(path: &Path) -> Self {
        Signature::read(path).unwrap_or_else(|error| Signature::Unreadable(error.kind()))
    }

    fn read(path: &Path) -> std::io::Result<Self> {
        let of: Metadata = std::fs::metadata(path)?;
        if !of.is_file() {
            return Ok(Signature::Special(of.dev(), of.ino(), of.mtime()));
        }
        let mut content = vec![];
        File::open(path)?.take(MAX_COMPARED).read_to_end(&mut content)?;
        let mut hasher = DefaultHasher::new();
        (of.mode(), of.len(), content).hash(&mut hasher);
        Ok(Signature::Content(hasher.finish()))
    }
}

/// The HTTP client with the current content of the files.
pub(crate) struct Transport {
    config: Config,
    https: bool,
    files: Vec<PathBuf>,
    state: Mutex<State>,
}

struct State {
    checked: Instant,
    signatures: Vec<Signature>,
    http: reqwest::Client,
    /// Grows with each reading.
    generation: u64,
    /// Why the current files cannot be used.
    reload_error: Option<String>,
}

impl Transport {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file is not usable, or settings contradict each other.
    pub(crate) fn open(config: &Config, https: bool) -> Result<Self> {
        let Config { token_file, tls, .. } = config;
        let files = [token_file, &tls.ca_file, &tls.client_cert, &tls.client_key];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        // Taken before the reading: a file that changes during it is read again.
        let signatures = signatures(&files);
        let http = build(config, https)?;
        let state = State { checked: Instant::now(), signatures, http, generation: 0, reload_error: None };
        Ok(Transport { config: config.clone(), https, files, state: Mutex::new(state) })
    }

    /// The HTTP client with files that are at most a second old.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.refresh(CHECK_INTERVAL).http.clone()
    }

    /// How often the files were read again.
    pub(crate) fn generation(&self) -> u64 {
        self.refresh(CHECK_INTERVAL).generation
    }

    /// Why the changed files cannot be used, for the errors of refused calls.
    pub(crate) fn reload_error(&self) -> Option<String> {
        self.refresh(CHECK_INTERVAL).reload_error.clone()
    }

    fn refresh(&self, every: Duration) -> MutexGuard<'_, State> {
        // The state is usable even after a panic of another thread.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.files.is_empty() || state.checked.elapsed() < every {
            return state;
        }
        state.checked = Instant::now();
        let now = signatures(&self.files);
        if now == state.signatures {
            // The current client uses these files.
            state.reload_error = None;
            return state;
        }
        match build(&self.config, self.https) {
            Ok(http) => {
                (state.http, state.reload_error, state.signatures) = (http, None, now);
                state.generation += 1;
            }
            // The files are read again at the next check, changed or not: a certificate and its key are not replaced at
            // the same moment, and a reading may fail for other reasons than the content of a file.
            Err(error) => state.reload_error = Some(error.to_string()),
        }
        state
    }
}

fn signatures(files: &[PathBuf]) -> Vec<Signature> {
    files.iter().map(|file| Signature::of(file)).collect()
}

fn build(config: &Config, https: bool) -> Result<reqwest::Client> {
    let tls = tls::client_config(https, &config.tls)?;
    let read = config.token_file.as_deref().map(Token::from_file).transpose()?;
    let mut headers = HeaderMap::new();
    if let Some(token) = read.as_ref().or(config.token.as_ref()) {
        if let (Some(on_token), Ok(text)) = (config.on_token, token.header().to_str()) {
            on_token(text);
        }
        headers.insert(HeaderName::from_static("x-consul-token"), token.header());
    }
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers)
        .connect_timeout(config.connect_timeout)
        .tcp_keepalive(KEEPALIVE)
        // Consul is in the local network, which a proxy for external addresses cannot reach.
        .no_proxy()
        // A redirect must not send the token to another server.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Error::Settings(causes(&error)))
}

/// An error of the HTTP stack with its causes, without the URL, which messages show in a shorter form.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = match error.is_connect() {
        true => "no connection".to_owned(),
        false => "the connection broke".to_owned(),
    };
    let mut last = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if cause_text != last {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        last = cause_text;
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_again_and_an_unusable_one_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "first").unwrap();
        let config = Config { token_file: Some(file.clone()), ..Config::default() };
        let transport = Transport::open(&config, false).unwrap();
        let look = || {
            let state = transport.refresh(Duration::ZERO);
            (state.generation, state.reload_error.clone())
        };
        assert_eq!(look(), (0, None));
        std::fs::write(&file, "").unwrap();
        let (generation, error) = look();
        assert!(generation == 0 && error.unwrap().contains("token"));
        std::fs::write(&file, "second one").unwrap();
        assert_eq!(look(), (1, None));
        std::fs::remove_file(&file).unwrap();
        let (generation, error) = look();
        assert!(generation == 1 && error.is_some(), "the second one stays in use");
        // Time and size are those of another content.
        for (text, expect) in [("third!", 2), ("fourth", 3)] {
            std::fs::write(&file, text).unwrap();
            File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(look(), (expect, None));
        }
    }
}
