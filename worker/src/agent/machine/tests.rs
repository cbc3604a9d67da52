//! The state machine of the agent, step by step, without a network and in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::dataset_options::DatasetOptions;
use tally_proto::dispatch::Dispatch;
use tally_proto::report::Report;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{Failure, StageId, TaskId, WorkerId};
use tally_shuffle::flight::MigrationError;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A host that only counts.
struct CountingHost {
    id: WorkerId,
    started: Vec<AttemptId>,
    options: Vec<DatasetOptions>,
    stopped: Vec<AttemptId>,
    released: Vec<JobId>,
    admitted: BTreeSet<JobId>,
    outputs: BTreeMap<AttemptId, v1::TaskResult>,
    migrated: BTreeSet<AttemptId>,
}

impl TaskHost for CountingHost {
    fn id(&self) -> &WorkerId {
        &self.id
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello { worker: self.id.to_string(), ..Default::default() }
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        v1::Heartbeat::default()
    }

    fn start(&mut self, dispatch: Dispatch) -> Result<(), Failure> {
        let attempt = AttemptId::try_from(&dispatch.head.attempt.unwrap()).unwrap();
        self.admitted.insert(attempt.task.job.clone());
        self.started.push(attempt);
        self.options.push(dispatch.options);
        Ok(())
    }

    fn stop(&mut self, attempt: &AttemptId) {
        self.stopped.push(attempt.clone());
    }

    fn admit(&mut self, job: &JobId, _: &[u8]) {
        self.admitted.insert(job.clone());
    }

    fn release(&mut self, job: &JobId) {
        self.released.push(job.clone());
        self.admitted.remove(job);
        self.outputs.retain(|attempt, _| attempt.task.job != *job);
    }

    fn jobs(&self) -> BTreeSet<JobId> {
        self.admitted.clone()
    }

    fn result(&self, attempt: &AttemptId) -> Option<v1::TaskResult> {
        self.outputs.get(attempt).cloned()
    }

    fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)> {
        self.outputs.iter().map(|(attempt, result)| (attempt.clone(), result.clone())).collect()
    }

    fn held(&self) -> HeldOutputs {
        let migrated = self.outputs.keys().filter(|attempt| self.migrated.contains(attempt)).count();
        HeldOutputs { all: self.outputs.len(), migrated }
    }

    fn note_migrated(&mut self, attempt: &AttemptId) {
        self.migrated.insert(attempt.clone());
    }
}

/// An agent with its host, and the time.
struct Rig {
    core: AgentCore,
    host: CountingHost,
    now: Duration,
}

fn attempt(index: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index }, attempt: 4096 }
}

fn dispatch(index: u32) -> Down {
    let work = Some(v1::task_dispatch::Work::Map(v1::MapWork::default()));
    Down::Start(v1::TaskDispatch { attempt: Some((&attempt(index)).into()), work, ..Default::default() })
}

fn failure() -> Failure {
    Failure::Retryable { reason: "why".into() }
}

fn ended(index: u32) -> Up {
    use v1::ended::Outcome;
    let outcome = Some(Outcome::Done(v1::TaskResult::default()));
    Up::Ended(v1::Ended { attempt: Some((&attempt(index)).into()), outcome })
}

fn failed(index: u32) -> Up {
    let outcome = Some(v1::ended::Outcome::Failure((&failure()).into()));
    Up::Ended(v1::Ended { attempt: Some((&attempt(index)).into()), outcome })
}

/// The names of outputs, in their order.
fn names(outputs: &[AgentOutput]) -> Vec<&'static str> {
    let name = |output: &AgentOutput| match output {
        AgentOutput::Pause => "pause",
        AgentOutput::FindLeader => "find",
        AgentOutput::Open(_) => "open",
        AgentOutput::Send(_) => "send",
        AgentOutput::Close => "close",
        AgentOutput::Goodbye { clean: true } => "clean goodbye",
        AgentOutput::Goodbye { clean: false } => "goodbye",
        AgentOutput::NewIncarnation => "new incarnation",
        AgentOutput::Migrate { .. } => "migrate",
        AgentOutput::Exit { .. } => "exit",
    };
    outputs.iter().map(name).collect()
}

