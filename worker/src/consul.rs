//! Which Consul, under which keys, and who leads according to it.
//!
//! One handle a process, with one watch of the leader's key that all share. Not here: Consul's API
//! (`consul-api-client`), who becomes leader (the coordinator's `election`), who is registered
//! (`membership`).

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use consul_api_client::{Client, Config, Error, KvPair, SessionId, Tls, Token, WatchOptions};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// For one call. A session lives for 10 s: what answers later than this answers too late.
const CALL: Duration = Duration::from_secs(3);
/// How long whoever looks for the leader waits for Consul's first word.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How Consul is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct ConsulArgs {
    /// Consul, for the cluster's members and its leader: the URL of an agent [env: TALLY_CONSUL]
    #[arg(long, help_heading = "Consul", value_name = "URL")]
    pub consul: Option<String>,
    /// File with the ACL token for Consul [default: CONSUL_HTTP_TOKEN in the environment]
    #[arg(long, help_heading = "Consul", value_name = "FILE")]
    pub consul_token_file: Option<PathBuf>,
    /// Authorities that Consul's certificate is checked against, as PEM [default: the system's]
    #[arg(long, help_heading = "Consul", value_name = "FILE")]
    pub consul_ca_file: Option<PathBuf>,
    /// Certificate that is shown to Consul, as PEM
    #[arg(long, help_heading = "Consul", value_name = "FILE", requires = "consul_key")]
    pub consul_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, help_heading = "Consul", value_name = "FILE", requires = "consul_cert")]
    pub consul_key: Option<PathBuf>,
    /// Folder of the cluster's keys in Consul: one for each cluster
    #[arg(long, help_heading = "Consul", value_name = "PATH", default_value = "tally")]
    pub consul_prefix: String,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

impl ConsulArgs {
    /// Whether Consul was named, by the flag or by `TALLY_CONSUL`.
    pub fn is_named(&self) -> bool {
        self.consul.is_some() || variable("TALLY_CONSUL").is_some()
    }

    /// The handle; `None` where no Consul was named. Reads files, connects to nothing yet.
    ///
    /// # Errors
    /// A file cannot be read, or the settings make no sense; the text names them.
    pub fn open(&self) -> Result<Option<Consul>, Error> {
        let Some(address) = self.consul.clone().or_else(|| variable("TALLY_CONSUL")) else { return Ok(None) };
        let token = match &self.consul_token_file {
            Some(file) => Some(Token::from_file(file)?),
            None => variable("CONSUL_HTTP_TOKEN").map(|text| Token::new(&text)).transpose()?,
        };
        let tls = Tls {
            ca_file: self.consul_ca_file.clone(),
            client_cert: self.consul_cert.clone(),
            client_key: self.consul_key.clone(),
        };
        let config = Config {
            token,
            tls,
            connect_timeout: CALL,
            request_timeout: CALL,
            ..Config::new(address.trim())
        };
        Ok(Some(Consul::new(Client::new(&config)?, &self.consul_prefix)))
    }
}

/// The value of the leader's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The coordinator.
    pub id: String,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Its term; 0 until it has claimed one.
    pub epoch: u64,
}

/// What is known of the leader's key.
#[derive(Debug, Clone, Default)]
pub struct LeaderView {
    /// The session that holds it.
    pub holder: Option<SessionId>,
    /// Its value, if somebody holds it.
    pub leader: Option<LeaderRecord>,
    /// Consul has answered, now or before.
    pub known: bool,
    /// Why it does not answer now. What is known is what it said last.
    pub trouble: Option<String>,
}

/// A cluster's keys in Consul. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Consul(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    prefix: String,
    leader: OnceLock<watch::Receiver<LeaderView>>,
}

impl Consul {
    /// The cluster whose keys lie under `prefix`.
    pub fn new(client: Client, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/').to_string();
        Consul(Arc::new(Inner { client, prefix, leader: OnceLock::new() }))
    }

