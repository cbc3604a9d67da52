//! A cluster of real processes that use TLS: jobs run, certificates are replaced meanwhile, and unauthorized clients of
//! every kind are refused with a reason, a line in the log and a count.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tally_tests::certs::{Authority, replace};
use tally_tests::cluster::client::{Client, DEADLINE, NO_LEADER};
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::http::{get, metrics, put};
use tally_tests::output::Place;
use tally_tests::pki::{OPERATORS_TOKEN, OWN_NAMES, Pki, READERS_TOKEN, ROLES};
use tally_tests::process::{Outcome, Tally};
use tally_tests::wait::wait_for;

const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "24", "--target-file-size", "1MB"];
/// The interval at which a process checks its files.
const LOOK: Duration = Duration::from_millis(1100);

fn secure(workers: usize) -> Result<(Setup, Arc<Mutex<Pki>>)> {
    let pki = Arc::new(Mutex::new(Pki::new()?));
    // Frozen workers do not become lost.
    let coordinator_flags = vec!["--worker-timeout", "60000"];
    Ok((Setup { workers, tls: Some(pki.clone()), coordinator_flags, ..Setup::default() }, pki))
}

fn locked(pki: &Mutex<Pki>) -> Result<std::sync::MutexGuard<'_, Pki>> {
    pki.lock().map_err(|_| anyhow!("a test panicked"))
}

/// `tally workers` with these flags at that address. It would look for the leader for longer than a test may take, so it
/// must fail at once if no retry helps.
fn ask(address: SocketAddr, flags: Vec<String>) -> Result<Outcome> {
    let known = vec!["--coordinator".into(), address.to_string(), "--connect-timeout".into(), "1h".into()];
    Client::new(known).tally("workers").args(flags).run()
}

fn refusals(http: SocketAddr, reason: &str) -> Result<f64> {
    let all = metrics(http)?;
    let name = format!("tally_refusals_total{{reason=\"{reason}\"}}");
    all.get(&name).copied().with_context(|| format!("no {name} in {all:?}"))
}

/// All refusals of a process.
fn all_refusals(http: SocketAddr) -> Result<f64> {
    let all = metrics(http)?;
    Ok(all.iter().filter(|(name, _)| name.starts_with("tally_refusals_total{")).map(|(_, count)| count).sum())
}

/// Waits until a process has read its certificates so many times.
fn wait_loads(http: SocketAddr, loads: usize) -> Result<()> {
    wait_for("certificates that were read", DEADLINE, || {
        Ok((metrics(http)?.get("tally_tls_loads_total") == Some(&(loads as f64))).then_some(()))
    })
}

fn a_job_goes_on_while_all_certificates_and_their_authority_are_replaced() -> Result<()> {
    let day = Truth::new(&["--clients", "100000", "--narrow"])?;
    let (setup, pki) = secure(2)?;
    with_cluster(setup, |cluster| {
        let place = Place::new()?;
        let before = locked(&pki)?.flags("operator");
        let kept: Vec<_> = ["operator.pem", "operator.key"]
            .map(|name| Ok((name, std::fs::read_to_string(locked(&pki)?.dir().join(name))?)))
            .into_iter()
            .collect::<Result<_>>()?;
        let (job, _) = cluster.submit_held(&day.root, &place, FLAGS, Moment::Stage("map", 0.3))?;
        locked(&pki)?.renew(|step| {
            let leader = cluster.coordinators[0].http()?;
            wait_loads(leader, 1 + step)?;
            // Frozen until now; a check of the files is due, so the job runs no longer than that takes.
            std::thread::sleep(LOOK);
            cluster.release()?;
            for worker in &cluster.workers {
                wait_loads(worker.http()?, 1 + step)?;
            }
            cluster.freeze_workers()
        })?;
        cluster.release()?;
        day.check_summary(&place, &job.done()?)?;
        // New connections use the new certificates, in every direction.
        cluster.add_worker()?;
        cluster.wait_attached(3)?;
        let place = Place::new()?;
        let again = cluster.client().submit_command(&day.root, &place, FLAGS).run()?.summary()?;
        day.check_summary(&place, &again)?;
        // The old authority is no longer trusted.
        for (name, text) in kept {
            replace(&locked(&pki)?.dir().join(name.replace("operator", "old")), &text, 0o600)?;
        }
        let old: Vec<_> = before.iter().map(|flag| flag.replace("operator.", "old.")).collect();
        ask(cluster.coordinators[0].address(), old)?.expect_failure(NO_LEADER, &["UnknownCA"])?;
        ensure!(refusals(cluster.coordinators[0].http()?, "unknown_authority")? >= 1.0);
        Ok(())
    })
}

