//! Connections that break or stall, and busy holders: how a reader handles each.

use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use prost::Message;
use tally_common::budget::Budget;
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tally_shuffle::error::TaskError;
use tally_shuffle::flight::ServeConfig;
use tally_shuffle::peers::{OutputLocation, Peers, ReadContext, Wanted};
use tally_tests::cluster::proxy::{Network, Proxy};
use tonic::{Code, Status, Streaming};

use crate::rig::{KEY, Rig, attempt, put_map, run, wait_for};

/// Longer than a stream may stall, including a retry.
const PATIENCE: Duration = Duration::from_secs(45);

/// A served output of about fifty megabytes in partition 1, behind a proxy that a test can break.
struct ProxiedOutput {
    rig: Rig,
    place: OutputLocation,
    proxy: Proxy,
    _network: Network,
}

impl ProxiedOutput {
    fn new() -> Self {
        Self::with(Rig::new(1 << 30))
    }

    fn with(rig: Rig) -> Self {
        put_map(&rig.store, &attempt(0, 0, 0), vec![run([0, 2_000_000, 0, 0], 9)]);
        let network = Network::new().unwrap();
        let proxy = network.proxy().unwrap();
        proxy.lead_to(rig.place.address.parse().unwrap());
        let place = OutputLocation { address: proxy.address().to_string(), ..rig.place.clone() };
        ProxiedOutput { rig, place, proxy, _network: network }
    }

    /// A reader's context, without room to fetch ahead.
    fn reading(&self) -> ReadContext {
        ReadContext { budget: Budget::new(0), ..self.rig.reading() }
    }

    /// Reads the partition. Calls `seen` with the number of batches after each batch.
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
            skip: 0,
        };
        let address = format!("http://{}", self.rig.place.address);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut service = FlightServiceClient::new(channel);
        Ok(service.do_get(Ticket::new(ticket.encode_to_vec())).await?.into_inner())
    }
}

fn a_stream_that_breaks_once_goes_on_where_it_broke() {
    let output = ProxiedOutput::new();
    let whole = output.read(|_| ()).unwrap();
    assert!(whole.len() > 8, "{} messages", whole.len());
    let broken = output.read(|batches| {
        if batches == 2 {
            output.proxy.break_connections();
        }
    });
    assert_eq!(broken.unwrap(), whole);
}

fn a_stream_that_breaks_repeatedly_is_a_loss() {
    let output = ProxiedOutput::new();
    let error = output.read(|_| output.proxy.break_connections()).unwrap_err();
    output.expect_lost(&error, "");
    output.proxy.heal();
    output.read(|_| ()).unwrap();
}

fn a_silent_holder_times_out_and_one_that_recovers_does_not() {
    let output = ProxiedOutput::new();
    let whole = output.read(|_| ()).unwrap();
    let waited = std::thread::scope(|scope| {
        let (cut, is_cut) = std::sync::mpsc::channel();
        let output = &output;
        let read = scope.spawn(move || {
            output.read(|batches| {
                if batches == 2 {
                    output.proxy.cut();
                    cut.send(()).unwrap();
                }
            })
        });
        is_cut.recv().unwrap();
        // Far less than the timeout of a reader.
        std::thread::sleep(Duration::from_secs(1));
        output.proxy.heal();
        read.join().unwrap()
    });
    assert_eq!(waited.unwrap(), whole);
    let start = Instant::now();
    let error = output
        .read(|batches| {
            if batches == 2 {
                output.proxy.cut()
            }
        })
        .unwrap_err();
    output.expect_lost(&error, "sent nothing");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // No server is reachable: the sizes are not received.
    let start = Instant::now();
    output.expect_lost(&output.read(|_| ()).unwrap_err(), "");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn requests_to_a_busy_holder_are_retried() {
    let output = ProxiedOutput::with(Rig::with(1 << 30, ServeConfig { streams: 1, in_flight: 32 << 20 }));
    // Takes the only permit, and does not read.
    let taken = output.rig.runtime.block_on(output.get()).unwrap();
    wait_for("the permit is taken", || output.rig.traffic.serving() == 1);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| output.read(|_| ()));
        let refused = output.rig.runtime.block_on(output.get()).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("retry later"), "{refused}");
        drop(taken);
        let rows: usize = read.join().unwrap().unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 2_000_000);
    });
    wait_for("no permit is taken", || output.rig.traffic.serving() == 0);
}

tally_tests::tests![
    mod:
    a_stream_that_breaks_once_goes_on_where_it_broke,
    a_stream_that_breaks_repeatedly_is_a_loss,
    a_silent_holder_times_out_and_one_that_recovers_does_not,
    requests_to_a_busy_holder_are_retried,
];
