//! The client of the control API: HTTP over the node's Unix socket, one connection a request.

use dunlin_node::control::{
    AnyPath, ApiError, ErrorBody, Event, FolderSpec, HandedOut, History, HistoryRequest, InviteRequest,
    Invited, JoinRequest, Joined, RestoreRequest, Restored, ResumeRequest, Resumed, ShareRequest, Shared,
    Status, UndoRequest, Undone, UniteRequest, United, Verified, VerifyRequest, WaitRequest,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// The largest answer taken, in bytes. A status with very many problems is large.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest line of an event, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How long a node may take for what it can answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the node gave no answer to a request, or a bad one.
#[derive(Debug)]
pub enum ClientError {
    /// It answered that it cannot.
    Api(ApiError),
    /// Nobody listens.
    NotRunning,
    /// It hung up.
    Gone,
    /// It let us wait for what takes no time.
    Silent,
    /// It answered something unknown.
    Strange(String),
    /// The socket could not be used.
    Io(io::Error),
}

/// A way to a node; it is used anew for each request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The node whose socket is there. Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// Whether a node listens.
    pub async fn is_there(&self) -> Result<bool, ClientError> {
        match self.connect().await {
            Ok(_) => Ok(true),
            Err(ClientError::NotRunning) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Shares a directory (absolute).
    pub async fn share(&self, path: AnyPath) -> Result<Shared, ClientError> {
        self.ask(Method::POST, "/v1/share", &ShareRequest { path }).await
    }

    /// Joins a folder.
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, ClientError> {
        self.ask(Method::POST, "/v1/join", request).await
    }

    /// Makes a ticket.
    pub async fn invite(&self, folder: FolderSpec) -> Result<String, ClientError> {
        let request = InviteRequest { folder };
        let invited: Invited = in_time(self.ask(Method::POST, "/v1/invite", &request)).await?;
        Ok(invited.ticket)
    }

    /// The present state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        in_time(self.ask(Method::GET, "/v1/status", &())).await
    }

    /// Returns when in sync. Dropping it cancels.
    pub async fn wait(&self, folder: FolderSpec, copies: u32) -> Result<(), ClientError> {
        let _: IgnoredAny = self.ask(Method::POST, "/v1/wait", &WaitRequest { folder, copies }).await?;
        Ok(())
    }

    /// Reads all files of a folder again. Dropping it cancels.
    pub async fn verify(&self, folder: FolderSpec) -> Result<Verified, ClientError> {
        self.ask(Method::POST, "/v1/verify", &VerifyRequest { folder }).await
    }

    /// What there was.
    pub async fn history(&self, request: &HistoryRequest) -> Result<History, ClientError> {
        self.ask(Method::POST, "/v1/history", request).await
    }

    /// Has something be again as it was.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<Restored, ClientError> {
        self.ask(Method::POST, "/v1/restore", request).await
    }

    /// What a restore would bring, for a place outside the folder.
    pub async fn versions(&self, request: &RestoreRequest) -> Result<HandedOut, ClientError> {
        self.ask(Method::POST, "/v1/versions", request).await
    }

    /// Takes changes back.
    pub async fn undo(&self, request: &UndoRequest) -> Result<Undone, ClientError> {
        self.ask(Method::POST, "/v1/undo", request).await
    }

    /// Takes the directory that is there for a folder that is halted for its root.
    pub async fn unite(&self, folder: FolderSpec) -> Result<United, ClientError> {
        self.ask(Method::POST, "/v1/unite", &UniteRequest { folder }).await
    }

    /// Decides about deletes that are held.
    pub async fn resume(&self, folder: FolderSpec, accept: bool) -> Result<Resumed, ClientError> {
        self.ask(Method::POST, "/v1/resume", &ResumeRequest { folder, accept }).await
    }

    /// All that happens from now on.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let response = in_time(self.send(Method::GET, "/v1/events", &())).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(Events { body: response.into_body(), buffer: Vec::new() })
    }

    /// An answer that is no JSON, to be read as it comes.
    pub(crate) async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Incoming, ClientError> {
        let response = self.send(Method::POST, path, body).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(response.into_body())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let bytes = read(response).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Strange(e.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ClientError> {
        let body = match method {
            Method::GET => Vec::new(),
            _ => serde_json::to_vec(body).map_err(|e| ClientError::Strange(e.to_string()))?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "dunlin")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ClientError::Strange(e.to_string()))?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
        // Its end is seen by whoever reads the answer.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(gone)
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => ClientError::Io(e),
        })
    }
}

/// The stream of events of a node.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event, with the line it came as; `None` when the node has ended.
    pub async fn next(&mut self) -> Result<Option<(Event, String)>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                let line = String::from_utf8(line).map_err(|e| ClientError::Strange(e.to_string()))?;
                let line = line.trim_end().to_owned();
                let event = serde_json::from_str(&line).map_err(|e| ClientError::Strange(e.to_string()))?;
                return Ok(Some((event, line)));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ClientError::Strange("an event without end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or(Err(ClientError::Silent))
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(|e| ClientError::Strange(e.to_string()))?.to_bytes())
}

/// What an answer that is no success means.
async fn refused(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    match read(response).await {
        Ok(bytes) => match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => ClientError::Api(body.error),
            Err(_) => ClientError::Strange(status.to_string()),
        },
        Err(e) => e,
    }
}

fn gone(_: hyper::Error) -> ClientError {
    ClientError::Gone
}

#[cfg(test)]
mod tests;