/// Tries everything that an unauthorized client can; returns the words that the log must contain.
fn try_connections(cluster: &Cluster, pki: &Pki) -> Result<()> {
    let (address, http) = (cluster.coordinators[0].address(), cluster.coordinators[0].http()?);
    let other = Authority::new("another authority")?;
    other.sign_uri(pki.dir(), "foreign", "spiffe://tally/operator", false)?;
    pki.authority().sign_uri(pki.dir(), "expired", "spiffe://tally/operator", true)?;
    ask(address, pki.flags("foreign"))?.expect_failure(NO_LEADER, &["UnknownCA", "hint: check --tls-ca"])?;
    ask(address, pki.flags("expired"))?.expect_failure(NO_LEADER, &["CertificateExpired"])?;
    ask(address, vec![])?.expect_failure(NO_LEADER, &[&address.to_string(), "hint: check --tls-ca"])?;
    for reason in ["unknown_authority", "expired", "not_tls"] {
        ensure!(refusals(http, reason)? >= 1.0, "{reason} is not counted");
    }
    // A client decides which servers it trusts, and which it connects to.
    let mut distrusting = pki.flags("operator");
    distrusting[1] = other.write(pki.dir(), "other-ca")?.to_string_lossy().into_owned();
    ask(address, distrusting)?.expect_failure(NO_LEADER, &["UnknownIssuer"])?;
    let worker = cluster.workers[0].address();
    ask(worker, pki.flags("operator"))?
        .expect_failure(NO_LEADER, &["spiffe://tally/worker has the role worker, not coordinator"])?;
    ensure!(refusals(cluster.workers[0].http()?, "handshake")? >= 1.0);
    pki.authority().sign_uri(pki.dir(), "nameless", "spiffe://tally/norole", false)?;
    ask(address, pki.flags("nameless"))?.expect_failure(1, &["has the role none"])?;
    Ok(())
}

fn try_roles(cluster: &Cluster, pki: &Pki, day: &Truth) -> Result<()> {
    let (address, http) = (cluster.coordinators[0].address(), cluster.coordinators[0].http()?);
    let client = |flags: Vec<String>| {
        let known = vec!["--coordinator".to_string(), address.to_string()];
        Client::new([known, flags].concat())
    };
    ask(address, pki.nameless())?.expect_failure(1, &["client certificate or a bearer token"])?;
    ask(address, pki.with_token("nobodys-0123456789abcdef")?)?.expect_failure(1, &["token is unknown"])?;
    ensure!(refusals(http, "unauthenticated")? >= 2.0);
    let place = Place::new()?;
    for flags in [pki.flags("reader"), pki.with_token(READERS_TOKEN)?] {
        ask(address, flags.clone())?.expect_code(0)?;
        let refused = client(flags.clone()).submit_command(&day.root, &place, FLAGS).run()?;
        refused.expect_failure(1, &["role reader", "needs operator"])?;
        client(flags).drain_command("w-1").run()?.expect_failure(1, &["needs operator"])?;
    }
    ask(address, pki.flags("worker"))?.expect_failure(1, &["role worker"])?;
    ensure!(refusals(http, "forbidden")? >= 5.0);
    let worker = Tally::wrapped(&worker_bin(), ["--coordinator", &address.to_string()])
        .args(["--slots", "1", "--memory-limit", "256MiB", "--spill-dir"])
        .args([place.spill()])
        .args(pki.flags("operator"));
    worker.run()?.expect_failure(1, &["refuses this worker", "needs worker"])?;
    let done = client(pki.with_token(OPERATORS_TOKEN)?).submit_command(&day.root, &place, FLAGS).run()?;
    day.check_summary(&place, &done.summary()?)
}

