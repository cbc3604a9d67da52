//! Output migration: what the next reader sees, and what remains after a failure.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use prost::Message;
use tally_proto::{AttemptId, v1};
use tally_shuffle::flight::MigrationError;
use tally_shuffle::peers::Wanted;
use tally_shuffle::store::Output;
use tonic::{Code, Status};

use crate::rig::{KEY, Rig, attempt, job, map_result, put_file, put_map, read, run, wait_for};

fn migrate(from: &Rig, to: &Rig, output: &AttemptId) -> Result<(), MigrationError> {
    from.runtime.block_on(from.client.migrate_out(&to.place, &from.store, output))
}

fn a_migrated_output_is_the_same_output() {
    let file: Vec<u8> = (0..9_000_000u32).map(|at| (at % 241) as u8).collect();
    // From memory or disk, to memory, both, or disk.
    for (sender, receiver) in [(1 << 30, 1 << 30), (0, 1 << 30), (1 << 30, 0), (0, 0), (0, 1 << 20)] {
        let (from, to) = (Rig::new(sender), Rig::new(receiver));
        let outputs = [attempt(0, 3, 7), attempt(0, 4, 0), attempt(1, 0, 2)];
        let runs = vec![run([50_000, 0, 3, 100_000], 14), run([0, 0, 0, 5], 23), run([1, 1, 1, 1], 20)];
        put_map(&from.store, &outputs[0], runs);
        put_map(&from.store, &outputs[1], vec![]);
        put_file(&from.store, &outputs[2], &file);
        for output in &outputs {
            migrate(&from, &to, output).unwrap();
            // Repeated, as after a lost confirmation.
            migrate(&from, &to, output).unwrap();
        }
        assert_eq!(to.store.inventory(), from.store.inventory(), "ids and results are migrated with them");
        let wanted = outputs[..2].iter().map(|attempt| Wanted { attempt: attempt.clone(), table: 0 });
        let wanted: Vec<Wanted> = wanted.collect();
        for partition in 0..4 {
            let before =
                read(&*from.implementations()[0].1, &from.place, &wanted, partition, &from.reading());
            for (name, peers) in to.implementations() {
                let after = read(&*peers, &to.place, &wanted, partition, &to.reading()).unwrap();
                assert_eq!(&after, before.as_ref().unwrap(), "{name}, partition {partition}");
            }
        }
        let Some(Output::File(received)) = to.store.get(&outputs[2]) else { panic!("no file") };
        assert_eq!(received.read(0, file.len()).unwrap(), file);
        // A second migration, of an output that is now in pieces.
        let last = Rig::new(receiver);
        migrate(&to, &last, &outputs[0]).unwrap();
        let before =
            read(&*from.implementations()[0].1, &from.place, &wanted[..1], 3, &from.reading()).unwrap();
        let after = read(&last.client, &last.place, &wanted[..1], 3, &last.reading()).unwrap();
        assert_eq!(after, before);
    }
}

fn only_members_of_a_known_job_may_migrate_outputs() {
    let (from, to) = (Rig::new(1 << 20), Rig::new(1 << 20));
    let output = attempt(0, 0, 0);
    put_map(&from.store, &output, vec![run([1; 4], 9)]);
    to.store.admit(&job(), b"another key");
    let refused = migrate(&from, &to, &output).unwrap_err();
    assert!(
        matches!(&refused, MigrationError::Failed { .. }) && refused.to_string().contains("key"),
        "{refused}"
    );
    assert!(to.store.inventory().is_empty());
    // An unknown job may become known later.
    to.store.release(&job());
    let refused = migrate(&from, &to, &output).unwrap_err();
    assert!(
        matches!(&refused, MigrationError::Refused { .. }) && refused.to_string().contains("not known"),
        "{refused}"
    );
    assert!(to.store.inventory().is_empty() && to.store.key(&job()).is_none());
    to.store.admit(&job(), KEY);
    migrate(&from, &to, &output).unwrap();
    assert_eq!(to.store.inventory().len(), 1);
    to.store.admit(&job(), b"the right key");
    assert!(to.store.inventory().is_empty());
    // An output without a key or that no longer exists is not migrated.
    to.store.release(&job());
    from.store.release(&job());
    assert!(matches!(migrate(&from, &to, &output), Err(MigrationError::Removed(_))));
    from.store.admit(&job(), b"");
    to.store.release(&job());
    to.store.admit(&job(), b"");
    put_map(&from.store, &output, vec![run([1; 4], 9)]);
    assert!(matches!(migrate(&from, &to, &output), Err(MigrationError::Failed { .. })));
    assert!(to.store.inventory().is_empty());
}

