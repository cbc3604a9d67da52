//! The Flight service over TLS: rows are for workers, listings also for readers, and clients without a valid
//! certificate are refused.

use std::path::Path;
use std::sync::Arc;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Criteria, Ticket};
use futures::TryStreamExt;
use prost::Message;
use tally_common::security::{ClientArgs, Dialer, Reason, Role, Security, ServerArgs, TlsArgs};
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tally_shuffle::flight::ServeConfig;
use tally_shuffle::peers::Wanted;
use tally_tests::certs::Authority;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::rig::{KEY, Rig, attempt, put_map, read, run, wait_for};

/// The TLS options of a process that uses the certificate `name` in `dir`.
fn tls(dir: &Path, name: &str) -> TlsArgs {
    let file = |end: &str| Some(dir.join(format!("{name}.{end}")));
    TlsArgs { tls_ca: Some(dir.join("ca.pem")), tls_cert: file("pem"), tls_key: file("key"), tls_roles: None }
}

fn security(dir: &Path, name: &str) -> Arc<Security> {
    Security::open(&ServerArgs { tls: tls(dir, name), insecure: false }, None, None).unwrap()
}

async fn channel(rig: &Rig, dialer: &Dialer, role: Role) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{}", rig.place.address)).unwrap();
    dialer.connect(&endpoint, role).await
}

fn ticket(key: &[u8]) -> Ticket {
    let outputs = vec![v1::TaskAttempt { index: 0, attempt: 0 }];
    let what = Some(What::Partition(1));
    let ticket = v1::Ticket { job: "job-1".into(), stage: 0, outputs, what, key: key.to_vec(), skip: 0 };
    Ticket::new(ticket.encode_to_vec())
}

async fn get(channel: &Channel, key: &[u8]) -> Result<usize, Status> {
    let stream = FlightServiceClient::new(channel.clone()).do_get(ticket(key)).await?;
    stream.into_inner().try_fold(0, async |count, _| Ok(count + 1)).await
}

async fn listed(channel: &Channel) -> usize {
    let flights = FlightServiceClient::new(channel.clone()).list_flights(Criteria::default()).await.unwrap();
    flights.into_inner().try_collect::<Vec<_>>().await.unwrap().len()
}

/// The innermost cause.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

fn rows_are_for_workers_and_listings_for_readers_too() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("tests").unwrap();
    authority.write(dir.path(), "ca").unwrap();
    for role in ["worker", "reader"] {
        authority.sign_uri(dir.path(), role, &format!("spiffe://tally/{role}"), false).unwrap();
    }
    authority.sign_uri(dir.path(), "old", "spiffe://tally/worker", true).unwrap();
    let own = security(dir.path(), "worker");
    let rig = Rig::secured(8 << 20, ServeConfig { streams: 4, in_flight: 4 << 20 }, own.clone());
    let output = attempt(0, 0, 0);
    put_map(&rig.store, &output, vec![run([5; 4], 9)]);
    let wanted = [Wanted { attempt: output, table: 0 }];
    assert_eq!(read(&rig.client, &rig.place, &wanted, 1, &rig.reading()).unwrap().len(), 1);
    rig.runtime.block_on(async {
        let worker = channel(&rig, &own.dialer(), Role::Worker).await.unwrap();
        assert!(get(&worker, KEY).await.unwrap() > 0);
        // A worker without the job's key.
        assert_eq!(get(&worker, b"guessed").await.unwrap_err().code(), Code::PermissionDenied);
        let reader = channel(&rig, &security(dir.path(), "reader").dialer(), Role::Worker).await.unwrap();
        let refused = get(&reader, KEY).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("needs worker"), "{refused}");
        assert_eq!((listed(&reader).await, listed(&worker).await), (1, 1));
        assert_eq!(own.refusals().of(Reason::Forbidden), 1);

        let nameless = TlsArgs { tls_cert: None, tls_key: None, ..tls(dir.path(), "worker") };
        let nameless = ClientArgs { tls: nameless, token_file: None }.dialer().unwrap();
        let refused = channel(&rig, &nameless, Role::Worker).await.unwrap_err();
        assert!(cause(&refused).contains("CertificateRequired"), "{refused:?}");
        let refused = channel(&rig, &security(dir.path(), "old").dialer(), Role::Worker).await.unwrap_err();
        assert!(cause(&refused).contains("CertificateExpired"), "{refused:?}");
        let refused = channel(&rig, &own.dialer(), Role::Coordinator).await.unwrap_err();
        assert!(cause(&refused).contains("not coordinator"), "{refused:?}");
        // A plain text connection may be established, but no request succeeds.
        let plain = channel(&rig, &Dialer::plain(), Role::Worker).await;
        assert!(plain.is_err() || get(&plain.unwrap(), KEY).await.is_err());
    });
    for reason in [Reason::NoCertificate, Reason::Expired, Reason::Handshake, Reason::NotTls] {
        wait_for(&format!("{reason:?} is counted"), || own.refusals().of(reason) > 0);
    }
}

tally_tests::tests![
    mod:
    rows_are_for_workers_and_listings_for_readers_too,
];
