//! Ports on loopback for servers that cannot choose one themselves. Several test programs run at once: a chosen port is
//! reserved by a socket in the abstract namespace, which all of them see and which ends with the process. It is not one that
//! the system gives to outgoing connections and to listeners on port 0, so a server that a test stops finds it free later.
//!
//! Not here: servers that listen on port 0.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail, ensure};

/// How many ports are tried.
const TRIES: usize = 1000;
/// The first port that is tried. Below are those of many services.
const FIRST: u16 = 12_000;

/// A port that is reserved for one test until this is dropped.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _marks: Vec<UnixListener>,
}

/// Reserves a port; None if another test has it.
fn mark(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("tally-tests-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// The first port that the system may give to any process.
fn first_ephemeral() -> Result<u16> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = std::fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
    let first = range.split_whitespace().next().with_context(|| format!("{FILE} is empty"))?;
    first.parse().with_context(|| format!("{FILE} begins with {first}"))
}

/// Ports that are free for TCP and UDP, as are the ports `above` each of them.
///
/// # Errors
/// Fewer than N ports are free.
pub fn free<const N: usize>(above: &[u16]) -> Result<[Port; N]> {
    let highest = above.iter().copied().max().unwrap_or(0);
    let end = first_ephemeral()?.saturating_sub(highest);
    ensure!(end > FIRST, "no ports from {FIRST} on are left to servers: outgoing connections begin at {end}");
    let mut ports = Vec::new();
    for _ in 0..TRIES {
        let number = rand::random_range(FIRST..end);
        let all = || above.iter().map(|more| number + more).chain([number]);
        let is_free = |port| listen(port).is_some() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if !all().all(is_free) {
            continue;
        }
        let Some(marks) = all().map(mark).collect() else { continue };
        ports.push(Port { number, _marks: marks });
        if ports.len() == N {
            break;
        }
    }
    match <[Port; N]>::try_from(ports) {
        Ok(ports) => Ok(ports),
        Err(ports) => bail!("of {N} ports on loopback only {} are free", ports.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::wait_for;

    #[test]
    fn a_port_is_reserved_until_it_is_dropped() {
        let ports = free::<3>(&[10_000]).unwrap();
        for port in &ports {
            assert!(listen(port.number).is_some() && listen(port.number + 10_000).is_some(), "it is free");
            assert!(mark(port.number).is_none() && mark(port.number + 10_000).is_none());
        }
        let number = ports[0].number;
        drop(ports);
        // A process that another test starts may hold it for a moment.
        wait_for("the end of a reservation", Duration::from_secs(10), || Ok(mark(number))).unwrap();
    }
}
