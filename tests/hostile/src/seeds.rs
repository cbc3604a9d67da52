//! Valid inputs of every kind, from which fuzzers start and which tests corrupt.
//!
//! Inputs that other programs produce are stored with this crate: Parquet files in `files` (written by
//! `files/make.py`).

use std::path::PathBuf;

use prost::Message;
use tally_coordinator::journal::frame;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::journal_record::Record;
use tally_proto::v1::worker_message::Message as Up;

use crate::manifest::DAY;

fn attempt() -> v1::Attempt {
    v1::Attempt { job: "20170227-1a2b".into(), stage: 1, index: 300, attempt: 4097 }
}

/// Tickets of every kind.
pub fn tickets() -> Vec<Vec<u8>> {
    use v1::ticket::What;
    let whats = [
        None,
        Some(What::Partition(17)),
        Some(What::Dictionary(3)),
        Some(What::Range(v1::Range { offset: 1 << 40, length: 4096 })),
    ];
    let ticket = |what| v1::Ticket {
        job: "20170227-1a2b".into(),
        stage: 1,
        outputs: (0..5).map(|index| v1::TaskAttempt { index, attempt: 4096 + index }).collect(),
        what,
        key: vec![7; 16],
        skip: 2,
    };
    whats.map(|what| ticket(what).encode_to_vec()).into()
}

fn result() -> v1::TaskResult {
    let totals = Some(v1::Totals::new(9, &[7, 1]));
    let reduced = v1::ReduceResult {
        totals,
        row_group_rows: vec![5, 4],
        bytes: 900,
        passes: 1,
        read: Some(v1::Sums { rows: 30, checksum: 77 }),
        checksums: vec![11, 12],
        crc32s: vec![13, 14],
        footer_crc32: 15,
        order: Some(16),
        objectives: vec![5, 20, 0],
        nulls: vec![0, 1, 2],
        spilled_bytes: 17,
        network_bytes: 18,
    };
    v1::TaskResult { result: Some(v1::task_result::Result::Reduce(reduced)), usage: None }
}

/// Messages of workers.
pub fn worker_messages() -> Vec<Vec<u8>> {
    use v1::failure::Kind;
    let hello = v1::Hello {
        protocol: tally_proto::PROTOCOL,
        version: "0.1.0".into(),
        worker: "host-0123456789ab".into(),
        slots: 4,
        memory_limit: 1 << 30,
        flight_address: "127.0.0.1:7071".into(),
        epoch: 3,
        draining: false,
        reduce_table_bytes: 64 << 20,
    };
    let held = v1::HeldOutput { attempt: Some(attempt()), result: Some(result()) };
    let lost = v1::FetchLost { worker: "w-1".into(), producer: Some(attempt()), reason: "silent".into() };
    let kinds = [
        Kind::FetchLost(lost),
        Kind::Retryable("again".into()),
        Kind::Fatal("never".into()),
        Kind::Cancelled(v1::Cancelled {}),
        Kind::Refused("full".into()),
    ];
    let outcomes = kinds.map(|kind| v1::ended::Outcome::Failure(v1::Failure { kind: Some(kind) }));
    let outcomes = outcomes.into_iter().chain([v1::ended::Outcome::Done(result())]);
    let moved = v1::OutputMigrated { attempt: Some(attempt()), to: "w-2".into() };
    let kept = v1::MigrationFailed { attempt: Some(attempt()), to: "w-2".into(), reason: "full".into() };
    let mut messages = vec![
        Up::Hello(hello),
        Up::Inventory(v1::Inventory { outputs: vec![held; 3], running: vec![attempt()], last: true }),
        Up::Heartbeat(v1::Heartbeat {
            rows_read: 1 << 40,
            attempts: vec![v1::RunningAttempt {
                attempt: Some(attempt()),
                wait: Some(v1::Wait { kind: 3, subject: "s3://data/x".into(), millis: 4000 }),
                ..v1::RunningAttempt::default()
            }],
            ..v1::Heartbeat::default()
        }),
        Up::OutputMigrated(moved),
        Up::MigrationFailed(kept),
    ];
    let ended = |outcome| Up::Ended(v1::Ended { attempt: Some(attempt()), outcome: Some(outcome) });
    messages.extend(outcomes.map(ended));
    let whole = |message| v1::WorkerMessage { message: Some(message) }.encode_to_vec();
    messages.into_iter().map(whole).collect()
}

fn piece() -> v1::InputPiece {
    let url = "/data/addons/v2/submission_date_s3=20170227/part-0.parquet".into();
    v1::InputPiece {
        url,
        size: 12_345,
        etag: Some("\"abc\"".into()),
        row_groups: vec![0, 1, 5],
        footer_bytes: 678,
        footer: vec![0x15, 2, 0x19, 0x4c, 0],
    }
}

