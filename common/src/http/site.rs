//! The interface of the pages that a process serves besides health and metrics, and how their requests arrive.
//!
//! Not here: the pages, and what a client may do (`security::guard`).

use std::net::SocketAddr;

use futures::future::BoxFuture;
use hyper::{Request, Response};
use tonic::body::Body;

use crate::security::Security;

/// The pages of a process besides health and metrics.
pub trait Site: Send + Sync + 'static {
    /// Answers a request, whose extensions have its [`Peer`](crate::security::Peer) and its [`Channel`]. A body that never
    /// ends is read only as fast as the client reads.
    fn answer(&self, request: Request<Body>) -> BoxFuture<'static, Response<Body>>;
}

/// How a request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Over TLS.
    Tls,
    /// In plain text, to a listener that only this machine can reach.
    Local,
    /// In plain text, on a network that the user declared trusted with `--insecure`.
    Trusted,
    /// In plain text, where gRPC would refuse it: the process has certificates, or the listener can be reached from other
    /// machines. Nothing that a client must not see may be answered.
    Exposed,
}

impl Channel {
    /// The channel of a request in plain text to a listener with this address.
    pub(super) fn plain(security: &Security, listener: SocketAddr) -> Self {
        match (security.allows_plain(listener), listener.ip().is_loopback()) {
            (false, _) => Channel::Exposed,
            (true, true) => Channel::Local,
            (true, false) => Channel::Trusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::ServerArgs;

    #[test]
    fn plain_text_counts_only_where_grpc_accepts_it() {
        let [near, far] = ["127.0.0.1:1", "10.0.0.1:1"].map(|text| text.parse::<SocketAddr>().unwrap());
        let plain = Security::plain();
        assert_eq!(Channel::plain(&plain, near), Channel::Local);
        assert_eq!(Channel::plain(&plain, far), Channel::Exposed);
        let args = ServerArgs { insecure: true, ..ServerArgs::default() };
        let insecure = Security::open(&args, None, None).unwrap();
        assert_eq!(Channel::plain(&insecure, far), Channel::Trusted);
        assert_eq!(Channel::plain(&insecure, near), Channel::Local);
    }
}
