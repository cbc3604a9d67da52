//! Credentials for Consul are replaced under a running leader: it keeps the lead, or leads again, and accepts jobs. Not
//! here: certificates between the cluster's own processes (`cluster_security`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tally_tests::certs::{Authority, replace};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::consul::{self, ConsulAgent, closed};
use tally_tests::http::{get, put};
use tally_tests::output::Place;
use tally_tests::wait::{PATIENT, wait_every};

const MASTER: &str = "00000000-1111-2222-3333-444444444444";
const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "8", "--target-file-size", "1MB"];
/// Longer than a session of Consul may last after its last renewal.
const SESSIONS_END: Duration = Duration::from_secs(40);

/// The rules that the docs list for a token.
fn rules() -> Result<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docs/services.md");
    let text = std::fs::read_to_string(docs)?;
    let row = text.lines().find(|line| line.starts_with("| Consul |")).context("no Consul in the docs")?;
    let (mut rules, mut resource) = (String::new(), None);
    for code in row.split('`').skip(1).step_by(2) {
        match (code, resource) {
            ("read" | "write", Some(prefix)) => {
                rules += &format!("{prefix} {{ policy = \"{code}\" }}\n");
                resource = None;
            }
            (code, _) if code.contains("_prefix \"") => resource = Some(code),
            _ => {}
        }
    }
    ensure!(rules.lines().count() == 5 && rules.contains("key_prefix \"tally/\""), "the docs list {rules}");
    Ok(rules)
}

fn agent(cluster: &Cluster) -> Result<&ConsulAgent> {
    cluster.consul.as_ref().context("no Consul")
}

/// Runs a job from its submit to its published day.
fn works(cluster: &Cluster, day: &Truth) -> Result<()> {
    let place = Place::new()?;
    let done = cluster.client().submit_command(&day.root, &place, FLAGS).run()?;
    day.check_summary(&place, &done.summary()?)
}

/// Waits until the leader does not know whether it leads.
fn wait_doubt(cluster: &Cluster) -> Result<()> {
    wait_every(PATIENT, "a leader in doubt", SESSIONS_END, || {
        let said = cluster.coordinators[0].process.said();
        Ok(said.contains("still leads is not known").then_some(()))
    })
}

/// Waits until the leader is sure again: it is ready, and lists its workers.
fn wait_sure(cluster: &mut Cluster, workers: usize) -> Result<()> {
    let http = cluster.coordinators[0].http()?;
    wait_every(PATIENT, "a leader that is sure", DEADLINE, || {
        let said = cluster.coordinators[0].process.said();
        Ok((said.contains("Consul answers again") && get(http, "/readyz")?.0 == 200).then_some(()))
    })?;
    cluster.wait_attached(workers)
}

fn a_token_is_replaced_under_a_running_leader() -> Result<()> {
    let day = Truth::new(&["--clients", "5000", "--narrow"])?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    replace(&file, MASTER, 0o600)?;
    let setup = Setup {
        workers: 1,
        consul: true,
        consul_setup: consul::Setup {
            durable: true,
            config: closed(MASTER),
            token: Some(MASTER.into()),
            ..consul::Setup::default()
        },
        consul_flags: vec!["--consul-token-file".into(), file.display().to_string()],
        coordinator_flags: vec!["--log", "trace"],
        ..Setup::default()
    };
    with_cluster(setup, |cluster| {
        let first = agent(cluster)?.make_token("one", &rules()?)?;
        works(cluster, &day)?;
        // The recommended order: the new token is issued before the old one is revoked.
        replace(&file, &first.secret, 0o600)?;
        works(cluster, &day)?;
        // The usual mistake: the old token is revoked first.
        let agent = agent(cluster)?;
        let second = agent.make_token("two", &rules()?)?;
        agent.delete_token(&first)?;
        wait_doubt(cluster)?;
        let place = Place::new()?;
        let refused = cluster
            .direct_client()
            .submit_command(&day.root, &place, FLAGS)
            .args(["--detach", "--connect-timeout", "2s"])
            .run()?;
        ensure!(refused.code() != Some(0), "a leader in doubt took a job: {refused}");
        replace(&file, &second.secret, 0o600)?;
        wait_sure(cluster, 1)?;
        works(cluster, &day)
    })
}

fn certificates_are_replaced_under_a_running_leader() -> Result<()> {
    let day = Truth::new(&["--clients", "5000", "--narrow"])?;
    let dir = tempfile::tempdir()?;
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    for folder in [&theirs, &ours] {
        std::fs::create_dir(folder)?;
    }
    let (before, after) = (Authority::new("before")?, Authority::new("after")?);
    give(&before, &theirs, "server", &["localhost"])?;
    give(&before, &ours, "client", &["client"])?;
    let text = |path: &Path| path.display().to_string();
    let flags = [
        ("--consul-ca-file", ours.join("ca.pem")),
        ("--consul-cert", ours.join("client.pem")),
        ("--consul-key", ours.join("client.key")),
    ];
    let setup = Setup {
        workers: 1,
        consul: true,
        consul_setup: consul::Setup {
            durable: true,
            https: true,
            config: json!({
                "ca_file": theirs.join("ca.pem"), "cert_file": theirs.join("server.pem"),
                "key_file": theirs.join("server.key"), "verify_incoming_https": true,
            }),
            ..consul::Setup::default()
        },
        consul_flags: flags.iter().flat_map(|(flag, path)| [(*flag).into(), text(path)]).collect(),
        ..Setup::default()
    };
    with_cluster(setup, |cluster| {
        works(cluster, &day)?;
        give(&after, &theirs, "server", &["localhost"])?;
        cluster.consul.as_mut().context("no Consul")?.restart()?;
        wait_doubt(cluster)?;
        give(&after, &ours, "client", &["client"])?;
        wait_sure(cluster, 1)?;
        works(cluster, &day)
    })
}

/// Puts the authority's own certificate and one that it signs into a folder.
fn give(authority: &Authority, folder: &Path, name: &str, hosts: &[&str]) -> Result<()> {
    replace(&folder.join("ca.pem"), authority.pem(), 0o644)?;
    authority.sign(folder, name, hosts).map(drop)
}

fn without_tokens_the_log_level_cannot_be_changed() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        for http in [cluster.coordinators[0].http()?, cluster.workers[0].http()?] {
            for token in [None, Some("nobodys-0123456789abcdef")] {
                let (status, why) = put(http, "/log", token, "trace")?;
                ensure!(status == 403 && why.contains("--tokens-file"), "{status}: {why}");
            }
            ensure!(get(http, "/log")? == (200, "info\n".into()));
        }
        Ok(())
    })
}

tally_tests::tests![
    a_token_is_replaced_under_a_running_leader,
    certificates_are_replaced_under_a_running_leader,
    without_tokens_the_log_level_cannot_be_changed,
];