/// The reason of the exit that the outputs end with.
fn exit(outputs: &[AgentOutput]) -> Option<ExitReason> {
    match outputs.last() {
        Some(AgentOutput::Exit { outcome: Ok(reason), .. }) => Some(*reason),
        _ => None,
    }
}

impl Rig {
    /// An agent that looks for a leader.
    fn new(page_bytes: usize) -> Self {
        let config = AgentConfig { drain_timeout: DRAIN_TIMEOUT, slots: 2, page_bytes };
        let host = CountingHost {
            id: WorkerId::parse("w").unwrap(),
            started: vec![],
            options: vec![],
            stopped: vec![],
            released: vec![],
            admitted: BTreeSet::new(),
            outputs: BTreeMap::new(),
            migrated: BTreeSet::new(),
        };
        let mut rig = Rig { core: AgentCore::new(config), host, now: Duration::ZERO };
        assert_eq!(rig.step(AgentInput::Begun), ["find"]);
        rig
    }

    /// An attached agent that has sent its inventory.
    fn attached() -> Self {
        let mut rig = Rig::new(PAGE_BYTES);
        rig.open(1);
        rig.sent();
        rig
    }

    fn outputs(&mut self, input: AgentInput) -> Vec<AgentOutput> {
        self.core.step(self.now, input, &mut self.host)
    }

    fn step(&mut self, input: AgentInput) -> Vec<&'static str> {
        names(&self.outputs(input))
    }

    /// Finds a leader, and sends it the hello message, which is returned.
    fn knock(&mut self) -> v1::Hello {
        let outputs = self.outputs(AgentInput::LeaderFound { address: "c:1".into() });
        let [AgentOutput::Open(hello)] = &outputs[..] else { panic!("{outputs:?}") };
        hello.clone()
    }

    /// Attaches to a leader of this epoch, with heartbeats each second and a timeout of ten.
    fn open(&mut self, epoch: u64) -> v1::Hello {
        let hello = self.knock();
        let welcome = v1::Welcome { heartbeat_millis: 1000, timeout_millis: 10_000 };
        assert_eq!(self.step(AgentInput::Opened { epoch, welcome }), [""; 0]);
        assert!(self.core.is_attached());
        hello
    }

    /// The stream breaks, and the pause after it ends.
    fn break_stream(&mut self) {
        assert_eq!(self.step(AgentInput::StreamEnded(StreamError::Closed)), ["pause"]);
        assert_eq!(self.step(AgentInput::Paused), ["find"]);
    }

    fn message(&mut self, message: Down) -> Vec<AgentOutput> {
        let (epoch, message) = (self.core.epoch(), Some(message));
        self.outputs(AgentInput::Message(v1::CoordinatorMessage { epoch, message }))
    }

    /// Everything that the agent wants to send, without heartbeats.
    fn sent(&mut self) -> Vec<Up> {
        let mut sent = vec![];
        while self.core.wants_to_send() {
            let outputs = self.outputs(AgentInput::SendRoom);
            let [AgentOutput::Send(message)] = &outputs[..] else { panic!("{outputs:?}") };
            sent.extend(Some(message.clone()).filter(|message| !matches!(message, Up::Heartbeat(_))));
        }
        sent
    }

    /// Ends an attempt. If it succeeds, its output is held first.
    fn end(&mut self, index: u32, outcome: Result<v1::TaskResult, Failure>) -> Vec<&'static str> {
        if let Ok(result) = &outcome {
            self.host.outputs.insert(attempt(index), result.clone());
        }
        let worker = self.host.id.clone();
        self.step(AgentInput::Ended(Report { worker, attempt: attempt(index), outcome }))
    }

    fn end_well(&mut self, index: u32) -> Vec<&'static str> {
        self.end(index, Ok(v1::TaskResult::default()))
    }
}

