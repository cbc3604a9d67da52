//! Requests the sizes of outputs from another worker.
//!
//! Not here: the outputs (`fetch`).

use arrow_flight::Action;
use bytes::Bytes;
use prost::Message;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::client::Client;
use super::fetch::{FetchError, OutputQuery};
use super::retries::with_retries;
use super::server::SIZES;
use super::ticket::Request;

impl Client {
    /// Requests the sizes of a ticket's outputs. The response is sent to the receiver.
    pub(super) fn sizes(
        &self,
        query: OutputQuery,
        io: &Handle,
    ) -> mpsc::Receiver<Result<v1::Sizes, FetchError>> {
        let (sender, answer) = mpsc::channel(1);
        let client = self.clone();
        io.spawn(async move {
            tokio::select! {
                // The slot drops its end if it no longer needs the response.
                () = sender.closed() => {}
                sizes = client.all_sizes(&query) => { let _ = sender.send(sizes).await; }
            }
        });
        answer
    }

    /// The sizes of all outputs, in as many requests as the limit on messages needs.
    async fn all_sizes(&self, query: &OutputQuery) -> Result<v1::Sizes, FetchError> {
        let address = query.at.address.as_str();
        in_parts(&query.request.outputs, |outputs| {
            let request = Request { outputs, ..query.request.clone() };
            let body = Bytes::from(request.ticket(query.key.clone()).encode_to_vec());
            async move { with_retries(self, address, || self.sizes_once(address, body.clone())).await }
        })
        .await
    }

    async fn sizes_once(&self, address: &str, body: Bytes) -> Result<v1::Sizes, Status> {
        let (mut service, _) = self.service(address)?;
        let mut answer = service.do_action(Action::new(SIZES, body)).await?.into_inner();
        let first = answer.message().await?.ok_or_else(|| Status::unknown("the response is empty"))?;
        v1::Sizes::decode(first.body).map_err(|e| Status::unknown(e.to_string()))
    }
}

/// Asks for all outputs at once, and for fewer at a time if the response is larger than a message.
async fn in_parts<F>(
    outputs: &[AttemptId],
    ask: impl Fn(Vec<AttemptId>) -> F,
) -> Result<v1::Sizes, FetchError>
where
    F: Future<Output = Result<v1::Sizes, Status>>,
{
    let mut all = v1::Sizes::default();
    let mut count = outputs.len();
    while all.outputs.len() < outputs.len() {
        let asked = all.outputs.len();
        let part = &outputs[asked..outputs.len().min(asked + count)];
        match ask(part.to_vec()).await {
            Ok(sizes) if sizes.outputs.len() == part.len() => all.outputs.extend(sizes.outputs),
            Ok(_) => return Err(FetchError::lost(asked, "it returned the sizes of other outputs")),
            Err(status) if status.code() == Code::OutOfRange && part.len() > 1 => count = part.len() / 2,
            Err(status) => return Err(FetchError::from_status(&status, asked)),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    #[tokio::test]
    async fn sizes_that_are_larger_than_a_message_are_requested_in_parts() {
        let task = |index| TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index };
        let outputs: Vec<_> = (0..10).map(|index| AttemptId { task: task(index), attempt: 0 }).collect();
        let requests = RefCell::new(vec![]);
        // A message has room for as many outputs.
        let ask = |room: usize| {
            let requests = &requests;
            move |part: Vec<AttemptId>| {
                requests.borrow_mut().push((part[0].task.index, part.len()));
                let size =
                    |of: &AttemptId| v1::OutputSizes { runs: vec![], file_bytes: of.task.index.into() };
                let sizes = v1::Sizes { outputs: part.iter().map(size).collect() };
                std::future::ready((part.len() <= room).then_some(sizes).ok_or(Status::out_of_range("large")))
            }
        };
        let all = in_parts(&outputs, ask(3)).await.unwrap();
        assert!(all.outputs.iter().map(|output| output.file_bytes).eq(0..10));
        assert_eq!(requests.take(), [(0, 10), (0, 5), (0, 2), (2, 2), (4, 2), (6, 2), (8, 2)]);
        assert_eq!(in_parts(&outputs, ask(10)).await.unwrap().outputs.len(), 10);
        assert!(in_parts(&outputs, ask(0)).await.is_err(), "one output has no room");
    }
}
