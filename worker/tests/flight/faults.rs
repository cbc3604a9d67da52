//! Ways that break, stall, or lead to a holder that has no time: what a reader makes of each.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use prost::Message;
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tally_tests::cluster::proxy::{Network, Proxy};
use tally_worker::budget::Budget;
use tally_worker::error::TaskError;
use tally_worker::flight::ServeConfig;
use tally_worker::peers::{Peers, Place, Reading, Wanted};
use tonic::{Code, Status, Streaming};

use crate::rig::{KEY, Rig, attempt, put_map, run, wait_for};

/// Longer than any stream may stall, with an attempt more.
const PATIENCE: Duration = Duration::from_secs(45);

/// A served output of some fifty megabytes in partition 1, and a way to it that a test can break.
struct Way {
    rig: Rig,
    place: Place,
    proxy: Proxy,
    _network: Network,
}

impl Way {
    fn new() -> Self {
        Self::with(Rig::new(1 << 30))
    }

    fn with(rig: Rig) -> Self {
        put_map(&rig.store, &attempt(0, 0, 0), vec![run([0, 2_000_000, 0, 0], 9)]);
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        proxy.lead_to(rig.place.address.parse().unwrap());
        let place = Place { address: proxy.address().to_string(), ..rig.place.clone() };
        Way { rig, place, proxy, _network: network }
    }

    /// A reader's means, without any room to fetch ahead.
    fn reading(&self) -> Reading {
        Reading { budget: Budget::new(0), ..self.rig.reading() }
    }

    /// Reads the partition, telling of each batch.
    fn read(&self, mut seen: impl FnMut(usize)) -> Result<Vec<RecordBatch>, TaskError> {
        let wanted = vec![Wanted { attempt: attempt(0, 0, 0), table: 0 }];
        let mut reader = self.rig.client.maps(&self.place, wanted, 1, &self.reading())?;
        reader.sizes()?;
        let mut batches = vec![];
        reader.read(0, 0, &mut |batch| {
            batches.push(batch.clone());
            seen(batches.len());
            Ok(())
        })?;
        Ok(batches)
    }

    fn expect_lost(&self, error: &TaskError, reason: &str) {
        let TaskError::Lost { worker, task, reason: said } = error else { panic!("{error}") };
        assert_eq!((worker, task), (&self.place.worker, &attempt(0, 0, 0).task));
        assert!(said.contains(reason), "{said}");
    }

    async fn get(&self) -> Result<Streaming<FlightData>, Status> {
        let ticket = v1::Ticket {
            job: "job-1".into(),
            stage: 0,
            outputs: vec![v1::TaskAttempt { index: 0, attempt: 0 }],
            what: Some(What::Partition(1)),
            key: KEY.to_vec(),
        };
        let address = format!("http://{}", self.rig.place.address);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut service = FlightServiceClient::new(channel);
        Ok(service.do_get(Ticket::new(ticket.encode_to_vec())).await?.into_inner())
    }
}

fn a_stream_that_breaks_once_goes_on_where_it_broke() {
    let way = Way::new();
    let whole = way.read(|_| ()).unwrap();
    assert!(whole.len() > 8, "{} messages", whole.len());
    let broken = way.read(|batches| {
        if batches == 2 {
            way.proxy.break_connections();
        }
    });
    assert_eq!(broken.unwrap(), whole);
}

fn a_stream_that_breaks_again_and_again_is_a_loss() {
    let way = Way::new();
    let error = way.read(|_| way.proxy.break_connections()).unwrap_err();
    way.expect_lost(&error, "");
    way.proxy.heal();
    way.read(|_| ()).unwrap();
}

fn a_holder_that_falls_silent_is_given_up_in_time_and_one_that_comes_back_is_not() {
    let way = Way::new();
    let whole = way.read(|_| ()).unwrap();
    let waited = std::thread::scope(|scope| {
        let (cut, is_cut) = std::sync::mpsc::channel();
        let way = &way;
        let read = scope.spawn(move || {
            way.read(|batches| {
                if batches == 2 {
                    way.proxy.cut();
                    cut.send(()).unwrap();
                }
            })
        });
        is_cut.recv().unwrap();
        // Far less than the patience of a reader.
        std::thread::sleep(Duration::from_secs(1));
        way.proxy.heal();
        read.join().unwrap()
    });
    assert_eq!(waited.unwrap(), whole);
    let start = Instant::now();
    let error = way
        .read(|batches| {
            if batches == 2 {
                way.proxy.cut()
            }
        })
        .unwrap_err();
    way.expect_lost(&error, "sent nothing");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // Nobody there at all: the sizes do not come.
    let start = Instant::now();
    way.expect_lost(&way.read(|_| ()).unwrap_err(), "");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn a_busy_holder_is_asked_again_until_it_has_time() {
    let way = Way::with(Rig::with(1 << 30, ServeConfig { streams: 1, in_flight: 32 << 20 }));
    // Takes the only turn, and does not read.
    let taken = way.rig.runtime.block_on(way.get()).unwrap();
    wait_for("the turn is taken", || way.rig.traffic.serving() == 1);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| way.read(|_| ()));
        let refused = way.rig.runtime.block_on(way.get()).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("come back later"), "{refused}");
        drop(taken);
        let rows: usize = read.join().unwrap().unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 2_000_000);
    });
    wait_for("no turn is taken", || way.rig.traffic.serving() == 0);
}

tally_tests::tests![
    mod:
    a_stream_that_breaks_once_goes_on_where_it_broke,
    a_stream_that_breaks_again_and_again_is_a_loss,
    a_holder_that_falls_silent_is_given_up_in_time_and_one_that_comes_back_is_not,
    a_busy_holder_is_asked_again_until_it_has_time,
];
