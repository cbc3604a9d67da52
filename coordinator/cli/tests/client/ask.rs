//! `tally jobs`, `job`, `logs`, `wait`, `cancel`, `workers` and `worker drain` against a fake
//! coordinator: the JSON for programs, pages, and the output for empty lists.

use std::io::{BufRead, BufReader};

use crate::fake::{Fake, JOB, Outcome, command, interrupt, outcome, status, tally, wait_for};
use serde_json::json;
use tally_proto::v1::{
    EventKind, JobDetail, JobEvent, JobSpec, JobState, JobStatus, JobWaits, PartitionSkew, RunningTask,
    StageDetail, StageUse, WorkerStatus,
};

fn job() -> JobStatus {
    let spec = JobSpec {
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        inputs: vec!["/day/addons".into(), "/day/main".into()],
        output: "/day/out".into(),
        target_file_size: 1000,
        ..Default::default()
    };
    JobStatus {
        spec: Some(spec),
        input_rows: 50,
        input_bytes: 60,
        rows_done: 20,
        bytes_done: 30,
        elapsed_millis: 12_500,
        remaining_millis: Some(40_000),
        waits: Some(JobWaits {
            store: 2,
            silent_workers: 1,
            silent_worker_ids: vec!["w-2".into()],
            ..Default::default()
        }),
        detail: Some(detail()),
        ..status(JobState::Running, "map")
    }
}

fn incident() -> JobEvent {
    JobEvent {
        number: 7,
        at: 1_488_153_600_000,
        kind: EventKind::AttemptFailed.into(),
        stage: "map".into(),
        index: Some(3),
        attempt: Some(4095),
        worker: "w-2".into(),
        text: "the disk is full".into(),
    }
}

fn incident_json() -> serde_json::Value {
    json!({
        "number": 7, "at": "2017-02-27T00:00:00.000Z", "kind": "attempt_failed", "stage": "map", "index": 3,
        "attempt": 4095, "attempt_number": 4096, "worker_id": "w-2", "text": "the disk is full"
    })
}

fn detail() -> JobDetail {
    let stage = StageDetail {
        name: "map".into(),
        millis: 9000,
        rows: 18,
        bytes: 900,
        r#use: Some(StageUse {
            task_millis: 8000,
            failed_millis: 1000,
            store_wait_millis: 4000,
            peak_memory_bytes: 7,
            ..Default::default()
        }),
        pending_reason: "all slots are taken".into(),
    };
    let task = RunningTask {
        stage: "map".into(),
        index: 3,
        attempt: 4096,
        worker: "w-1".into(),
        host: "host-1".into(),
        age_millis: 5000,
        rows: 2,
        bytes: 1,
        waits_for: "store".into(),
        wait_subject: "s3://data/x".into(),
        wait_millis: 4000,
        ..Default::default()
    };
    JobDetail {
        stages: vec![stage],
        running: vec![task],
        running_left_out: 11,
        incidents: vec![incident()],
        incidents_left_out: 12,
        skew: Some(PartitionSkew { partitions: 9, largest: 2, largest_rows: 90, median_rows: 30 }),
        phase_millis: 9000,
        phases_millis: vec![],
    }
}

fn job_json() -> serde_json::Value {
    json!({
        "job_id": JOB,
        "state": "running",
        "phase": "map",
        "input_rows": 50,
        "input_bytes": 60,
        "rows_done": 20,
        "bytes_done": 30,
        "waiting_tasks": {
            "slot": 0, "memory": 0, "store": 2, "worker": 0, "task": 0, "silent_workers": 1,
            "silent_worker_ids": ["w-2"]
        },
        "stages": [{
            "name": "map", "tasks": 4, "pending": 1, "running": 2, "done": 1,
            "failed_attempts": 0, "reruns": 0, "second_attempts": 0
        }],
        "dataset": "addon_aggregates",
        "dataset_options": [],
        "date": "20170227",
        "inputs": ["/day/addons", "/day/main"],
        "output": "/day/out",
        "target_file_size": 1000,
        "expectations": [],
        "unmet_expectation": false,
        "ready_marker": null,
        "submitted_at": "2017-02-27T00:00:00.000Z",
        "ended_at": null,
        "elapsed_seconds": 12.5,
        "remaining_seconds": 40.0,
        "cancelling": false,
        "reason": null,
        "summary": null,
        "detail": {
            "phase_seconds": 9.0,
            "stage_times": [{
                "name": "map", "seconds": 9.0, "rows": 18, "bytes": 900,
                "rows_per_second": 2.0, "bytes_per_second": 100.0,
                "task_seconds": 8.0, "failed_task_seconds": 1.0, "memory_wait_seconds": 0.0,
                "store_wait_seconds": 4.0, "worker_wait_seconds": 0.0, "peak_memory_bytes": 7,
                "pending_reason": "all slots are taken"
            }],
            "running": [{
                "stage": "map", "index": 3, "attempt": 4096, "attempt_number": 1, "worker_id": "w-1", "host": "host-1",
                "age_seconds": 5.0, "speculative": false, "rows": 2, "bytes": 1,
                "waits_for": { "kind": "store", "subject": "s3://data/x", "seconds": 4.0 },
                "worker_silent_seconds": null
            }],
            "running_left_out": 11,
            "incidents": [incident_json()],
            "incidents_left_out": 12,
            "partitions": { "partitions": 9, "largest": 2, "largest_rows": 90, "median_rows": 30 }
        }
    })
}

