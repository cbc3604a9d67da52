//! One stream to a coordinator, from the hello message to its end.
//!
//! Not here: the choice of the coordinator, and the meaning of messages (`machine`).

use std::time::Duration;

use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::machine::{AgentInput, StreamError};

/// How long a coordinator may take to accept a worker.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How long the last message may take to be delivered.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
/// Messages in flight on the stream. Few, because they are lost with it.
const IN_FLIGHT: usize = 4;

/// An open stream to a coordinator that has accepted the worker.
pub struct Session {
    inbound: Streaming<v1::CoordinatorMessage>,
    up: mpsc::Sender<v1::WorkerMessage>,
}

/// Sends the hello message through `channel`, and waits for the welcome. Returns it with its epoch.
///
/// # Errors
/// The coordinator's refusal, or a connection error.
pub async fn open(hello: v1::Hello, channel: Channel) -> Result<(Session, u64, v1::Welcome), Status> {
    let late = |_| Status::deadline_exceeded(format!("no welcome within {} s", WELCOME_TIME.as_secs()));
    timeout(WELCOME_TIME, introduce(hello, channel)).await.map_err(late)?
}

async fn introduce(hello: v1::Hello, channel: Channel) -> Result<(Session, u64, v1::Welcome), Status> {
    let (up, messages) = mpsc::channel(IN_FLIGHT);
    // The channel is new, so it has room.
    let _ = up.try_send(v1::WorkerMessage { message: Some(Up::Hello(hello)) });
    let mut client = ControlClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let mut inbound = client.attach(ReceiverStream::new(messages)).await?.into_inner();
    let first = inbound.message().await?;
    let Some(v1::CoordinatorMessage { epoch, message: Some(Down::Welcome(welcome)) }) = first else {
        return Err(Status::internal("the coordinator's first message was not a welcome"));
    };
    Ok((Session { inbound, up }, epoch, welcome))
}

impl Session {
    /// The next event of the stream. If `wants_to_send`, room for a message is one.
    pub async fn next(&mut self, wants_to_send: bool) -> AgentInput {
        tokio::select! {
            message = self.inbound.message() => match message {
                Ok(Some(message)) => AgentInput::Message(message),
                Ok(None) => AgentInput::StreamEnded(StreamError::Closed),
                Err(status) => AgentInput::StreamEnded(StreamError::Status(status)),
            },
            room = self.up.reserve(), if wants_to_send => match room {
                Ok(_) => AgentInput::SendRoom,
                Err(_) => AgentInput::StreamEnded(StreamError::SendClosed),
            },
        }
    }

    /// Sends a message, after [`AgentInput::SendRoom`].
    pub fn send(&self, message: Up) {
        // Only this session sends, so there is room. If the stream is closed, that is its next event.
        let _ = self.up.try_send(v1::WorkerMessage { message: Some(message) });
    }

    /// Sends that the worker exits, and waits briefly for its delivery.
    pub async fn goodbye(self, clean: bool) {
        let Session { mut inbound, up } = self;
        let said = async {
            let goodbye = Up::Goodbye(v1::Goodbye { clean });
            let _ = up.send(v1::WorkerMessage { message: Some(goodbye) }).await;
            drop(up);
            // The coordinator closes the stream when it has processed the message.
            while let Ok(Some(_)) = inbound.message().await {}
        };
        // If it does not respond, it will see that the stream breaks.
        let _ = timeout(GOODBYE_TIME, said).await;
    }
}
