//! Credentials that are missing, unusable, or expire during a job: missing ones are reported soon, unneeded ones fail
//! nothing, and expired ones are renewed. The store is a mock that accepts any credentials; the proxy before it refuses
//! expired session tokens.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tally_tests::certs::Authority;
use tally_tests::golden::Case;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::s3::client::Client;
use tally_tests::s3::identity::Identity;
use tally_tests::s3::proxy::{Exchange, Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT, Server};
use tally_tests::s3::{bare_job, job, put_case, read_output};
use tally_tests::table;

const CASE: &str = "case-03";
/// The 5 s that are promised, and the start of a process on a busy machine.
const SOON: Duration = Duration::from_secs(8);
/// The lifetime of credentials.
const GOOD: Duration = Duration::from_secs(2);
/// Pause before each response of the store and each piece of one.
const SLOW: Duration = Duration::from_millis(500);

/// A job whose home is `home`, without any credentials.
fn homeless(place: &Place, home: &Path, metadata: &str) -> Tally {
    without_credentials(bare_job(CASE, &place.spill()), home, metadata)
}

fn without_credentials(command: Tally, home: &Path, metadata: &str) -> Tally {
    let command = command.env("HOME", &home.display().to_string());
    // The store is never reached.
    command
        .env("AWS_METADATA_ENDPOINT", metadata)
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_REGION", "r")
}

fn missing_credentials_are_reported_soon_with_what_was_tried() -> Result<()> {
    let place = Place::new()?;
    // Accepts connections and answers nothing, as middleboxes between a machine and its cloud's metadata often do.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let metadata = format!("http://{}", silent.local_addr()?);
    let began = Instant::now();
    let outcome = homeless(&place, place.path(), &metadata).run()?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let tried = [
        "no credentials for S3",
        "AWS_ACCESS_KEY_ID is not set",
        "AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ".aws/credentials does not exist",
        ".aws/config does not exist",
        &format!("instance metadata at {metadata}"),
        "Set AWS_ACCESS_KEY_ID",
    ];
    outcome.expect_failure(1, &tried)?;
    let coordinator =
        Tally::new("coordinator").args(["--listen", "127.0.0.1:0", "--state-dir", "s3://state/tally"]);
    let began = Instant::now();
    let outcome = without_credentials(coordinator, place.path(), &metadata).run()?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    outcome.expect_failure(1, &tried)?;
    let disabled =
        homeless(&place, place.path(), &metadata).env("AWS_EC2_METADATA_DISABLED", "true").run()?;
    disabled.expect_failure(1, &["AWS_EC2_METADATA_DISABLED", "AWS_ACCESS_KEY_ID is not set"])?;
    Ok(())
}

fn a_web_identity_that_is_refused_is_requested_once() -> Result<()> {
    let place = Place::new()?;
    let authority = Authority::new("a test's authority")?;
    let ca = authority.write(place.path(), "ca")?.display().to_string();
    let signed = authority.sign(place.path(), "sts", &["127.0.0.1"])?;
    let identity = Identity::start(&signed, None)?;
    let token = place.path().join("web");
    std::fs::write(&token, "web-token")?;
    let coordinator =
        Tally::new("coordinator").args(["--listen", "127.0.0.1:0", "--state-dir", "s3://state/tally"]);
    for command in [bare_job(CASE, &place.spill()), coordinator] {
        let before = identity.token_requests()?;
        let command = without_credentials(command, place.path(), "http://127.0.0.1:1")
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string())
            .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/of-others")
            .env("AWS_ENDPOINT_URL_STS", &identity.sealed)
            .env("AWS_CA_BUNDLE", &ca);
        let began = Instant::now();
        let outcome = command.run()?;
        ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
        outcome.expect_failure(1, &["by web identity", "403", "role/of-others", "Check the role"])?;
        assert_eq!(identity.token_requests()? - before, 1, "tried again");
    }
    Ok(())
}

fn a_profile_of_sso_says_so_with_and_without_its_name() -> Result<()> {
    let place = Place::new()?;
    let folder = place.path().join(".aws");
    std::fs::create_dir(&folder)?;
    std::fs::write(
        folder.join("config"),
        "[default]\nsso_session = work\nsso_account_id = 1\n[profile other]\nsso_start_url = https://sso\n",
    )?;
    let words = ["sso_session", "not supported", "aws configure export-credentials --profile default"];
    homeless(&place, place.path(), "http://127.0.0.1:1").run()?.expect_failure(1, &words)?;
    let named = homeless(&place, place.path(), "http://127.0.0.1:1").env("AWS_PROFILE", "other").run()?;
    named.expect_failure(1, &["sso_start_url", "export-credentials --profile other"])?;
    Ok(())
}

/// Files that no user can read, in every environment: root may read everything but a folder.
fn closed_home(place: &Place) -> Result<()> {
    for name in ["credentials", "config"] {
        std::fs::create_dir_all(place.path().join("closed/.aws").join(name))?;
    }
    Ok(())
}

