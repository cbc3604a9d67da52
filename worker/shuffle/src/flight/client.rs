//! The Flight client: a pool of channels to other workers.
//!
//! Keep-alive pings make each worker send something at least every few seconds. Whether a worker is lost is decided by
//! what arrives from it (`tally_common::liveness`), not by the time that an answer to a ping takes: behind a slow network
//! it waits for all data before it. Not here: reading a stream (`fetch`), the queries (`sizes`), the readers
//! (`remote_maps`, `remote_file`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use parking_lot::Mutex;
use tally_common::security::{Dialer, Role};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::peer::Peer;
use super::{FRAME, MESSAGE_LIMIT, PING_INTERVAL, PING_TIMEOUT, RESPONSE_WINDOW, STREAM_WINDOW, Traffic};

/// Maximum number of open channels. The least recently used one is closed first.
const MAX_CHANNELS: usize = 256;
/// The time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct ClientTiming {
    /// The silence after which a worker is lost.
    pub silence: Duration,
    /// How long a stream stays open whose data the task does not take. Then it is closed, so that it holds no memory of
    /// the other worker, and requested again when the task needs more.
    pub unread: Duration,
}

impl Default for ClientTiming {
    fn default() -> Self {
        ClientTiming { silence: Duration::from_secs(10), unread: Duration::from_secs(15) }
    }
}

/// Reads the outputs of other workers. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    channels: Mutex<HashMap<String, PooledChannel>>,
    traffic: Arc<Traffic>,
    dialer: Dialer,
    timing: ClientTiming,
}

/// An open channel of the pool.
struct PooledChannel {
    channel: Channel,
    peer: Arc<Peer>,
    used: Instant,
    /// The generation of the certificates that it was created with.
    generation: u64,
}

/// The Flight service of a worker.
pub(super) type Service = FlightServiceClient<Channel>;

impl Client {
    /// A client that connects with `dialer`, and counts received bytes in `traffic`.
    pub fn new(traffic: Arc<Traffic>, dialer: Dialer) -> Self {
        Self::with_timing(traffic, dialer, ClientTiming::default())
    }

    /// A client with other times.
    pub fn with_timing(traffic: Arc<Traffic>, dialer: Dialer, timing: ClientTiming) -> Self {
        Client { inner: Arc::new(Inner { channels: Mutex::default(), traffic, dialer, timing }) }
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.inner.traffic
    }

    pub(super) fn timing(&self) -> ClientTiming {
        self.inner.timing
    }

    /// The service at `address`, `host:port`, and what is known of the worker. It connects at the first use. Call it on
    /// the runtime.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the address is invalid.
    pub(super) fn service(&self, address: &str) -> Result<(Service, Arc<Peer>), Status> {
        let (dialer, now) = (&self.inner.dialer, Instant::now());
        let generation = dialer.generation();
        let mut channels = self.inner.channels.lock();
        let kept = channels.get_mut(address);
        let (channel, peer) = match kept {
            Some(kept) if kept.generation == generation => {
                kept.used = now;
                (kept.channel.clone(), kept.peer.clone())
            }
            replaced => {
                let silence = self.inner.timing.silence;
                let peer = replaced.map_or_else(|| Arc::new(Peer::new(silence)), |kept| kept.peer.clone());
                let endpoint = endpoint(address)?;
                // Requests notice the loss first. The connection ends after them, for the next ones.
                let limit = silence.mul_f64(1.5);
                let channel = dialer.connect_lazy_watched(&endpoint, Role::Worker, peer.progress(), limit);
                if channels.len() >= MAX_CHANNELS
                    && let Some(oldest) = channels.iter().min_by_key(|(_, kept)| kept.used)
                {
                    let oldest = oldest.0.clone();
                    channels.remove(&oldest);
                }
                let pooled =
                    PooledChannel { channel: channel.clone(), peer: peer.clone(), used: now, generation };
                channels.insert(address.to_string(), pooled);
                (channel, peer)
            }
        };
        let service = FlightServiceClient::new(channel);
        let service =
            service.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
        Ok((service, peer))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|e| {
        Status::new(Code::InvalidArgument, format!("{address:?} is not a valid host:port: {e}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(RESPONSE_WINDOW)
        .max_frame_size(FRAME))
}
