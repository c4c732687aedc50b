//! One piece of a large content as it comes: over the lane where there is one, and what did not come by it
//! over QUIC.

use super::ask;
use crate::folder::PeerFolder;
use crate::net::lane::Answer;
use crate::transfer::{StreamError, read_answer, read_exact};
use dunlin_core::ids::FolderId;
use dunlin_core::message::{Header, Piece, Request, frame, read};
use std::sync::Arc;

/// A piece that is being read.
pub(super) struct Incoming {
    peer: Arc<PeerFolder>,
    folder: FolderId,
    /// What is still to come.
    rest: Piece,
    answer: Option<Answer>,
}

impl Incoming {
    /// Asks for a piece.
    pub(super) async fn ask(
        peer: Arc<PeerFolder>,
        folder: FolderId,
        piece: Piece,
    ) -> Result<Incoming, StreamError> {
        let mut incoming = Incoming { peer, folder, rest: piece, answer: None };
        if let Some(answer) = Answer::by(&incoming.peer.lane, &frame(&incoming.request())).await {
            match incoming.begins(answer).await {
                Ok(()) => return Ok(incoming),
                Err(Begun::Broken) => {}
                Err(Begun::Refused(e)) => return Err(e),
            }
        }
        incoming.by_quic().await?;
        Ok(incoming)
    }

    fn request(&self) -> Request {
        Request::Pieces { folder: self.folder, pieces: vec![self.rest] }
    }

    async fn by_quic(&mut self) -> Result<(), StreamError> {
        let answer = ask(&self.peer, &self.request()).await?;
        self.begins(answer).await.map_err(|e| match e {
            Begun::Refused(e) => e,
            Begun::Broken => StreamError::Gone("the answer broke off".into()),
        })
    }

    async fn begins(&mut self, mut answer: Answer) -> Result<(), Begun> {
        let by_lane = answer.is_by_lane();
        let body = match read_answer(&mut answer).await {
            Err(_) if by_lane => {
                answer.broke();
                return Err(Begun::Broken);
            }
            other => other.map_err(Begun::Refused)?,
        };
        let unread = |_| Begun::Refused(StreamError::Protocol("an answer cannot be read"));
        if read::<Header>(&body).map_err(unread)? != Header::Here {
            answer.done();
            let gone = StreamError::Gone("the content is not there any more".into());
            return Err(Begun::Refused(gone));
        }
        self.answer = Some(answer);
        Ok(())
    }

    /// Fills the buffer with the next bytes. What the lane breaks off goes on over QUIC.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        loop {
            let Some(answer) = self.answer.as_mut() else {
                return Err(StreamError::Gone("the answer broke off".into()));
            };
            match read_exact(answer, buffer).await {
                Ok(()) => {
                    self.rest.offset += buffer.len() as u64;
                    self.rest.len -= buffer.len() as u64;
                    return Ok(());
                }
                Err(_) if answer.is_by_lane() => {
                    if let Some(answer) = self.answer.take() {
                        answer.broke();
                    }
                    self.by_quic().await?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// All of it was read: the way is free for others.
    pub(super) fn done(self) {
        if let Some(answer) = self.answer
            && self.rest.len == 0
        {
            answer.done();
        }
    }
}

/// Why an answer did not begin.
enum Begun {
    /// The way broke.
    Broken,
    /// The peer does not have it, or breaks the protocol.
    Refused(StreamError),
}