/// The indices of the outputs and running attempts in pages, and whether the last page is among them.
fn listed(sent: &[Up]) -> (Vec<u32>, Vec<u32>, bool) {
    let pages = sent.iter().filter_map(|message| match message {
        Up::Inventory(page) => Some(page),
        _ => None,
    });
    let (mut outputs, mut running, mut complete) = (vec![], vec![], false);
    for page in pages {
        outputs.extend(page.outputs.iter().flat_map(|held| &held.attempt).map(|attempt| attempt.index));
        running.extend(page.running.iter().map(|attempt| attempt.index));
        complete |= page.last;
    }
    (outputs, running, complete)
}

#[test]
fn messages_of_a_former_leader_close_the_stream_and_change_nothing() {
    let mut rig = Rig::new(PAGE_BYTES);
    rig.open(5);
    let message = Some(dispatch(0));
    let stale = AgentInput::Message(v1::CoordinatorMessage { epoch: 4, message });
    assert_eq!(rig.step(stale), ["close", "pause"]);
    assert!(rig.host.started.is_empty() && !rig.core.is_attached());
    assert_eq!(rig.step(AgentInput::Paused), ["find"]);
    assert_eq!(rig.knock().epoch, 5);
    assert_eq!(
        rig.step(AgentInput::Opened { epoch: 3, welcome: v1::Welcome::default() }),
        ["close", "pause"]
    );
    rig.step(AgentInput::Paused);
    assert_eq!(rig.open(6).epoch, 5, "a rejected welcome does not change the epoch");
}

#[test]
fn a_break_while_the_inventory_is_sent_begins_a_complete_one() {
    let mut rig = Rig::new(1);
    (0..5).for_each(|index| drop(rig.host.outputs.insert(attempt(index), v1::TaskResult::default())));
    rig.open(1);
    rig.step(AgentInput::Tick);
    let first: Vec<_> = (0..3).flat_map(|_| rig.outputs(AgentInput::SendRoom)).collect();
    assert!(matches!(&first[0], AgentOutput::Send(Up::Heartbeat(_))), "a heartbeat does not wait for pages");
    assert!(rig.core.wants_to_send());
    rig.break_stream();
    assert!(!rig.core.wants_to_send() && rig.step(AgentInput::SendRoom).is_empty());
    rig.open(1);
    assert_eq!(listed(&rig.sent()), (vec![0, 1, 2, 3, 4], vec![], true));
}

#[test]
fn an_end_that_happens_while_away_is_reported_on_the_next_stream() {
    let mut rig = Rig::attached();
    (0..4).for_each(|index| drop(rig.message(dispatch(index))));
    rig.break_stream();
    rig.end_well(0);
    rig.end(1, Err(failure()));
    // Its output is held, and its report is still on its way to the agent.
    rig.host.outputs.insert(attempt(2), v1::TaskResult::default());
    rig.open(2);
    let sent = rig.sent();
    assert_eq!(listed(&sent), (vec![0, 2], vec![1, 3], true), "each attempt is listed once");
    assert_eq!(sent[1..], [failed(1)], "an output in the inventory is not reported again");
    rig.end_well(2);
    assert_eq!(rig.sent(), []);
    rig.end_well(3);
    assert_eq!(rig.sent(), [ended(3)]);
    assert_eq!(rig.core.holdings(&rig.host).running, 0);
}

#[test]
fn a_job_without_outputs_and_attempts_is_dropped_with_the_next_stream() {
    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.break_stream();
    rig.open(2);
    assert!(rig.host.released.is_empty(), "its attempt runs");
    rig.sent();
    rig.end(0, Err(failure()));
    rig.break_stream();
    rig.open(3);
    assert!(rig.host.released.is_empty(), "its end is not reported yet");
    let sent = rig.sent();
    assert_eq!((listed(&sent), &sent[1..]), ((vec![], vec![0], true), &[failed(0)][..]));
    rig.break_stream();
    rig.open(4);
    assert_eq!(
        rig.host.released,
        [JobId::parse("j").unwrap()],
        "it may have ended while the worker was away"
    );
    rig.message(dispatch(1));
    rig.end_well(1);
    rig.sent();
    rig.break_stream();
    rig.open(5);
    assert_eq!(rig.host.released.len(), 1, "its output is held");
}

