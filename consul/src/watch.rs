//! Watches: repeated blocking queries as a stream of changes, which continues after errors and restarts of Consul.
//!
//! Not here: sharing a watch. A watch uses a connection, and Consul accepts 200 connections from one address, so a
//! process should watch a value once and distribute the changes.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::Client;
use crate::error::Result;
use crate::health::{ServiceHealth, Which};
use crate::kv::KvPair;
use crate::query::{Consistency, Indexed, Query};

/// The stream of a watch. It yields the value at the start and after each change, and an error whenever a query fails,
/// after which it continues and yields the value again. It never ends. It makes no progress unless it is polled;
/// dropping it closes its query.
pub type Changes<T> = BoxStream<'static, Result<T>>;

/// The options of a watch.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How long one query waits for a change; at most [`MAX_WAIT`](crate::MAX_WAIT). The wait of each query is shortened
    /// at random, so that many watches do not query at the same moment. If Consul's data is replaced by older data
    /// without an error of the watch, the change is noticed only after this wait.
    pub wait: Duration,
    /// The minimum time between the starts of two queries; faster changes are combined.
    pub min_interval: Duration,
    /// The pause after the first error, doubled with each further error.
    pub first_pause: Duration,
    /// The maximum pause.
    pub max_pause: Duration,
    pub consistency: Consistency,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(60),
            min_interval: Duration::from_millis(50),
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(5),
            consistency: Consistency::Default,
        }
    }
}

impl Client {
    /// Watches one key; `None` while it does not exist.
    pub fn watch_key(&self, key: &str, options: WatchOptions) -> Changes<Option<KvPair>> {
        let (client, key) = (self.clone(), key.to_owned());
        watch(options, move |query| {
            let (client, key) = (client.clone(), key.clone());
            async move { client.kv().get_with(&key, &query).await }
        })
    }

    /// Watches all keys that start with `prefix`.
    pub fn watch_prefix(&self, prefix: &str, options: WatchOptions) -> Changes<Vec<KvPair>> {
        let (client, prefix) = (self.clone(), prefix.to_owned());
        watch(options, move |query| {
            let (client, prefix) = (client.clone(), prefix.clone());
            async move { client.kv().list_with(&prefix, &query).await }
        })
    }

    /// Watches the instances of a service.
    pub fn watch_service(
        &self,
        name: &str,
        which: Which,
        options: WatchOptions,
    ) -> Changes<Vec<ServiceHealth>> {
        let (client, name) = (self.clone(), name.to_owned());
        watch(options, move |query| {
            let (client, name) = (client.clone(), name.clone());
            async move { client.health().service_with(&name, which, &query).await }
        })
    }
}

/// Watches the value that `ask` reads.
pub fn watch<T, A, F>(options: WatchOptions, ask: A) -> Changes<T>
where
    T: Clone + PartialEq + Send + 'static,
    A: FnMut(Query) -> F + Send + 'static,
    F: Future<Output = Result<Indexed<T>>> + Send + 'static,
{
    let state = Watcher { options, ask, index: 0, last: None, errors: 0, asked: None };
    stream::unfold(state, |mut state| async move {
        let news = state.next().await;
        Some((news, state))
    })
    .boxed()
}

struct Watcher<T, A> {
    options: WatchOptions,
    ask: A,
    index: u64,
    /// The last value, unless an error was yielded after it.
    last: Option<T>,
    /// Consecutive errors.
    errors: u32,
    asked: Option<Instant>,
}

