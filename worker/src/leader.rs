//! Where the leading coordinator is: goes over the coordinators that are known until one leads.
//!
//! Used by workers and by the commands alike: take the [`Leader::next`] coordinator, ask it, and
//! tell what it answered ([`Leader::leads`], [`Leader::refused`]). Not here: what it is asked, and
//! how long it is worth while to go on.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tally_proto::LEADER_METADATA;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::consul::Consul;
use crate::security::{Dialer, Role};

/// The longest that a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 pings, and how long their answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The first pause between two rounds, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: write host:port, for example 127.0.0.1:7070")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Takes `host:port`; a leading `http://` does no harm.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let bad = || InvalidAddress(text.chars().take(80).collect());
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

/// Who knows the coordinators.
#[derive(Debug, Clone)]
pub enum Source {
    /// The user listed them.
    Listed(Vec<Address>),
    /// Consul names the one that leads.
    Consul(Consul),
}

impl Source {
    /// The coordinators to try, in the order to try them, as of now.
    async fn coordinators(&self) -> Result<Vec<Address>, String> {
        match self {
            Source::Listed(addresses) => Ok(addresses.clone()),
            Source::Consul(consul) => {
                let address = consul.leader_address().await?;
                Ok(vec![address.parse().map_err(|e: InvalidAddress| e.to_string())?])
            }
        }
    }

    /// What it is called where it does not know anybody.
    fn name(&self) -> String {
        match self {
            Source::Listed(_) => "the list of coordinators".into(),
            Source::Consul(consul) => format!("Consul at {}", consul.client().address()),
        }
    }
}

/// A coordinator that can be reached.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is.
    pub address: Address,
    /// The connection to it.
    pub channel: Channel,
}

/// No coordinator that was tried in a round is known to lead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no leading coordinator: {}", list(.tried))]
pub struct NoLeader {
    /// Each that was tried, and what became of it.
    pub tried: Vec<(String, String)>,
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
    /// Who led last: asked in the next round, whoever else is known.
    last: Option<Address>,
    /// Whom Consul named when the round began.
    named: Option<Address>,
    /// The round that runs: who is still to be tried, and who was.
    round: Option<VecDeque<Address>>,
    tried: Vec<(String, String)>,
    pause: Duration,
}

impl Leader {
    /// A finder that has looked nowhere yet.
    pub fn new(source: Source, dialer: Dialer) -> Self {
        Leader { source, dialer, last: None, named: None, round: None, tried: vec![], pause: PAUSES[0] }
    }

    /// The next coordinator of this round that can be reached. Whoever asks it says what came of it.
    ///
    /// # Errors
    /// [`NoLeader`] at the end of a round, with everybody who was tried; the next call begins
    /// another, so [`Leader::pause`] before it.
    pub async fn next(&mut self) -> Result<Found, NoLeader> {
        if self.round.is_none() {
            self.begin().await;
        }
        while let Some(address) = self.round.as_mut().and_then(VecDeque::pop_front) {
            match connect(&self.dialer, &address).await {
                Ok(channel) => return Ok(Found { address, channel }),
                Err(why) => self.tried.push((address.to_string(), why)),
            }
        }
        self.round = None;
        Err(NoLeader { tried: std::mem::take(&mut self.tried) })
    }

    async fn begin(&mut self) {
        let known = self.source.coordinators().await.unwrap_or_else(|why| {
            self.tried.push((self.source.name(), why));
            vec![]
        });
        let mut round: VecDeque<Address> = known.into();
        self.named = round.front().filter(|_| matches!(self.source, Source::Consul(_))).cloned();
        if let Some(last) = &self.last {
            // Who leads is Consul's to say; of a list, whoever led last is the likeliest.
            let place = usize::from(self.named.as_ref().is_some_and(|named| named != last));
            round.retain(|address| address != last);
            round.insert(place, last.clone());
        }
        self.round = Some(round);
    }

    /// This one leads: it comes first whenever a leader is looked for again.
    pub fn leads(&mut self, found: &Found) {
        self.last = Some(found.address.clone());
        self.round = None;
        self.tried.clear();
        self.pause = PAUSES[0];
    }