#[test]
fn repeated_task_messages_start_nothing_twice() {
    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.message(dispatch(0));
    assert_eq!(rig.host.started, [attempt(0)]);
    rig.end_well(0);
    assert_eq!(rig.sent(), [ended(0)]);
    rig.message(dispatch(0));
    assert_eq!((rig.host.started.len(), rig.sent()), (1, vec![ended(0)]), "the report is repeated");
}

#[test]
fn a_reduce_task_starts_only_with_inputs_of_its_version_and_this_stream() {
    let reduce = |index: u32, inputs_version: u64| {
        let work = v1::ReduceWork { inputs_version, ..Default::default() };
        let work = Some(v1::task_dispatch::Work::Reduce(work));
        Down::Start(v1::TaskDispatch { attempt: Some((&attempt(index)).into()), work, ..Default::default() })
    };
    let inputs =
        |version: u64| Down::Inputs(v1::ReduceInputs { job: "j".into(), version, ..Default::default() });
    let mut rig = Rig::attached();
    rig.message(inputs(1));
    rig.message(reduce(0, 1));
    rig.message(reduce(1, 2));
    assert_eq!(rig.host.started, [attempt(0)]);
    assert!(matches!(&rig.sent()[..], [Up::Ended(v1::Ended { outcome: Some(_), .. })]));
    rig.break_stream();
    rig.open(1);
    rig.message(reduce(2, 1));
    assert_eq!(rig.host.started.len(), 1, "the inputs of the earlier stream are forgotten");
}

#[test]
fn a_task_of_a_dataset_with_options_starts_only_after_they_came_on_this_stream() {
    let task = |index: u32, has_options| {
        let work = Some(v1::task_dispatch::Work::Map(v1::MapWork::default()));
        let attempt = Some((&attempt(index)).into());
        Down::Start(v1::TaskDispatch { attempt, work, has_options, ..Default::default() })
    };
    let given = DatasetOptions::new([("list".to_string(), b"a".to_vec())]).unwrap();
    let options = || Down::Options(v1::JobOptions { job: "j".into(), options: given.to_messages() });
    let mut rig = Rig::attached();
    rig.message(task(0, true));
    assert!(rig.host.started.is_empty());
    assert!(matches!(&rig.sent()[..], [Up::Ended(v1::Ended { outcome: Some(_), .. })]));
    rig.message(options());
    rig.message(task(1, true));
    rig.message(task(2, false));
    assert_eq!(rig.host.options, [given.clone(), DatasetOptions::default()]);
    rig.message(Down::Release("j".into()));
    rig.message(task(3, true));
    assert_eq!(rig.host.started.len(), 2, "the options of a released job are dropped");
    rig.message(options());
    rig.break_stream();
    rig.open(1);
    rig.message(task(4, true));
    assert_eq!(rig.host.started.len(), 2, "the options of the earlier stream are forgotten");
}

#[test]
fn a_drain_with_a_coordinator_ends_with_its_consent_or_at_the_deadline() {
    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.end_well(0);
    rig.sent();
    assert!(rig.message(Down::Drained(v1::Drained {})).is_empty(), "it does not drain");
    assert!(rig.step(AgentInput::Shutdown(ShutdownRequest::Drain)).is_empty());
    assert_eq!(rig.sent(), [Up::Draining(v1::Draining {})]);
    rig.break_stream();
    assert!(rig.open(2).draining);
    assert_eq!(rig.sent().last(), Some(&Up::Draining(v1::Draining {})), "it is sent on each stream");
    rig.now = DRAIN_TIMEOUT / 2;
    let outputs = rig.message(Down::Drained(v1::Drained {}));
    assert_eq!(names(&outputs), ["clean goodbye", "exit"]);
    let streams = DRAIN_TIMEOUT / 2;
    assert!(
        matches!(outputs[1], AgentOutput::Exit { outcome: Ok(ExitReason::Drained), streams: s } if s == streams)
    );
    assert!(rig.step(AgentInput::Tick).is_empty() && rig.core.next_wakeup().is_none(), "it has exited");

    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.end_well(0);
    rig.sent();
    rig.message(Down::Drain(v1::Draining {}));
    rig.now = DRAIN_TIMEOUT;
    rig.message(Down::Beat(v1::Beat {}));
    let held = Holdings { outputs: 1, unreported: 0, ..Holdings::default() };
    assert!(matches!(rig.core.connection, Connection::Exited));
    assert_eq!(rig.core.holdings(&rig.host), held);
}

