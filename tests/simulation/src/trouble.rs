//! What each fault does, and the end of all faults.

use crate::cluster::Cluster;
use crate::consul::TTL;
use crate::event::Event;
use crate::faults::{Fault, Rates};
use crate::world::{self, MILLISECOND, Micros, World, say};

impl Cluster {
    /// A fault happens.
    pub fn trouble(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        say!("fault: {fault:?}");
        match fault {
            Fault::Break { worker, worker_learns, coordinator_learns } => {
                let owner = self.shared.owner_of(worker);
                for stream in self.shared.network.of(owner) {
                    self.shared.network.cut(stream, worker_learns, coordinator_learns);
                }
            }
            Fault::Pause { process, time } => {
                // A longer pause would change the order of the events that wait for the end of the first one.
                let begins = world::with(|world| {
                    let now = world.now;
                    let until = &mut world.processes[process].paused_until;
                    let begins = *until <= now;
                    if begins {
                        *until = now + time;
                    }
                    begins
                });
                if begins {
                    world::after(time, Event::Resume(process));
                    self.stop_renewing(process, time);
                }
            }
            Fault::Crash { process, back, silent } => self.die(process, back, silent),
            Fault::Session => self.shared.consul.invalidate(),
            Fault::ConsulAway { process, time } => {
                if let Some(coordinator) = &mut self.coordinators[process] {
                    coordinator.candidate.away_until = world::now() + time;
                }
                self.stop_renewing(process, time);
            }
            Fault::UploadExpires { number } => {
                let dropped = world::with(|world| world.store.expire_upload(number));
                if let Some(key) = dropped {
                    say!("the upload of {key} is dropped");
                }
            }
            Fault::DiskFull { process, time } => {
                world::with(|world| world.processes[process].full_until = world.now + time);
            }
            Fault::Drain { process, at_once } => {
                let at = process - self.scenario.coordinators;
                if let Some(worker) = &mut self.workers[at] {
                    worker.request(at_once, &mut self.shared);
                }
            }
            Fault::Unsolicited { process } => {
                let at = process - self.scenario.coordinators;
                if let Some(worker) = &self.workers[at] {
                    worker.report_unsolicited(&mut self.shared);
                }
            }
            Fault::Cut { one, other, time } => {
                world::with(|world| world.cuts.push((one, other, world.now + time)));
            }
            Fault::FilesFull { time } => {
                world::with(|world| {
                    world.files_full_until = world.now + time;
                });
            }
            Fault::PowerFailure { back } => {
                let processes = world::with(|world| world.processes.len());
                for process in 0..processes {
                    self.die(process, back + process as Micros * MILLISECOND, false);
                }
                world::with(|world| {
                    let World { files, rng, .. } = world;
                    files.lose_power(rng);
                    // A day that was not synced may be lost. No job has ended with it.
                    if !world.folders.has_old_days {
                        world.seen_days.clear();
                    }
                });
                crate::check::after_call();
            }
            Fault::Clock { process, by } => {
                world::with(|world| world.processes[process].clock += by);
            }
        }
    }

    /// A coordinator does not renew its session for a while, which may end it.
    fn stop_renewing(&self, process: usize, time: Micros) {
        if process < self.scenario.coordinators {
            let ttl = world::draw(|rng| rng.between(TTL[0], TTL[1]));
            if time > ttl {
                world::after(ttl, Event::Expire(self.shared.owner_of(process)));
            }
        }
    }

    /// Faults end: every process runs, and everything is reachable.
    pub fn calm_down(&mut self) {
        say!("faults end");
        self.calm = true;
        let processes = world::with(|world| {
            world.rates = Rates::default();
            world.cuts.clear();
            world.crash_at_io.clear();
            world.power_at_io.clear();
            world.files_full_until = 0;
            // Pauses end by themselves.
            world.processes.iter_mut().for_each(|process| process.full_until = 0);
            world.processes.len()
        });
        for coordinator in self.coordinators.iter_mut().flatten() {
            coordinator.candidate.away_until = 0;
        }
        for process in 0..processes {
            world::after(0, Event::Start(process));
        }
    }
}
