//! The processes of a schedule, and what each event does to them.
//!
//! Not here: the loop (`schedule`), what must hold (`check`), the faults (`trouble`).

use std::collections::BTreeMap;
use std::path::Path;
use std::task::Waker;

use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{AttemptId, v1};

use crate::client::Client;
use crate::consul::Consul;
use crate::coordinator::{self, Coordinator, Role};
use crate::dataset;
use crate::event::{Done, End, Event, Wire};
use crate::files::{ROOT, fiber};
use crate::network::Network;
use crate::process::Process;
use crate::scenario::Scenario;
use crate::store::ops;
use crate::tasks::{Owner, Progress, Tasks, Turn};
use crate::worker::Worker;
use crate::world::{self, MILLISECOND, Micros, SECOND, World, say};

/// The output of all jobs: a folder in the bucket.
pub const OUTPUT: &str = "out";

/// What processes use of each other.
pub struct Shared {
    /// Streams.
    pub network: Network,
    /// Futures.
    pub tasks: Tasks<Done>,
    /// The election.
    pub consul: Consul,
    /// The leader of each epoch.
    pub epochs: BTreeMap<u64, Owner>,
    coordinators: usize,
    /// The coordinators elect a leader in Consul.
    pub uses_consul: bool,
}

impl Shared {
    /// The current life of a process.
    pub fn owner_of(&self, process: usize) -> Owner {
        Owner { process, life: world::with(|world| world.processes[process].life) }
    }

    /// The coordinators that workers and clients know, in the order in which they are tried.
    pub fn known_coordinators(&self) -> Vec<usize> {
        match self.uses_consul {
            true => self.consul.leader().map(|leader| leader.process).into_iter().collect(),
            false => (0..self.coordinators).collect(),
        }
    }

    /// The coordinator with an address.
    pub fn coordinator_at(&self, address: &str) -> Option<usize> {
        (0..self.coordinators).find(|process| coordinator::address(*process) == address)
    }
}

/// All processes.
pub struct Cluster {
    /// The plan.
    pub scenario: Scenario,
    /// What they share.
    pub shared: Shared,
    /// The coordinators; `None` while one is dead.
    pub coordinators: Vec<Option<Coordinator>>,
    /// The workers; `None` while one is dead.
    pub workers: Vec<Option<Worker>>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Faults are over.
    pub calm: bool,
    /// What the collection of garbage reported, at the end.
    pub swept: Option<Vec<String>>,
    /// Woken futures of paused processes.
    deferred: Vec<(usize, Waker)>,
    /// Jobs that were submitted so far.
    pub submitted: u32,
}

impl Cluster {
    /// A cluster that starts.
    pub fn new(scenario: Scenario) -> Self {
        let processes = scenario.coordinators + scenario.workers.len();
        world::with(|world| {
            world.processes = (0..processes).map(|_| Process::default()).collect();
            world.crash_at_io.clone_from(&scenario.crash_at_io);
            world.power_at_io.clone_from(&scenario.power_at_io);
            world.task_time = scenario.task_time;
            for job in &scenario.jobs {
                for (key, content) in job.day.objects() {
                    world.store.insert(0, key.into(), content);
                }
                add_old_day(world, &job.day.date);
            }
        });
        let shared = Shared {
            network: Network::default(),
            tasks: Tasks::default(),
            consul: Consul::default(),
            epochs: BTreeMap::new(),
            coordinators: scenario.coordinators,
            uses_consul: scenario.consul,
        };
        let mut it = Cluster {
            coordinators: (0..scenario.coordinators).map(|_| None).collect(),
            workers: scenario.workers.iter().map(|_| None).collect(),
            clients: scenario.jobs.iter().cloned().map(Client::new).collect(),
            shared,
            calm: false,
            swept: None,
            deferred: vec![],
            submitted: 0,
            scenario,
        };
        it.plan();
        it
    }