/// The first message of a migration of one run.
fn header(change: impl FnOnce(&mut v1::MigrationHeader)) -> FlightData {
    let offsets = vec![0, 10, 10, 10, 10];
    let run = v1::RunHeader { offsets, ..v1::RunHeader::default() };
    let mut header = v1::MigrationHeader {
        attempt: Some((&attempt(0, 0, 0)).into()),
        result: Some(map_result(10)),
        key: KEY.to_vec(),
        runs: vec![run],
        file_bytes: 0,
    };
    change(&mut header);
    FlightData::new().with_descriptor(FlightDescriptor::new_cmd(header.encode_to_vec()))
}

async fn put(to: &Rig, messages: Vec<FlightData>) -> Status {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", to.place.address)).unwrap();
    let mut service = FlightServiceClient::new(channel.connect().await.unwrap());
    match service.do_put(futures::stream::iter(messages)).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    }
}

fn a_broken_or_malformed_migration_leaves_nothing() {
    let to = Rig::new(1 << 20);
    let noise = FlightData {
        data_header: Bytes::from_static(b"noise"),
        data_body: Bytes::from_static(b"noise"),
        ..FlightData::default()
    };
    let bad = [
        (vec![], Code::InvalidArgument),
        (vec![FlightData::new()], Code::InvalidArgument),
        (vec![FlightData::new().with_descriptor(FlightDescriptor::new_cmd("xyz"))], Code::InvalidArgument),
        (vec![header(|h| h.key = vec![])], Code::PermissionDenied),
        (vec![header(|h| h.attempt = None)], Code::InvalidArgument),
        (vec![header(|h| h.attempt.as_mut().unwrap().job = "../job-1".into())], Code::InvalidArgument),
        (vec![header(|h| h.attempt.as_mut().unwrap().job = "job-2".into())], Code::NotFound),
        (vec![header(|h| h.result = None)], Code::InvalidArgument),
        (vec![header(|h| h.result = Some(v1::TaskResult::default()))], Code::InvalidArgument),
        (vec![header(|h| h.runs[0].offsets = vec![0, 10, 5])], Code::InvalidArgument),
        (vec![header(|h| h.runs[0].items = vec![0])], Code::InvalidArgument),
        // Rows, strings or bytes of the header that do not arrive.
        (vec![header(|_| {})], Code::InvalidArgument),
        (
            vec![header(|h| h.runs = vec![v1::RunHeader { texts: 1, ..Default::default() }])],
            Code::InvalidArgument,
        ),
        (vec![header(|_| {}), noise.clone()], Code::InvalidArgument),
    ];
    to.runtime.block_on(async {
        for (at, (messages, code)) in bad.into_iter().enumerate() {
            let status = put(&to, messages).await;
            assert_eq!(status.code(), code, "number {at}: {status}");
            assert!(status.message().len() > 10, "{status}");
        }
    });
    assert!(to.store.inventory().is_empty());
    // The sender disconnects in the middle.
    let from = Rig::new(0);
    put_map(&from.store, &attempt(0, 0, 0), vec![run([900_000; 4], 19)]);
    for memory in [0, 1 << 30] {
        let to = Rig::new(memory);
        let held = to.store.budget().used();
        let (client, store, place) = (from.client.clone(), from.store.clone(), to.place.clone());
        let sending = from.runtime.spawn(async move {
            let _ = client.migrate_out(&place, &store, &attempt(0, 0, 0)).await;
        });
        wait_for("some of it arrives", || to.traffic.received() > 1 << 20);
        sending.abort();
        wait_for("nothing is left", || {
            to.store.inventory().is_empty() && to.store.budget().used() == held && to.spilled_files() == 0
        });
    }
}

fn a_stopped_receiver_is_a_failure_and_the_output_stays() {
    let (from, mut to) = (Rig::new(0), Rig::new(0));
    put_map(&from.store, &attempt(0, 0, 0), vec![run([9; 4], 19)]);
    to.stop();
    let failed = migrate(&from, &to, &attempt(0, 0, 0)).unwrap_err();
    assert!(matches!(failed, MigrationError::Failed { .. }), "{failed}");
    assert_eq!(from.store.inventory().len(), 1);
}

tally_tests::tests![
    mod:
    a_migrated_output_is_the_same_output,
    only_members_of_a_known_job_may_migrate_outputs,
    a_broken_or_malformed_migration_leaves_nothing,
    a_stopped_receiver_is_a_failure_and_the_output_stays,
];
