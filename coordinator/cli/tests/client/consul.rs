//! Commands that find the leader through a real Consul, and their errors if they do not find one.

use std::time::Duration;

use anyhow::Result;
use consul_api_client::{Client, Config};
use tally_common::discovery::consul::Consul;
use tally_coordinator::election::Election;
use tally_proto::v1::{JobState, JobStatus};
use tally_tests::consul::{ConsulAgent, Setup};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::fake::{Fake, JOB, command, outcome, status, tally, wait_for};

/// Makes a coordinator the leader.
fn elect(runtime: &Runtime, agent: &ConsulAgent, name: &str, fake: &Fake) -> Result<Election> {
    let consul = Consul::new(Client::new(&Config::new(agent.address()))?, "tally");
    runtime.block_on(async {
        let election = Election::consul(consul, name, &fake.address).await?;
        timeout(Duration::from_secs(60), election.lead()).await?;
        Ok(election)
    })
}

/// `tally submit` waits for a job; then another coordinator leads, and `loses` stops the first one.
fn check_follow(loses: impl FnOnce(&mut Fake)) -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut first, second) = (Fake::new(), Fake::new());
    let election = elect(&runtime, &agent, "a", &first)?;
    let url = format!("http://{}", agent.address());
    let args = ["submit", "--consul", &url, "--addons", "/a", "--main-summary", "/m", "--output", "/o"];
    let mut command = command(&args);
    // The flag overrides the environment.
    command.args(["--date", "20170227", "--output-format", "json"]).env("TALLY_COORDINATOR", "127.0.0.1:1");
    let child = command.spawn()?;
    wait_for("the watch", || first.state().watched > 0);

    loses(&mut first);
    runtime.block_on(election.resign());
    let _second = elect(&runtime, &agent, "b", &second)?;
    wait_for("the second watch", || second.state().watched > 0);
    let summary = r#"{"rows":1}"#;
    second.set(JobStatus { summary: summary.into(), ..status(JobState::Done, "publish") });
    let ended = outcome(child).expect(0);
    assert_eq!(ended.json(), serde_json::from_str::<serde_json::Value>(summary)?);
    assert!(ended.stderr.contains(&format!("following job {JOB} at {}", second.address)), "{}", ended.stderr);
    assert!(second.state().submitted.is_empty());
    Ok(())
}

fn a_submit_follows_the_leader_that_consul_names() -> Result<()> {
    check_follow(Fake::kill)
}

/// The former leader still answers, but no longer receives updates of the job.
fn a_submit_leaves_a_leader_that_was_succeeded() -> Result<()> {
    check_follow(|_| ())
}

fn the_environment_names_consul_too() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let url = format!("http://{}", agent.address());
    let jobs = |more: &[&str]| {
        let mut command = command(&[&["jobs", "--connect-timeout", "300ms"], more].concat());
        outcome(command.env("TALLY_CONSUL", &url).spawn().unwrap())
    };
    let none = jobs(&[]).expect(5);
    assert!(none.stderr.contains("no session holds the key tally/leader"), "{none:?}");
    let fake = Fake::new();
    let _election = elect(&runtime, &agent, "a", &fake)?;
    jobs(&[]).expect(0);
    // The keys of another cluster.
    jobs(&["--consul-prefix", "elsewhere"]).expect(5);
    Ok(())
}

fn a_consul_that_is_away_or_misnamed_is_told() {
    let away = tally(&["jobs", "--consul", "http://127.0.0.1:1", "--connect-timeout", "200ms"]).expect(5);
    assert!(away.stderr.contains("can't reach Consul at http://127.0.0.1:1"), "{away:?}");
    let odd = tally(&["jobs", "--consul", "ftp://127.0.0.1:1"]).expect(2);
    assert!(odd.stderr.contains("neither http nor https"), "{odd:?}");
    let both = tally(&["jobs", "--consul", "http://127.0.0.1:1", "--coordinator", "127.0.0.1:1"]).expect(2);
    assert!(both.stderr.contains("not both"), "{both:?}");
    let file = "/no/such/token";
    let token = tally(&["jobs", "--consul", "http://127.0.0.1:1", "--consul-token-file", file]).expect(2);
    assert!(token.stderr.contains(file), "{token:?}");
}

tally_tests::tests![
    mod:
    a_submit_follows_the_leader_that_consul_names,
    a_submit_leaves_a_leader_that_was_succeeded,
    the_environment_names_consul_too,
    a_consul_that_is_away_or_misnamed_is_told,
];
