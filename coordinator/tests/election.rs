//! Elections among candidates through a real Consul: which one leads, and what happens when a candidate or Consul fails,
//! and when a session expires. Not here: what a leader does.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use consul_api_client::{Client, Config, SessionId};
use tally_common::discovery::consul::{Consul, LeaderRecord};
use tally_common::discovery::leader::{Candidate, Leader, Source};
use tally_common::security::Dialer;
use tally_coordinator::election::{Election, Standing};
use tally_proto::Epoch;
use tally_tests::consul::{ConsulAgent, Setup};
use tally_tests::wait::eventually;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(60);
const KEY: &str = "teams/a/leader";

fn durable() -> Result<ConsulAgent> {
    ConsulAgent::start(Setup { durable: true, ..Setup::default() })
}

/// A separate handle, as in another process.
fn consul(agent: &ConsulAgent) -> Result<Consul> {
    let quick = Duration::from_secs(1);
    let config = Config { request_timeout: quick, connect_timeout: quick, ..Config::new(agent.address()) };
    Ok(Consul::new(Client::new(&config)?, "teams/a"))
}

async fn candidate(agent: &ConsulAgent, name: &str) -> Result<Election> {
    Ok(Election::consul(consul(agent)?, name, &format!("127.0.0.1:{}", name.len())).await?)
}

/// Waits until a candidate has that standing.
async fn standing(
    election: &Election,
    what: &str,
    wanted: impl FnMut(&Standing) -> bool,
) -> Result<Standing> {
    let mut standing = election.standing();
    let found =
        timeout(DEADLINE, standing.wait_for(wanted)).await.with_context(|| format!("never {what}"))?;
    Ok(found?.clone())
}

async fn leads(election: &Election) -> Result<()> {
    standing(election, "leads", |standing| *standing == Standing::Lead).await.map(|_| ())
}

async fn session(agent: &ConsulAgent) -> Result<SessionId> {
    let pair = consul(agent)?.client().kv().get(KEY).await?;
    pair.and_then(|pair| pair.session).context("no session holds the key")
}

async fn one_leads_and_the_other_knows_its_address_until_it_resigns() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let first = candidate(&agent, "a").await?;
    leads(&first).await?;
    let second = candidate(&agent, "bb").await?;
    let led = |standing: &Standing| *standing == Standing::Standby { leader: Some("127.0.0.1:1".into()) };
    standing(&second, "follows the first", led).await?;

    first.announce(Epoch(7)).await;
    let watched = consul(&agent)?;
    let mut view = watched.leader();
    let expect = LeaderRecord { id: "a".into(), address: "127.0.0.1:1".into(), epoch: 7 };
    timeout(DEADLINE, view.wait_for(|view| view.leader.as_ref() == Some(&expect))).await??;
    assert_eq!(watched.leader_address().await.as_deref(), Ok("127.0.0.1:1"));

    let asked = Instant::now();
    first.resign().await;
    leads(&second).await?;
    // Without waiting for the end of a session or for a timer.
    ensure!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    timeout(DEADLINE, view.wait_for(|view| view.leader.as_ref().is_some_and(|l| l.id == "bb"))).await??;
    Ok(())
}

async fn a_candidate_that_stepped_down_leaves_the_key_to_others() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let first = candidate(&agent, "a").await?;
    leads(&first).await?;
    let second = candidate(&agent, "bb").await?;
    first.step_down().await;
    assert!(matches!(*first.standing().borrow(), Standing::Standby { .. }));
    leads(&second).await?;
    // It is still a candidate.
    second.resign().await;
    leads(&first).await
}

async fn after_a_crash_another_leads_within_25_seconds() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    // Its runtime stops: nothing is released or renewed.
    let doomed = tokio::task::spawn_blocking(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
    });
    let doomed = doomed.await??;
    let (handle, name) = (consul(&agent)?, "a");
    let first = doomed.spawn(async move {
        let first = Election::consul(handle, name, "127.0.0.1:1").await?;
        first.lead().await;
        anyhow::Ok(first)
    });
    let first = first.await??;
    let second = candidate(&agent, "bb").await?;
    let crashed = Instant::now();
    doomed.shutdown_background();
    leads(&second).await?;
    ensure!(crashed.elapsed() < Duration::from_secs(25), "{:?}", crashed.elapsed());
    eprintln!("another led after {:.1} s", crashed.elapsed().as_secs_f64());
    drop(first);
    Ok(())
}

async fn a_leader_in_doubt_continues_when_consul_is_back() -> Result<()> {
    let mut agent = durable()?;
    let first = candidate(&agent, "a").await?;
    leads(&first).await?;
    let second = candidate(&agent, "bb").await?;
    let before = session(&agent).await?;
    agent.kill();
    let doubt = standing(&first, "in doubt", |standing| matches!(standing, Standing::Doubt { .. })).await?;
    let Standing::Doubt { why } = doubt else { bail!("{doubt:?}") };
    ensure!(why.contains(&agent.address()), "{why}");
    agent.restart()?;
    leads(&first).await?;
    // Without a new election: the session is the same.
    assert_eq!(session(&agent).await?, before);
    assert!(matches!(*second.standing().borrow(), Standing::Standby { .. }));
    Ok(())
}

