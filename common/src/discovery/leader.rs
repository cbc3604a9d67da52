//! Finds the leader: tries the known coordinators until one of them leads.
//!
//! Workers and commands take the [`Leader::next`] coordinator, send their request, and report the result with
//! [`Leader::leads`] or [`Leader::refused`]. Not here: the requests, and how long a search may take.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tally_proto::LEADER_METADATA;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::discovery::consul::{Consul, LeaderUnknown};
use crate::retry::{Retries, RetryPolicy};
use crate::security::{Dialer, Role};

/// The time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of HTTP/2 pings, and the time limit for their answers.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The pauses between rounds. Their random part keeps many clients from asking at the same moment.
const ROUNDS: RetryPolicy =
    RetryPolicy::doubling(Duration::from_millis(100), Duration::from_secs(2)).with_jitter(0.5);

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: write host:port, for example 127.0.0.1:7070")]
pub struct InvalidAddress(String);

impl InvalidAddress {
    /// Shows at most 80 characters, and not the text before an `@`, which may be a password.
    pub(crate) fn new(text: &str) -> Self {
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        InvalidAddress(shown.chars().take(80).collect())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Parses `host:port`, with or without `http://` before it.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let bad = || InvalidAddress::new(text);
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = bare.rsplit_once(':').ok_or_else(bad)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let named =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let port = port.parse::<u16>().map_err(|_| bad())?;
        if port == 0 || !(bracketed || named) {
            return Err(bad());
        }
        let address = format!("{host}:{port}");
        Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
        Ok(Address(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The source of the coordinators' addresses.
#[derive(Debug, Clone)]
pub enum Source {
    /// A list from the user.
    Listed(Vec<Address>),
    /// Consul, which names the leader.
    Consul(Consul),
}

impl Source {
    /// The current coordinators, in the order in which they are tried.
    async fn coordinators(&self) -> Result<Vec<Address>, LookupError> {
        match self {
            Source::Listed(addresses) => Ok(addresses.clone()),
            Source::Consul(consul) => {
                let address = consul.leader_address().await?;
                Ok(vec![address.parse::<Address>()?])
            }
        }
    }

    /// The name of the source in errors.
    fn name(&self) -> String {
        match self {
            Source::Listed(_) => "the list of coordinators".into(),
            Source::Consul(consul) => format!("Consul at {}", consul.client().address()),
        }
    }
}

/// Why a source names no coordinators.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error(transparent)]
    Unknown(#[from] LeaderUnknown),
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

/// Why a coordinator cannot be reached.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("{}", reason(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
}

impl ConnectError {
    /// Whether the handshake failed: it fails again until someone changes certificates or options.
    fn is_handshake(&self) -> bool {
        matches!(self, ConnectError::Transport(error) if is_handshake(error))
    }
}

/// Whether a cause is invalid data, which rustls reports for certificates and for peers without TLS.
fn is_handshake(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// A coordinator that accepts connections, and may lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its address.
    pub address: Address,
    /// The connection to it.
    pub channel: Channel,
}

/// No coordinator of a round leads.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no leading coordinator: {}", list(.tried))]
pub struct NoLeader {
    /// Each coordinator that was tried, and the result.
    pub tried: Vec<(String, String)>,
    /// Each of them was reached, and no handshake succeeded: other options or certificates are needed.
    pub handshakes_failed: bool,
}

fn list(tried: &[(String, String)]) -> String {
    let each: Vec<_> = tried.iter().map(|(address, why)| format!("{address}: {why}")).collect();
    if each.is_empty() { "no address is known".into() } else { each.join("; ") }
}

/// Finds the leader among the coordinators that a source knows.
#[derive(Debug)]
pub struct Leader {
    source: Source,
    dialer: Dialer,
    /// The last leader, which is tried in each round.
    last: Option<Address>,
    /// The leader that Consul named at the start of the round.
    named: Option<Address>,
    /// The coordinators of this round that are not tried yet, and the results of the others.
    round: Option<VecDeque<Address>>,
    tried: Vec<(String, String)>,
    /// Those of `tried` whose handshake failed.
    handshakes: usize,
    pauses: Retries,
}

impl Leader {
    /// A search that has not started.
    pub fn new(source: Source, dialer: Dialer) -> Self {
        let (tried, pauses) = (vec![], ROUNDS.start());
        Leader { source, dialer, last: None, named: None, round: None, tried, handshakes: 0, pauses }
    }

    /// The next coordinator of this round that accepts a connection. The caller reports the result of its request.
    ///
    /// # Errors
    /// [`NoLeader`] at the end of a round, with all coordinators that were tried. The next call starts another round, so
    /// call [`Leader::pause`] first.
    pub async fn next(&mut self) -> Result<Candidate, NoLeader> {
        if self.round.is_none() {
            self.begin().await;
        }
        while let Some(address) = self.round.as_mut().and_then(VecDeque::pop_front) {
            match connect(&self.dialer, &address).await {
                Ok(channel) => return Ok(Candidate { address, channel }),
                Err(why) => {
                    self.handshakes += usize::from(why.is_handshake());
                    self.tried.push((address.to_string(), why.to_string()));
                }
            }
        }
        self.round = None;
        let tried = std::mem::take(&mut self.tried);
        let handshakes_failed = !tried.is_empty() && std::mem::take(&mut self.handshakes) == tried.len();
        Err(NoLeader { tried, handshakes_failed })
    }

    async fn begin(&mut self) {
        let known = self.source.coordinators().await.unwrap_or_else(|why| {
            self.tried.push((self.source.name(), why.to_string()));
            vec![]
        });
        let mut round: VecDeque<Address> = known.into();
        self.named = round.front().filter(|_| matches!(self.source, Source::Consul(_))).cloned();
        if let Some(last) = &self.last {
            // Consul decides which coordinator leads. In a list, the last leader is the most likely one.
            let place = usize::from(self.named.as_ref().is_some_and(|named| named != last));
            round.retain(|address| address != last);
            round.insert(place, last.clone());
        }
        self.round = Some(round);
    }

    /// Reports that this coordinator leads. The next search tries it first.
    pub fn leads(&mut self, candidate: &Candidate) {
        self.last = Some(candidate.address.clone());
        self.round = None;
        self.tried.clear();
        self.handshakes = 0;
        self.pauses.reset();
    }

    /// Reports that this coordinator answered with `status`. Returns whether to continue the search: the coordinator does
    /// not lead or is not available, and the status is not about the request itself. If the status names the leader, that
    /// one is tried next.
    pub fn refused(&mut self, candidate: &Candidate, status: &Status) -> bool {
        if !another_may_answer(status) {
            return false;
        }
        self.last.take_if(|last| *last == candidate.address);
        self.handshakes += usize::from(std::error::Error::source(status).is_some_and(is_other_protocol));
        self.tried.push((candidate.address.to_string(), why(status)));
        let tried = |address: &Address| self.tried.iter().any(|(other, _)| *other == address.0);
        if let Some(hint) = leader_named(status).filter(|hint| !tried(hint)) {
            match &mut self.round {
                Some(round) => {
                    round.retain(|address| *address != hint);
                    round.push_front(hint);
                }
                None => self.last = Some(hint),
            }
        }
        true
    }

    /// The answer of a candidate, unless Consul names another leader first, so that clients abandon a hung leader. Then
    /// the status is a refusal that names the new leader.
    pub fn unless_succeeded<T>(
        &self,
        candidate: &Candidate,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        let consul = match &self.source {
            Source::Consul(consul) => Some(consul.clone()),
            Source::Listed(_) => None,
        };
        // The watch may be older than the hint of the coordinator that named this candidate.
        let old = [Some(candidate.address.to_string()), self.named.as_ref().map(Address::to_string)];
        async move {
            let other = async {
                match consul {
                    Some(consul) => {
                        consul.leader_other_than(|address| old.iter().flatten().any(|it| it == address)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = answer => answer,
                other = other => Err(succeeded_by(&other)),
            }
        }
    }

    /// Waits between two rounds, longer each time and with a random part.
    pub async fn pause(&mut self) {
        self.pauses.wait().await;
    }
}

/// The status of a leader that knows its successor.
fn succeeded_by(other: &str) -> Status {
    let mut status = Status::unavailable(format!("Consul names {other} as the new leader"));
    if let Ok(other) = other.parse() {
        status.metadata_mut().insert(LEADER_METADATA, other);
    }
    status
}

/// Whether another coordinator, or the same one later, may accept the request.
fn another_may_answer(status: &Status) -> bool {
    // Only a status of a broken connection has a cause; one that a coordinator sent has none.
    let broken = std::error::Error::source(status).is_some();
    broken || matches!(status.code(), Code::FailedPrecondition | Code::Unavailable | Code::DeadlineExceeded)
}

/// Whether the peer of a broken connection does not speak HTTP/2 without TLS: the bytes of a TLS alert are a frame of
/// invalid size.
fn is_other_protocol(broken: &(dyn Error + 'static)) -> bool {
    causes(broken).any(|cause| cause.to_string().contains("frame with invalid size"))
}

/// Why there was no answer, for display: the message of the coordinator, or why the connection broke.
pub fn why(status: &Status) -> String {
    match (std::error::Error::source(status), status.message()) {
        (Some(broken), _) if is_other_protocol(broken) => "it does not answer without TLS".into(),
        (Some(broken), _) => reason(broken),
        (None, "") => status.code().to_string(),
        (None, said) => said.to_string(),
    }
}

/// The leader that a refusal names.
fn leader_named(status: &Status) -> Option<Address> {
    status.metadata().get(LEADER_METADATA)?.to_str().ok()?.parse().ok()
}

async fn connect(dialer: &Dialer, address: &Address) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    // Includes the time of the name lookup.
    match tokio::time::timeout(CONNECT_TIMEOUT, dialer.connect(&endpoint, Role::Coordinator)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// The innermost cause: the outer ones only say that there is an error.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A listener that only accepts connections.
    fn listen() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        (listener, address)
    }

    fn stands_by(leader: Option<&Address>) -> Status {
        let mut status = Status::failed_precondition("stands by");
        if let Some(leader) = leader {
            status.metadata_mut().insert(LEADER_METADATA, leader.to_string().parse().unwrap());
        }
        status
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for good in ["a:7070", "127.0.0.1:1", "[::1]:7070", "http://tally-0.tally.ns.svc:7070/"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in ["", "a", ":7070", "a:0", "a:99999", "https://a:1", "a/b:1", "user@a:1", "a b:1"] {
            assert!(bad.parse::<Address>().unwrap_err().to_string().contains("host:port"), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_round_follows_the_hint_once_and_names_all_it_tried() {
        let ((_a, first), (_b, second), (_c, third)) = (listen(), listen(), listen());
        let (closed, unreachable) = listen();
        drop(closed);
        let listed = vec![unreachable.clone(), first.clone(), second.clone(), third.clone()];
        let mut leader = Leader::new(Source::Listed(listed), Dialer::plain());
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, first);
        assert!(leader.refused(&found, &stands_by(Some(&third))));
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, third, "the hint comes before its turn");
        assert!(leader.refused(&found, &stands_by(Some(&first))));
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, second, "a coordinator is asked once per round");
        assert!(leader.refused(&found, &stands_by(None)));
        let error = leader.next().await.unwrap_err().to_string();
        for tried in [unreachable, first, second, third] {
            assert!(error.contains(&tried.to_string()), "{tried} in {error}");
        }
        assert!(leader.next().await.is_ok(), "another round begins");
    }

    #[tokio::test]
    async fn the_last_leader_is_asked_first_until_it_refuses() {
        let ((_a, first), (_b, second)) = (listen(), listen());
        let mut leader = Leader::new(Source::Listed(vec![first.clone(), second.clone()]), Dialer::plain());
        let found = leader.next().await.unwrap();
        assert!(leader.refused(&found, &stands_by(None)));
        let found = leader.next().await.unwrap();
        leader.leads(&found);
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, second);
        assert!(leader.refused(&found, &Status::unavailable("closed")));
        assert!(!leader.refused(&found, &Status::invalid_argument("nonsense")), "its own answer");
        assert_eq!(leader.next().await.unwrap().address, first);
    }
}
