//! KEDA's external scaler: the number of slots that the work needs. Every coordinator answers; a standby asks the leader.
//!
//! The metric is the sum of runnable and running work in slots. Queue length alone would scale a busy cluster to zero. Not
//! here: how the work is counted (`driver`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tally_common::http::stuck;
use tally_common::security::{Dialer, Role as Of};
use tally_proto::LEADER_METADATA;
use tally_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use tally_proto::externalscaler::external_scaler_server::ExternalScaler;
use tally_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::{CoordinatorRole, Leading, stepping_down};
use crate::load::Load;

/// The name of the metric.
pub const METRIC: &str = "tally-slots-wanted";
/// The key in the trigger's metadata for the number of slots of a worker.
pub const SLOTS_PER_WORKER: &str = "slotsPerWorker";
/// The metadata of a request that a standby forwarded. It is not forwarded again.
const FORWARDED: &str = "tally-passed-on";
/// The time limit for a connection to the leader, and for its answer.
const LEADER_TIMEOUT: Duration = Duration::from_secs(3);

type Client = ExternalScalerClient<Channel>;
type Activity = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

/// The service.
pub struct ScalerService {
    role: Arc<CoordinatorRole>,
    dialer: Dialer,
    /// The channel to the leader that was asked last.
    channel: Mutex<Option<LeaderChannel>>,
}

/// A channel to the leader.
struct LeaderChannel {
    leader: String,
    channel: Channel,
    /// The generation of the certificates that it uses.
    generation: u64,
}

/// The coordinator that answers.
enum Answerer {
    Here(Leading),
    There(Client),
}

fn load(leading: &Leading) -> Result<Load, Status> {
    let load = leading.registry.load().borrow().clone();
    let load = load.ok_or_else(|| Status::unavailable("this coordinator has just begun to lead"))?;
    stuck(load.at.elapsed()).map_err(|e| Status::unavailable(e.to_string()))?;
    Ok(load)
}

/// The slots of a worker, by the trigger's metadata.
fn slots_per_worker(scaled: Option<&ScaledObjectRef>) -> Result<f64, Status> {
    let Some(text) = scaled.and_then(|scaled| scaled.scaler_metadata.get(SLOTS_PER_WORKER)) else {
        return Ok(1.0);
    };
    let slots = text.parse().ok().filter(|slots: &f64| slots.is_finite() && *slots > 0.0);
    slots.ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        Status::invalid_argument(format!(
            "the trigger's metadata {SLOTS_PER_WORKER}: {text:?} is not a number above 0"
        ))
    })
}

impl ScalerService {
    /// The service of a coordinator in that role, which connects to others through `dialer`.
    pub fn new(role: Arc<CoordinatorRole>, dialer: Dialer) -> Self {
        ScalerService { role, dialer, channel: Mutex::default() }
    }

    fn answerer<T>(&self, request: &Request<T>) -> Result<Answerer, Status> {
        let refusal = match self.role.leading() {
            Ok(leading) => return Ok(Answerer::Here(leading)),
            Err(refusal) => refusal,
        };
        let leader = refusal.metadata().get(LEADER_METADATA).and_then(|leader| leader.to_str().ok());
        match leader {
            Some(leader) if request.metadata().get(FORWARDED).is_none() => {
                Ok(Answerer::There(ExternalScalerClient::new(self.channel(leader)?)))
            }
            _ => Err(Status::unavailable(refusal.message())),
        }
    }