fn map() -> v1::MapWork {
    v1::MapWork { table: 0, partitions: 24, pieces: vec![piece(); 2], most_sums: 99, folder: Some(7) }
}

fn spec() -> v1::JobSpec {
    v1::JobSpec {
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        inputs: vec!["/data/addons/v2".into(), "/data/main_summary/v3".into()],
        output: "/data/out".into(),
        target_file_size: 280_000_000,
        shard_bytes: Some(1 << 20),
        partitions: Some(24),
        expectations: vec!["rows >= 0.8 * previous".into()],
        ready_marker: Some("_SUCCESS".into()),
        options: vec![option()],
    }
}

fn option() -> v1::DatasetOption {
    v1::DatasetOption { name: "list".into(), content: b"a\nb\n".to_vec(), ..Default::default() }
}

/// Messages of coordinators, and a job specification.
pub fn coordinator_messages() -> Vec<Vec<u8>> {
    let packed = v1::PackedOutputs {
        indices: vec![v1::Run { first: 0, count: 2 }, v1::Run { first: 7, count: 1 }],
        attempts: vec![v1::Run { first: 4096, count: 3 }],
        locations: vec![0, 1, 0],
    };
    let holder = |name: &str| v1::Location { worker: name.into(), address: "127.0.0.1:7071".into() };
    let inputs = v1::ReduceInputs {
        job: "20170227-1a2b".into(),
        version: 2,
        stage: 0,
        tables: vec![packed.clone(), packed],
        locations: vec![holder("w-1"), holder("w-2")],
    };
    let order = v1::TaskDispatch {
        attempt: Some(attempt()),
        dataset: "addon_aggregates".into(),
        key: vec![7; 16],
        work: Some(v1::task_dispatch::Work::Map(map())),
        has_options: true,
    };
    let attempts = vec![attempt(); 2];
    let messages = [
        Down::Welcome(v1::Welcome { heartbeat_millis: 1000, timeout_millis: 10_000 }),
        Down::Start(order),
        Down::Stop(attempt()),
        Down::Release("20170227-1a2b".into()),
        Down::MigrateOutputs(v1::MigrateOutputs {
            to: "w-2".into(),
            flight_address: "127.0.0.1:1".into(),
            attempts,
        }),
        Down::Admit(v1::Admit { job: "20170227-1a2b".into(), key: vec![7; 16] }),
        Down::Inputs(inputs),
        Down::Options(v1::JobOptions { job: "20170227-1a2b".into(), options: vec![option()] }),
    ];
    let whole = |message| v1::CoordinatorMessage { epoch: 3, message: Some(message) }.encode_to_vec();
    messages.map(whole).into_iter().chain([spec().encode_to_vec()]).collect()
}

/// Records of a journal, with and without their frames.
pub fn records() -> Vec<Vec<u8>> {
    let job = || "20170227-1a2b".to_string();
    let submitted = v1::JobSubmitted {
        job: job(),
        spec: Some(spec()),
        key: vec![7; 16],
        submitted_at: 1_500_000_000_000,
    };
    let task = v1::PlannedTask { work: Some(map()), bytes: 777, rows: Some(7_777) };
    let planned = v1::JobPlanned { job: job(), partitions: 24, tasks: vec![task; 2], ..Default::default() };
    let summary = r#"{"rows":1}"#.to_string();
    let parts = vec!["part-00000.snappy.parquet".into()];
    let replaces = Some("2-70011-1b2c3d4e".into());
    let committed = v1::JobCommitted { job: job(), device: 1, inode: 2, summary, parts, replaces };
    let status = v1::JobStatus { job: job(), spec: Some(spec()), ..Default::default() };
    let event =
        v1::JobEvent { number: 7, at: 8, text: "why".into(), worker: "w".into(), ..Default::default() };
    let notes = v1::JobNotes { job: job(), events: vec![event], phase_millis: vec![9], ..Default::default() };
    let undelivered = vec!["webhook".into()];
    let ended = v1::JobEnded { status: Some(status), notes: Some(notes.clone()), undelivered };
    let notified = vec![v1::JobNotified { job: job(), receiver: "webhook".into() }];
    let live = v1::LiveJob {
        submitted: Some(submitted.clone()),
        planned: Some(planned.clone()),
        committed: Some(committed.clone()),
        cancelled: true,
        notes: Some(notes.clone()),
    };
    let records = [
        Record::Claim(v1::Claim {
            epoch: 3,
            address: "127.0.0.1:7070".into(),
            version: "0.1.0".into(),
            notes: vec![notes],
            notified,
        }),
        Record::Seal(v1::Seal { by_epoch: 4 }),
        Record::Snapshot(v1::Snapshot { live: vec![live; 2], history: vec![ended.clone(); 2] }),
        Record::Submitted(submitted),
        Record::Planned(planned),
        Record::Committed(committed),
        Record::Ended(ended),
        Record::Cancelled(v1::JobCancelled { job: job() }),
    ];
    let bare = |record: &Record| v1::JournalRecord { record: Some(record.clone()) }.encode_to_vec();
    records.iter().flat_map(|record| [frame::encode([5; 16], record), bare(record)]).collect()
}

