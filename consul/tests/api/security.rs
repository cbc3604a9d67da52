//! ACL tokens, TLS, datacenters and namespaces.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use anyhow::{Context, Result, anyhow, ensure};
use consul_api_client::{Client, Config, Error, NewSession, Tls, Token};
use serde_json::json;
use tally_tests::certs::{Authority, replace};
use tally_tests::consul::{ConsulAgent, Setup, closed};

use super::{eventually, start};

const MASTER: &str = "00000000-1111-2222-3333-444444444444";

async fn a_token_gives_access() -> Result<()> {
    let setup = Setup { config: closed(MASTER), token: Some(MASTER.into()), ..Setup::default() };
    let agent = ConsulAgent::start(setup)?;
    let with = |token: Option<Token>| Client::new(&Config { token, ..Config::new(agent.address()) });

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{MASTER}\n"))?;
    let right = with(Some(Token::from_file(&file)?))?;
    right.kv().put("k", "secret").await?;
    assert!(right.kv().get("k").await?.is_some());

    let wrong = with(Some(Token::new("99999999-1111-2222-3333-444444444444")?))?;
    let denied = |error: Error, what: &str| {
        let text = error.to_string();
        assert!(matches!(error, Error::PermissionDenied { .. }), "{what}: {error:?}");
        assert!(text.starts_with(what) && text.contains("token"), "{text}");
        assert!(!text.contains("99999999") && !error.is_transient(), "{text}");
    };
    denied(wrong.kv().put("k", "x").await.unwrap_err(), "put key \"k\"");
    denied(wrong.kv().get("k").await.unwrap_err(), "get key \"k\"");
    denied(wrong.sessions().create(&NewSession::default()).await.unwrap_err(), "create session");
    let none = with(None)?;
    denied(none.kv().cas("k", "x", 0).await.unwrap_err(), "compare-and-swap key \"k\"");
    assert_eq!(&right.kv().get("k").await?.context("no k")?.value[..], b"secret");

    let missing = Token::from_file(&dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
    Ok(())
}

const KEYS: &str = r#"key_prefix "" { policy = "write" }"#;

async fn a_token_is_read_again_when_its_file_changes() -> Result<()> {
    let setup = Setup { config: closed(MASTER), token: Some(MASTER.into()), ..Setup::default() };
    let agent = ConsulAgent::start(setup)?;
    let (first, second) = (agent.make_token("first", KEYS)?, agent.make_token("second", KEYS)?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    replace(&file, &first.secret, 0o600)?;
    let client = Client::new(&Config { token_file: Some(file.clone()), ..Config::new(agent.address()) })?;
    client.kv().put("k", "x").await?;
    assert_eq!(client.generation(), 0);

    agent.delete_token(&first)?;
    let refused = |say: &'static str| {
        let client = client.clone();
        eventually("a refusal", move || {
            let client = client.clone();
            async move {
                let Err(error) = client.kv().put("k", "y").await else { return Ok(None) };
                ensure!(matches!(error, Error::PermissionDenied { .. }), "{error}");
                Ok(error.to_string().contains(say).then_some(()))
            }
        })
    };
    refused("permission denied").await?;
    replace(&file, "\n", 0o600)?;
    refused("cannot be used").await?;
    replace(&file, &second.secret, 0o600)?;
    eventually("a put with the second token", || async { Ok(client.kv().put("k", "z").await.ok()) }).await?;
    assert_eq!(client.generation(), 1);
    Ok(())
}

async fn certificates_are_read_again_when_their_files_change() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    for folder in [&theirs, &ours] {
        std::fs::create_dir(folder)?;
    }
    let sign = |name: &str| -> Result<Authority> {
        let ca = Authority::new(name)?;
        replace(&theirs.join("ca.pem"), ca.pem(), 0o644)?;
        ca.sign(&theirs, "server", &["localhost"])?;
        Ok(ca)
    };
    let take = |ca: &Authority| -> Result<()> {
        replace(&ours.join("ca.pem"), ca.pem(), 0o644)?;
        ca.sign(&ours, "client", &["client"]).map(drop)
    };
    take(&sign("before")?)?;
    let config = json!({
        "ca_file": theirs.join("ca.pem"), "cert_file": theirs.join("server.pem"),
        "key_file": theirs.join("server.key"), "verify_incoming_https": true,
    });
    let mut agent = ConsulAgent::start(Setup { https: true, config, ..Setup::default() })?;
    let tls = Tls {
        ca_file: Some(ours.join("ca.pem")),
        client_cert: Some(ours.join("client.pem")),
        client_key: Some(ours.join("client.key")),
    };
    let client = Client::new(&Config { tls, ..Config::new(agent.url()) })?;
    client.kv().put("k", "x").await?;

    let after = sign("after")?;
    agent.restart()?;
    let stale = client.kv().put("k", "y").await.unwrap_err().to_string();
    assert!(stale.contains("UnknownIssuer"), "{stale}");
    take(&after)?;
    eventually("a put with new certificates", || async { Ok(client.kv().put("k", "z").await.ok()) }).await
}

