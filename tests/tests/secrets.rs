//! No process prints a secret, in any failure and at any log level: stores that quote requests, a Consul that refuses,
//! credentials in URLs. The search itself is the harness's, for every process of every test (`tally_tests::secrets`);
//! these tests provoke the output.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::Client;
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::cluster::server::Server as Process;
use tally_tests::cluster::{Setup as ClusterSetup, with_cluster};
use tally_tests::consul::{ConsulAgent, Setup, closed};
use tally_tests::output::Place;
use tally_tests::pki::{OPERATORS_TOKEN, Pki, READERS_TOKEN};
use tally_tests::process::{Tally, clean, tally_bin};
use tally_tests::s3::client::Keys;
use tally_tests::s3::proxy::{Exchange, Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{job, put_case, submit};
use tally_tests::secrets;
use tally_tests::wait::{PATIENT, wait_every};

const CASE: &str = "case-03";
/// In realistic form: with slashes, and characters that URLs escape.
const SESSION: &str = "FwoGZXIvYXdzEtest//session+token==";
const PASSWORD: &str = "pass-word-of-tests";
const TRACE: [&str; 2] = ["--log", "trace"];
const LONG: Duration = Duration::from_secs(120);

/// A job with a session token, at the most verbose log level.
fn traced(endpoint: SocketAddr, keys: Keys, place: &Place) -> Tally {
    job(endpoint, keys, CASE, &place.spill()).env("AWS_SESSION_TOKEN", SESSION).args(TRACE)
}

fn a_store_that_quotes_what_it_refuses_reveals_nothing() -> Result<()> {
    let (server, place) = (Server::start(Kind::Moto)?, Place::new()?);
    put_case(&server.client(DATA)?, CASE)?;
    let proxy = Proxy::before(server.address())?;
    // Moto accepts any token: the log of a successful job.
    let outcome = traced(proxy.address(), ADMIN, &place).run()?.expect_code(0)?;
    ensure!(outcome.stderr.contains("TRACE"), "it does not trace: {outcome}");
    let sent = |text: &str| proxy.exchanges().iter().any(|exchange| exchange.head.contains(text));
    ensure!(sent(SESSION), "the token was not sent");
    // Listing, reading, starting an upload.
    let quotes = [("GET", "list-type"), ("GET", "parquet"), ("POST", "uploads"), ("PUT", "partNumber")];
    for (method, part) in quotes {
        proxy.take();
        proxy.break_next(method, part, 0, 1000, Fault::Quote(403, "SignatureDoesNotMatch"));
        let outcome = traced(proxy.address(), ADMIN, &place).run()?;
        let outcome = outcome.expect_failure(1, &["SignatureDoesNotMatch", "check the credentials"])?;
        ensure!(proxy.exchanges().iter().any(|e| e.status == 403), "{method} {part}: nothing was refused");
        ensure!(!outcome.stderr.contains("StringToSign"), "{method} {part}: {outcome}");
        proxy.heal();
    }
    Ok(())
}

/// Coordinator and workers with all kinds of secrets: keys and a session token of the store, private keys, tokens.
fn a_cluster_at_the_most_verbose_level_reveals_nothing() -> Result<()> {
    let (server, pki) = (Server::start(Kind::Moto)?, Pki::new()?);
    put_case(&server.client(DATA)?, CASE)?;
    let proxy = Proxy::before(server.address())?;
    let mut environment = ADMIN.environment(proxy.address()).to_vec();
    environment.push(("AWS_SESSION_TOKEN", SESSION.into()));
    let private = std::fs::read_to_string(pki.dir().join("worker.key"))?;
    let token = pki.with_token(OPERATORS_TOKEN)?;
    let setup = ClusterSetup {
        workers: 2,
        coordinator_flags: TRACE.to_vec(),
        worker_flags: TRACE.to_vec(),
        environment,
        tls: Some(Arc::new(Mutex::new(pki))),
        ..ClusterSetup::default()
    };
    with_cluster(setup, |cluster| {
        let private = private.lines().nth(1).context("an empty key")?;
        for secret in [ADMIN.secret, SESSION, OPERATORS_TOKEN, READERS_TOKEN, private] {
            ensure!(secrets::check("a log", secret).is_err(), "logs are not searched for {secret}");
        }
        let known = vec!["--coordinator".to_string(), cluster.coordinators[0].address().to_string()];
        let by_token = Client::new([known, token].concat());
        for client in [&by_token, &cluster.client()] {
            submit(client, CASE).args(TRACE).run()?.summary()?;
        }
        let quoted = "SignatureDoesNotMatch";
        // The coordinator lists and reads files; only workers write parts of others.
        for (method, part) in [("GET", "list-type"), ("GET", "parquet"), ("PUT", "partNumber")] {
            proxy.take();
            proxy.break_next(method, part, 0, 1000, Fault::Quote(403, quoted));
            let failed = submit(&cluster.client(), CASE).args(TRACE).run()?;
            failed.expect_failure(1, &[quoted]).with_context(|| format!("{method} {part}"))?;
            proxy.heal();
            let quotes = |e: &Exchange| e.status == 403 && e.head.contains(SESSION);
            ensure!(proxy.take().iter().any(quotes), "{method} {part}: nothing was quoted");
        }
        let workers = cluster.workers.iter().map(|worker| worker.process.said());
        let said = [cluster.coordinators[0].process.said()].into_iter().chain(workers);
        for (at, said) in said.enumerate() {
            ensure!(said.contains("\"level\":\"TRACE\""), "process {at} does not trace");
        }
        // Before the end, and when the cluster ends.
        cluster.check_no_crash()
    })
}

/// A serving process at trace level, stopped as soon as its log has one of `words`, and searched.
fn serve(
    name: &str,
    args: &[&str],
    environment: &[(&str, String)],
    words: &[&str],
    dir: &Path,
) -> Result<()> {
    let mut command = Command::new(tally_bin());
    clean(&mut command);
    for (name, value) in environment {
        secrets::register_variable(name.as_ref(), value.as_ref());
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.args(["coordinator", "--listen", "127.0.0.1:0"]).args(TRACE).args(args);
    let mut process = Process::start(name, command, &dir.join(format!("{name}.log")))?;
    let found = wait_every(PATIENT, "what the log must say", LONG, || {
        // First, because it may log the words and end.
        let ended = process.ended()?.is_some();
        let said = process.said();
        let found = words.iter().all(|word| said.contains(word));
        ensure!(found || !ended, "{name} ended without saying {words:?}: {said}");
        Ok(found.then_some(()))
    });
    if process.ended()?.is_none() {
        process.kill()?;
    }
    found.with_context(|| process.said())?;
    secrets::check(name, &process.said())
}

fn a_journal_whose_store_quotes_requests_reveals_nothing() -> Result<()> {
    let (server, place) = (Server::start(Kind::Moto)?, Place::new()?);
    let proxy = Proxy::before(server.address())?;
    let mut environment = ADMIN.environment(proxy.address()).to_vec();
    environment.push(("AWS_SESSION_TOKEN", SESSION.into()));
    let state = format!("s3://{OUT}/state");
    for (method, part) in [("GET", "list-type"), ("PUT", "state/log")] {
        proxy.break_next(method, part, 0, 1000, Fault::Quote(403, "SignatureDoesNotMatch"));
        serve("journal", &["--state-dir", &state], &environment, &["SignatureDoesNotMatch"], place.path())?;
        ensure!(
            proxy.take().iter().any(|e| e.status == 403 && e.head.contains(SESSION)),
            "nothing was quoted"
        );
        proxy.heal();
    }
    Ok(())
}

fn a_store_or_a_consul_that_does_not_answer_reveals_nothing() -> Result<()> {
    let place = Place::new()?;
    let state = place.path().join("state").display().to_string();
    let nowhere: SocketAddr = "127.0.0.1:1".parse()?;
    let mut environment = ADMIN.environment(nowhere).to_vec();
    environment.push(("AWS_SESSION_TOKEN", SESSION.into()));
    // It tries a proxy, whose password is in the environment.
    environment.push(("HTTP_PROXY", format!("http://me:{PASSWORD}@127.0.0.1:1")));
    secrets::register(PASSWORD);
    let remote = format!("s3://{OUT}/state");
    serve("store", &["--state-dir", &remote], &environment, &["error sending request"], place.path())?;
    let token = [("CONSUL_HTTP_TOKEN", "consul-token-of-a-test".to_string())];
    let consul = ["--state-dir", &state, "--consul", "http://127.0.0.1:1"];
    serve("consul", &consul, &token, &["can't reach Consul"], place.path())?;
    let jobs = Tally::new("jobs").env(token[0].0, &token[0].1).args(TRACE);
    let jobs = jobs.args(["--consul", "http://127.0.0.1:1", "--connect-timeout", "200ms"]);
    jobs.run()?.expect_failure(5, &["can't reach Consul"]).map(drop)
}

fn a_consul_that_refuses_a_token_reveals_nothing() -> Result<()> {
    const MASTER: &str = "00000000-1111-2222-3333-444444444444";
    const WRONG: &str = "99999999-1111-2222-3333-444444444444";
    let agent =
        ConsulAgent::start(Setup { config: closed(MASTER), token: Some(MASTER.into()), ..Setup::default() })?;
    let place = Place::new()?;
    let file = place.path().join("token");
    std::fs::write(&file, WRONG)?;
    secrets::register(WRONG);
    let flags =
        ["--consul", &agent.url(), "--consul-token-file", &file.display().to_string()].map(str::to_owned);
    let refused = ["permission denied by Consul", "check the ACL token"];
    let jobs = Tally::new("jobs").args(TRACE).args(&flags).args(["--connect-timeout", "1s"]).run()?;
    jobs.expect_failure(5, &refused)?;
    let state = place.path().join("state").display().to_string();
    let coordinator = Tally::new("coordinator").args(TRACE).args(&flags);
    let coordinator = coordinator.args(["--listen", "127.0.0.1:0", "--state-dir", &state]);
    coordinator.run()?.expect_failure(1, &refused).map(drop)
}

fn credentials_in_urls_are_refused_and_not_repeated() -> Result<()> {
    secrets::register(PASSWORD);
    let place = Place::new()?;
    let state = place.path().join("state").display().to_string();
    let spill = place.spill().display().to_string();
    let user = format!("s3://AKIAIOSFODNN7EXAMPLE:{PASSWORD}@bucket/v1");
    let slash = format!("s3://AKIAIOSFODNN7EXAMPLE:se/{PASSWORD}@bucket/v1");
    let signed = format!("s3://bucket/v1?X-Amz-Credential=x&X-Amz-Signature={PASSWORD}");
    let sas = format!("az://container/v1?sv=2024-11-04&sig={PASSWORD}");
    let web = format!("https://bucket.s3.amazonaws.com/v1?X-Amz-Security-Token={PASSWORD}");
    let failed = |command: Tally, args: &[&str], words: &[&str]| {
        let outcome = command.args(args).args(TRACE).run()?;
        // 7: a published day cannot be read.
        ensure!(matches!(outcome.code(), Some(1 | 2 | 7)), "{outcome}");
        words.iter().try_for_each(|word| {
            ensure!(outcome.stderr.contains(word), "{args:?} does not say {word:?}\n{outcome}");
            Ok(())
        })
    };
    let refuses = |args: &[&str], words: &[&str]| failed(Tally::new(args[0]), &args[1..], words);
    let page = place.path().join("report.html");
    let html = page.display().to_string();
    for (url, belongs) in [
        (&user, "AWS_ACCESS_KEY_ID"),
        (&slash, "AWS_ACCESS_KEY_ID"),
        (&signed, "AWS_PROFILE"),
        (&sas, "AZURE_STORAGE_SAS_KEY"),
        (&web, "AWS_PROFILE"),
    ] {
        let words = ["must not contain credentials", belongs];
        for table in ["--addons", "--main-summary", "--output"] {
            let flags = [table, url, "--preset", "telemetry", "--date", "20170227"];
            refuses(&[&["run", "--spill-dir", &spill][..], &flags].concat(), &words)?;
            // Before any request: there is no listener.
            refuses(&[&["submit", "--coordinator", "127.0.0.1:1"][..], &flags].concat(), &words)?;
        }
        refuses(&["gc", "--output", url], &words)?;
        refuses(&["days", "--output", url, "--addons", &spill, "--main-summary", &spill], &words)?;
        let range = ["--from", "20170226", "--to", "20170227", "--output", url, "--preset", "telemetry"];
        refuses(&[&["backfill", "--spill-dir", &spill][..], &range].concat(), &words)?;
        refuses(&[&["plan"][..], &range].concat(), &words)?;
        refuses(&["coordinator", "--state-dir", url, "--listen", "127.0.0.1:0"], &words)?;
        // Commands that read published days.
        let date = ["--date", "20170227", "--spill-dir", &spill];
        refuses(&[&["verify", "--output", url][..], &date].concat(), &words)?;
        refuses(&[&["diff", url, url][..], &date].concat(), &words)?;
        let range = ["--from", "20170227", "--to", "20170227"];
        refuses(&[&["report", "--output", url, "--html", &html][..], &range].concat(), &words)?;
        secrets::check("the report's page", &std::fs::read_to_string(&page)?)?;
        std::fs::remove_file(&page)?;
        refuses(&["demo", "--dir", url, "--spill-dir", &spill], &words)?;
        // Options that take no object store at all.
        let words = ["give a path", words[0], belongs];
        refuses(&["generate", "--clients", "10", "--output", url], &words)?;
        refuses(&["run", "--spill-dir", url], &words)?;
        refuses(&["verify", "--spill-dir", url], &words)?;
        refuses(&["demo", "--spill-dir", url], &words)?;
        failed(Tally::wrapped(&worker_bin(), ["--spill-dir", url]), &[], &words)?;
    }
    let consul = |address: &str| format!("{address} is not usable");
    let (named, asked) = (format!("http://me:{PASSWORD}@h:1"), format!("http://h:1/?token={PASSWORD}"));
    refuses(&["jobs", "--consul", &named], &[&consul("`...@h:1`"), "user or password", "CONSUL_HTTP_TOKEN"])?;
    refuses(&["jobs", "--consul", &asked], &[&consul("`http://h:1/?...`"), "CONSUL_HTTP_TOKEN"])?;
    let coordinator = format!("http://me:{PASSWORD}@127.0.0.1:1");
    refuses(&["jobs", "--coordinator", &coordinator], &["is not an address"])?;
    refuses(&["jobs", "--coordinator", &coordinator["http://".len()..]], &["is not an address"])?;
    let serves = ["coordinator", "--state-dir", &state, "--listen", "127.0.0.1:0"];
    let traced = [&serves[..], &["--otlp-endpoint", &coordinator]].concat();
    refuses(&traced, &["--otlp-endpoint", "OTEL_EXPORTER_OTLP_HEADERS"])?;
    // Help does not show the values from the environment.
    let help = Tally::new("coordinator").env("TALLY_OTLP_ENDPOINT", &coordinator).args(["--help"]);
    let help = help.run()?.expect_code(0)?;
    ensure!(help.stdout.contains("--otlp-endpoint") && !help.stdout.contains("127.0.0.1:1"), "{help}");
    ensure!(!place.path().join("state").exists(), "a journal was begun");
    Ok(())
}

tally_tests::tests![
    a_store_that_quotes_what_it_refuses_reveals_nothing,
    a_cluster_at_the_most_verbose_level_reveals_nothing,
    a_journal_whose_store_quotes_requests_reveals_nothing,
    a_store_or_a_consul_that_does_not_answer_reveals_nothing,
    a_consul_that_refuses_a_token_reveals_nothing,
    credentials_in_urls_are_refused_and_not_repeated,
];
