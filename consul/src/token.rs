//! The ACL token: a secret that is sent in one request header and nowhere else.
//!
//! Not here: policies, logins.

use std::fmt;
use std::path::Path;

use reqwest::header::HeaderValue;

use crate::error::{Error, Result};

/// An ACL token of Consul. It can be sent, but neither printed nor read.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Parses a token, without the white space around it.
    ///
    /// # Errors
    /// The text is empty or not valid in a header. The message does not repeat it.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Settings("the ACL token is empty".into()));
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            Error::Settings("the ACL token has characters that are not valid in a header".into())
        })?;
        // Hides it in the debug output of the HTTP stack.
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// Reads the token from a file, such as a mounted secret. Blocks.
    ///
    /// # Errors
    /// The file can't be read, or contains no token.
    pub fn from_file(path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::File { what: "the ACL token file", path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Self::new(&text).map_err(|error| fail(error.to_string()))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let token = Token::new(" s3cret\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(hidden)");
        assert!(!format!("{:?}", token.header()).contains("s3cret"));
        assert_eq!(token.header().as_bytes(), b"s3cret");
        let error = Token::new("s3cret\nx").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        assert!(Token::new(" \n").is_err());
    }
}
