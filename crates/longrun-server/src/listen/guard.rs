//! [`Guard`]: a stream that gives up on a peer which does not come to the point, or does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes by which a peer has come to the point: as many as the preface of HTTP/2 has.
const FIRST_BYTES: usize = 24;

/// A stream with two times: one for its first bytes, one for each write that waits for the peer to read.
#[derive(Debug)]
pub(super) struct Guard<S> {
    stream: S,
    /// Until the first bytes have come: how many are missing, and until when.
    first: Option<(usize, Pin<Box<Sleep>>)>,
    write_time: Duration,
    /// While a write waits.
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S, first_time: Duration, write_time: Duration) -> Self {
        let first = Some((FIRST_BYTES, Box::pin(tokio::time::sleep(first_time))));
        Self { stream, first, write_time, writing: None }
    }

    /// What a write came to, or that it has waited too long.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.writing = None;
            return wrote;
        }
        let write_time = self.write_time;
        let writing = self
            .writing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + write_time)));
        match writing.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(late("the peer does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((missing, time)) = &mut this.first {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                this.first = None;
            } else if read.is_pending() && time.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(late("the peer does not come to the point")));
            }
        }
        read
    }
}

/// Not vectored, although the stream may be: HTTP/2 writes each message of more than 256 bytes by itself then, which costs
/// an answer a system call of its own. So it copies those of up to 1 KiB together, which most answers are.
impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_write(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_write(context, ended)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn b27_a_peer_that_trickles_is_given_up() {
        let (mut peer, stream) = tokio::io::duplex(1024);
        let mut guard = Guard::new(stream, TIME, TIME);
        let trickle = tokio::spawn(async move {
            for _ in 0..FIRST_BYTES {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if peer.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let mut bytes = Vec::new();
        let error = guard.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(bytes.len() < FIRST_BYTES);
        drop(guard);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_come_to_the_point_may_be_silent() {
        let (mut peer, stream) = tokio::io::duplex(1024);
        let mut guard = Guard::new(stream, TIME, TIME);
        peer.write_all(&[b'x'; FIRST_BYTES]).await.unwrap();
        let mut bytes = [0; FIRST_BYTES];
        guard.read_exact(&mut bytes).await.unwrap();
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            peer.write_all(b"y").await.unwrap();
            peer
        });
        assert_eq!(guard.read_u8().await.unwrap(), b'y');
        later.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn b27_a_peer_that_does_not_read_is_given_up_and_a_slow_one_is_not() {
        let (mut peer, stream) = tokio::io::duplex(16);
        let mut guard = Guard::new(stream, TIME, TIME);
        let slow = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..64 {
                tokio::time::sleep(TIME / 2).await;
                peer.read_exact(&mut byte).await.unwrap();
            }
            peer
        });
        guard.write_all(&[0; 64]).await.unwrap();
        let _peer = slow.await.unwrap();
        let error = guard.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
