//! The clients of a schedule: each submits one job, detached or not, and may cancel it. A client that gets no answer asks
//! the next leader.
//!
//! Not here: which jobs there are (`scenario`).

use tally_coordinator::driver::{Accepted, DriverInput, Refusal, Submit};
use tally_coordinator::history::is_over;
use tally_coordinator::job::{Cut, JobSpec};
use tally_dataset::addon_aggregates::NAME;
use tally_proto::JobId;
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::v1::{JobState, JobStatus};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::cluster::{Cluster, OUTPUT};
use crate::consul::Standing;
use crate::coordinator::Role;
use crate::dataset;
use crate::event::Event;
use crate::files::ROOT;
use crate::scenario::JobPlan;
use crate::store::client::BUCKET;
use crate::world::{self, MILLISECOND, Micros, SECOND, say};

/// How often a client looks whether its job ended.
const POLL: Micros = SECOND;
/// Refusals after which a client gives up.
const MAX_REFUSALS: u32 = 20;
/// Bytes of an output row, by which the number of rows in a row group is chosen.
const BYTES_PER_ROW: u64 = 38;

/// What a client waits for.
pub enum Wait {
    /// Its time to submit, or a leader.
    Leader,
    /// The answer to its submission.
    Answer(oneshot::Receiver<Result<Accepted, Refusal>>),
    /// The end of its job.
    End,
    /// Nothing.
    Nothing,
}

/// A client.
pub struct Client {
    /// Its job.
    pub plan: JobPlan,
    /// What it waits for.
    pub wait: Wait,
    /// The job that the leader accepted.
    pub job: Option<JobId>,
    /// How the job ended, as the client was told.
    pub told: Option<JobState>,
    /// Refused submissions.
    pub refused: u32,
    /// It asked to cancel the job.
    pub cancelled: bool,
    /// When it last submitted, and when it asked to cancel the job.
    pub submitted_at: Micros,
    pub cancelled_at: Micros,
    /// The answer to its cancellation, and the coordinator that gives it.
    cancelling: Option<(oneshot::Receiver<()>, usize)>,
    /// It was told that the job is being cancelled.
    pub promised: bool,
}

impl Client {
    /// A client that has done nothing.
    pub fn new(plan: JobPlan) -> Self {
        Client {
            plan,
            wait: Wait::Leader,
            job: None,
            told: None,
            refused: 0,
            cancelled: false,
            submitted_at: 0,
            cancelled_at: 0,
            cancelling: None,
            promised: false,
        }
    }

    /// Whether it waits for nothing.
    pub fn is_done(&self) -> bool {
        matches!(self.wait, Wait::Nothing)
    }
}

/// The output of all jobs, as a user writes it.
pub fn output_url() -> String {
    match world::with(|world| world.folders.output) {
        true => format!("{ROOT}/{OUTPUT}"),
        false => format!("s3://{BUCKET}/{OUTPUT}"),
    }
}

impl Cluster {
    /// A client does its next step.
    pub fn client(&mut self, number: usize) {
        match &self.clients[number].wait {
            Wait::Leader => self.submit(number),
            Wait::End => self.look(number),
            Wait::Answer(..) | Wait::Nothing => {}
        }
    }

    fn retry(&self, number: usize) {
        let pause = world::draw(|rng| rng.between(200 * MILLISECOND, SECOND));
        world::after(pause, Event::Client(number));
    }

    fn submit(&mut self, number: usize) {
        let accepts = |process: &usize| {
            let candidate = self.coordinators[*process].as_ref().map(|it| it.candidate.standing);
            candidate != Some(Standing::Doubt)
        };
        let Some(leader) = self.leader().filter(accepts) else { return self.retry(number) };
        self.submitted += 1;
        let plan = &self.clients[number].plan;
        let day = plan.day.clone();
        let Ok(id) = JobId::parse(&format!("{}-{:x}", day.date, self.submitted)) else { return };
        let spec = JobSpec {
            id: id.clone(),
            dataset: NAME.into(),
            day_folder: dataset::folder(&day.date),
            date: day.date.clone(),
            inputs: day.inputs(),
            output: output_url(),
            target_file_size: BYTES_PER_ROW * plan.group_rows,
            cut: Cut { shard_bytes: Some(1), partitions: Some(plan.partitions) },
            expectations: vec![],
            ready_marker: None,
            options: DatasetOptions::default(),
        };
        say!("client {number} submits {id} to coordinator {leader}");
        world::with(|world| world.days.insert(id, day));
        let (accepted, answer) = oneshot::channel();
        self.clients[number].wait = Wait::Answer(answer);
        self.clients[number].submitted_at = world::now();
        let key = self.submitted.to_le_bytes().to_vec();
        let submit = Submit { spec, key, accepted, ended: None };
        self.coordinator(leader, |it, shared| it.step(DriverInput::Submit(Box::new(submit)), shared));
    }

