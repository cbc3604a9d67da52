//! Sessions, and leadership with them.

use std::time::Duration;

use anyhow::{Context, Result};
use consul_api_client::{Behavior, Client, Error, NewSession, SessionId};

use super::{durable, eventually, plain_session, start, start_with};

const UNKNOWN: &str = "12345678-1234-1234-1234-123456789abc";

async fn holder(consul: &Client, key: &str) -> Result<Option<SessionId>> {
    Ok(consul.kv().get(key).await?.and_then(|pair| pair.session))
}

async fn a_session_is_made_renewed_looked_up_and_destroyed() -> Result<()> {
    let (_agent, consul) = start()?;
    let sessions = consul.sessions();
    let new = NewSession {
        name: Some("of a \"test\"".into()),
        ttl: Some(Duration::from_millis(10_500)),
        behavior: Behavior::Delete,
        lock_delay: Some(Duration::ZERO),
        node_checks: None,
    };
    let id = sessions.create(&new).await?;
    assert_eq!(SessionId::parse(id.as_str())?, id);
    let info = sessions.info(&id).await?.context("no session")?;
    assert_eq!(
        (info.id.clone(), info.name.as_str(), info.ttl.as_str()),
        (id.clone(), "of a \"test\"", "10500ms")
    );
    assert_eq!(
        (info.behavior, info.lock_delay, info.node.as_str()),
        (Behavior::Delete, Duration::ZERO, "test-node")
    );
    assert_eq!(sessions.renew(&id).await?.context("no session")?, info);
    sessions.destroy(&id).await?;
    sessions.destroy(&id).await?;
    assert_eq!(sessions.info(&id).await?, None);
    assert_eq!(sessions.renew(&id).await?, None);

    let lasting = sessions.create(&NewSession { node_checks: Some(vec![]), ..NewSession::default() }).await?;
    let info = sessions.info(&lasting).await?.context("no session")?;
    assert_eq!((info.ttl.as_str(), info.lock_delay), ("", Duration::from_secs(15)), "Consul's defaults");

    let short = NewSession { ttl: Some(Duration::from_secs(1)), ..NewSession::default() };
    let error = sessions.create(&short).await.unwrap_err();
    assert!(matches!(&error, Error::Status { body, .. } if body.contains("10s")), "{error}");
    assert!(SessionId::parse("../kv/x").is_err());
    Ok(())
}

async fn one_of_two_leads_until_it_releases_the_key() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    let one = consul.sessions().create(&plain_session()).await?;
    let two = consul.sessions().create(&plain_session()).await?;
    let (a, b) = tokio::join!(kv.acquire("lead", "one", &one), kv.acquire("lead", "two", &two));
    let (a, b) = (a?, b?);
    assert!(a != b, "one of both: {a} {b}");
    let (leader, other) = if a { (&one, &two) } else { (&two, &one) };
    assert_eq!(holder(&consul, "lead").await?.as_ref(), Some(leader));
    assert!(kv.acquire("lead", "again", leader).await?, "the holder may write");
    assert!(!kv.release("lead", "not mine", other).await?);
    assert_eq!(&kv.get("lead").await?.context("no lead")?.value[..], b"again");

    assert!(kv.release("lead", "free", leader).await?);
    let free = kv.get("lead").await?.context("no lead")?;
    assert_eq!((&free.value[..], free.session, free.lock_index), (&b"free"[..], None, 1));
    assert!(kv.acquire("lead", "two", other).await?);
    assert_eq!(kv.get("lead").await?.context("no lead")?.lock_index, 2, "behaviour release counts holders");

    consul.sessions().destroy(other).await?;
    let error = kv.acquire("lead", "dead", other).await.unwrap_err();
    assert!(matches!(error, Error::InvalidSession { .. }), "{error:?}");
    assert!(error.to_string().starts_with("acquire key \"lead\""), "{error}");
    let never = SessionId::parse(UNKNOWN)?;
    assert!(matches!(kv.acquire("lead", "x", &never).await, Err(Error::InvalidSession { .. })));
    assert!(kv.acquire("lead", "one", leader).await?);
    Ok(())
}

async fn the_behavior_of_a_session_decides_about_its_keys() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    let releases = consul.sessions().create(&plain_session()).await?;
    let deletes =
        consul.sessions().create(&NewSession { behavior: Behavior::Delete, ..plain_session() }).await?;
    assert!(kv.acquire("stays", "x", &releases).await?);
    assert!(kv.acquire("goes", "x", &deletes).await?);
    consul.sessions().destroy(&releases).await?;
    consul.sessions().destroy(&deletes).await?;
    let stays = kv.get("stays").await?.context("no key")?;
    assert_eq!((&stays.value[..], stays.session), (&b"x"[..], None));
    assert_eq!(kv.get("goes").await?, None);

    // This is why lock_index cannot be an epoch.
    let next = consul.sessions().create(&plain_session()).await?;
    assert!(kv.acquire("goes", "y", &next).await?);
    assert_eq!(kv.get("goes").await?.context("no key")?.lock_index, 1);
    Ok(())
}

async fn a_lock_delay_keeps_the_next_one_out() -> Result<()> {
    let (_agent, consul) = start_with(durable())?;
    let short = |lock_delay| NewSession {
        ttl: Some(Duration::from_secs(1)),
        lock_delay: Some(lock_delay),
        ..NewSession::default()
    };
    let kv = consul.kv();
    let slow = consul.sessions().create(&short(Duration::from_secs(600))).await?;
    let fast = consul.sessions().create(&short(Duration::ZERO)).await?;
    assert!(kv.acquire("slow", "x", &slow).await?);
    assert!(kv.acquire("fast", "x", &fast).await?);
    // Both expire because they are not renewed.
    for key in ["slow", "fast"] {
        eventually("the session's end", || async { Ok(holder(&consul, key).await?.is_none().then_some(())) })
            .await?;
    }
    assert_eq!(consul.sessions().renew(&fast).await?, None);
    let heir = consul.sessions().create(&plain_session()).await?;
    assert!(!kv.acquire("slow", "y", &heir).await?, "the lock delay counts after an expiry");
    assert!(kv.acquire("fast", "y", &heir).await?, "no lock delay, no wait");
    Ok(())
}

async fn a_leader_leads_while_it_renews_its_session() -> Result<()> {
    let (_agent, consul) = start_with(durable())?;
    let leader =
        NewSession { ttl: Some(Duration::from_secs(2)), behavior: Behavior::Delete, ..plain_session() };
    let leader = consul.sessions().create(&leader).await?;
    let kept = consul.sessions().create(&plain_session()).await?;
    assert!(consul.kv().acquire("lead", "x", &leader).await?);
    assert!(!consul.kv().acquire("lead", "y", &kept).await?);
    // Longer than twice its TTL, after which Consul has ended a session that is not renewed.
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < until {
        consul.sessions().renew(&leader).await?.context("ended though renewed")?;
        assert_eq!(holder(&consul, "lead").await?.as_ref(), Some(&leader));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eventually("the other's lead", || async {
        Ok(consul.kv().acquire("lead", "y", &kept).await?.then_some(()))
    })
    .await?;
    assert_eq!(consul.sessions().renew(&leader).await?, None);
    Ok(())
}

tally_tests::tests![
    mod async:
    a_session_is_made_renewed_looked_up_and_destroyed,
    one_of_two_leads_until_it_releases_the_key,
    the_behavior_of_a_session_decides_about_its_keys,
    a_lock_delay_keeps_the_next_one_out,
    a_leader_leads_while_it_renews_its_session,
];
