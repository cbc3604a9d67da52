//! The files of the web page: plain HTML, styles and scripts without a build step. They contain nothing of the cluster, so
//! that any client may read them; the page asks the API, with a token if it needs one.
//!
//! Not here: the answers that the page shows (`api`).

use axum::response::{IntoResponse, Response};
use tonic::codegen::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// The page loads nothing from elsewhere, runs no inline script, and cannot be framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
pub(super) struct File {
    /// Its path in requests.
    pub(super) path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const fn file(path: &'static str, content_type: &'static str, content: &'static str) -> File {
    File { path, content_type, content }
}

/// All files.
pub(super) static FILES: [File; 9] = [
    file("/", "text/html; charset=utf-8", include_str!("web/index.html")),
    file("/ui/style.css", "text/css; charset=utf-8", include_str!("web/style.css")),
    file("/ui/icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
    file("/ui/app.js", SCRIPT, include_str!("web/app.js")),
    file("/ui/api.js", SCRIPT, include_str!("web/api.js")),
    file("/ui/dom.js", SCRIPT, include_str!("web/dom.js")),
    file("/ui/job.js", SCRIPT, include_str!("web/job.js")),
    file("/ui/overview.js", SCRIPT, include_str!("web/overview.js")),
    file("/ui/timeline.js", SCRIPT, include_str!("web/timeline.js")),
];

impl File {
    /// The answer to a request for it.
    pub(super) fn answer(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.content_type),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, self.content).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_only_its_own_files() {
        let known = |path: &str| FILES.iter().any(|file| file.path == path);
        for File { path, content, .. } in &FILES {
            for quoted in content.split('"').skip(1).step_by(2) {
                let script = quoted.strip_prefix("./").map(|name| format!("/ui/{name}"));
                assert!(script.is_none_or(|script| known(&script)), "{path}: {quoted}");
                assert!(!quoted.starts_with("/ui/") || known(quoted), "{path}: {quoted}");
            }
            // The name of a format, which is not loaded.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "https:",
                "http:",
                "\"//",
                "'//",
                "`//",
                "(//",
                " style=",
                " onclick=",
            ] {
                assert!(!content.contains(forbidden), "{path} has {forbidden}");
            }
        }
        let size: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(size < 64 << 10, "{size} bytes");
    }
}