fn unauthorized_clients_are_refused_with_a_reason_and_counted() -> Result<()> {
    let day = Truth::new(&["--clients", "20000", "--narrow"])?;
    let (setup, pki) = secure(1)?;
    with_cluster(setup, |cluster| {
        let pki = locked(&pki)?;
        // From here on, both log more.
        for http in [cluster.coordinators[0].http()?, cluster.workers[0].http()?] {
            ensure!(get(http, "/log")? == (200, "info\n".into()));
            // From this machine, like everything that arrives by a proxy: that alone is not a reason.
            for (token, status) in
                [(None, 401), (Some("nobodys-0123456789abcdef"), 401), (Some(READERS_TOKEN), 403)]
            {
                let before = all_refusals(http)?;
                let (got, why) = put(http, "/log", token, "debug")?;
                ensure!(got == status && why.contains("operator"), "{token:?}: {got}: {why}");
                ensure!(all_refusals(http)? == before + 1.0, "{token:?} was not counted");
                ensure!(get(http, "/log")?.1 == "info\n", "{token:?} changed it");
            }
            let operator = Some(OPERATORS_TOKEN);
            ensure!(put(http, "/log", operator, "tally_worker=loud")?.0 == 400);
            ensure!(put(http, "/log", operator, "debug")? == (200, "ok\n".into()));
            ensure!(get(http, "/log")?.1 == "debug\n");
        }
        try_connections(cluster, &pki)?;
        try_roles(cluster, &pki, &day)?;
        let said = cluster.coordinators[0].process.said();
        for words in ["\"reason\":\"expired\"", "\"reason\":\"not_tls\"", "\"who\":\"spiffe://tally/reader\""]
        {
            ensure!(said.contains(words), "no {words} in {said}");
        }
        let refused = said.lines().filter(|line| line.contains(" was refused")).count();
        ensure!(
            refused >= 10
                && said
                    .lines()
                    .all(|line| !line.contains(" was refused") || line.contains("\"peer\":\"127."))
        );
        let worked = cluster.workers[0].process.said();
        let attempt =
            worked.lines().find(|line| line.contains("an attempt is over")).context("no attempt")?;
        for field in ["\"job\":\"", "\"task\":", "\"attempt\":", "\"outcome\":\"done\""] {
            ensure!(attempt.contains(field), "no {field} in {attempt}");
        }
        for secret in [OPERATORS_TOKEN, READERS_TOKEN, "nobodys-0123456789abcdef", "PRIVATE KEY"] {
            ensure!(!said.contains(secret) && !worked.contains(secret), "{secret} is in a log");
        }
        Ok(())
    })
}

/// The lines of a log about refusals for that reason; each must name the peer.
fn refusal_lines(said: &str, reason: &str) -> Result<usize> {
    let reason = format!("\"reason\":\"{reason}\"");
    let lines: Vec<_> =
        said.lines().filter(|line| line.contains(" was refused") && line.contains(&reason)).collect();
    let nameless = lines.iter().find(|line| !line.contains("\"peer\":\"127."));
    ensure!(nameless.is_none(), "no peer in {nameless:?}");
    Ok(lines.len())
}

