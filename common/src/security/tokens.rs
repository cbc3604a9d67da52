//! The accepted bearer tokens, from a file with one line per token: `ROLE NAME TOKEN`, where TOKEN is the token itself or
//! `sha256:` and its digest. Digests are compared instead of tokens, so that the time of a comparison reveals nothing
//! about similar tokens.
//!
//! Not here: the token that this process sends (`dial`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::SecurityError;
use super::identity::{Identity, Role, Roles};
use super::watched::{StaleFiles, Watched, check_private};
use crate::secrets;

/// How long the last tokens count while their file cannot be used: then a token that was removed from it ends.
const MAX_STALE: Duration = Duration::from_secs(300);
/// The minimum length of a token: shorter ones can be guessed.
const MIN_TOKEN: usize = 16;
/// The maximum length of a token.
const MAX_TOKEN: usize = 1024;
/// The maximum size of a file of tokens, in bytes.
const MAX_FILE: u64 = 1 << 20;

type Digest = [u8; SHA256_OUTPUT_LEN];

/// The current tokens of a file.
pub(super) struct Tokens(Watched<Vec<(Digest, Identity)>>);

impl Tokens {
    /// # Errors
    /// [`SecurityError`].
    pub(super) fn open(file: &Path) -> Result<Self, SecurityError> {
        let path = PathBuf::from(file);
        let load = move |_| {
            let lines = read_private(&path)?;
            let parsed = parse(&lines);
            // The tokens of a file that is rejected never come into use.
            match &parsed {
                Ok(_) => secrets::register_held(&path.display().to_string(), plain(&lines)),
                Err(_) => plain(&lines).for_each(secrets::register_shown),
            }
            parsed.map_err(|reason| SecurityError::file(&path, reason))
        };
        Watched::open("tokens", MAX_STALE, vec![file.into()], load).map(Tokens)
    }

    /// The identity of a token; `None` for an unknown one.
    ///
    /// # Errors
    /// The file cannot be used for too long.
    pub(super) fn identity(&self, token: &str) -> Result<Option<Identity>, StaleFiles> {
        let known = self.0.current()?;
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let shown = sha256(token);
        Ok(known.iter().find(|(digest, _)| *digest == shown).map(|(_, identity)| identity.clone()))
    }

    /// For how long the file cannot be used.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        self.0.failing_for()
    }
}

/// The text of a file of secrets.
///
/// # Errors
/// [`SecurityError`]: the file cannot be read, is open to others, or is too long.
pub(super) fn read_private(path: &Path) -> Result<String, SecurityError> {
    check_private(path)?;
    let length = std::fs::metadata(path).map_err(|e| SecurityError::file(path, e))?.len();
    if length > MAX_FILE {
        return Err(SecurityError::file(
            path,
            format!("it has {length} bytes, more than a file of tokens can have"),
        ));
    }
    std::fs::read_to_string(path).map_err(|e| SecurityError::file(path, e))
}

fn sha256(text: &str) -> Digest {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// The plain tokens of a file, also if its other lines are invalid.
fn plain(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(2)).filter(|token| !token.starts_with("sha256:"))
}

/// A line that is not a token, by its number: the line itself is a secret.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
struct InvalidLine {
    line: usize,
    problem: &'static str,
}

fn parse(text: &str) -> Result<Vec<(Digest, Identity)>, InvalidLine> {
    let mut tokens = vec![];
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem| InvalidLine { line: at + 1, problem };
        let words: Vec<_> = line.split_whitespace().collect();
        let [role, name, token] = words[..] else { return Err(wrong("write ROLE NAME TOKEN")) };
        let role = Role::parse(role).filter(|role| matches!(role, Role::Operator | Role::Reader));
        let role = role.ok_or_else(|| wrong("the role must be operator or reader"))?;
        let digest = match token.strip_prefix("sha256:") {
            Some(hex) => {
                from_hex(hex).ok_or_else(|| wrong("sha256: is followed by 64 hexadecimal digits"))?
            }
            None if (MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) => sha256(token),
            None => return Err(wrong("a token has 16 to 1024 characters")),
        };
        tokens.push((digest, Identity { name: format!("token {name}"), roles: Roles::of(&[role]) }));
    }
    Ok(tokens)
}

fn from_hex(text: &str) -> Option<Digest> {
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_accepted_in_plain_text_and_as_digests() {
        // The digest of "open sesame, says Ali".
        let digest: String =
            sha256("open-sesame-says-ali").iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("# people\noperator ann 0123456789abcdef\n\nreader ali sha256:{digest}\n");
        assert_eq!(plain(&text).collect::<Vec<_>>(), ["0123456789abcdef"]);
        let tokens = parse(&text).unwrap();
        let found = |token: &str| {
            tokens.iter().find(|(known, _)| *known == sha256(token)).map(|(_, identity)| identity)
        };
        assert_eq!(found("0123456789abcdef").unwrap().name, "token ann");
        assert!(found("open-sesame-says-ali").unwrap().roles.has(Role::Reader));
        assert!(found("0123456789abcde").is_none() && found("").is_none());
        assert_eq!(sha256("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn an_error_does_not_contain_the_secret() {
        for (text, what) in [
            ("operator ann", "line 1: write ROLE"),
            ("\nworker ann 0123456789abcdef", "line 2: the role must be"),
            ("reader ann short", "line 1: a token has"),
            ("reader ann sha256:00", "line 1: sha256:"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("0123456789abcdef"), "{error}");
        }
    }
}
