//! Outputs that change hands: what the next reader sees, and what is left when it does not work out.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use prost::Message;
use tally_proto::{AttemptId, v1};
use tally_worker::flight::HandOverError;
use tally_worker::peers::Wanted;
use tally_worker::store::Output;
use tonic::{Code, Status};

use crate::rig::{KEY, Rig, attempt, job, map_result, put_file, put_map, read, run, wait_for};

fn give(from: &Rig, to: &Rig, output: &AttemptId) -> Result<(), HandOverError> {
    from.runtime.block_on(from.client.hand_over(&to.place, &from.store, output))
}

fn an_output_that_was_handed_over_is_the_same_output() {
    let file: Vec<u8> = (0..9_000_000u32).map(|at| (at % 241) as u8).collect();
    // From memory or disk, to memory, some of each, or disk.
    for (giver, taker) in [(1 << 30, 1 << 30), (0, 1 << 30), (1 << 30, 0), (0, 0), (0, 1 << 20)] {
        let (from, to) = (Rig::new(giver), Rig::new(taker));
        let outputs = [attempt(0, 3, 7), attempt(0, 4, 0), attempt(1, 0, 2)];
        let runs = vec![run([50_000, 0, 3, 100_000], 14), run([0, 0, 0, 5], 23), run([1, 1, 1, 1], 20)];
        put_map(&from.store, &outputs[0], runs);
        put_map(&from.store, &outputs[1], vec![]);
        put_file(&from.store, &outputs[2], &file);
        for output in &outputs {
            give(&from, &to, output).unwrap();
            // Once more, as after a confirmation that was lost.
            give(&from, &to, output).unwrap();
        }
        assert_eq!(to.store.inventory(), from.store.inventory(), "ids and results go with them");
        let wanted = outputs[..2].iter().map(|attempt| Wanted { attempt: attempt.clone(), table: 0 });
        let wanted: Vec<Wanted> = wanted.collect();
        for partition in 0..4 {
            let before = read(&*from.carriers()[0].1, &from.place, &wanted, partition, &from.reading());
            for (name, peers) in to.carriers() {
                let after = read(&*peers, &to.place, &wanted, partition, &to.reading()).unwrap();
                assert_eq!(&after, before.as_ref().unwrap(), "{name}, partition {partition}");
            }
        }
        let Some(Output::File(taken)) = to.store.get(&outputs[2]) else { panic!("no file") };
        assert_eq!(taken.read(0, file.len()).unwrap(), file);
        // A second hop, of what lies in pieces now.
        let last = Rig::new(taker);
        give(&to, &last, &outputs[0]).unwrap();
        let before = read(&*from.carriers()[0].1, &from.place, &wanted[..1], 3, &from.reading()).unwrap();
        let after = read(&last.client, &last.place, &wanted[..1], 3, &last.reading()).unwrap();
        assert_eq!(after, before);
    }
}

fn only_members_of_a_job_that_is_known_may_put() {
    let (from, to) = (Rig::new(1 << 20), Rig::new(1 << 20));
    let output = attempt(0, 0, 0);
    put_map(&from.store, &output, vec![run([1; 4], 9)]);
    to.store.admit(&job(), b"another key");
    let refused = give(&from, &to, &output).unwrap_err();
    assert!(
        matches!(&refused, HandOverError::Failed { .. }) && refused.to_string().contains("key"),
        "{refused}"
    );
    assert!(to.store.inventory().is_empty());
    // A job that is not known yet, or not any more, may be known later.
    to.store.release(&job());
    let refused = give(&from, &to, &output).unwrap_err();
    assert!(
        matches!(&refused, HandOverError::Refused { .. }) && refused.to_string().contains("not known"),
        "{refused}"
    );
    assert!(to.store.inventory().is_empty() && to.store.key(&job()).is_none());
    to.store.admit(&job(), KEY);
    give(&from, &to, &output).unwrap();
    assert_eq!(to.store.inventory().len(), 1);
    to.store.admit(&job(), b"the right key");
    assert!(to.store.inventory().is_empty());
    // One that has no key goes nowhere; one that is gone neither.
    to.store.release(&job());
    from.store.release(&job());
    assert!(matches!(give(&from, &to, &output), Err(HandOverError::Gone(_))));
    from.store.admit(&job(), b"");
    to.store.release(&job());
    to.store.admit(&job(), b"");
    put_map(&from.store, &output, vec![run([1; 4], 9)]);
    assert!(matches!(give(&from, &to, &output), Err(HandOverError::Failed { .. })));
    assert!(to.store.inventory().is_empty());
}

/// The first message of a hand-over of one run.
fn header(change: impl FnOnce(&mut v1::HandOverHeader)) -> FlightData {
    let offsets = vec![0, 10, 10, 10, 10];
    let run = v1::RunHeader { offsets, ..v1::RunHeader::default() };
    let mut header = v1::HandOverHeader {
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

fn a_hand_over_that_breaks_or_lies_leaves_nothing() {
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
        (vec![header(|h| h.result = Some(v1::TaskResult { result: None }))], Code::InvalidArgument),
        (vec![header(|h| h.runs[0].offsets = vec![0, 10, 5])], Code::InvalidArgument),
        (vec![header(|h| h.runs[0].items = vec![0])], Code::InvalidArgument),
        // Rows, strings, bytes that were announced and do not come.
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
    // The giver goes away in the middle.
    let from = Rig::new(0);
    put_map(&from.store, &attempt(0, 0, 0), vec![run([900_000; 4], 19)]);
    for memory in [0, 1 << 30] {
        let to = Rig::new(memory);
        let held = to.store.budget().used();
        let (client, store, place) = (from.client.clone(), from.store.clone(), to.place.clone());
        let giving = from.runtime.spawn(async move {
            let _ = client.hand_over(&place, &store, &attempt(0, 0, 0)).await;
        });
        wait_for("some of it arrives", || to.traffic.received() > 1 << 20);
        giving.abort();
        wait_for("nothing is left", || {
            to.store.inventory().is_empty() && to.store.budget().used() == held && to.spilled_files() == 0
        });
    }
}

fn a_taker_that_is_gone_is_a_failure_and_the_output_stays() {
    let (from, mut to) = (Rig::new(0), Rig::new(0));
    put_map(&from.store, &attempt(0, 0, 0), vec![run([9; 4], 19)]);
    to.stop();
    let failed = give(&from, &to, &attempt(0, 0, 0)).unwrap_err();
    assert!(matches!(failed, HandOverError::Failed { .. }), "{failed}");
    assert_eq!(from.store.inventory().len(), 1);
}

tally_tests::tests![
    mod:
    an_output_that_was_handed_over_is_the_same_output,
    only_members_of_a_job_that_is_known_may_put,
    a_hand_over_that_breaks_or_lies_leaves_nothing,
    a_taker_that_is_gone_is_a_failure_and_the_output_stays,
];