fn worker(id: &str) -> WorkerStatus {
    WorkerStatus {
        worker: id.into(),
        flight_address: "127.0.0.1:7171".into(),
        version: "0.1.0".into(),
        slots: 2,
        running: 1,
        memory_limit: 1 << 30,
        memory_used: 1 << 20,
        spilled_bytes: 5,
        state: "attached".into(),
        outputs: 7,
        heartbeat_age_millis: 1500,
        silent: false,
        spill_used: 6,
        spill_limit: 1 << 31,
        resident_bytes: 8,
        waiting_for_store: 1,
        ..Default::default()
    }
}

fn worker_json(id: &str, state: &str) -> serde_json::Value {
    json!({
        "worker_id": id, "state": state, "flight_address": "127.0.0.1:7171", "version": "0.1.0",
        "slots": 2, "running": 1, "memory_limit": 1_073_741_824, "memory_used": 1_048_576,
        "spilled_bytes": 5, "outputs": 7, "heartbeat_age_seconds": 1.5, "silent": false, "spill_used": 6,
        "spill_limit": 2_147_483_648u64, "resident_bytes": 8, "waiting_for_memory": 0, "waiting_for_store": 1,
        "waiting_for_workers": 0
    })
}

fn ask(fake: &Fake, args: &[&str]) -> Outcome {
    tally(&[args, &["--coordinator", &fake.address]].concat())
}

fn a_job_as_json_and_as_a_table() {
    let fake = Fake::new();
    fake.set(job());
    let shown = ask(&fake, &["job", JOB, "--output-format", "json"]).expect(0);
    assert_eq!(shown.json(), job_json());
    let table = ask(&fake, &["job", JOB]).expect(0).stdout;
    assert!(table.contains("map 1/4 tasks") && table.contains("/day/main"), "{table}");
    for part in [
        "about 40.0 s",
        "worker w-2 is silent, 2 tasks wait for the store",
        "waits for store, 4.0 s: s3://data/x",
        "and 11 more",
        "pending map tasks: all slots are taken",
        "3.0 times the median",
        "12 before them",
        "map task 3: worker w-2: attempt 4096 failed: the disk is full",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let summary = r#"{"rows":3,"exact":12345678901234567890}"#;
    fake.set(JobStatus {
        summary: summary.into(),
        ended_at: 1_488_153_601_000,
        ..status(JobState::Done, "publish")
    });
    let shown = ask(&fake, &["job", JOB, "--output-format", "json"]).expect(0);
    assert_eq!(shown.json()["ended_at"], "2017-02-27T00:00:01.000Z");
    assert!(shown.stdout.contains(&format!("\"summary\":{summary}")), "{}", shown.stdout);
}

fn a_watched_job_is_printed_at_each_change_until_its_end() {
    let fake = Fake::new();
    fake.set(job());
    let mut watch = command(&["job", JOB, "--watch", "--coordinator", &fake.address]).spawn().unwrap();
    let mut out = BufReader::new(watch.stdout.take().unwrap());
    let mut until = |part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "{part}: the output ended");
        }
    };
    until("map 1/4 tasks");
    // Times pass, but nothing changes.
    fake.set(JobStatus { elapsed_millis: 99_999, ..job() });
    fake.set(JobStatus { phase: "reduce".into(), ..job() });
    until("reduce");
    fake.set(status(JobState::Done, ""));
    until("done");
    assert!(watch.wait().unwrap().success());

    fake.state().workers = vec![worker("w-1")];
    let mut watch = command(&["workers", "--watch", "--coordinator", &fake.address]).spawn().unwrap();
    let mut out = BufReader::new(watch.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("attached") {
        assert!(out.read_line(&mut text).unwrap() > 0);
    }
    fake.state().workers[0].silent = true;
    while !text.contains("silent for 1.5 s") {
        assert!(out.read_line(&mut text).unwrap() > 0);
    }
    interrupt(&watch);
    watch.wait().unwrap();
}

