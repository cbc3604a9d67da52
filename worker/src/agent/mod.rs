//! The agent of a worker's process: finds the leading coordinator, attaches, does what it says, and
//! leaves when it is time.
//!
//! `life` is what runs under one id; `session` is one stream to a coordinator; `rules` decides;
//! `outbox` and `inventory` are what the coordinator is told; `hand_over` gives outputs away;
//! `seen` is what others see of it. Not here: the tasks (`runner`), how
//! outputs are served (`flight`), arguments and signals (`cli`).

mod hand_over;
mod inventory;
mod life;
mod outbox;
mod rules;
mod seen;
mod session;

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;
use tonic::Status;

use crate::leader::{Found, Leader, NoLeader};

use life::Life;
pub use life::{LifeError, Options};
use rules::{Course, Highest, Verdict, verdict};
pub use rules::{Holdings, Left, Wish};
pub use seen::Seen;
use session::Over;

/// How often it is said that no coordinator is found.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How often a worker that drains, and has no coordinator, asks itself whether it may go.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest part of an id that names the machine.
const MOST_NAME: usize = 40;

/// The agent gave up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It could not start.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// Versions.
    #[error("the coordinator at {address} refuses this version of the worker: {reason}")]
    Version {
        /// Who.
        address: String,
        /// Its words.
        reason: String,
    },
    /// What the worker says of itself.
    #[error("the coordinator at {address} refuses this worker: {reason}")]
    Refused {
        /// Who.
        address: String,
        /// Its words.
        reason: String,
    },
}

/// What worker ids of a machine begin with: its name, as far as an id may have it.
pub fn name(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.chars().take(MOST_NAME).map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "worker".into() } else { name.into() }
}

/// Works until it is time to go. Wishes come by `wish`, and from Consul.
///
/// # Errors
/// [`AgentError`].
pub async fn run(options: Options, leader: Leader, wish: watch::Sender<Wish>) -> Result<Left, AgentError> {
    let course = Course::new(options.drain_timeout);
    let (mut wishes, highest) = (wish.subscribe(), Highest::default());
    // What was wished before the agent listened counts, too.
    wishes.mark_changed();
    let mut agent = Agent { options, leader, wishes, highest, course, said: None };
    loop {
        let mut life = Life::begin(&agent.options)?;
        let drain = wish.clone();
        life.show(&agent.options, move || drain.send_modify(|now| *now = Wish::Drain.max(*now)));
        let ended = agent.live(&life).await;
        let streams = match (&ended, agent.course.until()) {
            // Whoever reads may do so to the end.
            (Ok(Some(Left::Drained)), Some(until)) => until.saturating_duration_since(Instant::now()),
            _ => Duration::ZERO,
        };
        life.end(streams).await;
        if let Some(left) = ended? {
            return Ok(left);
        }
    }
}

struct Agent {
    options: Options,
    leader: Leader,
    wishes: watch::Receiver<Wish>,
    highest: Highest,
    course: Course,
    /// When it was last said that there is no leader.
    said: Option<Instant>,
}

/// Waits for something, unless it is time to go first.
async fn unless_gone<T>(
    life: &Life,
    course: &mut Course,
    wishes: &mut watch::Receiver<Wish>,
    wait: impl Future<Output = T>,
) -> Result<T, Left> {
    tokio::pin!(wait);
    loop {
        let now = Instant::now();
        if let Some(left) = course.goes(now, false, life.holdings()) {
            return Err(left);
        }
        let until = course.until().map(|until| until.min(now + LOOK_AGAIN));
        tokio::select! {
            done = &mut wait => return Ok(done),
            Ok(()) = wishes.changed() => {
                let wish = *wishes.borrow_and_update();
                if course.wish(wish, now) {
                    life.seen.drain();
                    tracing::info!("draining, though there is no coordinator");
                }
            }
            () = sleep_until(until.unwrap_or(now).into()), if until.is_some() => {}
        }
    }
}

