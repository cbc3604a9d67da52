//! Redacts secrets in all output of a process: its log, its errors, what it prints, stores and sends.
//!
//! Two methods find secrets. By value: the code that reads or sends credentials registers them, and [`cut`] replaces them
//! in any text. Of the secrets of files and requests only the most recent ones are kept, so that their number is bounded.
//! By structure: `in_urls` finds credentials in URLs. Answers of stores, which quote requests, are redacted when they arrive
//! (`stores::requests`), log lines when they are written (`logging`), and the output of commands when it is printed.
//!
//! Not here: the sources of credentials (`stores::settings`, `discovery::consul`, `security`).

mod in_urls;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::RwLock;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

pub use in_urls::{cut_url, has_credentials};

/// The replacement of a secret.
pub const CUT: &str = "[hidden]";

/// The minimum length of a secret: shorter ones are common words of a log.
const MIN_SECRET: usize = 8;
/// The maximum number of secrets of requests and of old readings of files. The oldest is forgotten first, because session
/// tokens expire.
const MAX_RECENT: usize = 512;
/// The number of readings of a file whose secrets are kept in addition: a secret stays in use for a while after the file
/// contains another one.
const MAX_READINGS: usize = 4;

/// Variables of the environment whose values are secrets.
const SECRETS: [&str; 17] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_STORAGE_TOKEN",
    "CONSUL_HTTP_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "IDENTITY_HEADER",
];
/// Variables whose values are `name=secret` pairs.
const PAIRS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];
/// Parts of the names of headers whose values are secrets.
const SECRET_NAMES: [&str; 8] =
    ["authorization", "key", "token", "secret", "password", "cookie", "credential", "signature"];
/// Variables whose values are URLs that may contain a user and a password.
const URLS: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "TALLY_OTLP_ENDPOINT",
    "TALLY_CONSUL",
    "TALLY_NOTIFY_URL",
    "TALLY_OPENLINEAGE_URL",
];

/// Characters that URLs must encode (RFC 3986, 2.3); some encode more.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The secrets that [`cut`] replaces.
static KNOWN: RwLock<Known> = RwLock::new(Known::NOTHING);

struct Known {
    next: u64,
    /// Longest first.
    secrets: Vec<Secret>,
    /// The secrets of the last readings of each file, the most recent one at the end.
    readings: BTreeMap<String, VecDeque<BTreeSet<String>>>,
}

struct Secret {
    text: String,
    kept: Kept,
    /// The order of registration.
    number: u64,
}

/// How long a secret is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    /// For ever: it is configured.
    Always,
    /// Until none of the last readings of a file contains it.
    Held,
    /// Until there are too many: a request or an old reading of a file contains it.
    Recent,
}

impl Known {
    const NOTHING: Known = Known { next: 0, secrets: vec![], readings: BTreeMap::new() };

    fn add(&mut self, secret: &str, kept: Kept) {
        if secret.len() < MIN_SECRET {
            return;
        }
        if let Some(known) = self.secrets.iter_mut().find(|known| known.text == secret) {
            known.kept = known.kept.min(kept);
            return;
        }
        // Longest first: if a secret contains another one, all of it is replaced.
        let at = self.secrets.partition_point(|known| known.text.len() >= secret.len());
        self.secrets.insert(at, Secret { text: secret.to_owned(), kept, number: self.next });
        self.next += 1;
        self.forget_oldest();
    }

    /// Registers a reading of a file.
    fn hold(&mut self, file: &str, secrets: BTreeSet<String>) {
        let readings = self.readings.entry(file.to_owned()).or_default();
        if readings.back() == Some(&secrets) {
            return;
        }
        let new: BTreeSet<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        readings.push_back(secrets);
        if readings.len() > MAX_READINGS {
            readings.pop_front();
        }
        new.iter().for_each(|form| self.add(form, Kept::Held));
        let held: BTreeSet<String> =
            self.readings.values().flatten().flatten().flat_map(|secret| forms(secret)).collect();
        for known in &mut self.secrets {
            if known.kept == Kept::Held && !held.contains(&known.text) {
                (known.kept, known.number) = (Kept::Recent, self.next);
                self.next += 1;
            }
        }
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        let lately = self.secrets.iter().filter(|known| known.kept == Kept::Recent);
        let mut numbers: Vec<u64> = lately.map(|known| known.number).collect();
        if let Some(more) = numbers.len().checked_sub(MAX_RECENT) {
            numbers.sort_unstable();
            let first = numbers[more];
            self.secrets.retain(|known| known.kept != Kept::Recent || known.number >= first);
        }
    }

    fn knows(&self, secret: &str, kept: Kept) -> bool {
        self.secrets.iter().any(|known| known.text == secret && known.kept <= kept)
    }
}

/// A secret as it is written in plain text, in URLs and in JSON.
fn forms(secret: &str) -> [String; 5] {
    let quoted = format!("{secret:?}");
    [
        secret.to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        utf8_percent_encode(secret, RESERVED).to_string(),
        percent_decode_str(secret).decode_utf8_lossy().into_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
    ]
}

