//! Keys and values: all writes and their conditions, odd names, any bytes, limits.

use anyhow::{Context, Result};
use consul_api_client::{Client, Config, Error, MAX_VALUE, Query};

use super::start;

async fn reads_what_was_written() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    assert_eq!(kv.get("a").await?, None);
    let all_bytes: Vec<u8> = (0..=255).collect();
    kv.with_flags(u64::MAX).put("a", all_bytes.clone()).await?;
    let a = kv.get("a").await?.context("no a")?;
    assert_eq!((a.key.as_str(), &a.value[..], a.flags), ("a", &all_bytes[..], u64::MAX));
    assert_eq!((a.lock_index, a.session, a.create_index), (0, None, a.modify_index));

    kv.put("a", "").await?;
    let again = kv.get("a").await?.context("no a")?;
    assert!(again.value.is_empty() && again.flags == 0 && again.modify_index > a.modify_index);
    assert_eq!(again.create_index, a.create_index);
    kv.delete("a").await?;
    kv.delete("a").await?;
    assert_eq!(kv.get("a").await?, None);
    Ok(())
}

async fn conditions_hold() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    assert!(kv.cas("c", "first", 0).await?, "0 creates");
    assert!(!kv.cas("c", "second", 0).await?, "0 only creates");
    let index = kv.get("c").await?.context("no c")?.modify_index;
    assert!(!kv.cas("c", "wrong", index + 1).await?);
    assert!(kv.cas("c", "second", index).await?);
    assert!(!kv.cas("c", "late", index).await?);
    assert!(!kv.delete_cas("c", index).await?, "an old index deletes nothing");
    assert!(!kv.delete_cas("c", 0).await?, "0 deletes nothing");
    let now = kv.get("c").await?.context("no c")?;
    assert_eq!(&now.value[..], b"second");
    assert!(kv.delete_cas("c", now.modify_index).await?);
    assert!(kv.delete_cas("c", now.modify_index).await?, "a missing key counts as deleted");
    assert_eq!(kv.get("c").await?, None);
    Ok(())
}

async fn of_many_writers_one_wins_each_round() -> Result<()> {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 10;
    let (_agent, consul) = start()?;
    let mut index = 0;
    for round in 0..ROUNDS {
        let writes = (0..WRITERS).map(|writer| {
            let consul = consul.clone();
            async move { (writer, consul.kv().cas("race", format!("{round} {writer}"), index).await) }
        });
        let mut winners = Vec::new();
        for (writer, won) in futures::future::join_all(writes).await {
            if won? {
                winners.push(format!("{round} {writer}"));
            }
        }
        let now = consul.kv().get("race").await?.context("no race")?;
        assert_eq!(winners, [String::from_utf8(now.value.to_vec())?]);
        index = now.modify_index;
    }
    Ok(())
}

async fn names_keep_special_characters() -> Result<()> {
    let (_agent, consul) = start()?;
    let kv = consul.kv();
    let names =
        ["a b", "a+b", "a%2Fb", "a?b&c=d", "a#b", "a;b", "ä/☃", "..a/.b", "q\"'\\<>|", "dir/", "dir/x"];
    for name in names {
        kv.put(name, format!("of {name}")).await?;
    }
    for name in names {
        let pair = kv.get(name).await?.with_context(|| format!("no {name}"))?;
        assert_eq!((pair.key.as_str(), &pair.value[..]), (name, format!("of {name}").as_bytes()));
    }
    let mut all: Vec<_> = kv.list("").await?.into_iter().map(|pair| pair.key).collect();
    let mut expect = names.to_vec();
    expect.sort_unstable();
    assert_eq!(all, expect, "in the order of their bytes");
    all = kv.list("dir/").await?.into_iter().map(|pair| pair.key).collect();
    assert_eq!(all, ["dir/", "dir/x"]);
    assert_eq!(kv.list("unknown/").await?, []);
    for name in ["", "/a", "a//b", "a/../b", "."] {
        let error = kv.put(name, "x").await.unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{name}: {error}");
    }
    Ok(())
}

async fn sizes_are_bounded_both_ways() -> Result<()> {
    let (agent, consul) = start()?;
    consul.kv().put("big", vec![7; MAX_VALUE]).await?;
    let error = consul.kv().put("big", vec![8; MAX_VALUE + 1]).await.unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { size: 524_289, limit: 524_288, .. }), "{error:?}");
    assert!(error.to_string().contains("`big`"), "{error}");
    let big = consul.kv().get("big").await?.context("no big")?;
    assert!(big.value.len() == MAX_VALUE && big.value.iter().all(|byte| *byte == 7));
    assert!(format!("{big:?}").len() < 300, "a pair's debug output does not hold the value");

    let careful = Client::new(&Config { max_answer: 1000, ..Config::new(agent.address()) })?;
    let error = careful.kv().get("big").await.unwrap_err();
    assert!(matches!(error, Error::AnswerTooLarge { limit: 1000, .. }), "{error:?}");
    Ok(())
}

async fn a_missing_key_has_an_index() -> Result<()> {
    let (_agent, consul) = start()?;
    consul.kv().put("other", "x").await?;
    let missing = consul.kv().get_with("missing", &Query::default()).await?;
    assert!(missing.value.is_none() && missing.index > 1, "{missing:?}");
    let list = consul.kv().list_with("missing/", &Query::default()).await?;
    assert!(list.value.is_empty() && list.index >= 1, "{list:?}");
    Ok(())
}

tally_tests::tests![
    mod async:
    reads_what_was_written,
    conditions_hold,
    of_many_writers_one_wins_each_round,
    names_keep_special_characters,
    sizes_are_bounded_both_ways,
    a_missing_key_has_an_index,
];
