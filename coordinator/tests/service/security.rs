//! Limits against abuse: a client that sends too many requests is refused, and workers are not affected.

use tally_common::security::{Reason, Security, ServerArgs};
use tally_proto::v1;
use tonic::Code;

use crate::rig::{Coordinator, Place, timing};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_many_requests_is_refused_and_workers_are_not() {
    let place = Place::new();
    let security = Security::open(&ServerArgs::default(), None, Some(2)).unwrap();
    let coordinator = Coordinator::start_secured(&place, timing(), 8, security.clone()).await;
    let mut jobs = coordinator.jobs().await;
    let mut refused = None;
    for _ in 0..1000 {
        if let Err(status) = jobs.list(v1::ListRequest::default()).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("too many requests"), "{refused}");
    assert!(security.refusals().of(Reason::Rate) >= 1);
    for id in 0..20 {
        coordinator.worker(&format!("w-{id}")).await;
    }
}
