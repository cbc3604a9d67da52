//! A simulated election: a key in Consul that one session holds. Sessions of dead processes expire late; a fault may end
//! the session of a healthy leader. The rules are those of the coordinator's campaign.
//!
//! Not here: what a leader does (`coordinator`).

use crate::event::Event;
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, say};

/// The interval of renewals.
pub const RENEW: Micros = 3 * SECOND;
/// The interval of tries while Consul does not answer.
const RETRY: Micros = SECOND;
/// The time for which a coordinator that stepped down does not try to acquire the key.
const YIELD: Micros = 5 * SECOND;
/// The time after its last renewal at which a session ends, at the earliest and at the latest.
pub const TTL: [Micros; 2] = [10 * SECOND, 20 * SECOND];

/// The standing of a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Another one leads, or none does.
    Standby,
    /// It leads.
    Lead,
    /// It led, and does not know whether it still does.
    Doubt,
}

/// A coordinator's candidacy.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its standing, by its last look.
    pub standing: Standing,
    session: Option<u64>,
    yields_until: Micros,
    /// Consul cannot be reached until then.
    pub away_until: Micros,
    /// When it looks at the election next.
    next_look: Micros,
}

impl Default for Candidate {
    fn default() -> Self {
        Candidate { standing: Standing::Standby, session: None, yields_until: 0, away_until: 0, next_look: 0 }
    }
}

impl Candidate {
    /// Looks again after a while, unless that is planned already.
    fn look_after(&mut self, time: Micros, owner: Owner) {
        if self.next_look <= world::now() {
            self.next_look = world::now() + time;
            world::after(time, Event::Campaign(owner));
        }
    }
}

/// Consul, or its absence.
#[derive(Debug, Default)]
pub struct Consul {
    /// The session that holds the key, and its process.
    holder: Option<(u64, Owner)>,
    sessions: Vec<(u64, Owner)>,
    serial: u64,
}

impl Consul {
    /// The process that holds the key.
    pub fn leader(&self) -> Option<Owner> {
        self.holder.map(|(_, owner)| owner)
    }

    /// A coordinator renews its session, and tries to hold the key. Returns its standing.
    pub fn stand(&mut self, owner: Owner, candidate: &mut Candidate) -> Standing {
        let now = world::now();
        if now < candidate.away_until {
            if candidate.standing == Standing::Lead {
                candidate.standing = Standing::Doubt;
            }
            candidate.look_after(RETRY, owner);
            return candidate.standing;
        }
        let session = match candidate.session.filter(|id| self.sessions.iter().any(|(known, _)| known == id))
        {
            Some(session) => session,
            None => {
                self.serial += 1;
                self.sessions.push((self.serial, owner));
                *candidate.session.insert(self.serial)
            }
        };
        if self.holder.is_none() && now >= candidate.yields_until {
            say!("consul: coordinator {} holds the key", owner.process);
            self.holder = Some((session, owner));
        }
        let holds = self.holder.is_some_and(|(holder, _)| holder == session);
        candidate.standing = if holds { Standing::Lead } else { Standing::Standby };
        candidate.look_after(RENEW, owner);
        candidate.standing
    }

    /// A coordinator steps down.
    pub fn step_down(&mut self, candidate: &mut Candidate) {
        candidate.standing = Standing::Standby;
        candidate.yields_until = world::now() + YIELD;
        if self.holder.is_some_and(|(holder, _)| Some(holder) == candidate.session) {
            self.release();
        }
    }

    /// A process died: its session ends later.
    pub fn died(&mut self, owner: Owner) {
        if self.sessions.iter().any(|(_, of)| *of == owner) {
            let after = world::draw(|rng| rng.between(TTL[0], TTL[1]));
            world::after(after, Event::Expire(owner));
        }
    }

    /// A process resigned before its end.
    pub fn resign(&mut self, owner: Owner) {
        self.expire(owner);
    }

    /// The session of a process ends.
    pub fn expire(&mut self, owner: Owner) {
        self.sessions.retain(|(_, of)| *of != owner);
        if self.holder.is_some_and(|(_, of)| of == owner) {
            self.release();
        }
    }

    /// The session of the leader ends, however healthy it is.
    pub fn invalidate(&mut self) {
        if let Some((_, owner)) = self.holder {
            say!("consul: the session of coordinator {} is invalidated", owner.process);
            self.expire(owner);
        }
    }

    /// The key is free: all watchers learn it, the leader possibly last.
    fn release(&mut self) {
        self.holder = None;
        for (_, owner) in &self.sessions {
            let delay = world::draw(|rng| rng.between(MILLISECOND, 300 * MILLISECOND));
            world::after(delay, Event::Campaign(*owner));
        }
    }
}