#[test]
fn a_drain_without_a_coordinator_ends_when_nothing_would_be_lost() {
    let mut rig = Rig::new(PAGE_BYTES);
    let outputs = rig.outputs(AgentInput::Shutdown(ShutdownRequest::Drain));
    assert_eq!(exit(&outputs), Some(ExitReason::Drained));

    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.break_stream();
    assert!(rig.step(AgentInput::Shutdown(ShutdownRequest::Drain)).is_empty());
    rig.end(0, Err(failure()));
    rig.open(1);
    rig.sent();
    assert_eq!(rig.step(AgentInput::StreamEnded(StreamError::Closed)), ["pause", "exit"], "all is reported");

    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.break_stream();
    rig.end_well(0);
    rig.step(AgentInput::Shutdown(ShutdownRequest::Drain));
    assert_eq!(rig.core.next_wakeup(), Some(DRAIN_TIMEOUT));
    rig.now = DRAIN_TIMEOUT;
    let lost = Holdings { outputs: 1, unreported: 1, ..Holdings::default() };
    assert_eq!(exit(&rig.outputs(AgentInput::Tick)), Some(ExitReason::TimedOut(lost)));

    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    let outputs = rig.outputs(AgentInput::Shutdown(ShutdownRequest::Leave));
    assert_eq!(names(&outputs), ["goodbye", "exit"]);
    assert!(matches!(exit(&outputs), Some(ExitReason::AtOnce(Holdings { running: 1, .. }))));
}

#[test]
fn a_worker_that_was_declared_lost_begins_again_without_anything() {
    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.end(0, Err(failure()));
    rig.message(dispatch(1));
    rig.break_stream();
    rig.knock();
    assert_eq!(rig.step(AgentInput::Refused(Status::already_exists("given up"))), ["pause"]);
    assert_eq!(rig.step(AgentInput::Paused), ["new incarnation"]);
    rig.host.id = WorkerId::parse("w-2").unwrap();
    assert_eq!(rig.step(AgentInput::Begun), ["find"]);
    assert_eq!(rig.core.holdings(&rig.host), Holdings::default());
    let hello = rig.open(1);
    assert_eq!((hello.worker.as_str(), hello.epoch), ("w-2", 1));
    assert_eq!(rig.sent(), [Up::Inventory(v1::Inventory { last: true, ..Default::default() })]);

    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.step(AgentInput::Shutdown(ShutdownRequest::Drain));
    rig.break_stream();
    rig.knock();
    let outputs = rig.outputs(AgentInput::Refused(Status::already_exists("given up")));
    assert!(matches!(exit(&outputs), Some(ExitReason::GivenUp(Holdings { running: 1, .. }))), "{outputs:?}");
}

