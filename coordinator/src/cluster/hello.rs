//! The first message of a worker, and its checks.
//!
//! Not here: which workers are accepted (`cluster`), what they are sent (`member`).

use std::net::SocketAddr;

use tally_common::counts::counted;
use tally_proto::convert::BadMessage;
use tally_proto::{OLDEST_PROTOCOL, PROTOCOL, WorkerId, v1};

/// The most slots that a worker may offer: more than any machine has.
const MAX_SLOTS: u32 = 4096;
/// The longest address or version, in bytes.
const MAX_TEXT: usize = 256;

/// A checked hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The worker's protocol version.
    pub protocol: u32,
    /// The id of this incarnation of the worker.
    pub worker: WorkerId,
    /// The version of its program.
    pub version: String,
    /// Attempts at a time.
    pub slots: u32,
    /// Its memory limit, in bytes.
    pub memory_limit: u64,
    /// The address at which other workers fetch its outputs, `host:port`.
    pub flight_address: String,
    /// The highest epoch that welcomed it.
    pub epoch: u64,
    /// It wants to drain.
    pub draining: bool,
    /// Bytes of tables that one of its reduce tasks may use.
    pub reduce_table_bytes: u64,
}

/// A hello that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The protocol versions are incompatible.
    #[error(
        "the worker speaks protocol version {0}, this coordinator {OLDEST_PROTOCOL} to {PROTOCOL}: upgrade the older one"
    )]
    Protocol(u32),
    /// The id.
    #[error("the worker's id: {0}")]
    Id(#[from] BadMessage),
    /// The slots.
    #[error("the worker offers {}: offer 1 to {MAX_SLOTS}", counted(*.0, "slot"))]
    Slots(u32),
    /// The address.
    #[error("the worker's Flight address {0:?} is not host:port")]
    Address(String),
    /// The version's text.
    #[error("the worker's version is longer than {MAX_TEXT} bytes")]
    Version,
}

impl TryFrom<v1::Hello> for Hello {
    type Error = HelloError;

    fn try_from(hello: v1::Hello) -> Result<Self, HelloError> {
        if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&hello.protocol) {
            return Err(HelloError::Protocol(hello.protocol));
        }
        let worker = WorkerId::parse(&hello.worker).map_err(BadMessage::from)?;
        if !(1..=MAX_SLOTS).contains(&hello.slots) {
            return Err(HelloError::Slots(hello.slots));
        }
        if !is_host_port(&hello.flight_address) {
            return Err(HelloError::Address(hello.flight_address.chars().take(80).collect()));
        }
        if hello.version.len() > MAX_TEXT {
            return Err(HelloError::Version);
        }
        Ok(Hello {
            protocol: hello.protocol,
            worker,
            version: hello.version,
            slots: hello.slots,
            memory_limit: hello.memory_limit,
            flight_address: hello.flight_address,
            epoch: hello.epoch,
            draining: hello.draining,
            reduce_table_bytes: hello.reduce_table_bytes,
        })
    }
}

fn is_host_port(text: &str) -> bool {
    if text.len() > MAX_TEXT {
        return false;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    match text.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && plain(host) && port.parse::<u16>().is_ok_and(|p| p != 0),
        None => false,
    }
}
