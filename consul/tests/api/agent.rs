//! Services of the agent: its checks, and the health that other clients see.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result};
use consul_api_client::{
    Check, CheckState, CheckStatus, Client, Error, Probe, Service, ServiceHealth, WatchOptions, Which,
};

use super::{DEADLINE, first, next, start};

fn service(port: u16, check: Check) -> Service {
    Service {
        id: "svc 1/a".into(),
        name: "svc".into(),
        address: "127.0.0.1".into(),
        port,
        tags: vec!["blue".into(), "b c".into()],
        meta: [("zone".to_owned(), "a=b".to_owned())].into(),
        checks: vec![check],
    }
}

async fn status(consul: &Client) -> Result<CheckStatus> {
    Ok(consul.health().service("svc", Which::All).await?.first().context("no instance")?.status())
}

async fn a_service_whose_port_closes_turns_critical() -> Result<()> {
    let (_agent, consul) = start()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let probe = Probe::Tcp { target: format!("127.0.0.1:{port}") };
    let check = Check {
        interval: Duration::from_millis(200),
        deregister_after: Some(Duration::from_secs(60)),
        ..Check::new(probe)
    };
    let mut watch = consul.watch_service("svc", Which::Passing, WatchOptions::default());
    assert_eq!(next(&mut watch).await??, []);
    consul.agent().register(&service(port, check)).await?;
    let (found, errors) = first(&mut watch, |found| found.len() == 1).await?;
    assert_eq!(errors, 0);
    let [found]: [ServiceHealth; 1] = found.try_into().map_err(|_| anyhow::anyhow!("not one"))?;
    assert_eq!((found.service.id.as_str(), found.service.name.as_str()), ("svc 1/a", "svc"));
    assert_eq!(found.service.tags, ["blue", "b c"]);
    assert_eq!(found.service.meta["zone"], "a=b");
    assert_eq!((found.address(), found.node.name.as_str()), (format!("127.0.0.1:{port}"), "test-node"));
    assert_eq!(found.status(), CheckStatus::Passing);

    drop(listener);
    first(&mut watch, Vec::is_empty).await?;
    assert_eq!(status(&consul).await?, CheckStatus::Critical);
    let checks = consul.health().service("svc", Which::All).await?.remove(0).checks;
    let check = checks.iter().find(|check| check.id == "service:svc 1/a").context("no check")?;
    assert!(check.output.contains("refused"), "{}", check.output);

    consul.agent().deregister("svc 1/a").await?;
    consul.agent().deregister("svc 1/a").await?;
    assert_eq!(consul.health().service("svc", Which::All).await?, []);
    Ok(())
}

async fn unanswered_grpc_and_http_checks_stay_critical() -> Result<()> {
    let (_agent, consul) = start()?;
    // Bound but never accepted, so that no other process takes the port and answers.
    let closed = TcpListener::bind("127.0.0.1:0")?;
    let target = closed.local_addr()?.to_string();
    let quick = |probe| Check {
        interval: Duration::from_millis(200),
        timeout: Duration::from_millis(200),
        initial: CheckStatus::Passing,
        ..Check::new(probe)
    };
    let mut both = service(1, quick(Probe::Grpc { target: format!("{target}/part"), tls: false }));
    both.checks.push(quick(Probe::Http { url: format!("http://{target}/healthz") }));
    let mut watch = consul.watch_service("svc", Which::All, WatchOptions::default());
    consul.agent().register(&both).await?;
    let (found, _) = first(&mut watch, |found| {
        let bad =
            |one: &ServiceHealth| one.checks.iter().filter(|c| c.status == CheckStatus::Critical).count();
        found.first().is_some_and(|one| bad(one) == 2)
    })
    .await?;
    let mut ids: Vec<_> = found[0].checks.iter().map(|check| check.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["serfHealth", "service:svc 1/a", "service:svc 1/a:2"]);
    Ok(())
}

async fn a_ttl_check_has_the_status_that_is_set() -> Result<()> {
    let (_agent, consul) = start()?;
    let agent = consul.agent();
    let check = Check { id: Some("beat".into()), ..Check::new(Probe::Ttl { ttl: Duration::from_secs(2) }) };
    assert!(!agent.update_ttl("beat", CheckStatus::Passing, "").await?, "it is not registered yet");
    agent.register(&service(1, check)).await?;
    let mut watch = consul.watch_service("svc", Which::All, WatchOptions::default());
    for status in [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical, CheckStatus::Passing] {
        assert!(agent.update_ttl("beat", status, "as status").await?);
        first(&mut watch, |found| found.first().is_some_and(|one| one.status() == status)).await?;
    }
    // Without further updates it is critical after its TTL.
    first(&mut watch, |found| found.first().is_some_and(|one| one.status() == CheckStatus::Critical)).await?;
    let error = agent.update_ttl("beat", CheckStatus::Maintenance, "").await.unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error:?}");
    Ok(())
}

async fn maintenance_removes_a_service_from_the_passing_ones_and_its_end_restores_it() -> Result<()> {
    let (_agent, consul) = start()?;
    let agent = consul.agent();
    let check =
        Check { initial: CheckStatus::Passing, ..Check::new(Probe::Ttl { ttl: Duration::from_secs(600) }) };
    agent.register(&service(1, check)).await?;
    let mut watch = consul.watch_service("svc", Which::Passing, WatchOptions::default());
    first(&mut watch, |found| found.len() == 1).await?;
    assert!(agent.maintenance("svc 1/a", true, "draining: 50% & more").await?);
    first(&mut watch, Vec::is_empty).await?;
    let all = consul.health().service("svc", Which::All).await?;
    assert_eq!(all[0].status(), CheckStatus::Maintenance);
    assert!(all[0].checks.iter().any(|check| check.notes == "draining: 50% & more"), "{all:?}");
    let checks = agent.checks("svc 1/a").await?;
    assert_eq!(checks.iter().filter(|check| check.is_maintenance()).count(), 1, "{checks:?}");
    assert_eq!(checks.len(), 2, "{checks:?}");
    assert!(agent.maintenance("svc 1/a", false, "").await?);
    first(&mut watch, |found| found.len() == 1).await?;
    assert!(!agent.checks("svc 1/a").await?.iter().any(CheckState::is_maintenance));
    assert!(!agent.maintenance("unknown", true, "").await?);
    assert!(agent.checks("unknown").await?.is_empty());
    assert!(matches!(agent.checks("a\" or true").await, Err(Error::Argument { .. })));
    assert_eq!(agent.node().await?, "test-node");

    let error = agent.register(&Service::default()).await.unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error:?}");
    let mut bad = service(1, Check::new(Probe::Ttl { ttl: Duration::from_secs(1) }));
    bad.meta = [("no blanks".to_owned(), String::new())].into();
    let error = agent.register(&bad).await.unwrap_err();
    assert!(
        matches!(&error, Error::Status { status: 400, body, .. } if body.contains("no blanks")),
        "{error}"
    );
    Ok(())
}

async fn a_leader_is_named() -> Result<()> {
    let (_agent, consul) = start()?;
    let leader = tokio::time::timeout(DEADLINE, consul.leader()).await??.context("no leader")?;
    assert!(leader.starts_with("127.0.0.1:"), "{leader}");
    Ok(())
}

tally_tests::tests![
    mod async:
    a_service_whose_port_closes_turns_critical,
    unanswered_grpc_and_http_checks_stay_critical,
    a_ttl_check_has_the_status_that_is_set,
    maintenance_removes_a_service_from_the_passing_ones_and_its_end_restores_it,
    a_leader_is_named,
];
