//! Blocking queries and watches: changes arrive at once, also after restarts of the server, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consul_api_client::{KvPair, Query, WatchOptions};

use super::{DEADLINE, durable, first, next, start, start_with};

fn value(pair: &Option<KvPair>) -> &[u8] {
    pair.as_ref().map_or(b"", |pair| &pair.value)
}

async fn a_blocking_query_waits_for_a_change() -> Result<()> {
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

async fn a_watch_yields_every_slow_change_of_its_key_only() -> Result<()> {
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

async fn a_watch_continues_after_a_restart_of_the_server() -> Result<()> {
    let (mut agent, consul) = start_with(durable())?;
    consul.kv().put("k", "before").await?;
    let mut watch = consul.watch_key("k", WatchOptions::default());
    let before = next(&mut watch).await??.context("no key")?;
    agent.kill();
    assert!(next(&mut watch).await?.is_err(), "the break is reset");
    agent.restart()?;
    // After an error the value is yielded again, changed or not.
    let (same, _) = first(&mut watch, |_| true).await?;
    assert_eq!(same.as_ref(), Some(&before));
    consul.kv().put("k", "after").await?;
    let (after, errors) = first(&mut watch, |pair| value(pair) == b"after").await?;
    assert!(after.context("no key")?.modify_index > before.modify_index);
    assert_eq!(errors, 0);
    Ok(())
}

/// A `-dev` agent restarts without data and with low indexes, like a server whose data was restored.
async fn a_watch_restarts_when_the_index_decreases() -> Result<()> {
    let (mut agent, consul) = start()?;
    for n in 0..50 {
        consul.kv().put("k", n.to_string()).await?;
    }
    // One of the watches sees the error. The other queries the new agent with the old agent's index, which waits.
    let mut reset = consul.watch_key("k", WatchOptions::default());
    let mut unnoticed =
        consul.watch_key("k", WatchOptions { wait: Duration::from_secs(1), ..WatchOptions::default() });
    let old = next(&mut reset).await??.context("no key")?.modify_index;
    next(&mut unnoticed).await??;
    agent.kill();
    assert!(next(&mut reset).await?.is_err());
    agent.restart()?;
    for watch in [&mut reset, &mut unnoticed] {
        first(watch, Option::is_none).await?;
    }
    consul.kv().put("k", "new life").await?;
    for watch in [&mut reset, &mut unnoticed] {
        let pair = next(watch).await??.context("no key")?;
        assert_eq!(&pair.value[..], b"new life");
        assert!(pair.modify_index < old, "{} after {old}", pair.modify_index);
    }
    Ok(())
}

tally_tests::tests![
    mod async:
    a_blocking_query_waits_for_a_change,
    a_watch_yields_every_slow_change_of_its_key_only,
    a_watch_continues_after_a_restart_of_the_server,
    a_watch_restarts_when_the_index_decreases,
];