    fn channel(&self, leader: &str) -> Result<Channel, Status> {
        let generation = self.dialer.generation();
        let mut cached = self.channel.lock();
        let fits = |cached: &&LeaderChannel| cached.leader == leader && cached.generation == generation;
        if let Some(cached) = cached.as_ref().filter(fits) {
            return Ok(cached.channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{leader}"))
            .map_err(|e| Status::unavailable(format!("the leader's address {leader}: {e}")))?;
        let channel = self.dialer.connect_lazy(&endpoint.connect_timeout(LEADER_TIMEOUT), Of::Coordinator);
        *cached = Some(LeaderChannel { leader: leader.into(), channel: channel.clone(), generation });
        Ok(channel)
    }
}

/// A request to the leader.
fn forwarded<T>(message: T, bounded: bool) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    if bounded {
        request.set_timeout(LEADER_TIMEOUT);
    }
    request
}

#[tonic::async_trait]
impl ExternalScaler for ScalerService {
    type StreamIsActiveStream = Activity;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        match self.answerer(&request)? {
            Answerer::Here(leading) => {
                Ok(Response::new(IsActiveResponse { result: load(&leading)?.is_active() }))
            }
            Answerer::There(mut leader) => leader.is_active(forwarded(request.into_inner(), true)).await,
        }
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Activity>, Status> {
        let answerer = self.answerer(&request)?;
        let (sender, receiver) = mpsc::channel(1);
        match answerer {
            Answerer::Here(leading) => drop(tokio::spawn(send_activity(leading, sender))),
            Answerer::There(mut leader) => {
                let asked = leader.stream_is_active(forwarded(request.into_inner(), false)).await?;
                tokio::spawn(forward(asked.into_inner(), sender));
            }
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        // The same from any coordinator.
        let slots = slots_per_worker(Some(request.get_ref()))?;
        let spec = MetricSpec {
            metric_name: METRIC.into(),
            target_size: slots.ceil() as i64,
            target_size_float: slots,
        };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let leading = match self.answerer(&request)? {
            Answerer::Here(leading) => leading,
            Answerer::There(mut leader) => {
                return leader.get_metrics(forwarded(request.into_inner(), true)).await;
            }
        };
        let name = &request.get_ref().metric_name;
        if name != METRIC {
            let name: String = name.chars().take(80).collect();
            return Err(Status::invalid_argument(format!("there is no metric {name:?}, only {METRIC}")));
        }
        let unknown =
            || Status::unavailable("jobs of an earlier term are being resumed: their work is not known yet");
        let wanted = load(&leading)?.demand.ok_or_else(unknown)?.slots();
        let value = MetricValue {
            metric_name: METRIC.into(),
            metric_value: i64::try_from(wanted).unwrap_or(i64::MAX),
            metric_value_float: wanted as f64,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

/// Sends whether workers are needed, at once and at each change, until the term or the stream ends.
async fn send_activity(leading: Leading, sender: mpsc::Sender<Result<IsActiveResponse, Status>>) {
    let mut loads = leading.registry.load();
    let mut sent = None;
    loop {
        let active = loads.borrow_and_update().as_ref().map(Load::is_active);
        if let Some(result) = active
            && sent != active
        {
            sent = active;
            if sender.send(Ok(IsActiveResponse { result })).await.is_err() {
                return;
            }
        }
        tokio::select! {
            // The registry lives as long as `leading`, so this is no error.
            _ = loads.changed() => {}
            () = leading.sender.closed() => {
                let _ = sender.send(Err(stepping_down())).await;
                return;
            }
            () = sender.closed() => return,
        }
    }
}

async fn forward(
    mut stream: Streaming<IsActiveResponse>,
    sender: mpsc::Sender<Result<IsActiveResponse, Status>>,
) {
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            () = sender.closed() => return,
        };
        let (item, last) = match next {
            Ok(Some(item)) => (Ok(item), false),
            Ok(None) => (Err(Status::unavailable("the leading coordinator ended the stream")), true),
            Err(status) => (Err(Status::unavailable(status.message())), true),
        };
        if sender.send(item).await.is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_a_workers_slots() {
        let scaled = |text: &str| ScaledObjectRef {
            scaler_metadata: [(SLOTS_PER_WORKER.to_string(), text.to_string())].into(),
            ..ScaledObjectRef::default()
        };
        assert_eq!(slots_per_worker(None).unwrap(), 1.0);
        assert_eq!(slots_per_worker(Some(&ScaledObjectRef::default())).unwrap(), 1.0);
        assert_eq!(slots_per_worker(Some(&scaled("2.5"))).unwrap(), 2.5);
        for text in ["0", "-1", "NaN", "inf", "many", ""] {
            let status = slots_per_worker(Some(&scaled(text))).unwrap_err();
            assert!(status.message().contains(SLOTS_PER_WORKER), "{status:?}");
        }
    }
}
