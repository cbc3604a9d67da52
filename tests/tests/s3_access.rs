//! How a job gets access to its buckets: credentials as clouds provide them, a store with a private authority, and
//! missing permissions.

use anyhow::{Context, Result, ensure};
use tally_tests::certs::Authority;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::s3::identity::Identity;
use tally_tests::s3::proxy::{Fault, Proxy};
use tally_tests::s3::server::{ADMIN, DATA, Kind, LISTLESS, OUT, Server};
use tally_tests::s3::{
    bare_job, check_nothing_left, day_folder, job, output_url, put_case, put_old_output, reach, read_output,
};
use tally_tests::table;

const CASE: &str = "case-03";

/// moto accepts any credentials; the signature shows which ones were used.
fn credentials_come_as_clouds_hand_them_out() -> Result<()> {
    let server = Server::start(Kind::Moto)?;
    let (place, authority) = (Place::new()?, Authority::new("a test's authority")?);
    let folder = place.path();
    let ca = authority.write(folder, "ca")?;
    let signed = authority.sign(folder, "sts", &["127.0.0.1"])?;
    let identity = Identity::start(&signed, None)?;
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let case = put_case(&server.client(DATA)?, CASE)?;
    let out = server.client(OUT)?;
    let proxy = Proxy::before(server.address())?;
    let endpoint = format!("http://{}", proxy.address());
    let keys =
        file("keys", "[tally]\naws_access_key_id = by-profile\naws_secret_access_key = by-profile-secret\n")?;
    let config =
        file("config", &format!("[profile tally]\nregion = us-east-1\nendpoint_url = {endpoint}\n"))?;
    let (web, pod) = (file("web", "web-token")?, file("pod", "pod-token")?);
    let at = [("AWS_ENDPOINT_URL", endpoint.clone()), ("AWS_REGION", "us-east-1".into())];
    let ways = [
        ("by-instance", [&at[..], &[("AWS_METADATA_ENDPOINT", identity.plain.clone())]].concat()),
        (
            "by-web-identity",
            [
                &at[..],
                &[
                    ("AWS_WEB_IDENTITY_TOKEN_FILE", web),
                    ("AWS_ROLE_ARN", "arn:aws:iam::1:role/t".into()),
                    ("AWS_ENDPOINT_URL_STS", identity.sealed.clone()),
                    ("AWS_CA_BUNDLE", ca.display().to_string()),
                ],
            ]
            .concat(),
        ),
        (
            "by-container",
            [
                &at[..],
                &[
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/container", identity.plain)),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", pod),
                ],
            ]
            .concat(),
        ),
        (
            "by-profile",
            vec![
                ("AWS_PROFILE", "tally".to_string()),
                ("AWS_SHARED_CREDENTIALS_FILE", keys),
                ("AWS_CONFIG_FILE", config),
            ],
        ),
    ];
    for (way, environment) in ways {
        proxy.take();
        let job = bare_job(CASE, &place.spill()).env("HOME", &folder.display().to_string());
        let job = environment.iter().fold(job, |job, (name, value)| job.env(name, value));
        let outcome = job.run()?;
        ensure!(!outcome.to_string().contains(&format!("{way}-secret")), "a secret is shown: {outcome}");
        outcome.summary().context(way)?;
        table::compare(&read_output(&out)?, &case.expected_rows()?).context(way)?;
        let exchanges = proxy.take();
        ensure!(!exchanges.is_empty(), "{way}: nothing was asked");
        for exchange in exchanges {
            let head = exchange.head.to_lowercase();
            ensure!(head.contains(&format!("credential={way}/")), "{way}: {head}");
            let session = head.contains(&format!("x-amz-security-token: {way}-session"));
            assert_eq!(session, way != "by-profile", "{way}: {head}");
        }
    }
    Ok(())
}

/// Runs a job that fails without repeated requests.
fn fails_at_once(job: Tally, words: &[&str]) -> Result<()> {
    let outcome = job.env("TALLY_LOG", "info").run()?.expect_failure(1, words)?;
    // What the client of the store logs before it tries again.
    ensure!(!outcome.stderr.contains("backing off"), "{outcome}");
    Ok(())
}