    /// Queues what the scenario plans.
    fn plan(&mut self) {
        for process in 0..self.scenario.coordinators {
            let at = world::draw(|rng| rng.below(20 * MILLISECOND));
            world::after(at, Event::Start(process));
        }
        let late = if self.scenario.workers_late { 2 * SECOND } else { 30 * MILLISECOND };
        for process in self.scenario.worker_processes() {
            let at = world::draw(|rng| rng.below(late));
            world::after(at, Event::Start(process));
        }
        for (number, client) in self.clients.iter().enumerate() {
            world::after(client.plan.at + 50 * MILLISECOND, Event::Client(number));
            if let Some(at) = client.plan.cancel_at {
                world::after(at, Event::Cancel(number));
            }
        }
        for (at, fault) in &self.scenario.faults {
            world::after(*at, Event::Fault(*fault));
        }
        world::after(self.scenario.calm_at, Event::Calm);
    }

    /// The process that an event is for.
    fn target(&self, event: &Event) -> Option<Owner> {
        Some(match event {
            Event::Arrive(arrival) => {
                let up = matches!(arrival.wire, Wire::Hello(_) | Wire::Up(_));
                let end = if up { End::Coordinator } else { End::Worker };
                self.shared.network.owner(arrival.stream, end)
            }
            Event::Ended(stream, end) => self.shared.network.owner(*stream, *end),
            Event::Beat(stream) => self.shared.network.owner(*stream, End::Coordinator),
            Event::Tick(owner)
            | Event::Connected(owner)
            | Event::Paused(owner)
            | Event::NoWelcome(owner, _)
            | Event::Campaign(owner)
            | Event::Exit(owner) => *owner,
            // Others than the simulated processes are never paused.
            Event::File(owner, _) if owner.process != usize::MAX => *owner,
            _ => return None,
        })
    }

    /// An event happens.
    pub fn handle(&mut self, event: Event) {
        if let Some(owner) = self.target(&event) {
            let (life, alive, paused_until) = world::with(|world| {
                let process = &world.processes[owner.process];
                (process.life, process.alive, process.paused_until)
            });
            if owner.life != life || !alive {
                return;
            }
            if paused_until > world::now() {
                return world::with(|world| world.at(paused_until, event));
            }
        }
        match event {
            Event::Apply(op) => {
                ops::apply(op);
                crate::check::after_request();
            }
            Event::Answer(op) => ops::answer(op),
            Event::File(_, fiber) => fiber::resume(fiber),
            Event::Wake(signal) => signal.set(),
            Event::Arrive(arrival) => self.arrive(arrival.stream, arrival.wire),
            Event::Ended(stream, end) => self.receive(stream, end, None),
            Event::Tick(owner) => self.tick(owner),
            Event::Beat(stream) => {
                let process = self.shared.network.owner(stream, End::Coordinator).process;
                self.coordinator(process, |it, shared| it.beat(stream, shared));
            }
            Event::Connected(owner) => self.worker(owner.process, |it, shared| it.connected(shared)),
            Event::Paused(owner) => self.worker(owner.process, |it, shared| it.paused(shared)),
            Event::NoWelcome(owner, stream) => {
                self.worker(owner.process, |it, shared| it.no_welcome(stream, shared));
            }
            Event::Campaign(owner) => self.coordinator(owner.process, |it, shared| it.campaign(shared)),
            Event::Expire(owner) => self.shared.consul.expire(owner),
            Event::Resume(process) => self.resume(process),
            Event::Start(process) => self.start(process),
            Event::Exit(owner) => self.exit(owner),
            Event::Fault(fault) => self.trouble(fault),
            Event::Client(number) => self.client(number),
            Event::Cancel(number) => self.cancel(number),
            Event::Calm => self.calm_down(),
        }
    }

    fn worker(&mut self, process: usize, act: impl FnOnce(&mut Worker, &mut Shared)) {
        let at = process - self.scenario.coordinators;
        if let Some(worker) = self.workers.get_mut(at).and_then(Option::as_mut) {
            act(worker, &mut self.shared);
        }
    }

    /// Acts on a coordinator; then its clients are told what it answered.
    pub fn coordinator(&mut self, process: usize, act: impl FnOnce(&mut Coordinator, &mut Shared)) {
        if let Some(coordinator) = self.coordinators.get_mut(process).and_then(Option::as_mut) {
            act(coordinator, &mut self.shared);
        }
        self.tell_clients();
    }

    fn tick(&mut self, owner: Owner) {
        if owner.process < self.scenario.coordinators {
            self.coordinator(owner.process, |it, shared| it.tick(shared));
        } else {
            self.worker(owner.process, |it, shared| it.tick(shared));
        }
    }

