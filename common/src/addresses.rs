//! Addresses in options: where a process listens, and where others reach it.
//!
//! Not here: the listeners (`security::listen`, `http`), the addresses of coordinators (`discovery::leader`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::discovery::leader::{Address, InvalidAddress};

/// The addresses that an option such as `--listen` names, in the order in which they are tried: `HOST:PORT`, or `:PORT` for
/// all addresses of this machine. The first address of `:PORT` accepts IPv6 and IPv4; a machine without IPv6 uses the second.
///
/// # Errors
/// The text is not an address, or the host has no address.
pub fn listen(text: &str) -> io::Result<Vec<SocketAddr>> {
    let Some(port) = text.strip_prefix(':') else { return Ok(text.to_socket_addrs()?.collect()) };
    let port =
        port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is not a number"))?;
    Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()])
}

/// The address that other processes are told: `HOST:PORT`, or `HOST` for `port`. A host that is an IPv6 address needs no
/// brackets if it has no port: Kubernetes tells pods their address without them.
///
/// # Errors
/// [`InvalidAddress`].
pub fn advertised(text: &str, port: u16) -> Result<String, InvalidAddress> {
    let whole = match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port).to_string()),
        Err(_) => text
            .parse::<Address>()
            .or_else(|_| format!("{text}:{port}").parse())
            .map(|whole| whole.to_string()),
    };
    whole.map_err(|_: InvalidAddress| InvalidAddress::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_all_addresses() {
        let texts = |text| listen(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(":7070"), ["[::]:7070", "0.0.0.0:7070"]);
        assert_eq!(texts("127.0.0.1:0"), ["127.0.0.1:0"]);
        assert_eq!(texts("[::1]:7070"), ["[::1]:7070"]);
        for bad in [":", ":x", ":70000", "7070", ""] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_addresses_are_reached_by_both_families() {
        let listener = std::net::TcpListener::bind(&listen(":0").unwrap()[..]).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn an_advertised_host_gets_brackets_and_a_port() {
        let check = |text, expected: &str| assert_eq!(advertised(text, 41).unwrap(), expected);
        check("10.0.0.7", "10.0.0.7:41");
        check("10.0.0.7:99", "10.0.0.7:99");
        check("fd00::7", "[fd00::7]:41");
        check("[fd00::7]", "[fd00::7]:41");
        check("[fd00::7]:99", "[fd00::7]:99");
        check("::ffff:10.0.0.7", "[::ffff:10.0.0.7]:41");
        check("w-0.tally", "w-0.tally:41");
        check("w-0.tally:99", "w-0.tally:99");
        for bad in ["", "a b", "fd00::7::1", "w:x", "user:secret@w:1:2"] {
            assert!(advertised(bad, 41).is_err(), "{bad}");
        }
        assert!(!advertised("user:s3cret@w:1:2", 41).unwrap_err().to_string().contains("s3cret"));
    }
}
