//! The Flight service of a worker.
//!
//! Each refusal has a status with a message, and is logged (`refusal_log`). Not here: the contents of streams
//! (`produce`), the list of outputs (`listing`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tally_common::liveness::{PeerProgress, Watched};
use tally_common::refusal_log::Refusals;
use tally_common::security::{Guard, Security, incoming};
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use super::migrate_in;
use super::produce::{self, Served};
use super::ticket::{self, ResolvedOutputs};
use super::{
    FRAME, MAX_STREAMS, MESSAGE_LIMIT, PING_INTERVAL, PING_TIMEOUT, REQUEST_WINDOW, STREAM_WINDOW, Traffic,
    listing,
};
use crate::store::Store;

/// The action that returns the sizes of a ticket's outputs.
pub const SIZES: &str = "sizes";

/// Maximum bytes of a request's headers. Tickets are not sent in headers.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// How long another worker may send and accept nothing before its connections are closed. Readers on a slow network
/// accept data in steps, of which each may take seconds.
const PEER_SILENCE: Duration = Duration::from_secs(30);

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServeConfig {
    /// Concurrent streams. Further readers wait.
    pub streams: usize,
    /// Bytes that all streams together may have in flight. Taken from the store's budget.
    pub in_flight: usize,
}

impl ServeConfig {
    /// The limits for a worker with this memory limit.
    pub fn for_memory(memory_limit: u64) -> Self {
        let in_flight = (memory_limit / 16).clamp(2 * MESSAGE_LIMIT as u64, 512 << 20);
        ServeConfig { streams: 64, in_flight: in_flight as usize }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener is not usable.
    #[error("the Flight listener cannot be used: {0}")]
    Listener(#[from] std::io::Error),
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    /// The address that it listens on, with the real port if port 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting requests, lets streams finish for up to `patience`, and then closes them.
    pub async fn stop(self, patience: Duration) {
        let _ = self.stop.send(());
        let cut = self.task.abort_handle();
        match tokio::time::timeout(patience, self.task).await {
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the Flight server ended with an error"),
            Ok(_) => {}
            Err(_) => {
                tracing::warn!("output streams were closed when the worker stopped");
                cut.abort();
            }
        }
    }
}

/// Serves the outputs of a store on `listener`, on the current runtime.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    store: Arc<Store>,
    listener: TcpListener,
    config: ServeConfig,
    traffic: Arc<Traffic>,
    security: Arc<Security>,
) -> Result<Server, ServeError> {
    let address = listener.local_addr()?;
    // If the store has no room, the messages exceed the memory limit.
    let held = store.budget().try_reserve(config.in_flight);
    let gate = Gate::new(config.streams, config.in_flight, traffic.clone());
    let service = Service { store, gate, migrations: Semaphore::new(migrate_in::MAX_CONCURRENT), traffic };
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    // For liveness probes. A draining worker is alive and serves.
    let (reporter, health) = tonic_health::server::health_reporter();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(REQUEST_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(Guard::new(security.clone()))
        .layer(Refusals)
        .add_service(health)
        .add_service(service);
    let incoming = incoming(listener, security).map(|accepted| {
        accepted.map(|accepted| Watched::new(accepted, PeerProgress::default(), PEER_SILENCE))
    });
    let task = tokio::spawn(async move {
        let _held = held;
        reporter
            .set_service_status(FlightServiceServer::<Service>::NAME, tonic_health::ServingStatus::Serving)
            .await;
        // If the sender is dropped, the server is no longer needed.
        router.serve_with_incoming_shutdown(incoming, async move { stopped.await.unwrap_or(()) }).await
    });
    tracing::info!(%address, "serving outputs over Flight");
    Ok(Server { address, stop, task })
}

struct Service {
    store: Arc<Store>,
    gate: Gate,
    migrations: Semaphore,
    traffic: Arc<Traffic>,
}

impl Service {
    fn sizes(&self, ticket: &[u8]) -> Result<v1::Sizes, Status> {
        let (request, key) = ticket::Request::parse(ticket)?;
        let outputs = match (request.resolve(&self.store, &key)?, request.what) {
            (ResolvedOutputs::File(_, file), _) => {
                vec![v1::OutputSizes { runs: vec![], file_bytes: file.len() }]
            }
            (ResolvedOutputs::Maps(maps), Some(What::Partition(partition))) => {
                let size = |run: &crate::store::Run| {
                    let size = run.size(partition);
                    let (checksum, dictionary) = run.checksums(partition).unzip();
                    let bytes = run.bytes(partition);
                    v1::RunSize { rows: size.rows, items: size.items, bytes, checksum, dictionary }
                };
                let sizes = |output: &crate::store::MapOutput| v1::OutputSizes {
                    runs: output.runs.iter().map(size).collect(),
                    file_bytes: 0,
                };
                maps.iter().map(|(_, output)| sizes(output)).collect()
            }
            (ResolvedOutputs::Maps(_), _) => {
                return Err(Status::invalid_argument("sizes of map outputs are those of one partition"));
            }
        };
        Ok(v1::Sizes { outputs })
    }

    async fn get(&self, ticket: &[u8]) -> Result<Served, Status> {
        let (request, key) = ticket::Request::parse(ticket)?;
        // Invalid tickets are refused before they wait. The outputs are looked up again after the wait.
        request.resolve(&self.store, &key)?;
        let permit = self.gate.enter().await?;
        produce::stream(permit, request.resolve(&self.store, &key)?, &request)
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = Served;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("there is no handshake: a ticket contains the key of its job"))
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let listed = listing::listed(&self.store, &request.get_ref().expression)?;
        let store = self.store.clone();
        // Outputs that were removed since the list was made are omitted.
        let infos = stream::iter(listed).filter_map(move |attempt| {
            let output = store.get(&attempt);
            async move { output.map(|output| listing::info(&attempt, &output)) }
        });
        Ok(Response::new(infos.boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (attempt, output) = listing::described(&self.store, request.get_ref())?;
        listing::info(&attempt, &output).map(Response::new)
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("listed flights are ready: use get_flight_info"))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let (_, output) = listing::described(&self.store, request.get_ref())?;
        let (schema, options) = (listing::schema(&output), Default::default());
        let message: IpcMessage = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(|e: arrow_schema::ArrowError| Status::internal(e.to_string()))?;
        Ok(Response::new(SchemaResult { schema: message.0 }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.get(&request.get_ref().ticket).await.map(Response::new)
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let messages = request.into_inner();
        migrate_in::receive(self.store.clone(), &self.migrations, self.traffic.clone(), messages).await?;
        Ok(Response::new(stream::iter([Ok(PutResult::default())]).boxed()))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("outputs are read with do_get and migrated with do_put"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        if action.r#type != SIZES {
            return Err(Status::unimplemented("the only action is \"sizes\""));
        }
        let sizes = self.sizes(&action.body)?;
        let answer = arrow_flight::Result::new(sizes.encode_to_vec());
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let description = "the sizes of the outputs of a ticket (the body)".to_string();
        let sizes = ActionType { r#type: SIZES.to_string(), description };
        Ok(Response::new(stream::iter([Ok(sizes)]).boxed()))
    }
}