    /// Consul itself.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// A key of this cluster.
    pub fn key(&self, name: &str) -> String {
        match self.0.prefix.as_str() {
            "" => name.to_string(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    /// The key that the leader holds.
    pub fn leader_key(&self) -> String {
        self.key("leader")
    }

    /// Who leads, now and after each change. The first call starts the watch that all share; it
    /// ends with the last clone of the handle.
    pub fn leader(&self) -> watch::Receiver<LeaderView> {
        let start = || {
            let (sender, receiver) = watch::channel(LeaderView::default());
            let changes = self.client().watch_key(&self.leader_key(), WatchOptions::default());
            tokio::spawn(pass_on(changes, sender));
            receiver
        };
        self.0.leader.get_or_init(start).clone()
    }

    /// Where the leader is reached, as far as Consul says, or said before it went away.
    ///
    /// # Errors
    /// A sentence: nobody leads, or Consul does not answer.
    pub async fn leader_address(&self) -> Result<String, String> {
        let mut view = self.leader();
        let word = view.wait_for(|view| view.known || view.trouble.is_some());
        let view = match tokio::time::timeout(FIRST_WORD, word).await {
            Ok(Ok(view)) => view.clone(),
            _ => return Err(format!("no answer within {} s", FIRST_WORD.as_secs())),
        };
        match (view.leader, view.trouble) {
            (Some(leader), _) => Ok(leader.address),
            (None, Some(trouble)) => Err(trouble),
            (None, None) => Err(format!("nobody holds the key {}: no coordinator leads", self.leader_key())),
        }
    }
}

impl Consul {
    /// Waits until somebody leads whose address is not `old`; gives that address.
    pub async fn leader_but(&self, old: impl Fn(&str) -> bool) -> String {
        let mut view = self.leader();
        loop {
            let address = view.borrow_and_update().leader.as_ref().map(|leader| leader.address.clone());
            if let Some(address) = address.filter(|address| !old(address)) {
                return address;
            }
            if view.changed().await.is_err() {
                // The watch ends with the runtime only.
                return std::future::pending().await;
            }
        }
    }
}

async fn pass_on(mut changes: consul_api_client::Changes<Option<KvPair>>, sender: watch::Sender<LeaderView>) {
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            () = sender.closed() => return,
        };
        match change {
            Some(Ok(pair)) => drop(sender.send_replace(LeaderView::of(pair))),
            Some(Err(error)) => sender.send_modify(|view| {
                if view.trouble.is_none() {
                    tracing::warn!(%error, "who leads cannot be watched; trying again");
                }
                view.trouble = Some(error.to_string());
            }),
            None => return,
        }
    }
}

impl LeaderView {
    /// What the key says. One that nobody holds keeps the value of its last holder, and says
    /// nothing.
    pub fn of(pair: Option<KvPair>) -> Self {
        let held = pair.filter(|pair| pair.session.is_some());
        let leader = held.as_ref().and_then(|pair| {
            let record = serde_json::from_slice(&pair.value);
            record.inspect_err(|error| tracing::warn!(key = pair.key, %error, "not a leader's record")).ok()
        });
        LeaderView { holder: held.and_then(|pair| pair.session), leader, known: true, trouble: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(value: &str, held: bool) -> Option<KvPair> {
        let session = SessionId::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap();
        Some(KvPair {
            key: "tally/leader".into(),
            value: value.to_string().into(),
            flags: 0,
            create_index: 1,
            modify_index: 1,
            lock_index: 1,
            session: held.then_some(session),
        })
    }

    #[test]
    fn only_a_held_key_names_the_leader() {
        let record = r#"{"id":"c-1","address":"127.0.0.1:7070","epoch":3,"later":"fields are fine"}"#;
        let view = LeaderView::of(pair(record, true));
        let expect = LeaderRecord { id: "c-1".into(), address: "127.0.0.1:7070".into(), epoch: 3 };
        assert_eq!(view.leader, Some(expect));
        assert!(LeaderView::of(pair(record, false)).leader.is_none());
        let odd = LeaderView::of(pair("nonsense", true));
        assert!(odd.leader.is_none() && odd.holder.is_some());
        assert!(LeaderView::of(None).known);
    }

    #[test]
    fn keys_lie_under_the_prefix() {
        let client = Client::new(&Config::default()).unwrap();
        let key = |prefix: &str| Consul::new(client.clone(), prefix).leader_key();
        assert_eq!(key("tally"), "tally/leader");
        assert_eq!(key("/teams/a/"), "teams/a/leader");
        assert_eq!(key(""), "leader");
    }
}
