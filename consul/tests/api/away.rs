//! An unreachable or hung Consul, and other servers at its address: errors name the address, and watches recover.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consul_api_client::{Client, Config, Error, WatchOptions};

use super::{DEADLINE, durable, eventually, first, next, start, start_with};

async fn an_unreachable_agent_is_named_and_found_again() -> Result<()> {
    let (mut agent, consul) = start_with(durable())?;
    consul.kv().put("k", "kept").await?;
    let mut watch = consul.watch_key("k", WatchOptions::default());
    next(&mut watch).await??;
    agent.kill();
    // The first call may use the old connection and see it break.
    eventually("a refusal", || async {
        let error = consul.kv().get("k").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("http://{}", agent.address())), "{text}");
        assert!(text.contains("get key \"k\""), "{text}");
        Ok(text.contains("refused").then_some(()))
    })
    .await?;

    // The watch yields more than one error, with pauses between them.
    let begin = Instant::now();
    for _ in 0..4 {
        let error = next(&mut watch).await?.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
    let least = Duration::from_millis(50 + 100 + 200);
    assert!(begin.elapsed() >= least, "errors came without pauses: {:?}", begin.elapsed());

    agent.restart()?;
    let (pair, _) = first(&mut watch, Option::is_some).await?;
    assert_eq!(&pair.context("no pair")?.value[..], b"kept");
    Ok(())
}

async fn calls_to_a_hung_agent_time_out() -> Result<()> {
    let (agent, patient) = start()?;
    let config = Config { request_timeout: Duration::from_millis(500), ..Config::new(agent.address()) };
    let hasty = Client::new(&config)?;
    patient.kv().put("k", "x").await?;
    agent.freeze()?;
    let error = tokio::time::timeout(DEADLINE, hasty.kv().get("k")).await?.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains(&agent.address()), "{error}");
    let mut watch = hasty.watch_key("k", WatchOptions::default());
    assert!(next(&mut watch).await?.is_err());
    agent.thaw()?;
    first(&mut watch, Option::is_some).await?;
    Ok(())
}

/// Answers any request once, with `answer`.
fn impostor(answer: Vec<u8>) -> Result<Client> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = Client::new(&Config::new(listener.local_addr()?.to_string()))?;
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&answer);
    });
    Ok(client)
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: /elsewhere\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn answers_of_other_servers_are_errors_with_the_start_of_the_body() -> Result<()> {
    let error = impostor(http("502 Bad Gateway", &[b'x'; 100_000]))?.kv().get("k").await.unwrap_err();
    assert!(
        matches!(&error, Error::Status { status: 502, body, .. } if body == &"x".repeat(512)),
        "{error:?}"
    );
    assert!(error.is_transient());

    let error = impostor(http("302 Found", b""))?.kv().get("k").await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 302, .. }), "a redirect is not followed: {error:?}");

    let error = impostor(http("200 OK", b"<html>"))?.kv().get("k").await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }) && !error.is_transient(), "{error:?}");

    let value = br#"[{"LockIndex":0,"Key":"k","Flags":0,"Value":"!","CreateIndex":1,"ModifyIndex":1}]"#;
    let error = impostor(http("200 OK", value))?.kv().get("k").await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");

    let error = impostor(http("200 OK", b"false"))?.kv().put("k", "x").await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");

    let error = impostor(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[".to_vec())?.kv().get("k").await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "cut in the middle: {error:?}");

    let error =
        impostor(http("500 Internal Server Error", b"No cluster leader"))?.leader().await.unwrap_err();
    assert!(matches!(error, Error::NoLeader { .. }) && error.is_transient(), "{error:?}");
    assert_eq!(impostor(http("200 OK", b"\"\""))?.leader().await?, None);
    Ok(())
}

tally_tests::tests![
    mod async:
    an_unreachable_agent_is_named_and_found_again,
    calls_to_a_hung_agent_time_out,
    answers_of_other_servers_are_errors_with_the_start_of_the_body,
];
