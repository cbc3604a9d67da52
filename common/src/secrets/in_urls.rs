//! Finds credentials in URLs by their position: a user and a password before the host, and signatures and tokens in the
//! query. All functions are pure.
//!
//! Not here: secrets that are known by their value (`secrets`).

use std::borrow::Cow;

use super::CUT;

/// Parameters whose values are secrets, in lower case.
const PARAMETERS: [&str; 16] = [
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-credential",
    "x-goog-signature",
    "x-goog-credential",
    "awsaccesskeyid",
    "webidentitytoken",
    "signature",
    "sig",
    "token",
    "access_token",
    "password",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
];
/// Secret parameters that are valid for one URL only.
const OF_ONE_URL: [&str; 5] =
    ["x-amz-signature", "x-amz-credential", "x-goog-signature", "x-goog-credential", "awsaccesskeyid"];
/// Schemes of object stores: a bucket has no port.
const STORES: [&str; 5] = ["s3", "s3a", "gs", "az", "azure"];
/// Characters that end a URL in a text.
const ENDS: [char; 8] = ['"', '\'', '`', '<', '>', '|', '\\', '\u{1b}'];

fn is_end(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ENDS.contains(&c)
}

/// The length of the user and the password, or of what is meant as such, after `://`.
fn user_length(scheme: &str, rest: &str) -> Option<usize> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port.trim_end_matches(is_punctuation));
    let store = STORES.iter().any(|store| store.eq_ignore_ascii_case(scheme));
    let last_at = rest.rfind('@');
    // A password with a slash in it ends the authority early.
    let is_port = port.is_none_or(|port| port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit()));
    let meant = authority.contains('@') || (!is_port && last_at.is_some());
    match last_at {
        Some(at) if meant || store && authority.contains(':') => Some(at),
        // A key and its secret instead of a bucket.
        None if store && !is_port => Some(rest.len()),
        _ => None,
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(c, ',' | ';' | ')' | ':' | '.')
}

/// The user and the password of a URL.
pub(super) fn user_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    rest.get(..user_length(scheme, rest)?)
}

/// The values of secret parameters that are valid for other URLs too.
pub(super) fn lasting_parameters(query: &str) -> impl Iterator<Item = &str> {
    let pairs = query.trim_start_matches('?').split(['?', '&']).filter_map(|pair| pair.split_once('='));
    let lasting = |name: &str| is_secret(name) && !OF_ONE_URL.iter().any(|of| of.eq_ignore_ascii_case(name));
    pairs.filter(move |(name, value)| lasting(name) && !value.is_empty()).map(|(_, value)| value)
}

fn is_secret(name: &str) -> bool {
    PARAMETERS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

/// A text without the values of secret parameters; `None` if there are none.
fn cut_query(text: &str) -> Option<String> {
    let mut cut = String::new();
    let mut done = 0;
    for (start, _) in text.match_indices(['?', '&']) {
        let from = start + 1;
        let Some(equals) = text[from..].find('=').map(|at| from + at) else { break };
        if from < done || !is_secret(&text[from..equals]) {
            continue;
        }
        let value = &text[equals + 1..];
        let length = value.find(|c| c == '&' || c == '#' || is_end(c)).unwrap_or(value.len());
        if length == 0 || &value[..length] == CUT {
            continue;
        }
        cut.push_str(&text[done..=equals]);
        cut.push_str(CUT);
        done = equals + 1 + length;
    }
    (done > 0).then(|| cut + &text[done..])
}

/// A redacted URL.
pub fn cut_url(url: &str) -> Cow<'_, str> {
    cut_all(url).map_or(Cow::Borrowed(url), Cow::Owned)
}

/// Whether a URL contains credentials.
pub fn has_credentials(url: &str) -> bool {
    cut_all(url).is_some()
}

/// A text without the credentials of its URLs; `None` if there are none.
pub(super) fn cut_all(text: &str) -> Option<String> {
    let mut cut = String::new();
    let mut done = 0;
    for (at, mark) in text.match_indices("://") {
        if at < done {
            continue;
        }
        let scheme = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let from = at + mark.len();
        let length = text[from..].find(is_end).unwrap_or(text.len() - from);
        // The first of two URLs that only a comma separates.
        let whole = &text[from..from + length];
        let whole = &whole[..whole.find("://").unwrap_or(whole.len())];
        let Some(user) = user_length(scheme, whole).filter(|user| &whole[..*user] != CUT) else { continue };
        cut.push_str(&text[done..from]);
        cut.push_str(CUT);
        done = from + user;
    }
    let users = (done > 0).then(|| cut + &text[done..]);
    let queries = cut_query(users.as_deref().unwrap_or(text));
    queries.or(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_found_in_all_positions() {
        for (text, expect) in [
            ("s3://AKIA:se/cr+et@bucket/x: no", "s3://[hidden]@bucket/x: no"),
            ("s3://user:secret@bucket/a", "s3://[hidden]@bucket/a"),
            ("s3a://AKIA:secret/x", "s3a://[hidden]"),
            ("at http://me:pa/ss@host:1/x, twice", "at http://[hidden]@host:1/x, twice"),
            ("\"http://tok@host\"", "\"http://[hidden]@host\""),
            (
                "https://b/x?X-Amz-Signature=ab&a=1&X-Amz-Security-Token=c%2F#f",
                "https://b/x?X-Amz-Signature=[hidden]&a=1&X-Amz-Security-Token=[hidden]#f",
            ),
            ("az://c/k?sv=1&sig=abc%3D: denied", "az://c/k?sv=1&sig=[hidden] denied"),
            ("http://h/?Token=abc d", "http://h/?Token=[hidden] d"),
        ] {
            assert_eq!(cut_url(text), expect);
            assert!(has_credentials(text), "{text}");
            assert_eq!(cut_url(expect), expect, "what is cut stays as it is");
        }
    }

    #[test]
    fn other_urls_are_not_changed() {
        for text in [
            "s3://bucket/user@example.org/x?y=1",
            "s3://bucket: it is not there",
            "gs://bucket/k#1 %41@",
            "http://127.0.0.1:8500/v1/kv/a@b",
            "http://[::1]:8500, write http://HOST:PORT",
            "http://host:1: refused (a@b)",
            "file:///a/b:c@d?signature",
            "spiffe://tally/worker ?sig= x",
            "az://c/x y#1?%41=ü",
            "://",
            "?",
            "&=",
            "a://?@",
            "",
        ] {
            assert_eq!(cut_url(text), text);
        }
    }
}
