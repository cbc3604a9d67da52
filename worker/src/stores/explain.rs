//! What a store's refusal means, in a sentence: what was refused, and what to do. The bodies of
//! answers are cut down to their code: some quote headers of the request.

use object_store::Error;

/// Longer texts are cut.
const MOST: usize = 400;

/// The error for people.
pub fn explain(error: &Error) -> String {
    let text = deepest(error);
    let code = between(&text, "<Code>", "</Code>");
    let said = between(&text, "<Message>", "</Message>").filter(|said| said.len() < MOST);
    let refused = match (code, said) {
        (Some(code), Some(said)) => format!("{code} ({})", said.trim_end_matches('.')),
        (Some(code), None) => code.to_string(),
        (None, _) => text.chars().take(MOST).collect(),
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
            "the credentials have no leave for it: inputs need listing and reading, the output writing and deleting, too"
        }
        _ if text.contains("169.254.169.254") || text.contains("metadata.google.internal") => {
            "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the like"
        }
        _ if text.contains("UnknownIssuer") => {
            "name the file of the CA that signed its certificate in AWS_CA_BUNDLE"
        }
        _ => return refused,
    };
    format!("{refused}: {advice}")
}

/// What the last in the chain of causes says, and the texts on the way there that it does not hold.
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
    text.replace('\n', " ")
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
    fn a_refusal_is_told_by_its_code_and_quotes_nothing_else() {
        let body = "403: <Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message>\
                    <StringToSign>secret stuff</StringToSign></Error>";
        let told = explain(&denied(body));
        assert!(told.contains("SignatureDoesNotMatch (No match): check the credentials"), "{told}");
        assert!(!told.contains("secret stuff"), "{told}");
        let told = explain(&denied("<Code>AccessDenied</Code>"));
        assert!(told.starts_with("AccessDenied: the credentials have no leave"), "{told}");
        let missing = Error::NotFound { path: "k".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(explain(&missing).contains("create the bucket"), "{}", explain(&missing));
    }
}