async fn consul_without_its_data_holds_a_new_election() -> Result<()> {
    let mut agent = ConsulAgent::start(Setup::default())?;
    let candidates = [candidate(&agent, "a").await?, candidate(&agent, "bb").await?];
    leads(&candidates[0]).await?;
    agent.restart()?;
    let holder = eventually("a session holds the key", || async {
        // Consul may not be ready yet.
        Ok(consul(&agent)?.client().kv().get(KEY).await.ok().flatten().filter(|pair| pair.session.is_some()))
    });
    let record: LeaderRecord = serde_json::from_slice(&holder.await?.value)?;
    let (leader, other) = match record.id.as_str() {
        "a" => (&candidates[0], &candidates[1]),
        _ => (&candidates[1], &candidates[0]),
    };
    leads(leader).await?;
    standing(other, "stands by", |standing| matches!(standing, Standing::Standby { leader: Some(_) }))
        .await?;
    Ok(())
}

async fn a_session_that_expires_changes_the_leader_or_the_session() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let first = candidate(&agent, "a").await?;
    leads(&first).await?;
    let before = session(&agent).await?;
    let outside = consul(&agent)?;
    outside.client().sessions().destroy(&before).await?;
    // Without other candidates it acquires the key again, with a new session, and never stops leading.
    let after = eventually("another session", || async {
        Ok(session(&agent).await.ok().filter(|session| *session != before))
    })
    .await?;
    leads(&first).await?;

    // With another candidate, one of them leads in the end, and the other knows.
    let second = candidate(&agent, "bb").await?;
    outside.client().sessions().destroy(&after).await?;
    eventually("one of two leads", || async {
        let of = |election: &Election| election.standing().borrow().clone();
        let (a, b) = (of(&first), of(&second));
        let led = |at: &str| Standing::Standby { leader: Some(at.into()) };
        let settled =
            a == Standing::Lead && b == led("127.0.0.1:1") || b == Standing::Lead && a == led("127.0.0.1:2");
        Ok(settled.then_some(()))
    })
    .await
}

async fn a_refused_candidate_fails_at_once_and_one_without_consul_waits() -> Result<()> {
    let acl = serde_json::json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": { "master": "root", "agent_master": "agent" } } });
    let setup = Setup { config: acl, token: Some("root".into()), ..Setup::default() };
    let agent = ConsulAgent::start(setup)?;
    let refused = candidate(&agent, "a").await.err().context("it was taken")?;
    ensure!(refused.to_string().contains("permission denied"), "{refused}");

    let mut agent = ConsulAgent::start(Setup::default())?;
    agent.kill();
    let early = candidate(&agent, "a").await?;
    assert!(matches!(*early.standing().borrow(), Standing::Standby { leader: None }));
    agent.restart()?;
    leads(&early).await
}

/// Searches repeatedly, as workers and commands do.
async fn find(leader: &mut Leader) -> Result<Candidate> {
    let rounds = async {
        loop {
            match leader.next().await {
                Ok(found) => return found,
                Err(_) => leader.pause().await,
            }
        }
    };
    Ok(timeout(DEADLINE, rounds).await?)
}

async fn the_leader_is_found_through_consul_and_remembered_while_consul_is_down() -> Result<()> {
    let mut agent = ConsulAgent::start(Setup::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let mut leader = Leader::new(Source::Consul(consul(&agent)?), Dialer::plain());
    let error = leader.next().await.err().context("a leader was found")?.to_string();
    ensure!(error.contains(KEY) && error.contains(&agent.address()), "{error}");

    let election = Election::consul(consul(&agent)?, "a", &address).await?;
    leads(&election).await?;
    let found = find(&mut leader).await?;
    assert_eq!(found.address.to_string(), address);
    // Neither the leader nor Consul answers.
    agent.kill();
    assert!(leader.refused(&found, &tonic::Status::unavailable("down")));
    let again = find(&mut leader).await?;
    assert_eq!(again.address.to_string(), address);
    Ok(())
}

tally_tests::tests![
    async:
    one_leads_and_the_other_knows_its_address_until_it_resigns,
    a_candidate_that_stepped_down_leaves_the_key_to_others,
    after_a_crash_another_leads_within_25_seconds,
    a_leader_in_doubt_continues_when_consul_is_back,
    consul_without_its_data_holds_a_new_election,
    a_session_that_expires_changes_the_leader_or_the_session,
    a_refused_candidate_fails_at_once_and_one_without_consul_waits,
    the_leader_is_found_through_consul_and_remembered_while_consul_is_down,
];
