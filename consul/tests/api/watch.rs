//! Blocking queries and watches: news come at once, through restarts of the server, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consul_api_client::{KvPair, Query, WatchOptions};
use tally_tests::consul::Setup;
use tokio::task::block_in_place;

use super::{DEADLINE, durable, first, next, start, start_with};

fn value(pair: &Option<KvPair>) -> &[u8] {
    pair.as_ref().map_or(b"", |pair| &pair.value)
}

#[tokio::test]
async fn a_blocking_query_waits_for_news_and_no_longer() -> Result<()> {
    let Some((_agent, consul)) = start()? else { return Ok(()) };
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

#[tokio::test]
async fn a_watch_sees_every_slow_change_and_no_other() -> Result<()> {
    let Some((_agent, consul)) = start()? else { return Ok(()) };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_a_server_that_keeps_its_data() -> Result<()> {
    let Some((mut agent, consul)) = start_with(durable())? else { return Ok(()) };
    consul.kv().put("k", "before").await?;
    let mut watch = consul.watch_key("k", WatchOptions::default());
    assert_eq!(value(&next(&mut watch).await??), b"before");
    let waiting = tokio::spawn(async move {
        let found = first(&mut watch, |pair| value(pair) == b"after").await;
        (found, watch)
    });
    block_in_place(|| agent.restart())?;
    consul.kv().put("k", "after").await?;
    let (found, _watch) = tokio::time::timeout(DEADLINE, waiting).await??;
    let (pair, errors) = found?;
    assert!(errors > 0, "the break was told");
    assert!(pair.context("no pair")?.modify_index > 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_starts_anew_when_the_index_does() -> Result<()> {
    // A -dev agent comes back empty and counts from the beginning.
    let Some((mut agent, consul)) = start_with(Setup::default())? else { return Ok(()) };
    for n in 0..50 {
        consul.kv().put("k", n.to_string()).await?;
    }
    let mut watch = consul.watch_key("k", WatchOptions::default());
    let old = next(&mut watch).await??.context("no key")?.modify_index;
    let (watch, _) = {
        let waiting = tokio::spawn(async move {
            let found = first(&mut watch, Option::is_none).await;
            (watch, found)
        });
        block_in_place(|| agent.restart())?;
        tokio::time::timeout(DEADLINE, waiting).await??
    };
    let mut watch = watch;
    consul.kv().put("k", "new life").await?;
    let pair = next(&mut watch).await??.context("no key")?;
    assert_eq!(&pair.value[..], b"new life");
    assert!(pair.modify_index < old, "{} after {old}", pair.modify_index);
    Ok(())
}