impl<T, A, F> Watcher<T, A>
where
    T: Clone + PartialEq,
    A: FnMut(Query) -> F,
    F: Future<Output = Result<Indexed<T>>>,
{
    async fn next(&mut self) -> Result<T> {
        loop {
            if self.errors > 0 {
                sleep(pause(&self.options, self.errors, rand::random())).await;
            }
            if let Some(asked) = self.asked {
                sleep_until(asked + self.options.min_interval).await;
            }
            self.asked = Some(Instant::now());
            // At least 15/16 of it; Consul adds up to a sixteenth.
            let wait = self.options.wait.mul_f64(1.0 - rand::random::<f64>() / 16.0);
            let query = Query::after(self.index, wait).with(self.options.consistency);
            match (self.ask)(query).await {
                Ok(answer) => {
                    self.errors = 0;
                    self.index = next_index(self.index, answer.index);
                    if self.last.as_ref() != Some(&answer.value) {
                        self.last = Some(answer.value.clone());
                        return Ok(answer.value);
                    }
                }
                Err(error) => {
                    self.errors = self.errors.saturating_add(1);
                    // Another server, or the same one with other data, may have other indexes: query without a wait.
                    self.index = 0;
                    self.last = None;
                    return Err(error);
                }
            }
        }
    }
}

/// The index for the next query: 0, which does not wait, if the index became smaller, as after a restore of data.
fn next_index(before: u64, got: u64) -> u64 {
    if got < before { 0 } else { got.max(1) }
}

/// The pause after consecutive errors: doubled each time, and between half and all of that by `chance` from 0 to 1, so
/// that many watches do not query at the same moment.
fn pause(options: &WatchOptions, errors: u32, chance: f64) -> Duration {
    let doubled = options.first_pause.saturating_mul(1 << errors.saturating_sub(1).min(20));
    doubled.min(options.max_pause).mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;
    use crate::error::Error;

    #[test]
    fn an_index_that_decreases_starts_at_0() {
        assert_eq!(next_index(0, 7), 7);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 6), 0);
        assert_eq!(next_index(0, 0), 1);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let options = WatchOptions::default();
        assert_eq!(pause(&options, 1, 1.0), Duration::from_millis(100));
        assert_eq!(pause(&options, 1, 0.0), Duration::from_millis(50));
        assert_eq!(pause(&options, 4, 1.0), Duration::from_millis(800));
        assert_eq!(pause(&options, u32::MAX, 1.0), Duration::from_secs(5));
    }

    /// The indexes of the queries, and what was yielded, for a list of answers.
    async fn play(answers: Vec<Result<Indexed<u32>>>) -> (Vec<u64>, Vec<Option<u32>>) {
        let options = WatchOptions {
            min_interval: Duration::ZERO,
            first_pause: Duration::from_millis(1),
            ..WatchOptions::default()
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(Notify::new());
        let mut answers = answers.into_iter();
        let (seen, end) = (asked.clone(), over.clone());
        let mut changes = watch(options, move |query| {
            seen.lock().unwrap().push(query.index);
            let answer = answers.next();
            if answer.is_none() {
                end.notify_one();
            }
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        });
        let mut yielded = Vec::new();
        loop {
            tokio::select! {
                news = changes.next() => yielded.push(news.unwrap().ok()),
                () = over.notified() => break,
            }
        }
        let asked = asked.lock().unwrap().clone();
        (asked, yielded)
    }

    fn at(index: u64, value: u32) -> Result<Indexed<u32>> {
        Ok(Indexed { value, index })
    }

    #[tokio::test]
    async fn yields_changes_only() {
        let (asked, yielded) = play(vec![at(5, 1), at(6, 1), at(7, 2), at(7, 2)]).await;
        assert_eq!(asked, [0, 5, 6, 7, 7]);
        assert_eq!(yielded, [Some(1), Some(2)]);
    }

    #[tokio::test]
    async fn continues_after_errors_and_yields_them() {
        let away = || Err(Error::Settings("away".into()));
        let (asked, yielded) = play(vec![at(9, 1), away(), away(), at(3, 1), at(2, 1), at(4, 3)]).await;
        assert_eq!(asked, [0, 9, 0, 0, 3, 0, 4]);
        assert_eq!(yielded, [Some(1), None, None, Some(1), Some(3)]);
    }
}
