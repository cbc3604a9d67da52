//! The Flight service of one worker: each method as it is asked for from outside.
//!
//! Every refusal is a status with a sentence, and a line in the log (`refusals`). Not here: what a stream holds
//! (`produce`), what is listed (`listing`).

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
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use super::produce::{self, Gate, Served};
use super::put;
use super::ticket::{self, Found};
use super::{CONNECTION_WINDOW, FRAME, KEEPALIVE, MESSAGE_LIMIT, STREAM_WINDOW, Traffic, listing};
use crate::refusals::Refusals;
use crate::security::{Guard, Security, incoming};
use crate::store::Store;

/// The action that answers a ticket's sizes.
pub const SIZES: &str = "sizes";

/// Bytes of a request's headers, at most: tickets are no headers.
const HEADERS: u32 = 16 << 10;

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServeConfig {
    /// Streams at a time; further readers wait.
    pub streams: usize,
    /// Bytes that all streams together may have on the way; taken from the store's budget.
    pub in_flight: usize,
}

impl ServeConfig {
    /// The limits that suit a worker of so much memory.
    pub fn for_memory(memory_limit: u64) -> Self {
        let in_flight = (memory_limit / 16).clamp(2 * MESSAGE_LIMIT as u64, 512 << 20);
        ServeConfig { streams: 64, in_flight: in_flight as usize }
    }
}

/// A server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener.
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
    /// Where it listens: the real port, also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, lets streams end for up to `patience`, then cuts them.
    pub async fn stop(self, patience: Duration) {
        let _ = self.stop.send(());
        let cut = self.task.abort_handle();
        match tokio::time::timeout(patience, self.task).await {
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the Flight server ended with an error"),
            Ok(_) => {}
            Err(_) => {
                tracing::warn!("output streams were cut when the worker stopped");
                cut.abort();
            }
        }
    }
}

/// Serves a store's outputs on `listener`, on the runtime that it is called on.
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
    // Where the store has no room for it, messages come on top of the limit.
    let held = store.budget().reserve(config.in_flight);
    let gate = Gate::new(config.streams, config.in_flight, traffic.clone());
    let service = Service { store, gate, puts: Semaphore::new(put::AT_ONCE), traffic };
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    // For whoever looks whether the worker lives; a worker that drains does, and serves.
    let (reporter, health) = tonic_health::server::health_reporter();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(1024)
        .http2_max_header_list_size(HEADERS)
        .layer(Guard::new(security.clone()))
        .layer(Refusals)
        .add_service(health)
        .add_service(service);
    let incoming = incoming(listener, security);
    let task = tokio::spawn(async move {
        let _held = held;
        reporter
            .set_service_status(FlightServiceServer::<Service>::NAME, tonic_health::ServingStatus::Serving)
            .await;
        // A sender that is gone without a word means that nobody wants the server any more.
        router.serve_with_incoming_shutdown(incoming, async move { stopped.await.unwrap_or(()) }).await
    });
    tracing::info!(%address, "serving outputs over Flight");
    Ok(Server { address, stop, task })
}

struct Service {
    store: Arc<Store>,
    gate: Gate,
    puts: Semaphore,
    traffic: Arc<Traffic>,
}

impl Service {
    fn sizes(&self, ticket: &[u8]) -> Result<v1::Sizes, Status> {
        let (request, key) = ticket::Request::parse(ticket)?;
        let outputs = match (request.resolve(&self.store, &key)?, request.what) {
            (Found::File(_, file), _) => vec![v1::OutputSizes { runs: vec![], file_bytes: file.len() }],
            (Found::Maps(maps), Some(What::Partition(partition))) => {
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
            (Found::Maps(_), _) => {
                return Err(Status::invalid_argument("sizes of map outputs are those of one partition"));
            }
        };
        Ok(v1::Sizes { outputs })
    }

    async fn get(&self, ticket: &[u8]) -> Result<Served, Status> {
        let (request, key) = ticket::Request::parse(ticket)?;
        // Refused before it waits, and looked up when its turn has come.
        request.resolve(&self.store, &key)?;
        let turn = self.gate.enter().await?;
        produce::stream(turn, request.resolve(&self.store, &key)?, request.what)
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
        Err(Status::unimplemented("there is no handshake: tickets carry the key of their job"))
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let listed = listing::listed(&self.store, &request.get_ref().expression)?;
        let store = self.store.clone();
        // What went since the list was made is left out.
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
        Err(Status::unimplemented("flights here are ready when they are listed: use get_flight_info"))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let (_, output) = listing::described(&self.store, request.get_ref())?;
        let (schema, options) = (listing::schema(&output), Default::default());
        let message: IpcMessage = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(|e: arrow::error::ArrowError| Status::internal(e.to_string()))?;
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
        put::take(self.store.clone(), &self.puts, self.traffic.clone(), messages).await?;
        Ok(Response::new(stream::iter([Ok(PutResult::default())]).boxed()))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("outputs are read with do_get and handed over with do_put"))
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
        let description = "the sizes of what a ticket (the body) asks for".to_string();
        let sizes = ActionType { r#type: SIZES.to_string(), description };
        Ok(Response::new(stream::iter([Ok(sizes)]).boxed()))
    }
}
