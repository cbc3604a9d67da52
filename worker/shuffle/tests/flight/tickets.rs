//! The responses of the Flight service to unknown readers: listings are public, rows need the job's key, and invalid
//! requests get an error message.

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tally_shuffle::flight::MESSAGE_LIMIT;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::rig::{KEY, Rig, attempt, put_file, put_map, run, thin_run};

type Service = FlightServiceClient<Channel>;

async fn connect(rig: &Rig) -> Service {
    let address = format!("http://{}", rig.place.address);
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    FlightServiceClient::new(channel).max_decoding_message_size(16 << 20)
}

fn ticket(outputs: &[(u32, u32)], what: Option<What>) -> v1::Ticket {
    let outputs = outputs.iter().map(|&(index, attempt)| v1::TaskAttempt { index, attempt }).collect();
    v1::Ticket { job: "job-1".into(), stage: 0, outputs, what, key: KEY.to_vec(), skip: 0 }
}

async fn get(service: &mut Service, ticket: &v1::Ticket) -> Result<usize, Status> {
    let stream = service.do_get(Ticket::new(ticket.encode_to_vec())).await?;
    stream.into_inner().try_fold(0, async |count, _| Ok(count + 1)).await
}

fn invalid_tickets_are_refused_with_a_reason() {
    let rig = Rig::new(1 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([5; 4], 9)]);
    put_map(&rig.store, &attempt(0, 1, 0), vec![thin_run([5; 4], 9)]);
    put_file(&rig.store, &attempt(0, 2, 0), b"0123456789");
    let good = ticket(&[(0, 0)], Some(What::Partition(1)));
    let range = |offset, length| Some(What::Range(v1::Range { offset, length }));
    let key = |key: &[u8]| v1::Ticket { key: key.to_vec(), ..good.clone() };
    let bad = [
        (key(b""), Code::PermissionDenied),
        (key(b"the key of the jo"), Code::PermissionDenied),
        (key(b"the key of the jobs"), Code::PermissionDenied),
        (v1::Ticket { job: "other".into(), ..good.clone() }, Code::NotFound),
        (v1::Ticket { job: "../../etc".into(), ..good.clone() }, Code::InvalidArgument),
        (v1::Ticket { job: "j".repeat(65), ..good.clone() }, Code::InvalidArgument),
        (v1::Ticket { stage: 9, ..good.clone() }, Code::NotFound),
        (ticket(&[(0, 1)], Some(What::Partition(1))), Code::NotFound),
        (ticket(&[(0, 0), (7, 0)], Some(What::Partition(1))), Code::NotFound),
        (ticket(&[], Some(What::Partition(1))), Code::InvalidArgument),
        (ticket(&[(0, 0)], Some(What::Dictionary(1))), Code::InvalidArgument),
        (ticket(&[(0, 0)], range(0, 1)), Code::InvalidArgument),
        (ticket(&[(0, 0), (1, 0)], Some(What::Partition(1))), Code::InvalidArgument),
        (ticket(&[(2, 0)], Some(What::Partition(1))), Code::InvalidArgument),
        (ticket(&[(2, 0)], range(5, 6)), Code::InvalidArgument),
        (ticket(&[(2, 0)], range(u64::MAX, 2)), Code::InvalidArgument),
        (ticket(&[(0, 0), (2, 0)], Some(What::Partition(1))), Code::InvalidArgument),
    ];
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        for (ticket, code) in bad {
            let status = get(&mut service, &ticket).await.unwrap_err();
            assert_eq!(status.code(), code, "{ticket:?}: {status}");
            assert!(!status.message().is_empty());
            let sizes = service.do_action(Action::new("sizes", ticket.encode_to_vec())).await;
            if code != Code::InvalidArgument {
                assert_eq!(sizes.unwrap_err().code(), code, "{ticket:?}");
            }
        }
        for garbage in [&b""[..], b"\x0a\xff", &[0xff; 100]] {
            let status = service.do_get(Ticket::new(garbage.to_vec())).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        // A partition beyond those of the runs is empty, not an error.
        assert_eq!(get(&mut service, &ticket(&[(0, 0)], Some(What::Partition(99)))).await.unwrap(), 1);
        assert_eq!(get(&mut service, &good).await.unwrap(), 2);
        assert_eq!(get(&mut service, &ticket(&[(0, 0)], None)).await.unwrap(), 5, "all partitions");
        assert_eq!(get(&mut service, &ticket(&[(2, 0)], None)).await.unwrap(), 2, "a whole file");
    });
    // A job of a single process has no key, so no client may read it.
    rig.store.admit(&tally_proto::JobId::parse("alone").unwrap(), b"");
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        let alone = v1::Ticket { job: "alone".into(), key: vec![], ..good };
        assert_eq!(get(&mut service, &alone).await.unwrap_err().code(), Code::PermissionDenied);
    });
}

fn rows_come_in_large_batches_and_bounded_messages() {
    let rig = Rig::new(256 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1_500_000, 1, 0, 40_000], 9)]);
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        for (partition, rows) in [(0, 1_500_000), (3, 40_000)] {
            let ticket = ticket(&[(0, 0)], Some(What::Partition(partition)));
            let stream = service.do_get(Ticket::new(ticket.encode_to_vec())).await.unwrap();
            let messages: Vec<FlightData> = stream.into_inner().try_collect().await.unwrap();
            let bytes: Vec<usize> = messages.iter().map(|m| m.data_body.len()).filter(|&n| n > 0).collect();
            let stream = futures::stream::iter(messages.into_iter().map(Ok));
            let batches: Vec<_> =
                FlightRecordBatchStream::new_from_flight_data(stream).try_collect().await.unwrap();
            let counts: Vec<usize> = batches.iter().map(|batch| batch.num_rows()).collect();
            assert_eq!(counts.iter().sum::<usize>(), rows);
            assert!(counts.iter().all(|&n| n >= rows.min(64 << 10)), "{counts:?}");
            assert!(bytes.iter().all(|n| (1 << 20..=16 << 20).contains(n)) || rows < 64 << 10, "{bytes:?}");
            assert!(counts.len() > 4 || rows < 64 << 10, "{counts:?}");
        }
    });
}

