//! Slow networks and slow readers, which are no failures, and lost peers behind them, which are found all the same.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use tally_common::budget::Budget;
use tally_common::security::Security;
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tally_shuffle::error::TaskError;
use tally_shuffle::flight::{Client, ClientTiming, ServeConfig};
use tally_shuffle::peers::{MapReader, OutputLocation, Peers, ReadContext, Wanted};
use tally_tests::cluster::proxy::{Network, Proxy};

use crate::rig::{KEY, Rig, attempt, put_map, run, wait_for};

/// Bytes per second of a slow link.
const SLOW: u64 = 250_000;
/// Readers that share it.
const READERS: u32 = 8;
/// Rows of about 600 KB: all readers together need longer than a silent worker is waited for.
const SLOW_ROWS: u32 = 24_000;
/// Longer than it takes to find a lost worker.
const PATIENCE: Duration = Duration::from_secs(45);

/// A worker with one output per reader, of `rows` rows in partition 1, behind a proxy.
struct Link {
    rig: Rig,
    place: OutputLocation,
    proxy: Proxy,
    _network: Network,
}

impl Link {
    fn new(outputs: u32, rows: u32) -> Self {
        let rig = Rig::with(1 << 30, ServeConfig { streams: 64, in_flight: 256 << 20 });
        for index in 0..outputs {
            put_map(&rig.store, &attempt(0, index, 0), vec![run([0, rows, 0, 0], 9)]);
        }
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        proxy.lead_to(rig.place.address.parse().unwrap());
        let place = OutputLocation { address: proxy.address().to_string(), ..rig.place.clone() };
        Link { rig, place, proxy, _network: network }
    }

    /// A reader of one output, without room to fetch ahead.
    fn open(&self, client: &Client, index: u32) -> Box<dyn MapReader> {
        let reading = ReadContext { budget: Budget::new(0), ..self.rig.reading() };
        let wanted = vec![Wanted { attempt: attempt(0, index, 0), table: 0 }];
        client.maps(&self.place, wanted, 1, &reading).unwrap()
    }

    /// Reads an output. Calls `seen` after each batch.
    fn read(
        &self,
        client: &Client,
        index: u32,
        seen: impl FnMut(usize),
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let mut reader = self.open(client, index);
        reader.sizes()?;
        read_all(&mut *reader, seen)
    }

    fn expect_no_failure(&self) {
        let received = &self.rig.received;
        assert_eq!((received.repeats(), received.given_up()), ([0, 0], 0));
    }
}