fn roles_go_by_the_names_of_a_file_and_change_with_it() -> Result<()> {
    let day = Truth::new(&["--clients", "5000", "--narrow"])?;
    let pki = Arc::new(Mutex::new(Pki::with_roles()?));
    let setup = Setup { workers: 1, tls: Some(pki.clone()), ..Setup::default() };
    with_cluster(setup, |cluster| {
        let (address, http) = (cluster.coordinators[0].address(), cluster.coordinators[0].http()?);
        let pki = locked(&pki)?;
        let submit = |flags: Vec<String>| -> Result<(Outcome, Place)> {
            let place = Place::new()?;
            let known = vec!["--coordinator".to_string(), address.to_string()];
            let done = Client::new([known, flags].concat()).submit_command(&day.root, &place, FLAGS).run()?;
            Ok((done, place))
        };
        let submits = |flags: Vec<String>| -> Result<()> {
            let (done, place) = submit(flags)?;
            day.check_summary(&place, &done.summary()?)
        };
        // Worker, operator and reader by certificate; operator and reader by token.
        submits(pki.flags("operator"))?;
        submits(pki.with_token(OPERATORS_TOKEN)?)?;
        let readers = [pki.flags("reader"), pki.with_token(READERS_TOKEN)?];
        for flags in readers.clone() {
            ask(address, flags.clone())?.expect_code(0)?;
            submit(flags)?.0.expect_failure(1, &["role reader", "needs operator"])?;
        }
        ask(address, pki.flags("worker"))?.expect_failure(1, &["role worker"])?;
        // The default names have no role if there is a file.
        pki.authority().sign_uri(pki.dir(), "default", "spiffe://tally/operator", false)?;
        ask(address, pki.flags("default"))?
            .expect_failure(1, &["spiffe://tally/operator has the role none"])?;
        ask(address, pki.nameless())?.expect_failure(1, &["client certificate or a bearer token"])?;
        // Each refusal is counted, and has a line with peer, address and reason.
        let said = cluster.coordinators[0].process.said();
        for who in
            [&format!("{OWN_NAMES}reader"), &format!("{OWN_NAMES}worker"), "token dash", "an unknown client"]
        {
            ensure!(said.contains(&format!("\"who\":\"{who}\"")), "no {who} in {said}");
        }
        for reason in ["forbidden", "unauthenticated"] {
            let (lines, counted) = (refusal_lines(&said, reason)?, refusals(http, reason)?);
            ensure!(lines >= 1 && lines as f64 == counted, "{lines} lines, {counted} counted: {said}");
        }
        // Roles are granted and revoked while the process runs.
        let names = |role: &str, others: &[&str]| {
            let names: Vec<_> = others.iter().map(|name| format!("\"{OWN_NAMES}{name}\"")).collect();
            format!("{role} = [{}]\n", names.join(", "))
        };
        let roles = ["coordinator", "worker"].map(|role| names(role, &[role])).concat();
        replace(&pki.roles(), &(roles + &names("operator", &["reader"])), 0o644)?;
        wait_loads(http, 2)?;
        submits(pki.flags("reader"))?;
        submit(pki.flags("operator"))?.0.expect_failure(1, &["operator has the role none"])?;
        // The new operators of the cluster.
        replace(&pki.roles(), &ROLES.map(|role| names(role, &[role])).concat(), 0o644)?;
        wait_loads(http, 3)
    })
}

/// The validity periods of certificates are exported, under the names that the chart's alert uses.
fn the_end_of_certificates_is_seen_before_it_comes() -> Result<()> {
    let (setup, pki) = secure(1)?;
    with_cluster(setup, |cluster| {
        let chart =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/tally/templates/monitoring.yaml");
        let rules = std::fs::read_to_string(chart)?;
        let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: BTreeSet<_> = words.filter(|word| word.starts_with("tally_tls_")).collect();
        ensure!(used.len() == 2, "the alert goes by {used:?}");
        let (coordinator, worker) = (cluster.coordinators[0].http()?, cluster.workers[0].http()?);
        for http in [coordinator, worker] {
            let page = metrics(http)?;
            for name in &used {
                for whose in ["process", "authority"] {
                    let sample = format!("{name}{{certificate=\"{whose}\"}}");
                    ensure!(page.contains_key(&sample), "no {sample} in {page:?}");
                }
            }
        }
        let until = "tally_tls_certificate_not_after_seconds{certificate=\"process\"}";
        ensure!(metrics(worker)?[until] == 67_090_118_400.0, "the certificate ends with the year 4095");
        // It is read again, like the certificate.
        let (own, uri) = (locked(&pki)?, "spiffe://tally/worker");
        own.authority().sign_for(own.dir(), "worker", uri, (2020, 3000))?;
        drop(own);
        wait_for("the new certificate's end", DEADLINE, || {
            Ok((metrics(worker)?[until] == 32_503_680_000.0).then_some(()))
        })?;
        ensure!(metrics(coordinator)?[until] == 67_090_118_400.0);
        Ok(())
    })
}

