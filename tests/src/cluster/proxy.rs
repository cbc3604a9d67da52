//! A TCP proxy between two processes of a cluster, which a test can cut, heal and slow down: bounded, repeatable, and
//! without any privileges on the machine.
//!
//! Cut means silence: nothing arrives in either direction, on old and on new connections, and no side gets an error.
//! Data in flight arrives after the connection is healed, as TCP would retransmit it. A proxy cannot leave a SYN
//! unanswered: it accepts a new connection, and then nothing arrives.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The thread that all proxies of a test run on. Dropping it ends them.
#[derive(Debug)]
pub struct Network {
    runtime: Arc<Runtime>,
}

impl Network {
    /// A network without proxies.
    ///
    /// # Errors
    /// The system has no resources for it.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Ok(Self { runtime: Arc::new(runtime.context("starting the proxies' runtime")?) })
    }

    /// A new proxy on a port of its own; connections end at once until it has a target.
    ///
    /// # Errors
    /// No port is free.
    pub fn proxy(&self) -> Result<Proxy> {
        let listener = self.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let link = Link {
            target: watch::Sender::new(None),
            cut: watch::Sender::new(false),
            breaks: watch::Sender::new(0),
            rate: watch::Sender::new(None),
            free: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
        };
        let link = Arc::new(link);
        self.runtime.spawn(accept(listener, link.clone()));
        Ok(Proxy { address, link })
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    target: watch::Sender<Option<SocketAddr>>,
    cut: watch::Sender<bool>,
    /// Incremented to end all connections.
    breaks: watch::Sender<u64>,
    /// Bytes per second in each direction.
    rate: watch::Sender<Option<u64>>,
    /// When all bytes that were read in each direction are through.
    free: [Mutex<Instant>; 2],
}

impl Link {
    /// Bytes to read at a time: less than a tenth of a second of a slow link.
    fn step(&self) -> usize {
        self.rate.borrow().map_or(STEP, |rate| usize::try_from(rate / 16).unwrap_or(STEP).clamp(1, STEP))
    }

    /// Waits until so many bytes are through. All connections share the link.
    async fn pass(&self, direction: usize, bytes: usize) {
        let Some(rate) = *self.rate.borrow() else { return };
        let through = {
            let mut free = self.free[direction].lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free
        };
        sleep_until(through).await;
    }
}

impl Proxy {
    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the target of new connections.
    pub fn lead_to(&self, target: SocketAddr) {
        self.link.target.send_replace(Some(target));
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        self.link.cut.send_replace(true);
    }

    /// Heals the connection.
    pub fn heal(&self) {
        self.link.cut.send_replace(false);
    }

    /// Slows the connections down: together they pass so many bytes per second in each direction. `None` ends that.
    pub fn throttle(&self, rate: Option<u64>) {
        self.link.rate.send_replace(rate);
    }

    /// Ends all connections at once, and accepts new ones.
    pub fn break_connections(&self) {
        self.link.breaks.send_modify(|breaks| *breaks += 1);
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    // The proxy ignores an error of one connection, such as a disconnected client.
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, link.clone()));
        }
    }
}

async fn connection(client: TcpStream, link: Arc<Link>) {
    let mut breaks = link.breaks.subscribe();
    tokio::select! {
        _ = breaks.changed() => {}
        _ = forward(client, &link) => {}
    }
}

async fn forward(client: TcpStream, link: &Link) -> std::io::Result<()> {
    whole(link).await;
    let target = *link.target.borrow();
    // Dropping the client's connection shows it that the target does not answer.
    let Some(target) = target else { return Ok(()) };
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(pump(from_client, to_server, link, 0), pump(from_server, to_client, link, 1))?;
    Ok(())
}

/// Waits while the connection is cut.
async fn whole(link: &Link) {
    // Fails only without a sender, and the link holds it.
    let _ = link.cut.subscribe().wait_for(|cut| !cut).await;
}

/// Bytes to read at a time.
const STEP: usize = 64 << 10;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: &Link,
    direction: usize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; STEP];
    loop {
        whole(link).await;
        // Errors are also held back while the connection is cut: no side gets one.
        let read = from.read(&mut buffer[..link.step()]).await;
        if let Ok(bytes) = read {
            link.pass(direction, bytes).await;
        }
        whole(link).await;
        match read? {
            0 => return to.shutdown().await,
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// A connection through a proxy: the client's end and the server's.
    fn connected() -> (Network, Proxy, TcpStream, TcpStream) {
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        proxy.lead_to(server.local_addr().unwrap());
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (served, _) = server.accept().unwrap();
        (network, proxy, client, served)
    }

    fn hears(stream: &mut TcpStream, patience: Duration) -> std::io::Result<u8> {
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn bytes_go_both_ways_and_a_cut_holds_them_back() {
        let (_network, proxy, mut client, mut served) = connected();
        client.write_all(b"a").unwrap();
        assert_eq!(hears(&mut served, LONG).unwrap(), b'a');
        served.write_all(b"b").unwrap();
        assert_eq!(hears(&mut client, LONG).unwrap(), b'b');
        proxy.cut();
        client.write_all(b"c").unwrap();
        served.write_all(b"d").unwrap();
        assert!(hears(&mut served, SHORT).is_err() && hears(&mut client, SHORT).is_err());
        proxy.heal();
        assert_eq!(hears(&mut served, LONG).unwrap(), b'c');
        assert_eq!(hears(&mut client, LONG).unwrap(), b'd');
    }

    #[test]
    fn a_cut_hides_an_end_and_a_break_makes_one() {
        let (_network, proxy, client, mut served) = connected();
        proxy.cut();
        drop(client);
        let silent = hears(&mut served, SHORT).unwrap_err();
        assert!(matches!(silent.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        proxy.heal();
        assert_eq!(hears(&mut served, LONG).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);

        let (_network, proxy, mut client, _served) = connected();
        proxy.break_connections();
        assert!(hears(&mut client, LONG).is_err());
    }

    #[test]
    fn connections_share_the_rate_of_a_slow_link() {
        let (_network, proxy, mut client, mut served) = connected();
        proxy.throttle(Some(100_000));
        let start = std::time::Instant::now();
        client.write_all(&[7; 50_000]).unwrap();
        let mut all = vec![0; 50_000];
        served.read_exact(&mut all).unwrap();
        // Slower than the rate is possible, faster is not.
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        proxy.throttle(None);
        served.write_all(b"a").unwrap();
        assert_eq!(hears(&mut client, LONG).unwrap(), b'a');
    }

    #[test]
    fn without_a_target_connections_end() {
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(hears(&mut client, LONG).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
