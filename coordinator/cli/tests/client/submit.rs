//! `tally submit` against a fake coordinator: all exit codes, the output on each stream, and the change from one
//! leader to the next.

use std::process::Child;

use crate::fake::{Fake, JOB, command, interrupt, outcome, status, tally, wait_for};
use tally_proto::v1::{JobState, JobStatus};

const SUMMARY: &str = r#"{"job_id":"20170227-1-1-0","date":"20170227","rows":1234,"files":1,"n_clients":1000,"stages":[{"name":"map","tasks":4,"rows":9,"bytes":9,"seconds":0.5,"peak_memory_bytes":1}],"warnings":["look here"]}"#;

fn done() -> JobStatus {
    JobStatus { summary: SUMMARY.into(), ..status(JobState::Done, "publish") }
}

fn submit<'a>(coordinator: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args =
        ["submit", "--coordinator", coordinator, "--addons", "/day/addons", "--main-summary", "/day/main"];
    let rest = ["--output", "/day/out", "--date", "20170227"];
    args.iter().chain(&rest).chain(more).copied().collect()
}

/// A `submit` that waits for the fake's job.
fn waiting(fake: &Fake, coordinator: &str, more: &[&str]) -> Child {
    let child = command(&submit(coordinator, more)).spawn().unwrap();
    wait_for("the watch", || fake.state().watched > 0);
    child
}

fn a_job_that_is_done_prints_its_summary_and_exits_with_0() {
    let fake = Fake::new();
    let child = waiting(&fake, &fake.address, &["--output-format", "json"]);
    fake.set(done());
    let ended = outcome(child).expect(0);
    let summary: serde_json::Value = serde_json::from_str(SUMMARY).unwrap();
    assert_eq!((ended.json(), ended.stdout.lines().count()), (summary, 1));
    assert!(ended.stderr.contains("warning: look here"), "{}", ended.stderr);
    // Progress is printed as lines of JSON.
    let lines: Vec<serde_json::Value> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["phase"], "map");
    assert_eq!(lines[0]["stages"][0]["running"], 2);
    assert_eq!(lines.last().unwrap()["state"], "done");

    let spec = fake.state().submitted[0].clone();
    assert_eq!((spec.dataset.as_str(), spec.date.as_str()), ("addon_aggregates", "20170227"));
    assert_eq!(spec.inputs, ["/day/addons", "/day/main"]);
    assert_eq!((spec.output.as_str(), spec.target_file_size), ("/day/out", 280_000_000));

    let table = tally(&submit(&fake.address, &[])).expect(0);
    assert!(table.stdout.contains("n_clients") && table.stdout.contains("1,000"), "{}", table.stdout);
    assert!(table.stderr.contains(&format!("job {JOB} was accepted")), "{}", table.stderr);
}

fn a_job_that_failed_or_was_cancelled_has_its_exit_code() {
    let fake = Fake::new();
    fake.set(JobStatus { reason: "x.parquet: no magic".into(), ..status(JobState::Failed, "map") });
    let failed = tally(&submit(&fake.address, &[])).expect(1);
    assert!(failed.stdout.is_empty() && failed.stderr.contains("x.parquet: no magic"), "{failed:?}");
    fake.set(status(JobState::Cancelled, "map"));
    let cancelled = tally(&submit(&fake.address, &["--output-format", "json"])).expect(3);
    assert!(cancelled.stdout.is_empty() && cancelled.stderr.contains("was cancelled"), "{cancelled:?}");
}

fn after_the_timeout_the_job_goes_on_unless_it_should_not() {
    let fake = Fake::new();
    let late = tally(&submit(&fake.address, &["--timeout", "300ms"])).expect(4);
    assert!(late.stderr.contains("continues"), "{}", late.stderr);
    assert!(fake.state().cancelled.is_empty());
    let late = tally(&submit(&fake.address, &["--timeout", "300ms", "--cancel-on-interrupt"])).expect(4);
    assert!(late.stderr.contains("was cancelled"), "{}", late.stderr);
    assert_eq!(fake.state().cancelled, [JOB]);
}

fn an_interrupt_leaves_the_job_alone_unless_it_should_not() {
    let fake = Fake::new();
    let child = waiting(&fake, &fake.address, &[]);
    interrupt(&child);
    let left = outcome(child).expect(130);
    assert!(left.stderr.contains(&format!("job {JOB} continues")), "{}", left.stderr);
    assert!(fake.state().cancelled.is_empty());

    fake.state().watched = 0;
    let child = waiting(&fake, &fake.address, &["--cancel-on-interrupt"]);
    interrupt(&child);
    outcome(child).expect(3);
    assert_eq!(fake.state().cancelled, [JOB]);
}

fn detached_it_prints_the_id_alone() {
    let fake = Fake::new();
    let detached = tally(&submit(&fake.address, &["--detach"])).expect(0);
    assert_eq!((detached.stdout.as_str(), detached.stderr.as_str()), (format!("{JOB}\n").as_str(), ""));
    let json = tally(&submit(&fake.address, &["--detach", "--output-format", "json"])).expect(0);
    assert_eq!(json.json(), serde_json::json!({ "job_id": JOB }));
    assert_eq!(fake.state().watched, 0);
    tally(&submit(&fake.address, &["--detach", "--timeout", "1s"])).expect(2);
}

