//! Blocking queries and watches: news come at once, through restarts of the server, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consul_api_client::{KvPair, Query, WatchOptions};

use super::{DEADLINE, durable, first, next, start, start_with};

fn value(pair: &Option<KvPair>) -> &[u8] {
    pair.as_ref().map_or(b"", |pair| &pair.value)
}

async fn a_blocking_query_waits_for_news_and_no_longer() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    kv.put("k", "1").await?;
    let before = kv.get_with("k", &Query::default()).await?;
    assert_eq!(value(&before.value), b"1");

    let begin = Instant::now();
    let same = kv.get_with("k", &Query::after(before.index, Duration::from_millis(300))).await?;
    assert!(begin.elapsed() >= Duration::from_millis(300), "it waited");
    assert_eq!(same, before);

    let query = Query::after(before.index, Duration::from_secs(300));
    let (news, put) = tokio::join!(kv.get_with("k", &query), kv.put("k", "2"));
    put?;
    let news = tokio::time::timeout(DEADLINE, async { news }).await??;
    assert_eq!(value(&news.value), b"2");
    assert!(news.index > before.index);
    Ok(())
}

async fn a_watch_sees_every_slow_change_and_no_other() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    let mut one = consul.watch_key("w/a", WatchOptions::default());
    let mut all = consul.watch_prefix("w/", WatchOptions::default());
    assert_eq!(next(&mut one).await??, None);
    assert_eq!(next(&mut all).await??, []);
    for n in 0..5 {
        // Another key's change must not be yielded for this one.
        kv.put("w/b", format!("other {n}")).await?;
        kv.put("w/a", n.to_string()).await?;
        assert_eq!(value(&next(&mut one).await??), n.to_string().as_bytes());
    }
    let (list, errors) = first(&mut all, |list| list.iter().any(|pair| &pair.value[..] == b"4")).await?;
    assert_eq!((list.len(), errors), (2, 0));
    kv.delete("w/a").await?;
    assert_eq!(next(&mut one).await??, None);
    Ok(())
}

async fn a_watch_outlives_a_server_that_keeps_its_data() -> Result<()> {
    let (mut agent, consul) = start_with(durable())?;
    consul.kv().put("k", "before").await?;
    let mut watch = consul.watch_key("k", WatchOptions::default());
    let before = next(&mut watch).await??.context("no key")?;
    agent.kill();
    assert!(next(&mut watch).await?.is_err(), "the break is told");
    agent.restart()?;
    // After a break the value comes again, changed or not.
    let (same, _) = first(&mut watch, |_| true).await?;
    assert_eq!(same.as_ref(), Some(&before));
    consul.kv().put("k", "after").await?;
    let (after, errors) = first(&mut watch, |pair| value(pair) == b"after").await?;
    assert!(after.context("no key")?.modify_index > before.modify_index);
    assert_eq!(errors, 0);
    Ok(())
}

/// A `-dev` agent comes back empty and counts from the beginning, like a server whose data was restored.
async fn a_watch_starts_anew_when_the_index_does() -> Result<()> {
    let (mut agent, consul) = start()?;
    for n in 0..50 {
        consul.kv().put("k", n.to_string()).await?;
    }
    // One of these sees the break. The other asks the new agent with the old agent's index, which Consul lets wait.
    let mut told = consul.watch_key("k", WatchOptions::default());
    let mut untold =
        consul.watch_key("k", WatchOptions { wait: Duration::from_secs(1), ..WatchOptions::default() });
    let old = next(&mut told).await??.context("no key")?.modify_index;
    next(&mut untold).await??;
    agent.kill();
    assert!(next(&mut told).await?.is_err());
    agent.restart()?;
    for watch in [&mut told, &mut untold] {
        first(watch, Option::is_none).await?;
    }
    consul.kv().put("k", "new life").await?;
    for watch in [&mut told, &mut untold] {
        let pair = next(watch).await??.context("no key")?;
        assert_eq!(&pair.value[..], b"new life");
        assert!(pair.modify_index < old, "{} after {old}", pair.modify_index);
    }
    Ok(())
}

tally_tests::tests![
    mod async:
    a_blocking_query_waits_for_news_and_no_longer,
    a_watch_sees_every_slow_change_and_no_other,
    a_watch_outlives_a_server_that_keeps_its_data,
    a_watch_starts_anew_when_the_index_does,
];
