//! What a peer answers, by whichever way it was asked.

use super::{Lane, Turn};
use crate::net::connection::{Closed, Connection, RecvStream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// A lane over which nothing comes for so long is broken: what is missing is asked for over QUIC.
const QUIET: Duration = Duration::from_secs(5);
/// A lane that is waited for is looked after so often.
const LOOK: Duration = Duration::from_millis(500);

/// The bytes of an answer as they come.
#[derive(Debug)]
pub enum Answer {
    /// On a stream of the QUIC connection.
    Quic(RecvStream),
    /// On a TCP connection.
    Lane(Box<Waited>),
}

/// An answer that is waited for, with an end to the patience.
#[derive(Debug)]
pub struct Waited {
    turn: Turn,
    heard: Instant,
    look: Pin<Box<Sleep>>,
}

impl Answer {
    /// Asks for something small, or what is not to wait behind contents: over QUIC. The peer has so long to
    /// grant a stream, and to grant the bytes on it.
    ///
    /// # Errors
    /// When the connection is closed, or the stream, or the peer grants nothing.
    pub async fn to(
        conn: &Connection,
        request: &[u8],
        (stream, bytes): (Duration, Duration),
    ) -> Result<Answer, Closed> {
        let opened = timeout(stream, conn.open_bi()).await.map_err(|_| Closed::Silent)?;
        let (mut send, recv) = opened?;
        let gone = |e: &dyn std::fmt::Display| Closed::Failed(e.to_string());
        let asked = timeout(bytes, send.write_all(request)).await.map_err(|_| Closed::Silent)?;
        asked.map_err(|e| gone(&e))?;
        send.finish().map_err(|e| gone(&e))?;
        Ok(Answer::Quic(recv))
    }

    /// Asks for much, over the lane; none where there is no lane now.
    pub async fn by(lane: &Arc<Lane>, request: &[u8]) -> Option<Answer> {
        let mut turn = lane.take().await?;
        let stream = turn.stream.as_mut()?;
        // A request is small: what does not take it at once is broken.
        let asked = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        if !matches!(timeout(QUIET, asked).await, Ok(Ok(()))) {
            turn.lane.broke(turn.way);
            return None;
        }
        let waited = Waited { turn, heard: Instant::now(), look: Box::pin(sleep(LOOK)) };
        Some(Answer::Lane(Box::new(waited)))
    }

    /// Whether it comes over the lane: QUIC may do better.
    #[must_use]
    pub fn is_by_lane(&self) -> bool {
        matches!(self, Answer::Lane(_))
    }

    /// All of the answer was read, and nothing is to follow.
    pub fn done(self) {
        if let Answer::Lane(waited) = self {
            waited.turn.done();
        }
    }

    /// What came was not all.
    pub fn broke(self) {
        if let Answer::Lane(waited) = self {
            waited.turn.lane.broke(waited.turn.way);
        }
    }
}

impl AsyncRead for Waited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(stream) = this.turn.stream.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Poll::Ready(end) = Pin::new(stream).poll_read(cx, buffer) {
            this.heard = Instant::now();
            return Poll::Ready(end);
        }
        while this.look.as_mut().poll(cx).is_ready() {
            if this.heard.elapsed() >= QUIET || this.turn.lane.is_over(this.turn.way) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.look.as_mut().reset(Instant::now() + LOOK);
        }
        Poll::Pending
    }
}

impl AsyncRead for Answer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Answer::Quic(recv) => AsyncRead::poll_read(Pin::new(recv), cx, buffer),
            Answer::Lane(waited) => Pin::new(waited.as_mut()).poll_read(cx, buffer),
        }
    }
}
