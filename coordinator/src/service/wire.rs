//! The encoding of the control service. It replaces the generated server, so that the inputs that all reduce tasks of a
//! job share are encoded once and copied, instead of once for every worker. The bytes on the wire are the same.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tally_proto::{MESSAGE_BYTES, v1};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::control::{ControlService, MessageStream};
use crate::cluster::Outbound;
use crate::dispatch::{TaskDispatch, field};

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
    type ResponseStream = MessageStream;
    type Future = BoxFuture<Response<MessageStream>, Status>;

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
            let unknown = Status::unimplemented(format!("there is no method {}", request.uri().path()));
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

/// Decodes messages from workers and encodes messages to them.
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
        Outbound::Dispatch { epoch, dispatch } => put_dispatch(*epoch, dispatch, to),
        Outbound::Inputs { epoch, job, inputs } => {
            put_epoch(*epoch, to);
            let packed = inputs.packed(job);
            put_head(field::INPUTS, packed.len(), to);
            to.put_slice(packed);
        }
        Outbound::Options { epoch, job, options } => {
            put_epoch(*epoch, to);
            let packed = options.packed(job);
            put_head(field::OPTIONS, packed.len(), to);
            to.put_slice(packed);
        }
    }
}

fn put_message(message: &impl Message, to: &mut impl BufMut) {
    // The buffer grows, so encoding does not fail.
    let _ = message.encode(to);
}

fn put_epoch(epoch: u64, to: &mut impl BufMut) {
    put_message(&v1::CoordinatorMessage { epoch, message: None }, to);
}

fn put_dispatch(epoch: u64, dispatch: &TaskDispatch, to: &mut impl BufMut) {
    use v1::task_dispatch::Work;
    put_epoch(epoch, to);
    put_head(field::START, dispatch.encoded_len(), to);
    let (Some(Work::Reduce(work)), Some(shared)) = (&dispatch.head.work, &dispatch.inputs) else {
        put_message(&dispatch.head, to);
        return;
    };
    let head = v1::TaskDispatch {
        attempt: dispatch.head.attempt.clone(),
        dataset: dispatch.head.dataset.clone(),
        key: dispatch.head.key.clone(),
        work: None,
        has_options: dispatch.head.has_options,
    };
    put_message(&head, to);
    put_head(field::REDUCE, work.encoded_len() + shared.whole().len(), to);
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
    use tally_proto::dataset_options::DatasetOptions;
    use tally_proto::dispatch::ReduceInputs;
    use v1::coordinator_message::Message as Down;
    use v1::task_dispatch::Work;

    use super::*;
    use crate::dispatch::{SharedInputs, SharedOptions};

    fn inputs() -> ReduceInputs {
        let outputs = |count: u32| v1::TableOutputs {
            outputs: (0..count)
                .map(|index| v1::OutputRef { location: index % 3, stage: 0, index, attempt: 4096 + index })
                .collect(),
        };
        let location = |n: u32| v1::Location { worker: format!("w{n}"), address: format!("host:{n}") };
        ReduceInputs {
            tables: vec![outputs(300), outputs(0), outputs(7)],
            locations: (0..3).map(location).collect(),
        }
    }

    fn task(work: Work) -> v1::TaskDispatch {
        v1::TaskDispatch {
            attempt: Some(v1::Attempt { job: "j".into(), stage: 1, index: 9, attempt: 4096 }),
            dataset: "addon_aggregates".into(),
            key: vec![7; 16],
            work: Some(work),
            has_options: true,
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
        assert_eq!(bytes.len(), item.encoded_len(), "the size that is checked before it is sent");
        let found = v1::CoordinatorMessage::decode(bytes.as_slice()).unwrap();
        assert_eq!(found, v1::CoordinatorMessage { epoch: 5, message: Some(message) });
    }

    fn check_dispatch(head: v1::TaskDispatch, inputs: Option<SharedInputs>, whole: v1::TaskDispatch) {
        let dispatch = Box::new(TaskDispatch { head, inputs: inputs.map(Arc::new), options: None });
        check(&Outbound::Dispatch { epoch: 5, dispatch }, Down::Start(whole));
    }

    #[test]
    fn a_task_in_pieces_is_the_task_as_one_message() {
        let map = task(Work::Map(v1::MapWork { partitions: 3, ..Default::default() }));
        check_dispatch(map.clone(), None, map);
        let short = task(Work::Reduce(reduce()));
        check_dispatch(short.clone(), None, short.clone());
        let ReduceInputs { tables, locations } = inputs();
        let whole = task(Work::Reduce(v1::ReduceWork { inputs: tables, locations, ..reduce() }));
        check_dispatch(short, Some(SharedInputs::new(4, inputs(), None)), whole);
    }

    #[test]
    fn a_message_in_one_part_has_its_size() {
        for release in ["", "j", &"j".repeat(200)] {
            let message = Down::Release(release.into());
            let whole = v1::CoordinatorMessage { epoch: 5, message: Some(message.clone()) };
            check(&Outbound::Message(Box::new(whole)), message);
        }
    }

    #[test]
    fn options_arrive_unchanged() {
        let job = JobId::parse("j").unwrap();
        let given = DatasetOptions::new([("list".to_string(), b"a\nb\xff".to_vec())]).unwrap();
        let options = SharedOptions::new(&given).unwrap();
        let packed = v1::JobOptions::decode(options.packed(&job)).unwrap();
        assert_eq!((packed.job.as_str(), packed.options.clone().try_into()), ("j", Ok(given)));
        check(&Outbound::Options { epoch: 5, job, options }, Down::Options(packed));
        assert!(SharedOptions::new(&DatasetOptions::default()).is_none());
    }

    #[test]
    fn inputs_arrive_unchanged() {
        let job = JobId::parse("j").unwrap();
        let shared = Arc::new(SharedInputs::new(4, inputs(), None));
        let packed = v1::ReduceInputs::decode(shared.packed(&job)).unwrap();
        assert_eq!((packed.job.as_str(), packed.version), ("j", 4));
        assert_eq!(ReduceInputs::try_from(packed.clone()), Ok(inputs()));
        check(&Outbound::Inputs { epoch: 5, job, inputs: shared }, Down::Inputs(packed));
    }
}
