//! Explains an error of a store in a sentence: what failed, and what to do. The bodies of answers are reduced to their
//! code and message because some quote headers of the request, and known secrets are redacted.
//!
//! Not here: whether a retry may succeed (`transient`).

use object_store::Error;

use super::markers::bad_key;
use super::no_credentials::NoCredentials;
use super::unreachable;
use crate::secrets;

/// The maximum length of a text in characters; longer ones are cut.
const MAX_TEXT: usize = 400;

/// The error for display.
pub fn explain(error: &Error) -> String {
    if let Some(missing) = NoCredentials::of(error) {
        return missing.to_string();
    }
    if let Some(key) = bad_key(error) {
        return format!(
            "the key {key:?} has a part that is empty, \".\" or \"..\", which a path cannot have: remove or rename this \
             object (for example with `aws s3api delete-object --bucket BUCKET --key {key:?}`)"
        );
    }
    let text = deepest(error);
    let code = between(&text, "<Code>", "</Code>");
    let said = between(&text, "<Message>", "</Message>").filter(|said| said.len() < MAX_TEXT);
    let refused = match (code, said) {
        (Some(code), Some(said)) => format!("{code} ({})", said.trim_end_matches('.')),
        (Some(code), None) => code.to_string(),
        (None, _) => text.chars().take(MAX_TEXT).collect(),
    };
    let advice = match (code.unwrap_or_default(), error) {
        ("NoSuchBucket" | "ContainerNotFound", _) => {
            "create the bucket, or check its name, the endpoint and the region"
        }
        (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "AuthenticationFailed"
            | "AuthorizationHeaderMalformed"
            | "InvalidClientTokenId",
            _,
        )
        | (_, Error::Unauthenticated { .. }) => {
            "check the credentials (their key, secret, token and region) in the environment or the profile"
        }
        ("AccessDenied" | "AuthorizationPermissionMismatch", _) | (_, Error::PermissionDenied { .. }) => {
            "permission is missing: inputs need List and Get permissions, the output also Put and Delete"
        }
        _ if text.contains("UnknownIssuer") => {
            "set AWS_CA_BUNDLE to the file of the CA that signed its certificate"
        }
        _ if text.contains("received corrupt message") => {
            "the endpoint does not use TLS: give it as http://HOST:PORT (AWS_ENDPOINT_URL)"
        }
        _ if text.contains(unreachable::TEXT) => {
            "check host and port of the endpoint (AWS_ENDPOINT_URL, AZURE_ENDPOINT), and the network"
        }
        _ => return refused,
    };
    format!("{refused}: {advice}")
}

/// The texts of an error and its causes, without repetitions.
fn deepest(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    secrets::cut(&text.replace('\n', " ")).into_owned()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found).filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(body: &str) -> Error {
        Error::PermissionDenied { path: "k".into(), source: body.to_string().into() }
    }

    #[test]
    fn an_error_is_explained_by_its_code_and_quotes_nothing_else() {
        let body = "403: <Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message>\
                    <StringToSign>secret stuff</StringToSign></Error>";
        let text = explain(&denied(body));
        assert!(text.contains("SignatureDoesNotMatch (No match): check the credentials"), "{text}");
        assert!(!text.contains("secret stuff"), "{text}");
        let text = explain(&denied("<Code>AccessDenied</Code>"));
        assert!(text.starts_with("AccessDenied: permission is missing"), "{text}");
        let missing = Error::NotFound { path: "k".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(explain(&missing).contains("create the bucket"), "{}", explain(&missing));
        let refused = format!("{}: Connection refused (os error 111)", unreachable::TEXT);
        let refused = explain(&Error::Generic { store: "S3", source: refused.into() });
        assert!(refused.contains("check host and port of the endpoint (AWS_ENDPOINT_URL"), "{refused}");
    }
}
