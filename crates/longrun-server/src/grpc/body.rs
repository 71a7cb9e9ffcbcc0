//! [`Timed`]: the body of a request that has to come in within a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

/// A body with a time, counted from when it first has to be waited for: one that is there at once costs no timer.
#[derive(Debug)]
pub(super) struct Timed {
    body: Body,
    time: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub(super) const fn new(body: Body, time: Duration) -> Self {
        Self { body, time, until: None }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let time = this.time;
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        until.as_mut().poll(context).map(|()| Some(Err(Status::deadline_exceeded("the body took too long"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::channel::Channel;

    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn b27_a_body_that_trickles_is_late_and_one_that_comes_in_time_is_not() {
        for (pause, in_time) in [(Duration::from_secs(2), true), (Duration::from_secs(4), false)] {
            let (mut sender, body) = Channel::<Bytes, Status>::new(1);
            let trickle = tokio::spawn(async move {
                for _ in 0..10 {
                    tokio::time::sleep(pause).await;
                    if sender.send_data(Bytes::from_static(b"x")).await.is_err() {
                        return;
                    }
                }
            });
            let collected = Timed::new(Body::new(body), TIME).collect().await;
            match collected {
                Ok(collected) => assert!(in_time && collected.to_bytes().len() == 10),
                Err(status) => assert!(!in_time && status.code() == tonic::Code::DeadlineExceeded),
            }
            trickle.await.unwrap();
        }
    }
}
