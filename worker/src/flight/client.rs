//! The Flight client: a pool of channels to other workers, and through it the carrier of
//! [`Peers`] between processes.
//!
//! Not here: how a stream is read (`fetch`), what a reader makes of it (`maps`, `file`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::fetch::{Ask, Trouble, patiently};
use super::server::SIZES;
use super::ticket::Request;
use super::{CONNECTION_WINDOW, FRAME, KEEPALIVE, MESSAGE_LIMIT, STREAM_WINDOW, Traffic, file, maps};
use crate::error::TaskError;
use crate::peers::{FileReader, MapReader, Peers, Place, Reading, Wanted};
use crate::security::{Dialer, Role};

/// Channels kept open; the one that was used least recently goes first.
const MOST_CHANNELS: usize = 256;

/// Reads the outputs of other workers. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    channels: Mutex<HashMap<String, Kept>>,
    traffic: Arc<Traffic>,
    dialer: Dialer,
}

/// A channel that is kept open.
struct Kept {
    channel: Channel,
    used: Instant,
    /// That of the certificates it was made with.
    generation: u64,
}

/// A worker's service.
pub(super) type Service = FlightServiceClient<Channel>;

impl Client {
    /// A client that connects by `dialer` and counts what it receives in `traffic`.
    pub fn new(traffic: Arc<Traffic>, dialer: Dialer) -> Self {
        Client { inner: Arc::new(Inner { channels: Mutex::default(), traffic, dialer }) }
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.inner.traffic
    }

    /// The service at `address`, `host:port`; connected when it is first used. Must be called on
    /// the runtime.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it is no address.
    pub(super) fn service(&self, address: &str) -> Result<Service, Status> {
        let (dialer, now) = (&self.inner.dialer, Instant::now());
        let generation = dialer.generation();
        let mut channels = self.inner.channels.lock();
        let kept = channels.get_mut(address).filter(|kept| kept.generation == generation);
        let channel = match kept {
            Some(kept) => {
                kept.used = now;
                kept.channel.clone()
            }
            None => {
                let channel = dialer.connect_lazy(&endpoint(address)?, Role::Worker);
                if channels.len() >= MOST_CHANNELS
                    && let Some(oldest) = channels.iter().min_by_key(|(_, kept)| kept.used)
                {
                    let oldest = oldest.0.clone();
                    channels.remove(&oldest);
                }
                channels
                    .insert(address.to_string(), Kept { channel: channel.clone(), used: now, generation });
                channel
            }
        };
        let service = FlightServiceClient::new(channel);
        Ok(service.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
    }

    /// Asks for the sizes of a ticket's outputs; the answer comes to the receiver.
    pub(super) fn sizes(&self, ask: Ask, io: &Handle) -> mpsc::Receiver<Result<v1::Sizes, Trouble>> {
        let (sender, answer) = mpsc::channel(1);
        let client = self.clone();
        io.spawn(async move {
            let body = Bytes::from(ask.request.ticket(ask.key.clone()).encode_to_vec());
            let address = ask.at.address.as_str();
            let sizes = async {
                let sizes = patiently(client.traffic(), || client.sizes_once(address, body.clone())).await?;
                let whole = sizes.outputs.len() == ask.request.outputs.len();
                whole.then_some(sizes).ok_or_else(|| Trouble::lost(0, "it answered for other outputs"))
            };
            tokio::select! {
                // A slot that wants no more drops its end.
                () = sender.closed() => {}
                sizes = sizes => { let _ = sender.send(sizes).await; }
            }
        });
        answer
    }

    async fn sizes_once(&self, address: &str, body: Bytes) -> Result<v1::Sizes, Status> {
        let mut service = self.service(address)?;
        let mut answer = service.do_action(Action::new(SIZES, body)).await?.into_inner();
        let first = answer.message().await?.ok_or_else(|| Status::unknown("an empty answer"))?;
        v1::Sizes::decode(first.body).map_err(|e| Status::unknown(e.to_string()))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint
        .map_err(|e| Status::new(Code::InvalidArgument, format!("{address:?} is no host:port: {e}")))?;
    Ok(endpoint
        .connect_timeout(KEEPALIVE)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME))
}

impl Peers for Client {
    fn maps(
        &self,
        at: &Place,
        outputs: Vec<Wanted>,
        partition: u32,
        reading: &Reading,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        Ok(Box::new(maps::RemoteMaps::open(self.clone(), at.clone(), outputs, partition, reading.clone())))
    }

    fn file(
        &self,
        at: &Place,
        output: &AttemptId,
        reading: &Reading,
    ) -> Result<Arc<dyn FileReader>, TaskError> {
        Ok(Arc::new(file::RemoteFile::open(self.clone(), at.clone(), output, reading.clone())?))
    }
}

/// A question of a task about outputs at `at`.
pub(super) fn ask(at: &Place, reading: &Reading, outputs: Vec<AttemptId>, what: Option<What>) -> Ask {
    let request = Request { job: reading.job.clone(), outputs, what };
    Ask { at: at.clone(), request, key: reading.key.clone() }
}