fn the_same_job_is_followed_not_started_again() {
    let fake = Fake::new();
    fake.state().existing = true;
    fake.set(done());
    let ended = tally(&submit(&fake.address, &[])).expect(0);
    assert!(ended.stderr.contains("is already running"), "{}", ended.stderr);
}

fn without_a_leader_every_address_and_its_reason_are_named() {
    let mut dead = Fake::new();
    dead.kill();
    let standby = Fake::new();
    standby.stand_by(None);
    let both = format!("{},{}", dead.address, standby.address);
    let ended = tally(&submit(&both, &["--connect-timeout", "300ms"])).expect(5);
    let refused = format!("{}: ", dead.address);
    let line = ended.stderr.lines().rev().find(|line| line.trim().starts_with(&refused)).unwrap();
    assert!(line.contains("refused"), "{line}");
    assert!(ended.stderr.contains(&format!("{}: stands by", standby.address)), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("looking for").count(), 1, "{}", ended.stderr);
}

fn a_standby_shows_the_way_to_the_leader() {
    let (standby, leader) = (Fake::new(), Fake::new());
    standby.stand_by(Some(&leader.address));
    leader.set(done());
    let ended = tally(&submit(&standby.address, &[])).expect(0);
    assert!(ended.stdout.contains("1,234"), "{}", ended.stdout);
    assert!(standby.state().submitted.is_empty());
}

fn the_wait_goes_on_with_the_next_leader_when_one_is_killed() {
    let (mut old, new) = (Fake::new(), Fake::new());
    new.stand_by(Some(&old.address));
    let both = format!("{},{}", old.address, new.address);
    let child = waiting(&old, &both, &[]);
    let former = old.address.clone();
    old.kill();
    new.state().refuse = None;
    wait_for("the new watch", || new.state().watched > 0);
    new.set(done());
    let ended = outcome(child).expect(0);
    assert_eq!(ended.stderr.matches("looking for").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("{former}: ")), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("following job {JOB} at {}", new.address)), "{}", ended.stderr);
    assert!(new.state().submitted.is_empty());
}

fn the_wait_goes_on_when_a_coordinator_does_not_know_the_job_yet() {
    let (mut old, deposed) = (Fake::new(), Fake::new());
    deposed.stand_by(Some(&old.address));
    let both = format!("{},{}", old.address, deposed.address);
    let child = waiting(&old, &both, &[]);
    deposed.state().knows_none = Some(0);
    deposed.state().refuse = None;
    old.kill();
    wait_for("two questions", || deposed.state().knows_none.is_some_and(|asked| asked > 1));
    deposed.set(done());
    deposed.state().knows_none = None;
    let ended = outcome(child).expect(0);
    assert!(ended.stdout.contains("1,234"), "{}", ended.stdout);
}

fn a_leader_that_refuses_says_why() {
    let fake = Fake::new();
    let refuse = |code| fake.state().refuse = Some((code, "the output overlaps the input".into(), None));
    for (code, exit) in
        [(tonic::Code::InvalidArgument, 2), (tonic::Code::AlreadyExists, 1), (tonic::Code::Unavailable, 5)]
    {
        refuse(code);
        let ended = tally(&submit(&fake.address, &["--connect-timeout", "200ms"])).expect(exit);
        assert!(ended.stderr.contains("the output overlaps the input"), "{}", ended.stderr);
        assert!(ended.stderr.contains(&fake.address), "{}", ended.stderr);
    }
}

fn relative_paths_are_sent_from_the_root() {
    let fake = Fake::new();
    let folder = tempfile::tempdir().unwrap();
    let args = ["submit", "--coordinator", &fake.address, "--addons", "a", "--main-summary", "s3://b/m"];
    let mut command = command(&args);
    command.args(["--output", "out", "--date", "20170227", "--detach"]).current_dir(folder.path());
    outcome(command.spawn().unwrap()).expect(0);
    let spec = fake.state().submitted[0].clone();
    let under = |name| folder.path().join(name).display().to_string();
    assert_eq!(spec.inputs, [under("a"), "s3://b/m".into()]);
    assert_eq!(spec.output, under("out"));
}

tally_tests::tests![
    mod:
    a_job_that_is_done_prints_its_summary_and_exits_with_0,
    a_job_that_failed_or_was_cancelled_has_its_exit_code,
    after_the_timeout_the_job_goes_on_unless_it_should_not,
    an_interrupt_leaves_the_job_alone_unless_it_should_not,
    detached_it_prints_the_id_alone,
    the_same_job_is_followed_not_started_again,
    without_a_leader_every_address_and_its_reason_are_named,
    a_standby_shows_the_way_to_the_leader,
    the_wait_goes_on_with_the_next_leader_when_one_is_killed,
    the_wait_goes_on_when_a_coordinator_does_not_know_the_job_yet,
    a_leader_that_refuses_says_why,
    relative_paths_are_sent_from_the_root,
];