/// Registers a secret, which [`cut`] then replaces, also in URLs and JSON.
pub fn register(secret: &str) {
    add(secret, Kept::Always);
}

/// Registers a secret of a request. Only the most recent ones are kept.
pub fn register_shown(secret: &str) {
    add(secret, Kept::Recent);
}

/// Registers all secrets of a file, which is read again when it changes; `file` is any name for it. The secrets of its last
/// readings are kept. Older ones are forgotten like those of requests.
pub fn register_held<'a>(file: &str, secrets: impl IntoIterator<Item = &'a str>) {
    let secrets = secrets.into_iter().map(str::trim).filter(|secret| secret.len() >= MIN_SECRET);
    let secrets = secrets.map(str::to_owned).collect();
    if KNOWN.read().readings.get(file).and_then(VecDeque::back) != Some(&secrets) {
        KNOWN.write().hold(file, secrets);
    }
}

fn add(secret: &str, kept: Kept) {
    let secret = secret.trim();
    if secret.len() < MIN_SECRET || KNOWN.read().knows(secret, kept) {
        return;
    }
    let mut known = KNOWN.write();
    forms(secret).iter().for_each(|form| known.add(form, kept));
}

/// Registers the secret parameters of a URL's query that are valid for other URLs too.
pub fn register_query(query: &str) {
    in_urls::lasting_parameters(query).for_each(register_shown);
}

/// Registers the secrets in the environment. Call it before any output.
pub fn register_environment() {
    for (name, value) in std::env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
            register_variable(name, value);
        }
    }
}

fn register_variable(name: &str, value: &str) {
    if SECRETS.contains(&name) {
        register(value);
        // A SAS has several parameters, one of which is secret.
        in_urls::lasting_parameters(value).for_each(register);
    } else if PAIRS.contains(&name) {
        let pairs = value.split(',').filter_map(|pair| pair.split_once('='));
        pairs.for_each(|(name, value)| register_header(name, value));
    } else if URLS.iter().any(|url| url.eq_ignore_ascii_case(name))
        && let Some(user) = in_urls::user_of(value)
    {
        register(user);
        register(&BASE64_STANDARD.encode(percent_decode_str(user).collect::<Vec<u8>>()));
        if let Some((_, password)) = user.split_once(':') {
            register(password);
        }
    }
}

/// Registers the value of a header if its name is that of a secret.
fn register_header(name: &str, value: &str) {
    let name = name.trim().to_ascii_lowercase();
    let value = percent_decode_str(value.trim()).decode_utf8_lossy();
    // A number or a word is too common to be replaced.
    let plain = |text: &str| {
        text.bytes().all(|b| b.is_ascii_digit()) || text.bytes().all(|b| b.is_ascii_alphabetic())
    };
    if !SECRET_NAMES.iter().any(|part| name.contains(part)) {
        return;
    }
    let scheme =
        |scheme: &&str| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let alone =
        ["bearer ", "basic "].iter().find(|name| scheme(name)).map(|scheme| value[scheme.len()..].trim());
    [Some(value.as_ref()), alone].into_iter().flatten().filter(|text| !plain(text)).for_each(register);
}

/// The redacted output of a command. JSON stays JSON, as a whole or per line.
pub fn cut_output(text: &str) -> Cow<'_, str> {
    let Cow::Owned(changed) = cut(text) else { return Cow::Borrowed(text) };
    let json = |text: &str| {
        serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array())
    };
    let end = if text.ends_with('\n') { "\n" } else { "" };
    if let Some(mut value) = json(text) {
        cut_strings(&mut value);
        let pretty = text.trim_end().contains('\n');
        let shown = if pretty { format!("{value:#}") } else { value.to_string() };
        return Cow::Owned(shown + end);
    }
    if !text.lines().all(|line| line.is_empty() || json(line).is_some()) {
        return Cow::Owned(changed);
    }
    let lines: Vec<String> = text.lines().map(|line| cut_output(line).into_owned()).collect();
    Cow::Owned(lines.join("\n") + end)
}

fn cut_strings(value: &mut Value) {
    match value {
        Value::String(text) => *text = cut(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(cut_strings),
        Value::Object(fields) => fields.values_mut().for_each(cut_strings),
        _ => {}
    }
}

/// A redacted text.
pub fn cut(text: &str) -> Cow<'_, str> {
    let mut cut = Cow::Borrowed(text);
    for known in &KNOWN.read().secrets {
        if cut.contains(known.text.as_str()) {
            cut = Cow::Owned(cut.replace(known.text.as_str(), CUT));
        }
    }
    match in_urls::cut_all(&cut) {
        Some(changed) => Cow::Owned(changed),
        None => cut,
    }
}

/// Writes redacted text to standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct CutStderr;