#[test]
fn refusals_are_final_or_lead_to_the_next_coordinator() {
    let mut rig = Rig::new(PAGE_BYTES);
    rig.knock();
    assert_eq!(rig.step(AgentInput::Refused(Status::failed_precondition("stands by"))), ["find"]);
    assert_eq!(rig.step(AgentInput::NoLeader { reason: "none".into() }), ["pause"]);
    assert_eq!(rig.step(AgentInput::Paused), ["find"]);
    for (status, version) in
        [(Status::unimplemented("too old"), true), (Status::invalid_argument("no"), false)]
    {
        let mut rig = Rig::new(PAGE_BYTES);
        rig.knock();
        let outputs = rig.outputs(AgentInput::Refused(status));
        let [AgentOutput::Exit { outcome: Err(rejection), .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((rejection.address.as_str(), rejection.version), ("c:1", version));
    }
}

#[test]
fn stop_reaches_only_attempts_that_run() {
    let mut rig = Rig::attached();
    let stop = |index: u32| Down::Stop((&attempt(index)).into());
    assert!(rig.message(stop(0)).is_empty());
    rig.message(dispatch(0));
    rig.message(stop(0));
    assert_eq!(rig.host.stopped, [attempt(0)]);
    rig.end(0, Err(Failure::Cancelled));
    rig.message(stop(0));
    assert_eq!(rig.host.stopped.len(), 1);
    assert_eq!(rig.sent().len(), 1, "it is reported once");
    rig.message(dispatch(1));
    rig.message(Down::Release("j".into()));
    assert_eq!(rig.host.stopped.last(), Some(&attempt(1)), "a released job runs no longer");
}

#[test]
fn a_silent_coordinator_is_left_and_heartbeats_are_sent() {
    let mut rig = Rig::attached();
    for second in 0..10 {
        rig.now = second * SECOND;
        assert_eq!(rig.core.next_wakeup(), Some(rig.now));
        assert!(rig.step(AgentInput::Tick).is_empty());
        assert!(rig.core.wants_to_send() && rig.sent().is_empty(), "a heartbeat");
    }
    rig.now = 10 * SECOND;
    assert_eq!(rig.step(AgentInput::Tick), ["close", "pause"]);

    let mut rig = Rig::attached();
    rig.now = 60 * SECOND;
    assert!(rig.step(AgentInput::Tick).is_empty(), "this process itself was paused");
}

#[test]
fn migrations_continue_while_away_and_are_reported() {
    let mut rig = Rig::attached();
    (0..2).for_each(|index| drop(rig.host.outputs.insert(attempt(index), v1::TaskResult::default())));
    let to = WorkerId::parse("to").unwrap();
    let attempts = (0..2).map(|index| (&attempt(index)).into()).collect();
    let request = v1::MigrateOutputs { to: "to".into(), flight_address: "to:1".into(), attempts };
    assert_eq!(names(&rig.message(Down::MigrateOutputs(request))), ["migrate", "migrate"]);
    rig.break_stream();
    let end =
        |index: u32, outcome| AgentInput::MigrationEnded { attempt: attempt(index), to: to.clone(), outcome };
    rig.step(end(0, Ok(())));
    let refused = MigrationError::Refused { worker: "to".into(), attempt: attempt(1), reason: "busy".into() };
    assert!(rig.step(end(1, Err(refused))).is_empty());
    rig.now = rig.core.next_wakeup().unwrap();
    assert_eq!(rig.step(AgentInput::Tick), ["migrate"]);
    rig.step(end(1, Err(MigrationError::Removed(attempt(1)))));
    assert_eq!(rig.host.held(), HeldOutputs { all: 2, migrated: 1 });
    rig.open(1);
    assert!(matches!(&rig.sent()[1..], [Up::OutputMigrated(_), Up::MigrationFailed(_)]));
}

#[test]
fn a_released_job_leaves_no_output_and_no_migration_to_report() {
    let mut rig = Rig::attached();
    rig.message(dispatch(0));
    rig.end_well(0);
    let request =
        v1::MigrateOutputs { to: "to".into(), attempts: vec![(&attempt(0)).into()], ..Default::default() };
    rig.message(Down::MigrateOutputs(request));
    let to = WorkerId::parse("to").unwrap();
    rig.step(AgentInput::MigrationEnded { attempt: attempt(0), to, outcome: Ok(()) });
    rig.message(Down::Release("j".into()));
    assert_eq!(rig.host.released.len(), 1);
    assert_eq!(rig.sent(), [ended(0)], "the coordinator counts its slot as used until then");
    assert_eq!(rig.core.holdings(&rig.host), Holdings::default());
}
