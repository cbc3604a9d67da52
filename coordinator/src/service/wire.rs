//! The control service as bytes: like the generated server, but what all reduce orders of a job
//! have in common is encoded once and copied, where a message would be built and encoded anew for
//! every worker. On the wire there is no difference.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tally_proto::v1;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::MESSAGE_BYTES;
use super::control::{ControlService, OrderStream};
use crate::cluster::Outbound;
use crate::fleet::Order;

/// Field numbers of the messages around a reduce's inputs, `CoordinatorMessage` and `TaskOrder`; a test
/// compares them with the generated messages.
mod field {
    pub(super) const START: u32 = 3;
    pub(super) const REDUCE: u32 = 4;
    pub(super) const INPUTS: u32 = 11;
}

/// The service's path in requests.
const ATTACH: &str = "/tally.v1.Control/Attach";

/// A server of [`ControlService`].
#[derive(Clone)]
pub struct ControlServer {
    inner: Arc<ControlService>,
}

impl ControlServer {
    /// A server of that service.
    pub fn new(service: ControlService) -> Self {
        ControlServer { inner: Arc::new(service) }
    }
}

impl NamedService for ControlServer {
    const NAME: &'static str = v1::control_server::SERVICE_NAME;
}

struct Attach(Arc<ControlService>);

impl StreamingService<v1::WorkerMessage> for Attach {
    type Response = Outbound;
    type ResponseStream = OrderStream;
    type Future = BoxFuture<Response<OrderStream>, Status>;

    fn call(&mut self, request: Request<Streaming<v1::WorkerMessage>>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.attach(request).await })
    }
}

impl<B> Service<http::Request<B>> for ControlServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != ATTACH {
            let unknown = Status::unimplemented(format!("there is no {}", request.uri().path()));
            return Box::pin(async move { Ok(unknown.into_http()) });
        }
        let attach = Attach(self.inner.clone());
        Box::pin(async move {
            let limit = Some(MESSAGE_BYTES);
            let mut grpc = Grpc::new(Wire).apply_max_message_size_config(limit, limit);
            Ok(grpc.streaming(attach, request).await)
        })
    }
}

/// Worker messages in, orders out.
#[derive(Debug, Clone, Copy)]
struct Wire;

impl Codec for Wire {
    type Encode = Outbound;
    type Decode = v1::WorkerMessage;
    type Encoder = Wire;
    type Decoder = Wire;

    fn encoder(&mut self) -> Wire {
        Wire
    }

    fn decoder(&mut self) -> Wire {
        Wire
    }
}

impl Decoder for Wire {
    type Item = v1::WorkerMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<v1::WorkerMessage>, Status> {
        let message = v1::WorkerMessage::decode(from);
        message.map(Some).map_err(|e| Status::invalid_argument(format!("a worker's message: {e}")))
    }
}

impl Encoder for Wire {
    type Item = Outbound;
    type Error = Status;

    fn encode(&mut self, item: Outbound, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        put(&item, to);
        Ok(())
    }
}

fn put(item: &Outbound, to: &mut impl BufMut) {
    match item {
        Outbound::Message(message) => put_message(&**message, to),
        Outbound::Order { epoch, order } => put_order(*epoch, order, to),
        Outbound::Inputs { epoch, job, inputs } => {
            put_epoch(*epoch, to);
            let packed = inputs.packed(job);
            put_head(field::INPUTS, packed.len(), to);
            to.put_slice(packed);
        }
    }
}

fn put_message(message: &impl Message, to: &mut impl BufMut) {
    // A buffer that grows has room for everything.
    let _ = message.encode(to);
}

fn put_epoch(epoch: u64, to: &mut impl BufMut) {
    put_message(&v1::CoordinatorMessage { epoch, message: None }, to);
}

