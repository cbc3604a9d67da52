//! The options of Consul, the cluster's keys in it, and the leader that it names.
//!
//! Each process has one handle, whose users share one watch of the leader's key. Not here: Consul's API
//! (`consul-api-client`), the election (the coordinator's `election`), registration (`membership`).

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use consul_api_client::{Client, Config, Error, KvPair, SessionId, Tls, Token, WatchOptions};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::environment;
use crate::secrets;

/// The time limit of a call. A session lasts 10 s, so a later answer is useless.
const CALL: Duration = Duration::from_secs(3);
/// How long a search for the leader waits for Consul's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The options of Consul.
#[derive(Debug, Clone, Default, Args)]
pub struct ConsulArgs {
    /// Consul, for the cluster's members and its leader: the URL of an agent
    #[arg(long, help_heading = "Consul", value_name = "URL")]
    pub consul: Option<String>,
    /// File with the ACL token for Consul, read again when it changes [default: CONSUL_HTTP_TOKEN in the environment,
    /// which cannot be replaced while the process runs]
    #[arg(long, help_heading = "Consul", value_name = "FILE")]
    pub consul_token_file: Option<PathBuf>,
    /// Certificate authorities for Consul's certificate, as PEM, read again when it changes [default: those of the
    /// system]
    #[arg(long, help_heading = "Consul", value_name = "FILE")]
    pub consul_ca_file: Option<PathBuf>,
    /// Client certificate for Consul, as PEM; read again when it or its key changes
    #[arg(long, help_heading = "Consul", value_name = "FILE", requires = "consul_key")]
    pub consul_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, help_heading = "Consul", value_name = "FILE", requires = "consul_cert")]
    pub consul_key: Option<PathBuf>,
    /// Prefix of the cluster's keys in Consul, a different one for each cluster
    #[arg(long, help_heading = "Consul", value_name = "PATH", default_value = "tally")]
    pub consul_prefix: String,
    /// Namespace in Consul Enterprise
    #[arg(long, help_heading = "Consul", value_name = "NAME")]
    pub consul_namespace: Option<String>,
    /// Admin partition in Consul Enterprise
    #[arg(long, help_heading = "Consul", value_name = "NAME")]
    pub consul_partition: Option<String>,
}

impl ConsulArgs {
    /// The handle; `None` if the options name no Consul. Reads files, and opens no connection yet.
    ///
    /// # Errors
    /// A file cannot be read, or the settings contradict each other; the text names them.
    pub fn open(&self) -> Result<Option<Consul>, Error> {
        let Some(address) = self.consul.clone() else { return Ok(None) };
        let token_file = self.consul_token_file.clone();
        let token = self.token_variable().map(|text| Token::new(&text)).transpose()?;
        let tls = Tls {
            ca_file: self.consul_ca_file.clone(),
            client_cert: self.consul_cert.clone(),
            client_key: self.consul_key.clone(),
        };
        let config = Config {
            token,
            token_file,
            namespace: self.consul_namespace.clone(),
            partition: self.consul_partition.clone(),
            on_token: Some(|token| secrets::register_held("the token for Consul", [token])),
            tls,
            connect_timeout: CALL,
            request_timeout: CALL,
            ..Config::new(address.trim())
        };
        Ok(Some(Consul::new(Client::new(&config)?, &self.consul_prefix)))
    }

    /// The token of the environment, if no option names a file.
    fn token_variable(&self) -> Option<String> {
        environment::text("CONSUL_HTTP_TOKEN").filter(|_| self.consul_token_file.is_none())
    }
}

/// The value of the leader's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The coordinator.
    pub id: String,
    /// Its address: `host:port`.
    pub address: String,
    /// Its epoch; 0 until it has claimed one.
    pub epoch: u64,
}

/// Why Consul does not name a leader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderUnknown {
    /// Consul has not answered yet.
    #[error("no answer within {} s", FIRST_ANSWER.as_secs())]
    Timeout,
    /// Consul cannot be asked.
    #[error("{0}")]
    Consul(String),
    /// No session holds the key.
    #[error("no coordinator leads: no session holds the key {0}")]
    NoLeader(String),
}