fn a_watch_ends_when_nothing_reads_it() {
    let fake = Fake::new();
    fake.set(job());
    fake.state().jobs = vec![job()];
    fake.state().events = vec![incident()];
    for args in [&["jobs", "--watch"][..], &["job", JOB, "--watch"], &["logs", JOB, "--follow"]] {
        let args: Vec<&str> = args.iter().copied().chain(["--coordinator", fake.address.as_str()]).collect();
        let mut watch = command(&args).spawn().unwrap();
        let mut out = BufReader::new(watch.stdout.take().unwrap());
        assert!(out.read_line(&mut String::new()).unwrap() > 0, "{args:?}");
        // Nothing changes after that, so nothing is written.
        drop(out);
        wait_for("the end of the watch", || watch.try_wait().unwrap().is_some());
        assert!(watch.wait().unwrap().success(), "{args:?}");
    }
}

fn the_events_of_a_job_are_lines_and_are_followed_to_its_end() {
    let fake = Fake::new();
    fake.state().events = vec![incident()];
    let shown = ask(&fake, &["logs", JOB]).expect(0);
    let line = "2017-02-27T00:00:00.000Z  map task 3: worker w-2: attempt 4096 failed: the disk is full\n";
    assert_eq!(shown.stdout, line);
    assert!(shown.stderr.contains("3 events of attempts and workers are left out"), "{shown:?}");
    let mut expect = incident_json();
    expect["job_id"] = JOB.into();
    assert_eq!(ask(&fake, &["logs", JOB, "--output-format", "json"]).expect(0).json(), expect);

    let followed = command(&["logs", JOB, "--follow", "--coordinator", &fake.address]).spawn().unwrap();
    let last =
        JobEvent { number: 8, text: "done".into(), kind: EventKind::Ended.into(), ..JobEvent::default() };
    fake.state().events.push(last);
    fake.set(status(JobState::Done, ""));
    let followed = outcome(followed).expect(0);
    assert_eq!(followed.stdout, format!("{line}-  done\n"));
}