impl Agent {
    /// From one id to the next. `None` where the worker goes on under another.
    async fn live(&mut self, life: &Life) -> Result<Option<Left>, AgentError> {
        loop {
            let found = match self.seek(life).await {
                Ok(found) => found,
                Err(left) => return Ok(Some(left)),
            };
            let (epoch, draining) = (self.highest.epoch(), self.course.drains());
            let hello = life.hello(&self.options, epoch, draining);
            let open = session::open(hello, found.channel.clone());
            let open = self.leader.unless_succeeded(&found, open);
            match unless_gone(life, &mut self.course, &mut self.wishes, open).await {
                Err(left) => return Ok(Some(left)),
                Ok(Err(status)) => match self.refused(life, &found, &status).await? {
                    Next::LookOn => {}
                    Next::NewLife => return Ok(None),
                    Next::Leave(left) => return Ok(Some(left)),
                },
                Ok(Ok(opened)) => {
                    self.leader.leads(&found);
                    self.said = None;
                    let (highest, course, wishes) = (&mut self.highest, &mut self.course, &mut self.wishes);
                    life.seen.attach(true);
                    let over = session::stay(life, opened, highest, course, wishes).await;
                    life.seen.attach(false);
                    let why = match over {
                        Over::Left(left) => return Ok(Some(left)),
                        Over::Broken(why) => why,
                    };
                    tracing::warn!(coordinator = %found.address, why, "the stream to the coordinator is over");
                    if let Err(left) = self.rest(life).await {
                        return Ok(Some(left));
                    }
                }
            }
        }
    }

    /// The next coordinator that can be reached.
    async fn seek(&mut self, life: &Life) -> Result<Found, Left> {
        loop {
            let next = self.leader.next();
            match unless_gone(life, &mut self.course, &mut self.wishes, next).await? {
                Ok(found) => return Ok(found),
                Err(none) => {
                    self.say(&none);
                    self.rest(life).await?;
                }
            }
        }
    }

    async fn rest(&mut self, life: &Life) -> Result<(), Left> {
        unless_gone(life, &mut self.course, &mut self.wishes, self.leader.pause()).await
    }

    /// Says that there is no leader: at once, then now and then.
    fn say(&mut self, none: &NoLeader) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            tracing::warn!("{none}; trying again");
            self.said = Some(Instant::now());
        }
    }

    async fn refused(&mut self, life: &Life, found: &Found, status: &Status) -> Result<Next, AgentError> {
        let (address, reason) = (found.address.to_string(), status.message().to_string());
        match verdict(status) {
            Verdict::LookOn => {
                tracing::debug!(address, reason, "this coordinator does not let the worker in");
                self.leader.refused(found, status);
                Ok(Next::LookOn)
            }
            Verdict::NewLife => {
                tracing::warn!(worker = %life.worker.id(), reason, "given up: all is dropped");
                if self.course.drains() {
                    return Ok(Next::Leave(Left::GivenUp(life.holdings())));
                }
                Ok(self.rest(life).await.map_or_else(Next::Leave, |()| Next::NewLife))
            }
            Verdict::WrongVersion => Err(AgentError::Version { address, reason }),
            Verdict::Unacceptable => Err(AgentError::Refused { address, reason }),
        }
    }
}

/// What follows a refusal.
enum Next {
    LookOn,
    NewLife,
    Leave(Left),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_any_name_has_workers_with_valid_ids() {
        for (host, expected) in [
            ("Rack-3.example.org", "rack-3-example-org"),
            ("", "worker"),
            ("..", "worker"),
            ("b\u{fc}ro", "b-ro"),
            (&"x".repeat(200), &"x".repeat(MOST_NAME)),
        ] {
            assert_eq!(name(host), expected);
            assert!(tally_proto::WorkerId::parse(&name(host)).is_ok());
        }
    }
}