    /// This one answered with `status`. Says whether looking on is of use: the answer is that it
    /// does not lead, or is gone, and nothing about the request itself. Where the answer names the
    /// leader, that one is tried next.
    pub fn refused(&mut self, found: &Found, status: &Status) -> bool {
        if !another_may_answer(status) {
            return false;
        }
        self.last.take_if(|last| *last == found.address);
        self.tried.push((found.address.to_string(), why(status)));
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

    /// What `found` answers, unless Consul names another leader meanwhile: one that hangs need not be waited for. Then
    /// the status is a refusal that names the other.
    pub fn unless_succeeded<T>(
        &self,
        found: &Found,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        let consul = match &self.source {
            Source::Consul(consul) => Some(consul.clone()),
            Source::Listed(_) => None,
        };
        // What the watch says may be older than what a coordinator said, which sent us here.
        let old = [Some(found.address.to_string()), self.named.as_ref().map(Address::to_string)];
        async move {
            let other = async {
                match consul {
                    Some(consul) => {
                        consul.leader_but(|address| old.iter().flatten().any(|it| it == address)).await
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

    /// Waits between two rounds: longer each time, and never quite as long as others wait.
    pub async fn pause(&mut self) {
        let most = self.pause.as_millis() as u64;
        let millis = rand::random_range(most / 2..=most);
        self.pause = (self.pause * 2).min(PAUSES[1]);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// What a leader would say that knew who succeeded it.
fn succeeded_by(other: &str) -> Status {
    let mut status = Status::unavailable(format!("Consul names {other} as the leader by now"));
    if let Ok(other) = other.parse() {
        status.metadata_mut().insert(LEADER_METADATA, other);
    }
    status
}

/// Whether another coordinator, or the same one later, may answer the same request otherwise.
fn another_may_answer(status: &Status) -> bool {
    // Only what this side saw of a broken connection has a cause; what came over it has none.
    let broken = std::error::Error::source(status).is_some();
    broken || matches!(status.code(), Code::FailedPrecondition | Code::Unavailable | Code::DeadlineExceeded)
}

/// Why there was no answer, for people: what the other side said, or what broke the way to it.
pub fn why(status: &Status) -> String {
    match (std::error::Error::source(status), status.message()) {
        (Some(broken), _) => reason(broken),
        (None, "") => status.code().to_string(),
        (None, said) => said.to_string(),
    }
}

/// Who leads, according to a refusal.
fn leader_named(status: &Status) -> Option<Address> {
    status.metadata().get(LEADER_METADATA)?.to_str().ok()?.parse().ok()
}

async fn connect(dialer: &Dialer, address: &Address) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| reason(&e))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    // The name's look-up counts as well.
    match tokio::time::timeout(CONNECT_TIMEOUT, dialer.connect(&endpoint, Role::Coordinator)).await {
        Ok(connected) => connected.map_err(|e| reason(&e)),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// The innermost cause: the outer ones only say that there was an error.
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

    /// Somebody who can be reached, and nothing more.
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
    async fn a_round_follows_the_hint_once_and_names_everybody_it_tried() {
        let ((_a, first), (_b, second), (_c, third)) = (listen(), listen(), listen());
        let (gone, nobody) = listen();
        drop(gone);
        let listed = vec![nobody.clone(), first.clone(), second.clone(), third.clone()];
        let mut leader = Leader::new(Source::Listed(listed), Dialer::plain());
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, first);
        assert!(leader.refused(&found, &stands_by(Some(&third))));
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, third, "the hint comes before its turn");
        assert!(leader.refused(&found, &stands_by(Some(&first))));
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, second, "who refused is not asked twice in a round");
        assert!(leader.refused(&found, &stands_by(None)));
        let error = leader.next().await.unwrap_err().to_string();
        for tried in [nobody, first, second, third] {
            assert!(error.contains(&tried.to_string()), "{tried} in {error}");
        }
        assert!(leader.next().await.is_ok(), "another round begins");
    }

    #[tokio::test]
    async fn who_led_is_asked_first_until_it_refuses() {
        let ((_a, first), (_b, second)) = (listen(), listen());
        let mut leader = Leader::new(Source::Listed(vec![first.clone(), second.clone()]), Dialer::plain());
        let found = leader.next().await.unwrap();
        assert!(leader.refused(&found, &stands_by(None)));
        let found = leader.next().await.unwrap();
        leader.leads(&found);
        let found = leader.next().await.unwrap();
        assert_eq!(found.address, second);
        assert!(leader.refused(&found, &Status::unavailable("gone")));
        assert!(!leader.refused(&found, &Status::invalid_argument("nonsense")), "its own answer");
        assert_eq!(leader.next().await.unwrap().address, first);
    }
}
