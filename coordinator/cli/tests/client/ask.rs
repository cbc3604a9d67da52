//! `tally jobs`, `job`, `cancel`, `workers` and `worker drain` against a fake
//! coordinator: the JSON for programs, pages, and the output for empty lists.

use crate::fake::{Fake, JOB, Outcome, command, outcome, status, tally};
use serde_json::json;
use tally_proto::v1::{JobSpec, JobState, JobStatus, WorkerStatus};

fn job() -> JobStatus {
    let spec = JobSpec {
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        inputs: vec!["/day/addons".into(), "/day/main".into()],
        output: "/day/out".into(),
        target_file_size: 1000,
        ..Default::default()
    };
    JobStatus { spec: Some(spec), input_rows: 50, input_bytes: 60, ..status(JobState::Running, "map") }
}

fn job_json() -> serde_json::Value {
    json!({
        "job_id": JOB,
        "state": "running",
        "phase": "map",
        "input_rows": 50,
        "input_bytes": 60,
        "stages": [{
            "name": "map", "tasks": 4, "pending": 1, "running": 2, "done": 1,
            "failed_attempts": 0, "reruns": 0, "second_attempts": 0
        }],
        "dataset": "addon_aggregates",
        "date": "20170227",
        "inputs": ["/day/addons", "/day/main"],
        "output": "/day/out",
        "target_file_size": 1000,
        "submitted_at": "2017-02-27T00:00:00.000Z",
        "ended_at": null,
        "reason": null,
        "summary": null
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
    }
}

fn worker_json(id: &str, state: &str) -> serde_json::Value {
    json!({
        "worker_id": id, "state": state, "flight_address": "127.0.0.1:7171", "version": "0.1.0",
        "slots": 2, "running": 1, "memory_limit": 1_073_741_824, "memory_used": 1_048_576,
        "spilled_bytes": 5, "outputs": 7
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
    ask(&fake, &["cancel", JOB]).expect(0);
    assert_eq!(fake.state().cancelled, [JOB]);
    // Repeated: it is already cancelled, as requested.
    ask(&fake, &["cancel", JOB]).expect(0);
    for (state, said) in [(JobState::Done, "over before: done"), (JobState::Publishing, "being published")] {
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
    all_pages_of_jobs_are_listed,
    pages_without_an_end_are_an_error,
    workers_as_json_and_as_a_table,
    only_a_job_that_runs_can_be_cancelled,
    text_of_others_moves_no_cursor,
    the_address_comes_from_the_flag_then_the_environment,
    help_tells_the_exit_codes,
];