fn waiting_for_a_job_ends_like_its_submission() {
    let fake = Fake::new();
    let summary = r#"{"job_id":"20170227-1-1-0","rows":1234}"#;
    let late = ask(&fake, &["wait", JOB, "--timeout", "300ms"]).expect(4);
    assert!(late.stderr.contains("continues"), "{late:?}");
    fake.set(JobStatus { summary: summary.into(), ..status(JobState::Done, "") });
    let done = ask(&fake, &["wait", JOB, "--output-format", "json"]).expect(0);
    assert_eq!(done.stdout, format!("{}\n", summary.replacen('{', r#"{"schema_version":1,"#, 1)));
    fake.set(JobStatus { reason: "no magic".into(), ..status(JobState::Failed, "") });
    assert!(ask(&fake, &["wait", JOB]).expect(1).stderr.contains("no magic"));
    fake.set(status(JobState::Cancelled, ""));
    ask(&fake, &["wait", JOB]).expect(3);
    ask(&fake, &["wait", "no-such"]).expect(1);
    tally(&["wait", JOB, "--coordinator", "127.0.0.1:1", "--connect-timeout", "100ms"]).expect(5);
}

fn an_unknown_job_or_worker_is_named() {
    let fake = Fake::new();
    for args in [&["job", "no-such"][..], &["cancel", "no-such"], &["worker", "drain", "no-such"]] {
        let error = ask(&fake, args).expect(1);
        assert!(error.stdout.is_empty() && error.stderr.contains("no-such is not known"), "{error:?}");
        assert!(error.stderr.contains(&fake.address), "{error:?}");
    }
}

fn all_pages_of_jobs_are_listed() {
    let fake = Fake::new();
    let count = 450;
    let named = |n: usize| JobStatus { job: format!("job-{n}"), ..job() };
    fake.state().jobs = (0..count).map(named).collect();
    let listed = ask(&fake, &["jobs", "--output-format", "json"]).expect(0).json();
    let listed = listed["jobs"].as_array().unwrap();
    assert_eq!(listed.len(), count);
    assert_eq!(listed[0]["date"], "20170227");
    assert!((0..count).all(|n| listed[n]["job_id"] == format!("job-{n}")));
    let table = ask(&fake, &["jobs"]).expect(0).stdout;
    assert_eq!(table.lines().count(), count + 1);

    fake.state().jobs.clear();
    assert_eq!(ask(&fake, &["jobs", "--output-format", "json"]).expect(0).json(), json!({ "jobs": [] }));
}

fn pages_without_an_end_are_an_error() {
    let fake = Fake::new();
    fake.state().jobs = vec![job()];
    fake.state().endless = true;
    let error = ask(&fake, &["jobs"]).expect(1);
    assert!(error.stderr.contains("is returned repeatedly"), "{error:?}");
}

fn workers_as_json_and_as_a_table() {
    let fake = Fake::new();
    fake.state().workers = vec![worker("w-1"), worker("w-2")];
    let listed = ask(&fake, &["workers", "--output-format", "json"]).expect(0).json();
    assert_eq!(
        listed,
        json!({ "workers": [worker_json("w-1", "attached"), worker_json("w-2", "attached")] })
    );
    let table = ask(&fake, &["workers"]).expect(0).stdout;
    assert!(table.contains("1/2") && table.contains("1.0 MiB/1.0 GiB"), "{table}");

    let drained = ask(&fake, &["worker", "drain", "w-2", "--output-format", "json"]).expect(0).json();
    assert_eq!(drained, worker_json("w-2", "draining"));
    assert_eq!(fake.state().drained, ["w-2"]);
}

fn only_a_job_that_runs_can_be_cancelled() {
    let fake = Fake::new();
    let cancelled = ask(&fake, &["cancel", JOB]).expect(0).stdout;
    assert!(cancelled.contains("cancelling") && !cancelled.contains("map 1/4"), "{cancelled}");
    assert_eq!(fake.state().cancelled, [JOB]);
    // Repeated: it is already cancelled, as requested.
    ask(&fake, &["cancel", JOB]).expect(0);
    for (state, said) in [(JobState::Done, "already ended: done"), (JobState::Publishing, "being published")]
    {
        fake.set(status(state, "publish"));
        let error = ask(&fake, &["cancel", JOB]).expect(1);
        assert!(error.stderr.contains(said), "{error:?}");
    }
}

fn text_of_others_moves_no_cursor() {
    let fake = Fake::new();
    fake.state().workers = vec![WorkerStatus { version: "\x1b[2Jv".into(), ..worker("w-1") }];
    fake.set(JobStatus { reason: "a\x1b[1mb".into(), ..status(JobState::Failed, "map") });
    for args in [&["workers"][..], &["job", JOB]] {
        let shown = ask(&fake, args).expect(0);
        assert!(!shown.stdout.contains('\x1b'), "{shown:?}");
    }
    let failed = ask(&fake, &["submit", "--date", "20170227", "--preset", "telemetry"]).expect(1);
    assert!(!failed.stderr.contains('\x1b'), "{failed:?}");
}

fn the_address_comes_from_the_flag_then_the_environment() {
    let fake = Fake::new();
    let with =
        |args: &[&str], value: &str| outcome(command(args).env("TALLY_COORDINATOR", value).spawn().unwrap());
    with(&["jobs"], &fake.address).expect(0);
    let dead = "127.0.0.1:1";
    let error = with(&["jobs", "--connect-timeout", "100ms"], dead).expect(5);
    assert!(error.stderr.contains(dead), "{error:?}");
    with(&["jobs", "--coordinator", &fake.address], dead).expect(0);
    let error = with(&["jobs"], "nonsense").expect(2);
    assert!(error.stderr.contains("TALLY_COORDINATOR"), "{error:?}");
    let error = tally(&["jobs"]).expect(2);
    assert!(error.stderr.contains("--coordinator"), "{error:?}");
    tally(&["jobs", "--coordinator", "https://x:1"]).expect(2);
}

fn help_tells_the_exit_codes() {
    for args in [&["--help"][..], &["submit", "--help"]] {
        let help = tally(args).expect(0).stdout;
        for code in ["  0  done", "  3  ", "  4  ", "  5  ", "130  "] {
            assert!(help.contains(code), "{args:?}: {help}");
        }
    }
}

tally_tests::tests![
    mod:
    a_job_as_json_and_as_a_table,
    an_unknown_job_or_worker_is_named,
    a_watched_job_is_printed_at_each_change_until_its_end,
    a_watch_ends_when_nothing_reads_it,
    the_events_of_a_job_are_lines_and_are_followed_to_its_end,
    waiting_for_a_job_ends_like_its_submission,
    all_pages_of_jobs_are_listed,
    pages_without_an_end_are_an_error,
    workers_as_json_and_as_a_table,
    only_a_job_that_runs_can_be_cancelled,
    text_of_others_moves_no_cursor,
    the_address_comes_from_the_flag_then_the_environment,
    help_tells_the_exit_codes,
];