    fn arrive(&mut self, stream: usize, wire: Wire) {
        let up = matches!(wire, Wire::Hello(_) | Wire::Up(_));
        let end = if up { End::Coordinator } else { End::Worker };
        if self.shared.network.arrived(stream, end) {
            if !is_beat(&wire) {
                say!("message on stream {stream} to the {end:?}: {}", wire_text(&wire));
            }
            self.receive(stream, end, Some(wire));
        }
        // There is room for another message now.
        let owner = self.shared.network.owner(stream, if up { End::Worker } else { End::Coordinator });
        let runs = world::with(|world| {
            let process = &world.processes[owner.process];
            process.alive && process.life == owner.life && process.paused_until <= world.now
        });
        if runs && up {
            self.worker(owner.process, |it, shared| it.room(stream, shared));
        } else if runs {
            self.coordinator(owner.process, |it, shared| it.room(shared));
        }
    }

    fn receive(&mut self, stream: usize, end: End, wire: Option<Wire>) {
        let process = self.shared.network.owner(stream, end).process;
        match end {
            End::Coordinator => self.coordinator(process, |it, shared| it.receive(stream, wire, shared)),
            End::Worker => self.worker(process, |it, shared| it.receive(stream, wire, shared)),
        }
    }

    /// Polls the next woken future. False if there is none.
    pub fn poll(&mut self) -> bool {
        let turn = |owner: Owner| {
            world::with(|world| {
                world.current = owner;
                let until = world.processes.get(owner.process).map_or(0, |process| process.paused_until);
                if until > world.now { Turn::Later } else { Turn::Now }
            })
        };
        match self.shared.tasks.poll(turn) {
            None => return false,
            Some(Progress::Pending) => {}
            Some(Progress::Deferred(owner, waker)) => self.deferred.push((owner.process, waker)),
            Some(Progress::Ended(owner, done)) => self.done(owner, done),
        }
        true
    }

    fn done(&mut self, owner: Owner, done: Done) {
        let process = owner.process;
        match done {
            Done::Claimed(claimed) => self.coordinator(process, |it, shared| it.claimed(claimed, shared)),
            Done::Appended(log, then, result) => {
                self.coordinator(process, |it, shared| it.appended(log, then, result, shared));
            }
            Done::Input(epoch, input) => {
                self.coordinator(process, |it, shared| it.worked(epoch, *input, shared));
            }
            Done::Ended(report) => self.worker(process, |it, shared| it.ended(*report, shared)),
            Done::Migrated(attempt, to, outcome) => {
                self.worker(process, |it, shared| it.migrated(attempt, to, outcome, shared));
            }
            Done::Swept(failed) => self.swept = Some(failed),
        }
    }

    /// A process starts.
    fn start(&mut self, process: usize) {
        let owner = world::with(|world| {
            let state = &mut world.processes[process];
            if state.alive {
                return None;
            }
            *state = Process { life: state.life + 1, alive: true, ..Process::default() };
            Some(Owner { process, life: state.life })
        });
        let Some(owner) = owner else { return };
        say!("process {process} starts");
        let Scenario { coordinators, consul, compact_after, drain_timeout, page_bytes, .. } = self.scenario;
        if process < coordinators {
            self.coordinators[process] =
                Some(Coordinator::start(owner, consul, compact_after, &mut self.shared));
        } else {
            let at = process - coordinators;
            let slots = self.scenario.workers[at];
            self.workers[at] = Worker::start(owner, slots, drain_timeout, page_bytes, &mut self.shared);
        }
    }

    /// A process ends by itself, and is started again later.
    fn exit(&mut self, owner: Owner) {
        let at = owner.process.checked_sub(self.scenario.coordinators);
        let stays = at.and_then(|at| self.workers.get(at)?.as_ref()).is_some_and(|worker| !worker.may_exit());
        if stays {
            return;
        }
        self.shared.consul.resign(owner);
        let back = world::draw(|rng| rng.between(SECOND / 2, 5 * SECOND));
        self.die(owner.process, back, false);
    }