    /// Passes answers of leaders on to clients.
    pub fn tell_clients(&mut self) {
        for number in 0..self.clients.len() {
            self.tell_cancelled(number);
            let Wait::Answer(answer) = &mut self.clients[number].wait else { continue };
            let answer = match answer.try_recv() {
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Closed) => None,
                Ok(answer) => Some(answer),
            };
            say!("client {number} is answered: {answer:?}");
            let client = &mut self.clients[number];
            match answer {
                Some(Ok(Accepted { job, .. })) => {
                    client.job = Some(job);
                    client.wait = if client.plan.waits { Wait::End } else { Wait::Nothing };
                    world::after(POLL, Event::Client(number));
                }
                Some(Err(_)) if client.refused == MAX_REFUSALS => client.wait = Wait::Nothing,
                other => {
                    client.refused += u32::from(other.is_some());
                    client.wait = Wait::Leader;
                    self.retry(number);
                }
            }
        }
    }

    /// A client that cancels its job gets the answer with the job's status: that of a job which is neither over nor being
    /// published promises that the job ends as cancelled.
    fn tell_cancelled(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some((mut answer, leader)) = client.cancelling.take() else { return };
        match (answer.try_recv(), &client.job) {
            (Err(TryRecvError::Empty), _) => client.cancelling = Some((answer, leader)),
            (Ok(()), Some(job)) => {
                let role = self.coordinators[leader].as_ref().map(|it| &it.role);
                let status = match role {
                    Some(Role::Leading(term)) => term.registry.get(job),
                    _ => None,
                };
                let runs = |status: JobStatus| !is_over(&status) && status.state() != JobState::Publishing;
                client.promised = status.is_some_and(runs);
                say!("client {number} is told that {job} is cancelled: {}", client.promised);
            }
            _ => {}
        }
    }

    /// A client looks whether its job ended.
    fn look(&mut self, number: usize) {
        world::after(POLL, Event::Client(number));
        let Some(leader) = self.leader() else { return };
        let (client, coordinator) = (&mut self.clients[number], &self.coordinators[leader]);
        let (Some(job), Some(Role::Leading(term))) = (&client.job, coordinator.as_ref().map(|it| &it.role))
        else {
            return;
        };
        let Some(status) = term.registry.get(job) else {
            let epoch = term.epoch;
            // A leader that was deposed and does not know it may lack jobs of later epochs. The client asks again, as the
            // product's does (`Client::follow`).
            if self.shared.epochs.keys().next_back() == Some(&epoch) {
                world::violated(|| {
                    format!("the leader of epoch {epoch} does not know the accepted job {job}")
                });
            }
            return;
        };
        if is_over(&status) {
            say!("client {number} learns that {job} ended as {:?}", status.state());
            client.told = Some(status.state());
            client.wait = Wait::Nothing;
        }
    }

    /// A client cancels its job.
    pub fn cancel(&mut self, number: usize) {
        let client = &self.clients[number];
        let over = client.told.is_some() || (client.is_done() && client.job.is_none());
        let (Some(leader), Some(job)) = (self.leader(), client.job.clone()) else {
            if !over && !self.calm {
                let pause = world::draw(|rng| rng.between(100 * MILLISECOND, SECOND));
                world::after(pause, Event::Cancel(number));
            }
            return;
        };
        say!("client {number} cancels {job}");
        let (answer, answered) = oneshot::channel();
        let client = &mut self.clients[number];
        (client.cancelled, client.cancelled_at) = (true, world::now());
        client.cancelling = Some((answered, leader));
        self.coordinator(leader, |it, shared| it.step(DriverInput::Cancel(job, answer), shared));
    }
}