fn what_is_not_needed_fails_nothing() -> Result<()> {
    let server = Server::start(Kind::Moto)?;
    let case = put_case(&server.client(DATA)?, CASE)?;
    let place = Place::new()?;
    closed_home(&place)?;
    let closed = place.path().join("closed").display().to_string();
    for home in [closed.as_str(), "/dev/null", "/no/home"] {
        let mut job = job(server.address(), ADMIN, CASE, &place.spill()).env("HOME", home);
        for empty in [
            "AWS_CA_BUNDLE",
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_ENDPOINT_URL_S3",
            "AWS_SKIP_SIGNATURE",
            "TALLY_LOG",
            "TALLY_LOG_FORMAT",
        ] {
            job = job.env(empty, "");
        }
        job.run()?.summary().context(home.to_string())?;
        table::compare(&read_output(&server.client(OUT)?)?, &case.expected_rows()?)?;
    }
    let refused = homeless(&place, Path::new(&closed), "http://127.0.0.1:1").run()?;
    refused.expect_failure(1, &[".aws/credentials cannot be read", "AWS_ACCESS_KEY_ID is not set"])?;
    Ok(())
}

/// A store that refuses expired credentials, with a day in it.
struct Store {
    server: Server,
    proxy: Proxy,
    case: Case,
}

impl Store {
    fn start() -> Result<Self> {
        let server = Server::start(Kind::Moto)?;
        let case = put_case(&server.client(DATA)?, CASE)?;
        let proxy = Proxy::before(server.address())?;
        proxy.refuse_expired();
        Ok(Store { server, proxy, case })
    }

    /// A job that gets the address of the store and takes longer than the lifetime of credentials.
    fn slow_job(&self, place: &Place) -> Tally {
        self.proxy.break_next("GET", "", 0, 1000, Fault::Slow(SLOW));
        let job = bare_job(CASE, &place.spill()).env("HOME", &place.path().display().to_string());
        job.env("AWS_ENDPOINT_URL", &format!("http://{}", self.proxy.address()))
            .env("AWS_REGION", "us-east-1")
    }

    fn out(&self) -> Result<Client> {
        self.server.client(OUT)
    }

    /// Checks that the last credentials were issued after the first ones had expired, and that none were refused.
    fn check_renewed(&self) -> Result<()> {
        table::compare(&read_output(&self.out()?)?, &self.case.expected_rows()?)?;
        let exchanges = self.proxy.take();
        let ends: Vec<u128> = exchanges.iter().filter_map(until).collect();
        ensure!(ends.len() == exchanges.len(), "a request has no session");
        let (first, last) = (ends.iter().min().context("no request")?, ends.iter().max().context("none")?);
        ensure!(last - first > GOOD.as_millis(), "the job was over before its credentials: {ends:?}");
        let refused: Vec<_> =
            exchanges.iter().filter(|exchange| [400, 403].contains(&exchange.status)).collect();
        ensure!(refused.is_empty(), "refused: {refused:?}");
        Ok(())
    }
}

/// The expiry of a request's credentials.
fn until(exchange: &Exchange) -> Option<u128> {
    let head = exchange.head.to_lowercase();
    let token = head.lines().find_map(|line| line.strip_prefix("x-amz-security-token:"))?;
    token.trim().rsplit_once("-until-")?.1.parse().ok()
}

fn a_web_identity_that_ends_is_renewed() -> Result<()> {
    let (store, place) = (Store::start()?, Place::new()?);
    let authority = Authority::new("a test's authority")?;
    let ca = authority.write(place.path(), "ca")?.display().to_string();
    let signed = authority.sign(place.path(), "sts", &["127.0.0.1"])?;
    let identity = Identity::start(&signed, Some(GOOD.as_secs_f64()))?;
    let token = place.path().join("web");
    std::fs::write(&token, "web-token")?;
    let job = store.slow_job(&place).env("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string());
    let job = job.env("AWS_ROLE_ARN", "arn:aws:iam::1:role/t").env("AWS_ENDPOINT_URL_STS", &identity.sealed);
    job.env("AWS_CA_BUNDLE", &ca).run()?.summary()?;
    store.check_renewed()?;
    // The store does check: expired credentials are refused.
    let old =
        store.slow_job(&place).env("AWS_ACCESS_KEY_ID", "old").env("AWS_SECRET_ACCESS_KEY", "old-secret");
    let old = old.env("AWS_SESSION_TOKEN", "old-until-1").run()?;
    old.expect_failure(1, &["ExpiredToken", "check the credentials"])?;
    Ok(())
}

/// Like programs that log in for a person and write the result to the credentials file.
fn keys_of_a_profile_are_read_again() -> Result<()> {
    let (store, place) = (Store::start()?, Place::new()?);
    let file = place.path().join("keys");
    let write = || -> Result<()> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() + GOOD.as_millis();
        let text = format!(
            "[default]\naws_access_key_id = a\naws_secret_access_key = b\naws_session_token = t-until-{until}\n"
        );
        let new = place.path().join("keys.new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, &file)?)
    };
    write()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                write()?;
                std::thread::sleep(GOOD / 10);
            }
            anyhow::Ok(())
        });
        let job = store.slow_job(&place).env("AWS_SHARED_CREDENTIALS_FILE", &file.display().to_string());
        let outcome = job.run();
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        outcome?.summary()
    })?;
    store.check_renewed()
}

tally_tests::tests![
    missing_credentials_are_reported_soon_with_what_was_tried,
    a_web_identity_that_is_refused_is_requested_once,
    a_profile_of_sso_says_so_with_and_without_its_name,
    what_is_not_needed_fails_nothing,
    a_web_identity_that_ends_is_renewed,
    keys_of_a_profile_are_read_again,
];