    /// A process dies, and starts again after a while.
    pub fn die(&mut self, process: usize, back: Micros, silent: bool) {
        let owner = self.shared.owner_of(process);
        let lived = world::with(|world| std::mem::replace(&mut world.processes[process].alive, false));
        if !lived {
            return;
        }
        say!("process {process} dies");
        self.shared.tasks.kill(owner);
        fiber::end(Some(owner));
        world::with(|world| world.files.died(owner));
        self.deferred.retain(|(of, _)| *of != process);
        match process.checked_sub(self.scenario.coordinators) {
            None => self.coordinators[process] = None,
            Some(at) => self.workers[at] = None,
        }
        world::with(|world| world.processes[process].outputs = Default::default());
        self.shared.network.died(owner, silent);
        self.shared.consul.died(owner);
        self.tell_clients();
        world::after(back, Event::Start(process));
    }

    /// A paused process continues.
    pub fn resume(&mut self, process: usize) {
        if world::with(|world| world.processes[process].paused_until > world.now) {
            return;
        }
        let (woken, others) = self.deferred.drain(..).partition(|(of, _)| *of == process);
        self.deferred = others;
        let woken: Vec<(usize, Waker)> = woken;
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The coordinator that leads, if one does and is reachable.
    pub fn leader(&self) -> Option<usize> {
        let leads = |process: &usize| {
            let runs = world::with(|world| world.processes[*process].paused_until <= world.now);
            let leading = self.coordinators[*process].as_ref().map(|it| &it.role);
            runs && matches!(leading, Some(Role::Leading(_)))
        };
        self.shared.known_coordinators().into_iter().find(leads)
    }
}

/// Adds the day before all jobs to the output.
fn add_old_day(world: &mut World, date: &str) {
    let (folder, name) = (dataset::folder(date), "part-00000-old.snappy.parquet");
    if !world.folders.output {
        world.store.insert(0, format!("{OUTPUT}/{folder}/{name}").into(), "the old day".into());
    } else if world.folders.has_old_days {
        let output = Path::new(ROOT).join(OUTPUT);
        let day = output.join(folder);
        // Several jobs have the same day and output.
        let _ = world.files.create_folder(&output, 0);
        let _ = world.files.create_folder(&day, 0);
        if let Ok(old) = world.files.create_file(&day.join(name), true, 0) {
            let _ = world.files.append(old, b"the old day");
        }
        world.seen_days.insert(date.into());
    }
    world.files.settle();
}

/// Whether a message only says that its sender is alive.
fn is_beat(wire: &Wire) -> bool {
    match wire {
        Wire::Up(message) => matches!(message, Up::Heartbeat(_)),
        Wire::Down(message) => matches!(message.message, Some(Down::Beat(_))),
        _ => false,
    }
}

/// A message in the log: without what differs between two runs of a seed, such as the order of a hash map.
fn wire_text(wire: &Wire) -> String {
    let id = |attempt: Option<&v1::Attempt>| {
        let attempt = attempt.and_then(|attempt| AttemptId::try_from(attempt).ok());
        attempt.map_or_else(|| "nothing".into(), |attempt| attempt.to_string())
    };
    match wire {
        Wire::Hello(hello) => format!("hello of {}, epoch {}", hello.worker, hello.epoch),
        Wire::Up(Up::Inventory(page)) => {
            let held: Vec<String> = page.outputs.iter().map(|held| id(held.attempt.as_ref())).collect();
            let running: Vec<String> = page.running.iter().map(|attempt| id(Some(attempt))).collect();
            format!("holds {held:?}, runs {running:?}, last page: {}", page.last)
        }
        Wire::Up(Up::Ended(ended)) => {
            let done = matches!(ended.outcome, Some(v1::ended::Outcome::Done(_)));
            format!("{} ended, done: {done}", id(ended.attempt.as_ref()))
        }
        Wire::Up(message) => format!("{message:?}"),
        Wire::Down(message) => {
            let text = match &message.message {
                Some(Down::Start(dispatch)) => format!("start {}", id(dispatch.attempt.as_ref())),
                Some(Down::Stop(attempt)) => format!("stop {}", id(Some(attempt))),
                Some(Down::Inputs(inputs)) => format!("inputs of {}, version {}", inputs.job, inputs.version),
                Some(Down::MigrateOutputs(request)) => {
                    let attempts = request.attempts.iter().map(|attempt| id(Some(attempt)));
                    format!("migrate {:?} to {}", attempts.collect::<Vec<_>>(), request.to)
                }
                other => format!("{other:?}"),
            };
            format!("{text} (epoch {})", message.epoch)
        }
        Wire::Refused(status) => format!("refused: {}", status.message()),
    }
}
