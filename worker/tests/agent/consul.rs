//! The binary with a real Consul: it finds the leader, registers itself, and drains when an operator enables
//! maintenance mode.

use anyhow::{Context, Result, ensure};
use consul_api_client::{CheckStatus, Client, Config, NewSession, ServiceHealth, SessionId, Which};
use tally_tests::consul::{ConsulAgent, Setup};
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::fake::{DEADLINE, Fake};
use crate::process::Process;

/// Waits until the worker's service has this check status; `None`: until it is deregistered.
async fn service(consul: &Client, status: Option<CheckStatus>) -> Result<Option<ServiceHealth>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = consul.health().service("tally-worker", Which::All).await?.into_iter().next();
        if found.as_ref().map(ServiceHealth::status) == status {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "never {status:?}: {found:?}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Makes Consul name a coordinator as the leader.
async fn lead(consul: &Client, session: &SessionId, fake: &Fake) -> Result<()> {
    let record = serde_json::json!({ "id": "c", "address": fake.address, "epoch": 1 }).to_string();
    ensure!(consul.kv().acquire("tally/leader", record, session).await?);
    Ok(())
}

async fn consul_names_the_leader_and_its_maintenance_drains() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let consul = Client::new(&Config::new(agent.address()))?;
    let mut fake = Fake::start().await?;
    let url = format!("http://{}", agent.address());
    let process = Process::start(&["--consul", &url, "--memory-limit", "1GiB", "--slots", "1"])?;
    let found = service(&consul, Some(CheckStatus::Passing)).await?.context("no service")?;

    // A coordinator becomes the leader.
    let session = consul.sessions().create(&NewSession::default()).await?;
    lead(&consul, &session, &fake).await?;
    let knock = fake.knock().await?;
    assert_eq!(knock.hello.worker, found.service.meta["id"]);
    assert_eq!(knock.hello.flight_address, found.address());
    knock.refuse(Status::unavailable("not yet"));

    ensure!(consul.agent().maintenance(&found.service.id, true, "upgrade").await?);
    let (code, said) = tokio::task::spawn_blocking(|| process.ended()).await??;
    assert_eq!(code, Some(0), "it holds nothing, so it exits: {said}");
    service(&consul, None).await?;
    Ok(())
}

/// A hung leader accepts a connection and never responds: the worker leaves it when Consul names another one.
async fn a_leader_that_hangs_is_left_when_consul_names_another() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let consul = Client::new(&Config::new(agent.address()))?;
    let session = consul.sessions().create(&NewSession::default()).await?;
    let (mut hangs, mut next) = (Fake::start().await?, Fake::start().await?);
    lead(&consul, &session, &hangs).await?;
    let url = format!("http://{}", agent.address());
    let log = "tally_worker=debug";
    let flags = ["--consul", &url, "--memory-limit", "1GiB", "--slots", "1", "--log", log];
    let process = Process::start(&flags)?;
    let unanswered = hangs.knock().await?;
    lead(&consul, &session, &next).await?;
    next.knock().await?.refuse(Status::invalid_argument("the test is over"));
    let (_, said) = tokio::task::spawn_blocking(|| process.ended()).await??;
    assert!(said.contains(&format!("Consul names {} as the new leader", next.address)), "{said}");
    drop(unanswered);
    Ok(())
}

fn consul_or_a_list_but_not_both() -> Result<()> {
    let both = ["--consul", "http://127.0.0.1:1", "--coordinator", "127.0.0.1:1"];
    let (code, said) = Process::start(&both)?.ended()?;
    assert_eq!(code, Some(2));
    assert!(said.contains("not both"), "{said}");
    Ok(())
}

fn a_flag_overrides_the_alternative_in_the_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("worker.toml");
    let path = file.display().to_string();
    for (text, flags, word) in [
        ("coordinator = [\"127.0.0.1:1\"]", ["--consul", "nonsense://"], "nonsense"),
        ("consul = \"nonsense://\"", ["--coordinator", "no-address"], "no-address"),
    ] {
        std::fs::write(&file, text)?;
        let (code, said) = Process::start(&["--config", &path, flags[0], flags[1]])?.ended()?;
        ensure!(code == Some(2) && said.contains(word) && !said.contains("not both"), "{code:?}: {said}");
    }
    Ok(())
}

tally_tests::tests![
    mod:
    a_flag_overrides_the_alternative_in_the_file,
    consul_or_a_list_but_not_both,
    ;
    async:
    consul_names_the_leader_and_its_maintenance_drains,
    a_leader_that_hangs_is_left_when_consul_names_another,
];
