//! Bearer tokens that are accepted, from a file with a line for each: `ROLE NAME TOKEN`, where TOKEN is the token
//! itself or `sha256:` and its digest. Tokens are compared by their digests, whose equality tells nothing of a token
//! that is only similar.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::SecurityError;
use super::identity::{Identity, Role, Roles};
use super::watched::{Watched, check_private};

/// Shorter ones can be guessed.
const LEAST: usize = 16;
/// Longer ones are no token; a file of more bytes is no file of tokens.
const MOST: usize = 1024;
const MOST_FILE: u64 = 1 << 20;

type Digest = [u8; SHA256_OUTPUT_LEN];

/// The tokens of a file, as it is now.
pub(super) struct Tokens(Watched<Vec<(Digest, Identity)>>);

impl Tokens {
    /// # Errors
    /// The file cannot be used, or is open to others.
    pub(super) fn open(file: &Path) -> Result<Self, SecurityError> {
        let path = PathBuf::from(file);
        let load = move |_| {
            let lines = read_private(&path)?;
            parse(&lines).map_err(|reason| SecurityError::file(&path, reason))
        };
        Watched::open("tokens", vec![file.into()], load).map(Tokens)
    }

    /// Whose token it is.
    pub(super) fn identity(&self, token: &str) -> Option<Identity> {
        if token.len() > MOST {
            return None;
        }
        let shown = sha256(token);
        let known = self.0.current();
        known.iter().find(|(digest, _)| *digest == shown).map(|(_, identity)| identity.clone())
    }
}

/// The text of a file of secrets.
///
/// # Errors
/// It cannot be read, is open to others, or far too long.
pub(super) fn read_private(path: &Path) -> Result<String, SecurityError> {
    check_private(path)?;
    let length = std::fs::metadata(path).map_err(|e| SecurityError::file(path, e))?.len();
    if length > MOST_FILE {
        return Err(SecurityError::file(path, format!("{length} bytes are no file of tokens")));
    }
    std::fs::read_to_string(path).map_err(|e| SecurityError::file(path, e))
}

fn sha256(text: &str) -> Digest {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// What is wrong is told by the line's number: the line itself is a secret.
fn parse(text: &str) -> Result<Vec<(Digest, Identity)>, String> {
    let mut tokens = vec![];
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        let words: Vec<_> = line.split_whitespace().collect();
        let [role, name, token] = words[..] else { return Err(wrong("write ROLE NAME TOKEN")) };
        let role = Role::parse(role).filter(|role| matches!(role, Role::Operator | Role::Reader));
        let role = role.ok_or_else(|| wrong("the role is operator or reader"))?;
        let digest = match token.strip_prefix("sha256:") {
            Some(hex) => {
                from_hex(hex).ok_or_else(|| wrong("sha256: is followed by 64 hexadecimal digits"))?
            }
            None if (LEAST..=MOST).contains(&token.len()) => sha256(token),
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
    fn tokens_are_known_plain_and_by_their_digest() {
        // The digest of "open sesame, says Ali".
        let digest: String =
            sha256("open-sesame-says-ali").iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("# people\noperator ann 0123456789abcdef\n\nreader ali sha256:{digest}\n");
        let tokens = parse(&text).unwrap();
        let found =
            |token: &str| tokens.iter().find(|(known, _)| *known == sha256(token)).map(|(_, who)| who);
        assert_eq!(found("0123456789abcdef").unwrap().name, "token ann");
        assert!(found("open-sesame-says-ali").unwrap().roles.has(Role::Reader));
        assert!(found("0123456789abcde").is_none() && found("").is_none());
        assert_eq!(sha256("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for (text, what) in [
            ("operator ann", "line 1: write ROLE"),
            ("\nworker ann 0123456789abcdef", "line 2: the role is"),
            ("reader ann short", "line 1: a token has"),
            ("reader ann sha256:00", "line 1: sha256:"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what) && !error.contains("0123456789abcdef"), "{error}");
        }
    }
}