impl Write for CutStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().write_all(cut(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_secret_is_cut_in_all_its_forms() {
        register("of/this+test=\"1\"");
        register("short");
        for (text, expect) in [
            ("a of/this+test=\"1\" b", "a [hidden] b"),
            ("?x=of%2Fthis%2Btest%3D%221%22&y", "?x=[hidden]&y"),
            (r#"{"k":"of/this+test=\"1\""}"#, r#"{"k":"[hidden]"}"#),
            ("short words stay", "short words stay"),
        ] {
            assert_eq!(cut(text), expect);
        }
    }

    #[test]
    fn of_two_secrets_the_longer_one_is_cut_whole() {
        register("prefix-of-both");
        register("prefix-of-both-and-more");
        assert_eq!(cut("x prefix-of-both-and-more y prefix-of-both"), "x [hidden] y [hidden]");
    }

    #[test]
    fn secret_variables_are_found_by_their_names() {
        register_variable("AWS_SECRET_ACCESS_KEY", "secret-of-variables");
        register_variable("AZURE_STORAGE_SAS_TOKEN", "sv=2024&sig=c2lnbmF0dXJl%3D&se=1");
        register_variable(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-team=team-of-header,x-api-key=secret-in-header,authorization=Bearer%20secret-in-other,x-token=1234567890,x-key=wordofheader",
        );
        register_variable("https_proxy", "http://user:secret-of-proxy@proxy:3128");
        register_variable("AWS_REGION", "region-of-variables");
        for secret in
            ["secret-of-variables", "c2lnbmF0dXJl=", "secret-in-header", "secret-in-other", "secret-of-proxy"]
        {
            assert_eq!(cut(secret), CUT, "{secret}");
        }
        for plain in ["region-of-variables", "team-of-header", "1234567890", "wordofheader"] {
            assert_eq!(cut(plain), plain);
        }
    }

    #[test]
    fn json_stays_json() {
        register("secret-of\\json");
        register("field-of-json");
        for (text, expect) in [
            ("{\"field-of-json\":\"a secret-of\\\\json\"}\n", "{\"field-of-json\":\"a [hidden]\"}\n"),
            ("{\"a\":1}\n[\"field-of-json\"]\n", "{\"a\":1}\n[\"[hidden]\"]\n"),
            ("text field-of-json\n", "text [hidden]\n"),
            ("{\"a\": 1}\n", "{\"a\": 1}\n"),
        ] {
            assert_eq!(cut_output(text), expect);
        }
    }

    #[test]
    fn only_the_most_recent_secrets_of_requests_are_kept() {
        let mut known = Known::NOTHING;
        known.add("what was configured", Kept::Always);
        (0..2 * MAX_RECENT).for_each(|at| known.add(&format!("secret number {at}"), Kept::Recent));
        assert_eq!(known.secrets.len(), MAX_RECENT + 1);
        let mut numbered = known.secrets.iter().filter(|known| known.kept != Kept::Always);
        assert!(numbered.all(|known| known.number > MAX_RECENT as u64), "the oldest go");
        assert!(known.knows("what was configured", Kept::Always));
        assert!(known.secrets.is_sorted_by_key(|known| std::cmp::Reverse(known.text.len())));
    }

    #[test]
    fn secrets_of_the_last_readings_of_a_file_are_kept() {
        let mut known = Known::NOTHING;
        let reading = |from: usize, count: usize| {
            (from..from + count).map(|at| format!("token/{at:06}")).collect::<BTreeSet<String>>()
        };
        let all = |known: &Known, from: usize, count: usize| {
            reading(from, count)
                .iter()
                .flat_map(|token| forms(token))
                .all(|form| known.knows(&form, Kept::Held))
        };
        known.add("token/000000", Kept::Always);
        known.hold("other", ["token/000001".to_owned()].into());
        // Each reading has more secrets than are kept of requests. All of them are kept.
        for round in 0..8 {
            known.hold("tokens", reading(round * MAX_RECENT, MAX_RECENT));
            known.hold("tokens", reading(round * MAX_RECENT, MAX_RECENT));
            let kept = round.saturating_sub(MAX_READINGS - 1);
            assert!(all(&known, kept * MAX_RECENT, (round - kept + 1) * MAX_RECENT), "round {round}");
            assert!(known.knows("token/000000", Kept::Always) && known.knows("token/000001", Kept::Held));
            // Two forms each: plain and in a URL.
            assert!(
                known.secrets.len() <= (MAX_READINGS * MAX_RECENT + 2) * 2 + MAX_RECENT,
                "{}",
                known.secrets.len()
            );
        }
        // The most recent of the old ones are kept like those of requests.
        let before = (8 - MAX_READINGS) * MAX_RECENT - 1;
        assert!(known.knows(&format!("token/{before:06}"), Kept::Recent));
        assert!(!known.knows("token/000002", Kept::Recent), "it was forgotten");
        assert!(known.secrets.is_sorted_by_key(|known| std::cmp::Reverse(known.text.len())));
    }

    #[test]
    fn the_current_and_the_previous_secrets_of_a_file_are_replaced() {
        for round in 0..3 {
            register_held("a file of this test", [format!(" held-in-round-{round}+\n").as_str(), "short"]);
            for before in 0..=round {
                assert_eq!(
                    cut(&format!("held-in-round-{before}+ held-in-round-{before}%2B")),
                    "[hidden] [hidden]"
                );
            }
        }
        assert_eq!(cut("short"), "short");
    }
}
