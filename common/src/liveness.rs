//! Whether the process at the other end of a connection is alive.
//!
//! A peer is lost if nothing at all arrives from it for a time. What counts is progress of the peer, not of one stream:
//! received bytes, which include answers to keep-alive pings, and sent bytes that its system has accepted. A slow network
//! or a busy reader can delay a stream for minutes, and the peer is not silent meanwhile. HTTP/2 keep-alive alone cannot
//! decide this: the answer to a ping waits behind all data that is already on its way.
//!
//! [`PeerWatch`] decides, and [`Watched`] counts the bytes of a connection and ends it if its peer is lost. Not here: who
//! sends pings (HTTP/2), what follows the loss of a peer.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

/// Interval at which a watch is asked.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum silence that counts between two checks. A longer interval is a pause of this process: during it the peer may
/// have sent data that was not read.
const MAX_STEP: Duration = Duration::from_secs(2);

/// Decides whether a peer is lost. The caller passes the time since a fixed moment, and a count of the peer's progress.
#[derive(Debug, Clone)]
pub struct PeerWatch {
    limit: Duration,
    checked: Duration,
    progress: u64,
    silent: Duration,
}

impl PeerWatch {
    /// A watch over a peer that is lost after a silence of `limit`, beginning at `now`.
    pub fn new(limit: Duration, now: Duration, progress: u64) -> Self {
        PeerWatch { limit, checked: now, progress, silent: Duration::ZERO }
    }

    /// Whether the peer is lost. `progress` differs from that of the call before if the peer made progress since.
    pub fn is_lost(&mut self, now: Duration, progress: u64) -> bool {
        let passed = now.saturating_sub(self.checked).min(MAX_STEP);
        self.checked = self.checked.max(now);
        if progress == self.progress {
            self.silent += passed;
        } else {
            (self.progress, self.silent) = (progress, Duration::ZERO);
        }
        self.silent >= self.limit
    }
}

/// Bytes of progress of a peer, on all connections that share it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PeerProgress(Arc<AtomicU64>);

impl PeerProgress {
    /// The number of bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A connection that fails with [`io::ErrorKind::TimedOut`] if its peer is lost. It must be read or written, as HTTP/2
/// connections always are, to notice it.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    /// The progress of the peer on all connections to it.
    peer: PeerProgress,
    /// Bytes received on this connection, sent on it, and accepted of the latter by the peer's system.
    received: u64,
    sent: u64,
    accepted: u64,
    watch: PeerWatch,
    start: Instant,
    check: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    /// Watches a connection. Its progress is also added to `peer`. Must be called on a runtime.
    pub fn new(inner: S, peer: PeerProgress, limit: Duration) -> Self {
        Watched {
            inner,
            peer,
            received: 0,
            sent: 0,
            accepted: 0,
            watch: PeerWatch::new(limit, Duration::ZERO, 0),
            start: Instant::now(),
            check: Box::pin(sleep(CHECK_INTERVAL)),
        }
    }
}

impl<S: AsRawFd> Watched<S> {
    fn is_lost(&mut self) -> bool {
        let accepted = self.sent.saturating_sub(unacknowledged(&self.inner).unwrap_or(self.sent));
        if accepted > self.accepted {
            self.peer.add(accepted - self.accepted);
            self.accepted = accepted;
        }
        self.watch.is_lost(self.start.elapsed(), self.received + self.accepted)
    }

    /// The result of an operation that has to wait: it fails if the peer is lost, and is woken for the next check.
    fn pending<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.check.as_mut().poll(cx).is_ready() {
            if self.is_lost() {
                let what = format!("the peer sent nothing for {} s", self.watch.limit.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            self.check.as_mut().reset(Instant::now() + CHECK_INTERVAL);
        }
        Poll::Pending
    }

    fn written(&mut self, result: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.sent += bytes as u64;
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.pending(cx),
        }
    }
}

/// Sent bytes that the peer's system has not accepted yet; `None` if this system does not tell.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn unacknowledged(socket: &impl AsRawFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one integer to the address, and the descriptor is open while `socket` is borrowed.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then(|| u64::try_from(bytes).ok()).flatten()
}

/// Only Linux tells it.
#[cfg(not(target_os = "linux"))]
fn unacknowledged(_: &impl AsRawFd) -> Option<u64> {
    None
}

impl<S: AsyncRead + AsRawFd + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, into) {
            Poll::Ready(Ok(())) => {
                let bytes = (into.filled().len() - before) as u64;
                self.received += bytes;
                self.peer.add(bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.pending(cx),
        }
    }
}

impl<S: AsyncWrite + AsRawFd + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.pending(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.pending(cx),
        }
    }
}

impl<S: Connected> Connected for Watched<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_peer_is_lost_after_silence_and_only_then() {
        /// Checks at these milliseconds with this progress, and the check that finds the loss.
        type Case = (&'static str, Vec<(u64, u64)>, Option<usize>);
        let every = |interval: u64, progress: fn(u64) -> u64| -> Vec<(u64, u64)> {
            (1..=30).map(|check| (check * interval, progress(check))).collect()
        };
        let cases: Vec<Case> = vec![
            ("nothing arrives", every(1000, |_| 0), Some(9)),
            ("something arrives at each check", every(1000, |check| check), None),
            ("one byte every nine seconds", every(1000, |check| check / 9), None),
            ("one byte every eleven seconds", every(1000, |check| check / 11), Some(9)),
            ("it sends for a while, and then nothing", every(1000, |check| check.min(5)), Some(14)),
            ("many waiters check", every(100, |_| 0), None),
            (
                "this process was paused for a minute, and the data is read after the first check",
                vec![(1000, 1), (61_000, 1), (61_001, 2), (62_000, 2)],
                None,
            ),
            ("checks that are rare count as pauses of this process", every(20_000, |_| 0), Some(4)),
            ("a clock that goes back does not count", vec![(1000, 0), (500, 0), (1000, 0), (1500, 0)], None),
        ];
        for (name, checks, lost) in cases {
            let mut watch = PeerWatch::new(Duration::from_secs(10), Duration::ZERO, 0);
            let found = checks
                .into_iter()
                .position(|(at, progress)| watch.is_lost(Duration::from_millis(at), progress));
            assert_eq!(found, lost, "{name}");
        }
    }

    /// Both ends of a connection, of which the first is watched.
    async fn connected(limit: Duration) -> (Watched<TcpStream>, PeerProgress, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let progress = PeerProgress::default();
        let (other, _) = listener.accept().await.unwrap();
        (Watched::new(stream, progress.clone(), limit), progress, other)
    }

    #[tokio::test]
    async fn a_silent_connection_fails_and_one_whose_bytes_are_accepted_does_not() {
        let (mut watched, progress, mut other) = connected(Duration::from_secs(3)).await;
        other.write_all(b"abc").await.unwrap();
        assert_eq!(watched.read(&mut [0; 8]).await.unwrap(), 3);
        assert_eq!(progress.bytes(), 3);
        // The other end reads now and then, and sends nothing. Its system accepts some bytes after each read.
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 4 << 20];
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(1000)).await;
                other.read_exact(&mut buffer).await.unwrap();
            }
            other
        });
        let block = vec![7; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match watched.write(&block).await {
                Ok(bytes) => sent += bytes,
                Err(error) => break error,
            }
        };
        // From now on it reads nothing: the connection fails, though it is open.
        let _open = reading.await.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(sent >= 24 << 20, "{sent}");
        assert!(progress.bytes() > 24 << 20, "{}", progress.bytes());
    }
}
