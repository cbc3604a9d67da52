//! Work for the pages of a process on the process's own runtime: TLS, requests, and the bodies of answers. The thread of
//! health and metrics only accepts connections and passes bytes on, so that no page delays a probe.
//!
//! Not here: the pages (`site`), connections (`listener`).

use std::sync::Arc;

use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Body as _;
use hyper::{Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::body::Body;

use super::site::Site;

/// Pages, and the runtime that computes their answers.
#[derive(Clone)]
pub struct Pages {
    /// The pages.
    pub site: Arc<dyn Site>,
    /// The runtime. It must have a thread of its own.
    pub runtime: Handle,
}

impl Pages {
    /// Runs a future on the runtime of the pages. It is dropped if the caller is. `None` if the runtime ends or the future
    /// panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, &self.runtime);
        tasks.join_next().await?.ok()
    }

    /// The answer to a request, whose body is made on the runtime of the pages.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let site = self.site.clone();
        match self.run(async move { site.answer(request).await }).await {
            Some(response) => response.map(|body| self.relay(body)),
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    /// A body whose parts are made on the runtime of the pages, each when there is room for it.
    fn relay(&self, mut body: Body) -> Body {
        // It is in memory already.
        if body.size_hint().exact().is_some() {
            return body;
        }
        let (sender, receiver) = mpsc::channel(1);
        self.runtime.spawn(async move {
            while let Ok(room) = sender.reserve().await {
                let part = tokio::select! {
                    part = body.frame() => part,
                    () = sender.closed() => return,
                };
                let Some(part) = part else { return };
                room.send(part);
            }
        });
        let parts = stream::unfold(receiver, |mut receiver| async move {
            let part = receiver.recv().await?;
            Some((part, receiver))
        });
        Body::new(StreamBody::new(parts))
    }
}