fn a_wrong_endpoint_is_named_at_once() -> Result<()> {
    let place = Place::new()?;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?
    };
    let advice = ["no connection to the store", "refused", "check host and port of the endpoint"];
    fails_at_once(job(closed, ADMIN, CASE, &place.spill()), &advice)?;
    let nowhere =
        job(closed, ADMIN, CASE, &place.spill()).env("AWS_ENDPOINT_URL", "http://no-such-host.invalid:9");
    nowhere.run()?.expect_failure(1, &["AWS_ENDPOINT_URL"])?;
    // A server without TLS.
    let server = Server::start(Kind::Moto)?;
    let endpoint = format!("https://{}", server.address());
    let job = job(server.address(), ADMIN, CASE, &place.spill()).env("AWS_ENDPOINT_URL", &endpoint);
    fails_at_once(job, &["does not use TLS", "http://HOST:PORT"])
}

fn a_store_is_trusted_by_the_authority_that_is_named() -> Result<()> {
    let (place, authority) = (Place::new()?, Authority::new("a test's authority")?);
    let ca = authority.write(place.path(), "ca")?.display().to_string();
    let signed = authority.sign(place.path(), "s3", &["127.0.0.1"])?;
    let server = Server::start_tls(&signed)?;
    let case = put_case(&server.client(DATA)?, CASE)?;
    let endpoint = format!("https://{}", server.tls_address());
    let job = || job(server.address(), ADMIN, CASE, &place.spill()).env("AWS_ENDPOINT_URL", &endpoint);
    fails_at_once(job(), &["UnknownIssuer", "AWS_CA_BUNDLE"])?;
    job().env("AWS_CA_BUNDLE", &ca).run()?.summary()?;
    table::compare(&read_output(&server.client(OUT)?)?, &case.expected_rows()?)?;
    let nothing = place.path().join("empty.pem");
    std::fs::write(&nothing, "")?;
    job()
        .env("AWS_CA_BUNDLE", &nothing.display().to_string())
        .run()?
        .expect_failure(1, &["AWS_CA_BUNDLE", "no certificate"])?;
    Ok(())
}

fn a_missing_permission_is_reported_before_any_decision() -> Result<()> {
    let server = Server::start(Kind::Seaweed)?;
    let (data, out) = (server.client(DATA)?, server.client(OUT)?);
    put_case(&data, CASE)?;
    let old = put_old_output(&out)?;
    let place = Place::new()?;
    let fails = |job: Tally, words: &[&str]| {
        let outcome = job.run()?.expect_failure(1, words)?;
        ensure!(
            !outcome.stderr.contains(ADMIN.secret) && !outcome.stderr.contains(LISTLESS.secret),
            "{outcome}"
        );
        assert_eq!(out.list(&day_folder())?, old, "the old day was touched");
        Ok::<_, anyhow::Error>(())
    };
    let lists = job(server.address(), LISTLESS, CASE, &place.spill());
    fails(
        lists,
        &["s3://data/case-03/addons/v2", "cannot be listed", "AccessDenied", "permission is missing"],
    )?;
    // SeaweedFS has no permission for deletes apart from the one for writes.
    let proxy = Proxy::before(server.address())?;
    proxy.break_next("POST", "?delete", 0, 1000, Fault::Refuse(403, "AccessDenied"));
    proxy.break_next("DELETE", "", 0, 1000, Fault::Refuse(403, "AccessDenied"));
    let deletes = job(proxy.address(), ADMIN, CASE, &place.spill());
    fails(deletes, &["s3://out/agg", "cannot be removed", "AccessDenied", "s3:DeleteObject"])?;
    ensure!(!proxy.exchanges().iter().any(|e| e.target.contains("uploads")), "an upload was begun");
    proxy.heal();
    job(proxy.address(), ADMIN, CASE, &place.spill()).run()?.summary()?;
    let gc = Tally::new("gc").args(["--output", &output_url(), "--older-than", "1ms"]);
    reach(gc, server.address(), ADMIN).run()?.expect_code(0)?;
    check_nothing_left(&out)
}

tally_tests::tests![
    credentials_come_as_clouds_hand_them_out,
    a_store_is_trusted_by_the_authority_that_is_named,
    a_wrong_endpoint_is_named_at_once,
    a_missing_permission_is_reported_before_any_decision,
];
