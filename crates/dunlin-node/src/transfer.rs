//! What serving and fetching contents have in common: the limits, and frames on a stream.

use dunlin_core::message::{FRAME_MAX, frame};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a peer may take for the next bytes before somebody else is asked.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// So many bytes are waited for at a time.
const STEP: usize = 64 << 10;

/// Why a stream ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection or stream is gone.
    #[error("{0}")]
    Gone(String),
    /// The peer does not keep to the protocol.
    #[error("the peer breaks the protocol: {0}")]
    Protocol(&'static str),
    /// The peer takes too long.
    #[error("the peer is silent")]
    Silent,
}

/// Writes one frame.
pub async fn send_frame<T: minicbor::Encode<()>>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), StreamError> {
    stream.write_all(&frame(message)).await.map_err(gone)
}

fn gone(e: std::io::Error) -> StreamError {
    StreamError::Gone(e.to_string())
}

/// Reads the body of one frame, however long it takes to begin; `None` at the end of the stream. The
/// buffer grows as bytes arrive, never by the declared length.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, StreamError> {
    let mut head = [0; 4];
    match stream.read(&mut head).await.map_err(gone)? {
        0 => return Ok(None),
        n => stream.read_exact(&mut head[n..]).await.map_err(gone)?,
    };
    let len = u32::from_be_bytes(head) as usize;
    if len > FRAME_MAX {
        return Err(StreamError::Protocol("a frame is too long"));
    }
    let mut body = Vec::new();
    while body.len() < len {
        let start = body.len();
        body.resize(len.min(start + STEP), 0);
        read_exact(stream, &mut body[start..]).await?;
    }
    Ok(Some(body))
}

/// Reads the body of a frame that was asked for: a peer that never answers is as good as none.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, StreamError> {
    let answer = tokio::time::timeout(PATIENCE, read_frame(stream)).await;
    answer.map_err(|_| StreamError::Silent)??.ok_or(StreamError::Protocol("an answer is missing"))
}

/// Fills the buffer from the stream. Time counts anew with each step, so that a slow link is none that
/// is dead.
pub async fn read_exact(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), StreamError> {
    for step in buffer.chunks_mut(STEP) {
        match tokio::time::timeout(PATIENCE, stream.read_exact(step)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(gone(e)),
            Err(_) => return Err(StreamError::Silent),
        }
    }
    Ok(())
}
