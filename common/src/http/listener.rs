//! The connections of health, metrics and the pages of a process. Any client can open one, and one that holds or repeats
//! connections must not keep the kubelet's probes out: at the maximum, an idle connection is closed for each new one.
//!
//! Not here: which connection is closed (`connections`), the answers (`http`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::addresses;
use crate::connections::{Connections, Policy, Slot};
use crate::open_files::{self, Caller};
use crate::security::{Reason, Security};
use crate::warn_limited;

/// The maximum number of connections.
const MAX_CONNECTIONS: usize = 64;
/// The maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The maximum duration of a connection.
const MAX_DURATION: Duration = Duration::from_secs(300);
/// The pause after a failed accept, for example without free file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause after a connection that is closed because too many files are open.
const FULL: Duration = Duration::from_millis(10);

/// Listens on `listen` (host:port, or :port for all addresses). Must be called in the context of the runtime that accepts.
///
/// # Errors
/// The address cannot be used.
pub(super) fn bind(listen: &str) -> io::Result<TcpListener> {
    let mut last = None;
    for address in addresses::listen(listen)? {
        match bind_to(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As in the standard library: a restarted process takes its port again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and serves each with `serve`; never ends.
pub(super) async fn accept<S, F>(listener: TcpListener, security: Arc<Security>, serve: S)
where
    S: Fn(TcpStream, SocketAddr, Arc<Slot>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let connections = Connections::new(MAX_CONNECTIONS, Policy::CloseUsed);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn_limited!(%error, "a connection to health and metrics could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        // With too many open files, the listener for peers refuses earlier: its log names the limit.
        let full = !open_files::has_room(&stream, Caller::Observer);
        let admitted = connections.admit(peer.ip(), full).await;
        let closed = admitted.as_ref().map_or(0, |(_, closed)| *closed);
        if closed > 0
            && let Some(suppressed) = security.refusals().count(Reason::Connections, closed)
        {
            let reason = Reason::Connections.name();
            tracing::warn!(suppressed, %peer, reason, "connections to health and metrics are closed for new ones");
        }
        let Some((place, _)) = admitted else {
            drop(stream);
            sleep(FULL).await;
            continue;
        };
        let slot = place.slot();
        let served = serve(stream, peer, slot.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = slot.closed() => {}
                // A client that disconnects is not an error.
                _ = timeout(MAX_DURATION, served) => {}
            }
            drop(place);
        });
        // The request of a new connection is answered before many others are accepted.
        tokio::task::yield_now().await;
    }
}
