//! Secrets in requests to stores and in their answers. The secrets of a request are registered, and an error answer is
//! reduced to its code and message: a store that cannot verify a signature quotes the signed text, which includes session
//! tokens, and `object_store` copies all of it into its errors.
//!
//! Not here: what an error answer means (`explain`).

use futures::StreamExt;
use http::header::AUTHORIZATION;
use object_store::client::{HttpRequest, HttpResponse, HttpResponseBody};

use crate::secrets;

/// Headers whose values are secrets.
const HEADERS: [&str; 6] = [
    "x-amz-security-token",
    "x-amz-s3session-token",
    "x-aws-ec2-metadata-token",
    "x-ms-copy-source-authorization",
    "x-ms-encryption-key",
    "x-identity-header",
];
/// Authorizations that are valid for one request only.
const SIGNED: [&str; 2] = ["AWS4-", "SharedKey"];
/// The maximum number of bytes that are read of an error answer.
const MAX_READ: usize = 64 << 10;
/// The maximum number of characters that are kept of each element, and of an answer without a code.
const MAX_KEPT: usize = 1000;
/// The elements that are kept of an XML answer.
const ELEMENTS: [&str; 8] =
    ["Code", "Message", "Region", "Endpoint", "BucketName", "Condition", "RequestId", "HostId"];

/// Registers the secrets of a request: session tokens, bearer tokens, tokens in its query. Signatures are not registered:
/// each request has another one.
pub(super) fn register_secrets(request: &HttpRequest) {
    let headers = request.headers();
    for name in HEADERS {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            secrets::register_shown(value);
        }
    }
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())
        && !SIGNED.iter().any(|scheme| value.starts_with(scheme))
    {
        secrets::register_shown(value.strip_prefix("Bearer ").unwrap_or(value));
    }
    if let Some(query) = request.uri().query() {
        secrets::register_query(query);
    }
}

/// The answer; an error answer without what it quotes.
pub(super) async fn cut(answer: HttpResponse) -> HttpResponse {
    let status = answer.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let mut body = body.bytes_stream();
    let mut text = vec![];
    // If the body breaks off, the status is enough.
    while let Some(Ok(chunk)) = body.next().await {
        text.extend_from_slice(&chunk[..chunk.len().min(MAX_READ - text.len())]);
        if text.len() == MAX_READ {
            break;
        }
    }
    let kept = essence(&String::from_utf8_lossy(&text));
    if !text.is_empty() {
        parts.headers.remove(http::header::CONTENT_LENGTH);
    }
    HttpResponse::from_parts(parts, HttpResponseBody::from(kept))
}

fn essence(body: &str) -> String {
    let element = |name: &&str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        let value: String = secrets::cut(value).chars().take(MAX_KEPT).collect();
        Some(format!("<{name}>{value}</{name}>"))
    };
    let elements: String = ELEMENTS.iter().filter_map(element).collect();
    match elements.contains("<Code>") {
        true => format!("<Error>{elements}</Error>"),
        false => secrets::cut(body).chars().take(MAX_KEPT).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "session-token-of-the-test-of-answers";
    const QUOTING: &str = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message>\
        <StringToSign>x-amz-security-token:session-token-of-the-test-of-answers</StringToSign><RequestId>r-1</RequestId>\
        </Error>";

    #[tokio::test]
    async fn an_error_answer_keeps_its_code_and_message() {
        let answer = |status: u16, body: &str| {
            let answer =
                http::Response::builder().status(status).body(HttpResponseBody::from(body.to_string()));
            async { cut(answer.unwrap()).await.into_body().bytes().await.unwrap() }
        };
        let kept = "<Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message><RequestId>r-1</RequestId></Error>";
        assert_eq!(answer(403, QUOTING).await, kept);
        assert_eq!(answer(200, QUOTING).await, QUOTING, "what was asked for");
        assert_eq!(answer(500, "").await, "");
        let long = "x".repeat(2 * MAX_READ);
        assert_eq!(answer(500, &long).await.len(), MAX_KEPT);
    }

    #[test]
    fn secrets_of_a_request_are_redacted_from_then_on() {
        let uri = "http://h/b/k?X-Amz-Security-Token=a%2Fof-answers&list-type=2";
        let request = http::Request::get(uri).header("x-amz-security-token", TOKEN);
        let request = request.header("authorization", "Bearer bearer-of-answers");
        register_secrets(&request.body(object_store::client::HttpRequestBody::empty()).unwrap());
        let signed = http::Request::get("http://h/?X-Amz-Signature=signature-of-answers");
        let signed = signed.header("authorization", "AWS4-HMAC-SHA256 Signature=of-this-request");
        register_secrets(&signed.body(object_store::client::HttpRequestBody::empty()).unwrap());
        assert_eq!(
            secrets::cut("signature-of-answers, of-this-request"),
            "signature-of-answers, of-this-request"
        );
        let said = format!("a/of-answers {TOKEN} bearer-of-answers list-type");
        assert_eq!(secrets::cut(&said), "[hidden] [hidden] [hidden] list-type");
        assert!(!essence(&format!("{{\"error\":\"{TOKEN}\"}}")).contains(TOKEN));
        let said = format!("<Code>InvalidToken</Code><Message>{TOKEN} is no token</Message>");
        assert!(!essence(&said).contains(TOKEN));
    }
}
