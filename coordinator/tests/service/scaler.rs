//! The answers for KEDA, especially after another coordinator took over.

use std::time::Duration;

use tally_coordinator::service::Timing;
use tally_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use tally_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::rig::{Coordinator, Place, eventually, submit, timing};

async fn scaler(coordinator: &Coordinator) -> ExternalScalerClient<Channel> {
    ExternalScalerClient::new(coordinator.channel().await)
}

async fn wanted(client: &mut ExternalScalerClient<Channel>, metric: &str) -> Result<f64, Status> {
    let request =
        GetMetricsRequest { scaled_object_ref: Some(ScaledObjectRef::default()), metric_name: metric.into() };
    let values = client.get_metrics(request).await?.into_inner().metric_values;
    assert_eq!(values.len(), 1);
    Ok(values[0].metric_value_float)
}

async fn active(client: &mut ExternalScalerClient<Channel>) -> Result<bool, Status> {
    Ok(client.is_active(ScaledObjectRef::default()).await?.into_inner().result)
}

#[tokio::test]
async fn the_work_of_resumed_jobs_is_not_known_at_first() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place).await;
    let mut client = scaler(&coordinator).await;
    eventually("nothing is wanted", async || {
        matches!(wanted(&mut client, "tally-slots-wanted").await, Ok(0.0))
    })
    .await;
    assert!(!active(&mut client).await.unwrap());
    submit(&mut coordinator.jobs().await, place.spec("out")).await.unwrap();
    eventually("work without workers", async || {
        wanted(&mut client, "tally-slots-wanted").await.is_ok_and(|wanted| wanted > 0.0)
    })
    .await;
    assert!(active(&mut client).await.unwrap());
    assert_eq!(wanted(&mut client, "another").await.unwrap_err().code(), Code::InvalidArgument);
    coordinator.stop().await;
    // A term that does not settle during the test.
    let patient = Timing { settle: Duration::from_secs(3600), ..timing() };
    let coordinator = Coordinator::start_with(&place, patient, 8).await;
    let mut client = scaler(&coordinator).await;
    eventually("the job is known", async || active(&mut client).await.is_ok_and(|active| active)).await;
    let status = wanted(&mut client, "tally-slots-wanted").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("earlier term"), "{status:?}");
    coordinator.stop().await;
}