fn a_standby_takes_over_and_consul_sees_everybody() -> Result<()> {
    let day = Truth::new(&["--clients", "5000", "--narrow"])?;
    let (setup, _pki) = secure(1)?;
    with_cluster(Setup { coordinators: 2, consul: true, ..setup }, |cluster| {
        let leader = cluster.leader()?;
        let consul: SocketAddr = cluster.consul.as_ref().context("no Consul")?.address().parse()?;
        // Consul has no certificate: it only checks that the port is open.
        for service in ["tally-worker", "tally-coordinator"] {
            wait_for(&format!("{service} in Consul"), DEADLINE, || {
                let (_, found) = get(consul, &format!("/v1/health/service/{service}?passing=1"))?;
                Ok(found.contains("\"Service\"").then_some(()))
            })?;
        }
        cluster.coordinators[leader].process.terminate()?;
        cluster.coordinators[leader].process.wait_done(DEADLINE)?;
        let place = Place::new()?;
        let done = cluster.client().submit_command(&day.root, &place, FLAGS).run()?.summary()?;
        day.check_summary(&place, &done)?;
        let standby = cluster.coordinators[1 - leader].http()?;
        ensure!(all_refusals(standby)? == 0.0, "a process of the cluster was refused");
        Ok(())
    })
}

fn plain_text_beyond_this_machine_is_wanted_or_refused() -> Result<()> {
    let place = Place::new()?;
    let (state, spill) = (place.path().join("state"), place.spill());
    let coordinator = |more: &[&str]| {
        let command = Tally::new("coordinator").args(["--listen", "0.0.0.0:0", "--state-dir"]).args([&state]);
        command.args(more)
    };
    coordinator(&[]).run()?.expect_failure(2, &["0.0.0.0", "--insecure", "--tls-cert"])?;
    let worker = Tally::wrapped(&worker_bin(), ["--coordinator", "127.0.0.1:1", "--listen", "0.0.0.0:0"])
        .args(["--advertise", "here", "--slots", "1", "--memory-limit", "256MiB", "--spill-dir"])
        .args([&spill]);
    worker.run()?.expect_failure(2, &["0.0.0.0", "--insecure"])?;
    let port = place.path().join("port");
    let port_flag = ["--port-file", port.to_str().context("a path that is text")?];
    let open = coordinator(&["--insecure"]).args(port_flag).spawn()?;
    wait_for("an open coordinator", DEADLINE, || Ok(port.exists().then_some(())))?;
    drop(open);
    std::fs::remove_file(&port)?;
    let settings = place.path().join("settings.toml");
    std::fs::write(&settings, "insecure = true\n")?;
    let from_file = coordinator(&["--config", settings.to_str().context("a path that is text")?]);
    let open = from_file.args(port_flag).spawn()?;
    wait_for("an open coordinator", DEADLINE, || Ok(port.exists().then_some(())))?;
    drop(open);
    // Contradictory settings are reported at the start.
    let pki = Pki::new()?;
    coordinator(&["--insecure"]).args(pki.flags("coordinator")).run()?.expect_failure(2, &["not both"])?;
    replace(&pki.dir().join("worker.key"), "no key", 0o644)?;
    coordinator(&[]).args(pki.flags("worker")).run()?.expect_failure(2, &["worker.key", "chmod"])?;
    replace(&pki.dir().join("worker.key"), "no key", 0o600)?;
    coordinator(&[]).args(pki.flags("worker")).run()?.expect_failure(2, &["worker.key", "no private key"])?;
    Ok(())
}

tally_tests::tests![
    a_job_goes_on_while_all_certificates_and_their_authority_are_replaced,
    unauthorized_clients_are_refused_with_a_reason_and_counted,
    roles_go_by_the_names_of_a_file_and_change_with_it,
    the_end_of_certificates_is_seen_before_it_comes,
    a_standby_takes_over_and_consul_sees_everybody,
    plain_text_beyond_this_machine_is_wanted_or_refused,
];
