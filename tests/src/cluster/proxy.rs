//! A TCP proxy between two parties of a cluster, which a test can cut and heal: bounded, repeatable, without any
//! right on the machine.
//!
//! Cut means silence: nothing arrives in either direction, on old and on new connections, and nobody is told; what
//! was under way arrives once it is healed, as TCP would send it again. What a proxy can't do is leave a SYN
//! unanswered: a new connection is accepted, and then nothing comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The thread that all proxies of a test run on. Dropping it ends them.
#[derive(Debug)]
pub struct Network {
    runtime: Arc<Runtime>,
}

impl Network {
    /// A network without proxies.
    ///
    /// # Errors
    /// The system has no room for it.
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
        };
        let link = Arc::new(link);
        self.runtime.spawn(accept(listener, link.clone()));
        Ok(Proxy { address, link })
    }
}

/// One way that can be cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    target: watch::Sender<Option<SocketAddr>>,
    cut: watch::Sender<bool>,
    /// Raised by one to end all connections.
    breaks: watch::Sender<u64>,
}

impl Proxy {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.link.target.send_replace(Some(target));
    }

    /// Silence from now on.
    pub fn cut(&self) {
        self.link.cut.send_replace(true);
    }

    /// Ends the silence.
    pub fn heal(&self) {
        self.link.cut.send_replace(false);
    }

    /// Ends all connections at once, and takes new ones.
    pub fn break_connections(&self) {
        self.link.breaks.send_modify(|breaks| *breaks += 1);
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    // An error of one connection (a client that is gone again) is none of the proxy.
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
    // Dropping the client's connection tells it that nobody is there.
    let Some(target) = target else { return Ok(()) };
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(pump(from_client, to_server, link), pump(from_server, to_client, link))?;
    Ok(())
}

/// Waits while the way is cut.
async fn whole(link: &Link) {
    // Fails only without a sender, and the link holds it.
    let _ = link.cut.subscribe().wait_for(|cut| !cut).await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        whole(link).await;
        // An error, too, is held back while the way is cut: nobody is told.
        let read = from.read(&mut buffer).await;
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
    fn without_a_target_connections_end() {
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(hears(&mut client, LONG).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