async fn tls_trusts_its_authority_and_sends_a_certificate() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Authority::new("the right one")?;
    let ca_file = ca.write(dir.path(), "ca")?;
    let server = ca.sign(dir.path(), "server", &["localhost"])?;
    let client = ca.sign(dir.path(), "client", &["client"])?;
    let other = Authority::new("another one")?;
    let other_file = other.write(dir.path(), "other")?;
    let config = json!({
        "ca_file": ca_file, "cert_file": server.cert, "key_file": server.key, "verify_incoming_https": true,
    });
    let agent = ConsulAgent::start(Setup { https: true, config, ..Setup::default() })?;
    let address = format!("https://{}", agent.https_address());
    let with = |tls: Tls| Client::new(&Config { tls, ..Config::new(&address) });
    let trusting = Tls { ca_file: Some(ca_file.clone()), ..Tls::default() };
    let known = Tls {
        client_cert: Some(client.cert.clone()),
        client_key: Some(client.key.clone()),
        ..trusting.clone()
    };

    let good = with(known.clone())?;
    good.kv().put("k", "over TLS").await?;
    assert_eq!(&good.kv().get("k").await?.context("no k")?.value[..], b"over TLS");

    let nameless = with(trusting.clone())?.kv().get("k").await.unwrap_err();
    assert!(matches!(nameless, Error::Unreachable { .. }), "{nameless:?}");
    let untrusted = with(Tls { ca_file: Some(other_file), ..known.clone() })?.kv().get("k").await;
    let untrusted = untrusted.unwrap_err().to_string();
    assert!(untrusted.contains("UnknownIssuer") && untrusted.contains(&address), "{untrusted}");
    let misnamed = Config { tls: known.clone(), ..Config::new(address.replace("localhost", "127.0.0.1")) };
    let misnamed = Client::new(&misnamed)?.kv().get("k").await.unwrap_err().to_string();
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
    Ok(())
}

fn invalid_tls_settings_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Authority::new("one")?;
    let ca_file = Some(ca.write(dir.path(), "ca")?);
    let signed = ca.sign(dir.path(), "client", &["client"])?;
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate\n")?;
    let check = |address: &str, tls: Tls, expect: &str| {
        let error = Client::new(&Config { tls, ..Config::new(address) }).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let https = "https://localhost";
    let ca_only = Tls { ca_file, ..Tls::default() };
    check("http://localhost", ca_only.clone(), "not https");
    check(https, Tls { client_cert: Some(signed.cert.clone()), ..ca_only.clone() }, "together");
    check(
        https,
        Tls { ca_file: Some(empty.clone()), ..Tls::default() },
        "empty.pem: it contains no certificate",
    );
    check(https, Tls { ca_file: Some(dir.path().join("missing.pem")), ..Tls::default() }, "missing.pem");
    let keyless = Tls { client_cert: Some(signed.cert), client_key: Some(empty), ..ca_only };
    check(https, keyless, "the client key");
    Ok(())
}

async fn datacenter_and_namespace_are_sent() -> Result<()> {
    let (agent, _) = start()?;
    let with = |dc: &str, ns: Option<&str>| {
        Client::new(&Config {
            datacenter: Some(dc.into()),
            namespace: ns.map(Into::into),
            ..Config::new(agent.address())
        })
    };
    with("dc1", None)?.kv().put("k", "x").await?;
    let error = with("far away", None)?.kv().get("k").await.unwrap_err();
    assert!(
        matches!(&error, Error::Status { body, .. } if body.contains("No path to datacenter")),
        "{error:?}"
    );
    // Only Enterprise has namespaces. The error of other editions shows that the namespace was sent.
    let error = with("dc1", Some("team"))?.kv().get("k").await.unwrap_err();
    assert!(matches!(&error, Error::Status { status: 400, body, .. } if body.contains("ns")), "{error:?}");
    Ok(())
}

async fn an_admin_partition_is_sent() -> Result<()> {
    // Other editions ignore partitions, so the request itself is read.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let config =
        Config { partition: Some("team a".into()), ..Config::new(listener.local_addr()?.to_string()) };
    let request = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        BufReader::new(stream).lines().next().unwrap_or_else(|| Ok(String::new()))
    });
    let answer = Client::new(&config)?.kv().get("k").await;
    let line = request.join().map_err(|_| anyhow!("the listener failed"))??;
    assert_eq!(line, "GET /v1/kv/k?partition=team+a HTTP/1.1");
    assert!(answer.is_err(), "the connection was closed without an answer");
    Ok(())
}

tally_tests::tests![
    mod:
    invalid_tls_settings_are_refused,
    ;
    async:
    a_token_gives_access,
    a_token_is_read_again_when_its_file_changes,
    certificates_are_read_again_when_their_files_change,
    tls_trusts_its_authority_and_sends_a_certificate,
    datacenter_and_namespace_are_sent,
    an_admin_partition_is_sent,
];