fn listings_are_correct_and_their_tickets_grant_no_access() {
    let rig = Rig::new(300 << 10);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1000; 4], 9), run([1, 2, 3, 4], 1)]);
    put_map(&rig.store, &attempt(0, 1, 5), vec![run([9000; 4], 9)]);
    put_map(&rig.store, &attempt(0, 2, 0), vec![]);
    put_file(&rig.store, &attempt(1, 0, 0), &[7; 5_000_000]);
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        let all = async |service: &mut Service, expression: &'static [u8]| {
            let listed = service.list_flights(Criteria { expression: expression.into() }).await?;
            listed.into_inner().try_collect::<Vec<FlightInfo>>().await
        };
        let listed = all(&mut service, b"").await.unwrap();
        assert_eq!(listed, all(&mut service, b"job-1").await.unwrap());
        assert!(all(&mut service, b"job-2").await.unwrap().is_empty());
        assert_eq!(all(&mut service, b"../x").await.unwrap_err().code(), Code::InvalidArgument);
        let paths: Vec<_> =
            listed.iter().map(|info| info.flight_descriptor.clone().unwrap().path.join(" ")).collect();
        assert_eq!(paths, ["job-1 0 0 0", "job-1 0 1 5", "job-1 0 2 0", "job-1 1 0 0"]);
        assert_eq!(listed.iter().map(|i| i.total_records).collect::<Vec<_>>(), [4010, 36000, 0, 2]);
        assert!(listed[1].total_bytes > 36000 * 20, "{}", listed[1].total_bytes);
        assert_eq!((listed[2].total_bytes, listed[3].total_bytes), (0, 5_000_000));
        for info in listed {
            let descriptor = info.flight_descriptor.clone().unwrap();
            let again = service.get_flight_info(descriptor.clone()).await.unwrap().into_inner();
            assert_eq!(again, info);
            let schema = service.get_schema(descriptor).await.unwrap().into_inner();
            assert_eq!(schema.schema, info.schema);
            let shown = info.endpoint[0].ticket.clone().unwrap();
            let mut ticket = v1::Ticket::decode(shown.ticket).unwrap();
            assert!(ticket.key.is_empty());
            let refused = get(&mut service, &ticket).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            ticket.key = KEY.to_vec();
            assert!(get(&mut service, &ticket).await.unwrap() >= 1);
        }
        for path in [&["job-1", "0", "0", "9"][..], &["job-2", "0", "0", "0"]] {
            let path = FlightDescriptor::new_path(path.iter().map(|p| p.to_string()).collect());
            assert_eq!(service.get_flight_info(path).await.unwrap_err().code(), Code::NotFound);
        }
        for path in [&["job-1"][..], &["../x", "0", "0", "0"], &["job-1", "0", "0", "-1"], &[]] {
            let path = FlightDescriptor::new_path(path.iter().map(|p| p.to_string()).collect());
            assert_eq!(service.get_schema(path).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let command = FlightDescriptor::new_cmd("select 1");
        assert_eq!(service.get_flight_info(command).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

fn unsupported_methods_are_refused_with_a_message() {
    let rig = Rig::new(1 << 20);
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        let mut refusals = vec![service.do_action(Action::new("drop", "")).await.err().unwrap()];
        let hello = futures::stream::iter([HandshakeRequest::default()]);
        refusals.push(service.handshake(hello).await.err().unwrap());
        refusals.push(service.do_exchange(futures::stream::empty()).await.err().unwrap());
        refusals.push(service.poll_flight_info(FlightDescriptor::new_cmd("x")).await.err().unwrap());
        for status in refusals {
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
            assert!(status.message().len() > 20, "{status}");
        }
        let actions = service.list_actions(Empty {}).await.unwrap().into_inner();
        let actions: Vec<_> = actions.try_collect().await.unwrap();
        assert_eq!(actions.iter().map(|a| a.r#type.as_str()).collect::<Vec<_>>(), ["sizes"]);
    });
}

fn a_message_over_the_limit_is_refused_and_the_connection_stays() {
    let rig = Rig::new(1 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([5; 4], 9)]);
    let large = vec![7; MESSAGE_LIMIT + 1];
    rig.runtime.block_on(async {
        let mut service = connect(&rig).await;
        let put = FlightData { data_body: large.clone().into(), ..FlightData::default() };
        let refusals = [
            service.do_get(Ticket::new(large.clone())).await.err().unwrap(),
            service.do_action(Action::new("sizes", large.clone())).await.err().unwrap(),
            service.list_flights(Criteria { expression: large.into() }).await.err().unwrap(),
            service.do_put(futures::stream::iter([put])).await.err().unwrap(),
        ];
        for status in refusals {
            let known = matches!(status.code(), Code::OutOfRange | Code::Aborted);
            assert!(known && status.message().contains("too large"), "{status:?}");
        }
        let good = ticket(&[(0, 0)], Some(What::Partition(1)));
        assert_eq!(get(&mut service, &good).await.unwrap(), 2, "the connection is still usable");
    });
}

tally_tests::tests![
    mod:
    invalid_tickets_are_refused_with_a_reason,
    rows_come_in_large_batches_and_bounded_messages,
    listings_are_correct_and_their_tickets_grant_no_access,
    unsupported_methods_are_refused_with_a_message,
    a_message_over_the_limit_is_refused_and_the_connection_stays,
];
