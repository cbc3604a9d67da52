//! Ports on loopback for servers that cannot choose one themselves. Several test programs run at once: a chosen port is
//! reserved by a socket in the abstract namespace, which all of them see and which ends with the process.
//!
//! Not here: servers that listen on port 0.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Result, bail};

/// How many ports are tried.
const TRIES: usize = 1000;

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

/// Ports that are free for TCP and UDP, as are the ports `above` each of them.
///
/// Fewer than N ports are free.
/// There are fewer than N.
pub fn free<const N: usize>(above: &[u16]) -> Result<[Port; N]> {
    // The system returns other numbers while these are held.
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..TRIES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let number = listener.local_addr()?.port();
        held.push(listener);
        let others: Option<Vec<u16>> = above.iter().map(|more| number.checked_add(*more)).collect();
        let Some(others) = others else { continue };
        let Some(listeners) = others.iter().map(|port| listen(*port)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        held.extend(listeners);
        let all = || others.iter().chain([&number]);
        if !all().all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
            continue;
        }
        let Some(marks) = all().map(|port| mark(*port)).collect() else { continue };
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
