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
use tonic::Status;
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

    /// A body whose parts are made on the runtime of the pages, each when there is room for it. If the making of them panics
    /// or the runtime ends, the body ends with an error, so that it does not look complete.
    fn relay(&self, mut body: Body) -> Body {
        // It is in memory already.
        if body.size_hint().exact().is_some() {
            return body;
        }
        let (sender, receiver) = mpsc::channel(1);
        let making = self.runtime.spawn(async move {
            while let Ok(room) = sender.reserve().await {
                let part = tokio::select! {
                    part = body.frame() => part,
                    () = sender.closed() => return,
                };
                let Some(part) = part else { return };
                room.send(part);
            }
        });
        let parts = stream::unfold(Some((receiver, making)), |state| async move {
            let (mut receiver, making) = state?;
            if let Some(part) = receiver.recv().await {
                return Some((part, Some((receiver, making))));
            }
            making.await.err().map(|_| (Err(Status::internal("the answer could not be completed")), None))
        });
        Body::new(StreamBody::new(parts))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures::future::BoxFuture;
    use hyper::body::Frame;
    use tokio::time::timeout;

    use super::*;

    /// A page that fails.
    struct Panics;

    impl Site for Panics {
        fn answer(&self, _: Request<Body>) -> BoxFuture<'static, Response<Body>> {
            Box::pin(async { panic!("as the test wants it") })
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_is_made_as_fast_as_it_is_read_and_ends_with_its_reader() {
        let made = Arc::new(AtomicUsize::new(0));
        let endless = stream::unfold(made.clone(), |made| async move {
            made.fetch_add(1, Ordering::Relaxed);
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"state"))), made))
        });
        let pages = Pages { site: Arc::new(Panics), runtime: Handle::current() };
        let mut body = pages.relay(Body::new(StreamBody::new(endless)));
        for read in 1..=100 {
            body.frame().await.unwrap().unwrap();
            let made = made.load(Ordering::Relaxed);
            assert!((read..=read + 1).contains(&made), "{made} parts were made, {read} were read");
        }
        drop(body);
        let dropped = async {
            while Arc::strong_count(&made) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), dropped).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_breaks_is_not_complete() {
        let breaks = stream::unfold(0, |part| async move {
            assert!(part < 2, "as the test wants it");
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"state"))), part + 1))
        });
        let pages = Pages { site: Arc::new(Panics), runtime: Handle::current() };
        let mut body = pages.relay(Body::new(StreamBody::new(breaks)));
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_of_a_page_is_an_answer() {
        let pages = Pages { site: Arc::new(Panics), runtime: Handle::current() };
        assert_eq!(pages.answer(Request::new(Body::empty())).await.status(), 500);
    }
}
