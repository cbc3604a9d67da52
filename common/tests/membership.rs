//! Registration in a real Consul: as services that the agent checks, or as keys of a session; maintenance mode, and a
//! Consul that loses its data.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use consul_api_client::{CheckStatus, Client, Config, KvPair, ServiceHealth, Token, Which};
use serde_json::json;
use tally_common::discovery::consul::Consul;
use tally_common::discovery::membership::{Kind, Member, Membership, Registration};
use tally_tests::consul::{ConsulAgent, Setup, closed};
use tally_tests::wait::eventually;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const DEADLINE: Duration = Duration::from_secs(60);
const NAME: &str = "teams-a-worker";
const KEY: &str = "teams/a/workers/w-1";

fn consul(agent: &ConsulAgent) -> Result<Consul> {
    Ok(Consul::new(Client::new(&Config::new(agent.address()))?, "teams/a"))
}

/// A server with the standard health service, which runs as long as the task.
async fn process() -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health).serve_with_incoming(TcpIncoming::from(listener));
    let task = tokio::spawn(async move {
        let _ = server.await;
    });
    Ok((address, task))
}

fn member(address: &str) -> Member {
    let facts = BTreeMap::from([("version".to_string(), "0.1.0".to_string())]);
    Member { kind: Kind::Worker, id: "w-1".into(), address: address.into(), facts, tls: false }
}

/// The service, once it has this status; `None` once it is deregistered.
async fn service(consul: &Consul, status: Option<CheckStatus>) -> Result<Option<ServiceHealth>> {
    eventually(&format!("{status:?}"), || async {
        // Consul may be starting.
        let Ok(found) = consul.client().health().service(NAME, Which::All).await else { return Ok(None) };
        let found = found.into_iter().next();
        Ok((found.as_ref().map(ServiceHealth::status) == status).then_some(found))
    })
    .await
}

async fn key(consul: &Consul) -> Result<Option<KvPair>> {
    Ok(consul.client().kv().get(KEY).await?.filter(|pair| pair.session.is_some()))
}

async fn the_agent_checks_a_process_until_it_leaves() -> Result<()> {
    let mut agent = ConsulAgent::start(Setup::default())?;
    let consul = consul(&agent)?;
    let (address, task) = process().await?;
    let membership = Membership::join(consul.clone(), member(&address), None);
    let found = service(&consul, Some(CheckStatus::Passing)).await?.context("no service")?;
    assert_eq!(found.address(), address);
    assert_eq!((found.service.id.as_str(), found.service.meta["id"].as_str()), ("teams-a-worker-w-1", "w-1"));
    assert_eq!(found.service.meta["version"], "0.1.0");

    // A -dev agent restarts without data.
    agent.restart()?;
    service(&consul, Some(CheckStatus::Passing)).await?;
    task.abort();
    // The port is closed, but open connections may remain.
    let ended = timeout(DEADLINE, task).await?;
    ensure!(ended.is_err_and(|e| e.is_cancelled()));
    service(&consul, Some(CheckStatus::Critical)).await?;
    membership.leave().await;
    service(&consul, None).await?;
    Ok(())
}

async fn maintenance_mode_and_its_end_are_noticed() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let consul = consul(&agent)?;
    let (address, _task) = process().await?;
    let membership = Membership::join(consul.clone(), member(&address), Some(Registration::Agent));
    let mut maintenance = membership.maintenance();
    service(&consul, Some(CheckStatus::Passing)).await?;
    assert!(!*maintenance.borrow());
    for on in [true, false] {
        assert!(consul.client().agent().maintenance("teams-a-worker-w-1", on, "upgrade").await?);
        timeout(DEADLINE, maintenance.wait_for(|now| *now == on)).await??;
    }
    Ok(())
}

/// Why the docs list the rule for nodes: Consul omits their checks from its answer if the token may not read them.
async fn maintenance_of_a_node_is_seen_with_the_permission_to_read_nodes() -> Result<()> {
    let setup = Setup { config: closed(MASTER), token: Some(MASTER.into()), ..Setup::default() };
    let agent = ConsulAgent::start(setup)?;
    agent.put("/v1/agent/maintenance?enable=true&reason=upgrade")?;
    let rules = r#"agent_prefix "" { policy = "read" } service_prefix "teams-a-" { policy = "write" }"#;
    let nodes = r#"node_prefix "" { policy = "read" }"#;
    for (name, rules, seen) in [("without", rules, false), ("with", &format!("{rules} {nodes}"), true)] {
        let token = agent.make_token(name, rules)?;
        let config = Config { token: Some(Token::new(&token.secret)?), ..Config::new(agent.address()) };
        let checks = Client::new(&config)?.agent().checks("teams-a-worker-w-1").await?;
        assert_eq!(checks.iter().any(|check| check.is_maintenance()), seen, "{name}: {checks:?}");
    }
    Ok(())
}

async fn a_key_exists_while_the_process_runs() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let consul = consul(&agent)?;
    let membership = Membership::join(consul.clone(), member("127.0.0.1:7171"), Some(Registration::Kv));
    let first = eventually("a key", || key(&consul)).await?;
    let value: serde_json::Value = serde_json::from_slice(&first.value)?;
    assert_eq!(value, json!({ "id": "w-1", "address": "127.0.0.1:7171", "version": "0.1.0" }));
    assert!(consul.client().health().service(NAME, Which::All).await?.is_empty());

    let session = first.session.context("no session")?;
    consul.client().sessions().destroy(&session).await?;
    let again = eventually("the key again", || async {
        Ok(key(&consul).await?.filter(|pair| pair.session.as_ref() != Some(&session)))
    });
    again.await?;
    membership.leave().await;
    assert!(consul.client().kv().get(KEY).await?.is_none());
    Ok(())
}

/// A request to Consul with the master token.
fn put(agent: &ConsulAgent, path: &str, body: &serde_json::Value) -> Result<()> {
    let mut stream = TcpStream::connect(agent.address())?;
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "PUT {path} HTTP/1.0\r\nX-Consul-Token: {MASTER}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    Ok(())
}

const MASTER: &str = "00000000-1111-2222-3333-444444444444";

async fn without_permission_for_the_agent_a_key_is_registered() -> Result<()> {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": { "master": MASTER } } });
    let setup = Setup { config: acl, token: Some(MASTER.into()), ..Setup::default() };
    let agent = ConsulAgent::start(setup)?;
    let rules = r#"key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }"#;
    put(&agent, "/v1/acl/policy", &json!({ "Name": "keys", "Rules": rules }))?;
    let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    put(&agent, anonymous, &json!({ "Policies": [{ "Name": "keys" }] }))?;
    let consul = consul(&agent)?;
    let membership = Membership::join(consul.clone(), member("127.0.0.1:7171"), None);
    eventually("a key", || key(&consul)).await?;
    membership.leave().await;
    Ok(())
}

tally_tests::tests![
    async:
    the_agent_checks_a_process_until_it_leaves,
    maintenance_mode_and_its_end_are_noticed,
    maintenance_of_a_node_is_seen_with_the_permission_to_read_nodes,
    a_key_exists_while_the_process_runs,
    without_permission_for_the_agent_a_key_is_registered,
];