/// Responses of a real Consul.
pub fn answers() -> Vec<Vec<u8>> {
    let texts = [
        r#"[{"LockIndex":1,"Key":"tally/leader","Flags":0,"Value":"eyJpZCI6ImMtMSIsImFkZHJlc3MiOiIxMjcuMC4wLjE6NzA3MCIsImVwb2NoIjozfQ==","Session":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","CreateIndex":20,"ModifyIndex":25}]"#,
        r#"{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e"}"#,
        r#"[{"LockDelay":0,"NodeChecks":null,"ServiceChecks":null,"Node":"node","Behavior":"release","TTL":"10s","ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","Name":"tally coordinator c-1","CreateIndex":19,"ModifyIndex":19}]"#,
        r#"[{"Node":{"ID":"1","Node":"node","Address":"127.0.0.1","Datacenter":"dc1"},"Service":{"ID":"tally-worker-w","Service":"tally-worker","Tags":[],"Address":"127.0.0.1","Meta":{"id":"w"},"Port":7071},"Checks":[{"Node":"node","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[]}]}]"#,
        r#"{"Config":{"Datacenter":"dc1","NodeName":"node","NodeID":"1","Server":true},"Member":{"Name":"node"}}"#,
        r#""127.0.0.1:8300""#,
        "true",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Commit records of a day: with part files in several parts, with old objects, with neither.
pub fn decisions() -> Vec<Vec<u8>> {
    let file = |number: u32| {
        format!(
            r#"{{"key":"{DAY}/part-{number:05}-20170227-1a2b-4096.snappy.parquet","upload":"VXBsb2FkSWQ","parts":["\"9b2c\"","\"77aa\""],"bytes":9437184,"rows":247000,"crc32":4023233417}}"#
        )
    };
    let record = |files: &[String], old: &str, etag: &str| {
        let files = files.join(",");
        let text = format!(
            r#"{{"nonce":18446744073709551615,"epoch":3,"manifest":{{"job":"20170227-1a2b","version":"0.1.0","dataset":"addon_aggregates","rows":494000,"inputs":[{{"url":"s3://telemetry/addons/v2/submission_date_s3=20170227/part-0.parquet","bytes":1048576,"etag":{etag}}}],"files":[{files}]}},"old":[{old}],"jobs":["20170226-77","20170227-1a2b"]}}"#
        );
        text.into_bytes()
    };
    vec![
        record(&[file(0), file(1)], "", "null"),
        record(&[file(0)], &format!("\"{DAY}/part-00000-old.snappy.parquet\""), r#""\"d41d8cd9\"""#),
        record(&[], &format!("\"{DAY}/a/b/c%20d.parquet\""), "null"),
    ]
}

/// Settings files.
pub fn settings() -> Vec<Vec<u8>> {
    let texts = [
        "listen = \"127.0.0.1:0\"\nslots = 4\nmemory-limit = \"1GiB\"\ndrain-timeout = \"60s\"\n",
        "coordinator = [\"a:1\", \"b:2\"]\nverbose = true\n",
        "slots = 70000\n",
        "memory-limit = \"lots\"\n[table]\nx = 1\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// The Parquet files whose names have this prefix, sorted by name.
///
/// # Panics
/// There are none: the checkout is incomplete.
pub fn files(prefix: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("files");
    let entries = std::fs::read_dir(&folder).expect("the folder of files");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    let found: Vec<_> = paths.iter().filter(|path| named(path)).map(std::fs::read).collect();
    assert!(!found.is_empty(), "no {prefix} in {}", folder.display());
    found.into_iter().map(|file| file.expect("a file that can be read")).collect()
}

/// Valid files of `addons`.
pub fn addons() -> Vec<Vec<u8>> {
    files("addons-")
}

/// Valid files of `main_summary`.
pub fn main_summary() -> Vec<Vec<u8>> {
    files("main_summary-")
}

/// Valid files of pings.
pub fn pings() -> Vec<Vec<u8>> {
    files("pings-")
}