fn read_all(reader: &mut dyn MapReader, mut seen: impl FnMut(usize)) -> Result<Vec<RecordBatch>, TaskError> {
    let mut batches = vec![];
    reader.read(0, 0, &mut |batch| {
        batches.push(batch.clone());
        seen(batches.len());
        Ok(())
    })?;
    Ok(batches)
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn unread_streams_do_not_stop_another_one() {
    const ROWS: u32 = 700_000;
    let link = Link::new(READERS + 1, ROWS);
    let client = &link.rig.client;
    let unread: Vec<_> = (0..READERS)
        .map(|index| {
            let mut reader = link.open(client, index);
            reader.sizes().unwrap();
            reader.rewind();
            reader
        })
        .collect();
    wait_for("all streams are served", || link.rig.traffic.serving() == READERS);
    // Each has sent what its window takes.
    let mut before = 0;
    wait_for("nothing is sent any more", || {
        std::thread::sleep(Duration::from_millis(300));
        let sent = link.rig.traffic.sent();
        std::mem::replace(&mut before, sent) == sent
    });
    assert_eq!(rows(&link.read(client, READERS, |_| ()).unwrap()), ROWS as usize);
    link.expect_no_failure();
    for mut reader in unread {
        assert_eq!(rows(&read_all(&mut *reader, |_| ()).unwrap()), ROWS as usize);
    }
    link.expect_no_failure();
}

fn a_stream_whose_reader_pauses_is_closed_and_goes_on_where_it_was() {
    let link = Link::new(1, 2_000_000);
    let timing = ClientTiming { unread: Duration::from_millis(300), ..ClientTiming::default() };
    let (received, serving) = (link.rig.received.clone(), link.rig.traffic.clone());
    let client = Client::with_timing(received.clone(), Security::plain().dialer(), timing);
    let whole = link.read(&link.rig.client, 0, |_| ()).unwrap();
    assert!(whole.len() > 8, "{} batches", whole.len());
    let before = received.received();
    let paused = link.read(&client, 0, |batches| {
        // Early and late, so that a start from the beginning would send almost everything again.
        if batches == 2 || batches == whole.len() - 5 {
            wait_for("the holder has its permit back", || serving.serving() == 0);
        }
    });
    assert_eq!(paused.unwrap(), whole);
    assert_eq!(received.paused(), 2);
    let sent = received.received() - before;
    assert!(sent < before * 3 / 2, "{sent} bytes instead of {before}");
    link.expect_no_failure();
}

fn a_stream_that_is_unread_for_long_is_not_cut() {
    let link = Link::new(1, 1_000_000);
    let ticket = v1::Ticket {
        job: "job-1".into(),
        stage: 0,
        outputs: vec![v1::TaskAttempt { index: 0, attempt: 0 }],
        what: Some(What::Partition(1)),
        key: KEY.to_vec(),
        skip: 0,
    };
    link.rig.runtime.block_on(async {
        let address = format!("http://{}", link.rig.place.address);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut service = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut stream = service.do_get(Ticket::new(ticket.encode_to_vec())).await.unwrap().into_inner();
        // Longer than any time limit that the server once had.
        tokio::time::sleep(Duration::from_secs(32)).await;
        let mut numbers = vec![];
        while let Some(message) = stream.message().await.unwrap() {
            let meta = v1::BatchMeta::decode(message.app_metadata).unwrap();
            numbers.extend((meta.number > 0).then_some(meta.number));
        }
        assert!(numbers.len() > 4 && numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
    });
}

fn readers_behind_a_slow_link_finish_without_a_failure() {
    let link = Link::new(READERS, SLOW_ROWS);
    link.proxy.throttle(Some(SLOW));
    std::thread::scope(|scope| {
        let link = &link;
        let reads: Vec<_> = (0..READERS)
            .map(|index| scope.spawn(move || link.read(&link.rig.client, index, |_| ())))
            .collect();
        for read in reads {
            assert_eq!(rows(&read.join().unwrap().unwrap()), SLOW_ROWS as usize);
        }
    });
    link.expect_no_failure();
}

fn a_worker_that_freezes_behind_a_slow_link_is_found() {
    let link = Link::new(READERS, SLOW_ROWS);
    link.proxy.throttle(Some(SLOW));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let link = &link;
        let (first, is_there) = mpsc::channel();
        let reads: Vec<_> = (0..READERS)
            .map(|index| {
                let first = first.clone();
                scope.spawn(move || {
                    link.read(&link.rig.client, index, |_| {
                        // The others read on.
                        let _ = first.send(());
                    })
                })
            })
            .collect();
        is_there.recv().unwrap();
        link.proxy.cut();
        let ends: Vec<_> = reads.into_iter().map(|read| read.join().unwrap()).collect();
        let lost: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
        assert!(!lost.is_empty(), "all readers were done before the cut");
        for error in lost {
            let TaskError::Lost { reason, .. } = &error else { panic!("{error}") };
            assert!(reason.contains("sent nothing for 10 s"), "{reason}");
        }
    });
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // After it recovers, the next request uses a new connection.
    link.proxy.heal();
    link.proxy.throttle(None);
    assert_eq!(rows(&link.read(&link.rig.client, 0, |_| ()).unwrap()), SLOW_ROWS as usize);
}

fn an_output_is_migrated_over_a_slow_link() {
    let (from, link) = (Rig::new(1 << 30), Link::new(0, 0));
    // A message that takes longer than a silent worker is waited for.
    put_map(&from.store, &attempt(0, 0, 0), vec![run([0, 130_000, 0, 0], 9)]);
    link.proxy.throttle(Some(SLOW));
    let output = attempt(0, 0, 0);
    let migrated = from.client.migrate_out(&link.place, &from.store, &output);
    from.runtime.block_on(migrated).unwrap();
    assert_eq!(link.rig.store.inventory(), from.store.inventory());
}

tally_tests::tests![
    mod:
    unread_streams_do_not_stop_another_one,
    a_stream_whose_reader_pauses_is_closed_and_goes_on_where_it_was,
    a_stream_that_is_unread_for_long_is_not_cut,
    readers_behind_a_slow_link_finish_without_a_failure,
    a_worker_that_freezes_behind_a_slow_link_is_found,
    an_output_is_migrated_over_a_slow_link,
];