/// The state of the leader's key.
#[derive(Debug, Clone, Default)]
pub struct LeaderView {
    /// The session that holds it.
    pub holder: Option<SessionId>,
    /// Its value, if a session holds it.
    pub leader: Option<LeaderRecord>,
    /// Whether Consul has answered at least once.
    pub known: bool,
    /// Why Consul does not answer now. The other fields are from its last answer.
    pub error: Option<String>,
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
    /// The cluster with the keys below `prefix`.
    pub fn new(client: Client, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/').to_string();
        Consul(Arc::new(Inner { client, prefix, leader: OnceLock::new() }))
    }

    /// The client of Consul.
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

    /// The leader, now and after each change. The first call starts the watch that all users share; it ends with the
    /// last clone of the handle.
    pub fn leader(&self) -> watch::Receiver<LeaderView> {
        let start = || {
            let (sender, receiver) = watch::channel(LeaderView::default());
            let changes = self.client().watch_key(&self.leader_key(), WatchOptions::default());
            tokio::spawn(pass_on(changes, sender));
            receiver
        };
        self.0.leader.get_or_init(start).clone()
    }

    /// The address of the leader according to Consul's last answer.
    ///
    /// # Errors
    /// [`LeaderUnknown`].
    pub async fn leader_address(&self) -> Result<String, LeaderUnknown> {
        let mut view = self.leader();
        let answer = view.wait_for(|view| view.known || view.error.is_some());
        let view = match tokio::time::timeout(FIRST_ANSWER, answer).await {
            Ok(Ok(view)) => view.clone(),
            _ => return Err(LeaderUnknown::Timeout),
        };
        match (view.leader, view.error) {
            (Some(leader), _) => Ok(leader.address),
            (None, Some(error)) => Err(LeaderUnknown::Consul(error)),
            (None, None) => Err(LeaderUnknown::NoLeader(self.leader_key())),
        }
    }
}

impl Consul {
    /// Waits for a leader whose address is not `old`, and returns that address.
    pub async fn leader_other_than(&self, old: impl Fn(&str) -> bool) -> String {
        let mut view = self.leader();
        loop {
            let address = view.borrow_and_update().leader.as_ref().map(|leader| leader.address.clone());
            if let Some(address) = address.filter(|address| !old(address)) {
                return address;
            }
            if view.changed().await.is_err() {
                // The watch ends only with the runtime.
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
                if view.error.is_none() {
                    tracing::warn!(%error, "the leader's key cannot be watched; trying again");
                }
                view.error = Some(error.to_string());
            }),
            None => return,
        }
    }
}

impl LeaderView {
    /// The view from a key. A key without a session still has the value of its last holder, which is ignored.
    pub fn of(pair: Option<KvPair>) -> Self {
        let held = pair.filter(|pair| pair.session.is_some());
        let leader = held.as_ref().and_then(|pair| {
            let record = serde_json::from_slice(&pair.value);
            record
                .inspect_err(
                    |error| tracing::warn!(key = pair.key, %error, "the leader's key has an invalid value"),
                )
                .ok()
        });
        LeaderView { holder: held.and_then(|pair| pair.session), leader, known: true, error: None }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{Command, FromArgMatches};
    use tally_tests::settings::{Shared, check_shared};

    use super::*;
    use crate::config;

    #[test]
    fn the_token_is_taken_from_the_first_source_that_has_it() {
        let shared = Shared {
            long: "consul-token-file",
            variables: &["CONSUL_HTTP_TOKEN"],
            prefix: "token-of-source-",
            default: None,
        };
        let test = "discovery::consul::tests::the_token_is_taken_from_the_first_source_that_has_it";
        check_shared(test, shared, |flags| {
            let command = ConsulArgs::augment_args(Command::new("program").arg(config::option()));
            let argv = [&[OsString::from("program")], flags].concat();
            let matches = config::parse(config::with_variables(command), &[], &argv).unwrap();
            let args = ConsulArgs::from_arg_matches(&matches).unwrap();
            let file = args.consul_token_file.as_ref().map(|file| file.display().to_string());
            assert!(file.is_none() || args.token_variable().is_none(), "both count");
            file.or_else(|| args.token_variable())
        });
    }

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
    fn keys_start_with_the_prefix() {
        let client = Client::new(&Config::default()).unwrap();
        let key = |prefix: &str| Consul::new(client.clone(), prefix).leader_key();
        assert_eq!(key("tally"), "tally/leader");
        assert_eq!(key("/teams/a/"), "teams/a/leader");
        assert_eq!(key(""), "leader");
    }
}