fn put_order(epoch: u64, order: &Order, to: &mut impl BufMut) {
    use v1::task_order::Work;
    put_epoch(epoch, to);
    let (Some(Work::Reduce(work)), Some(shared)) = (&order.head.work, &order.inputs) else {
        put_head(field::START, order.head.encoded_len(), to);
        put_message(&order.head, to);
        return;
    };
    let head = v1::TaskOrder {
        attempt: order.head.attempt.clone(),
        dataset: order.head.dataset.clone(),
        key: order.head.key.clone(),
        work: None,
    };
    let work_len = work.encoded_len() + shared.whole().len();
    let order_len =
        head.encoded_len() + key_len(field::REDUCE) + encoded_len_varint(work_len as u64) + work_len;
    put_head(field::START, order_len, to);
    put_message(&head, to);
    put_head(field::REDUCE, work_len, to);
    put_message(work, to);
    to.put_slice(shared.whole());
}

fn put_head(tag: u32, length: usize, to: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

#[cfg(test)]
mod tests {
    use tally_proto::JobId;
    use tally_worker::order::ReduceInputs;
    use v1::coordinator_message::Message as Down;
    use v1::task_order::Work;

    use super::*;
    use crate::fleet::SharedInputs;

    fn inputs() -> ReduceInputs {
        let outputs = |count: u32| v1::TableOutputs {
            outputs: (0..count)
                .map(|index| v1::OutputRef { holder: index % 3, stage: 0, index, attempt: 4096 + index })
                .collect(),
        };
        let holder = |n: u32| v1::Holder { worker: format!("w{n}"), address: format!("host:{n}") };
        ReduceInputs {
            tables: vec![outputs(300), outputs(0), outputs(7)],
            holders: (0..3).map(holder).collect(),
        }
    }

    fn order(work: Work) -> v1::TaskOrder {
        v1::TaskOrder {
            attempt: Some(v1::Attempt { job: "j".into(), stage: 1, index: 9, attempt: 4096 }),
            dataset: "addon_aggregates".into(),
            key: vec![7; 16],
            work: Some(work),
        }
    }

    fn reduce() -> v1::ReduceWork {
        v1::ReduceWork {
            partition: 9,
            row_group_rows: 1 << 20,
            table_bytes: 24 << 20,
            inputs_version: 4,
            ..v1::ReduceWork::default()
        }
    }

    fn check(item: &Outbound, message: Down) {
        let mut bytes = vec![];
        put(item, &mut bytes);
        let found = v1::CoordinatorMessage::decode(bytes.as_slice()).unwrap();
        assert_eq!(found, v1::CoordinatorMessage { epoch: 5, message: Some(message) });
    }

    fn check_order(head: v1::TaskOrder, inputs: Option<SharedInputs>, whole: v1::TaskOrder) {
        let order = Box::new(Order { head, inputs: inputs.map(Arc::new) });
        check(&Outbound::Order { epoch: 5, order }, Down::Start(whole));
    }

    #[test]
    fn an_order_in_pieces_is_the_order_as_one_message() {
        let map = order(Work::Map(v1::MapWork { partitions: 3, ..Default::default() }));
        check_order(map.clone(), None, map);
        let short = order(Work::Reduce(reduce()));
        check_order(short.clone(), None, short.clone());
        let ReduceInputs { tables, holders } = inputs();
        let whole = order(Work::Reduce(v1::ReduceWork { inputs: tables, holders, ..reduce() }));
        check_order(short, Some(SharedInputs::new(4, inputs(), None)), whole);
    }

    #[test]
    fn inputs_arrive_as_they_were() {
        let job = JobId::parse("j").unwrap();
        let shared = Arc::new(SharedInputs::new(4, inputs(), None));
        let packed = v1::ReduceInputs::decode(shared.packed(&job)).unwrap();
        assert_eq!((packed.job.as_str(), packed.version), ("j", 4));
        assert_eq!(ReduceInputs::try_from(packed.clone()), Ok(inputs()));
        check(&Outbound::Inputs { epoch: 5, job, inputs: shared }, Down::Inputs(packed));
    }
}
