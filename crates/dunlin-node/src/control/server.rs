//! The server of the control API. Only this user reaches the socket, yet everything is bounded: the
//! number of connections, headers and bodies in size and time.

use super::{
    Api, ApiError, ContentRequest, ErrorBody, ErrorCode, Event, HandedOut, History, HistoryRequest,
    InviteRequest, Invited, JoinRequest, Joined, RestoreRequest, Restored, ResumeRequest, Resumed,
    ShareRequest, Shared, Status, UndoRequest, Undone, UniteRequest, United, Verified, VerifyRequest,
    WaitRequest,
};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Bytes, Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::task::JoinSet;

/// The largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take for the head of a request, and again for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers on their way may take when the server ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// Pieces of events kept for a client that reads slowly, beside the events of the broadcast channel.
const EVENTS_QUEUED: usize = 16;
/// What happens at once is told at once: to a client goes one piece in so long, of about so many bytes at most. One event
/// by itself waits for nothing. Told one by one, those of a mass change take as long as the change.
const EVENTS_APART: Duration = Duration::from_millis(4);
const EVENTS_BYTES: usize = 16 << 10;

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The future given to it was done.
    Told,
    /// A client asked for it.
    Asked,
}

/// Serves `api` on `listener` until `shutdown` is done or a client asks for the end; then ends all
/// event streams, lets answers on their way out for half a second and drops the rest.
pub async fn serve<A: Api>(
    api: Arc<A>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()>,
) -> Stopped {
    let (asked_tx, mut asked) = mpsc::channel(1);
    let (ending, ending_rx) = watch::channel(false);
    let app = router(Shop { api, asked: asked_tx, ending: ending_rx.clone() });
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let stopped = loop {
        tokio::select! {
            () = &mut shutdown => break Stopped::Told,
            Some(()) = asked.recv() => break Stopped::Asked,
            Some(_) = connections.join_next() => {}
            (permit, stream) = accept(&permits, &listener) => {
                let serving = connection(stream, app.clone(), ending_rx.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
        }
    };
    drop(listener);
    ending.send_replace(true);
    // Each connection ends within FAREWELL by itself.
    while connections.join_next().await.is_some() {}
    stopped
}

type Permit = Option<tokio::sync::OwnedSemaphorePermit>;

async fn accept(permits: &Arc<Semaphore>, listener: &UnixListener) -> (Permit, UnixStream) {
    let permit = permits.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (permit, stream),
            // Out of file descriptors, as a rule: it passes, and a busy loop would not help it.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: UnixStream, app: Router, mut ending: watch::Receiver<bool>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).max_headers(64).max_buf_size(64 * 1024);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    // An error is the client's: it hung up or spoke no HTTP. There is nobody left to tell.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ended(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, connection).await.ok();
        }
    }
}

/// Returns when the server ends.
async fn ended(ending: &mut watch::Receiver<bool>) {
    ending.wait_for(|end| *end).await.ok(); // the sender gone means the same
}

/// What every route can reach.
struct Shop<A> {
    api: Arc<A>,
    asked: mpsc::Sender<()>,
    ending: watch::Receiver<bool>,
}

impl<A> Clone for Shop<A> {
    fn clone(&self) -> Self {
        Shop { api: self.api.clone(), asked: self.asked.clone(), ending: self.ending.clone() }
    }
}

fn router<A: Api>(shop: Shop<A>) -> Router {
    Router::new()
        .route("/v1/share", post(share::<A>))
        .route("/v1/join", post(join::<A>))
        .route("/v1/invite", post(invite::<A>))
        .route("/v1/status", get(status::<A>))
        .route("/v1/wait", post(wait::<A>))
        .route("/v1/verify", post(verify::<A>))
        .route("/v1/history", post(history::<A>))
        .route("/v1/restore", post(restore::<A>))
        .route("/v1/versions", post(versions::<A>))
        .route("/v1/content", post(content::<A>))
        .route("/v1/undo", post(undo::<A>))
        .route("/v1/resume", post(resume::<A>))
        .route("/v1/unite", post(unite::<A>))
        .route("/v1/events", get(events::<A>))
        .route("/v1/shutdown", post(stop::<A>))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "there is no such route"))
        .method_not_allowed_fallback(async || {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "the route knows no such method")
        })
        .with_state(shop)
}

async fn share<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Shared>, Refusal> {
    let request: ShareRequest = body(request).await?;
    done(shop.api.share(request.path.0).await)
}

async fn join<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Joined>, Refusal> {
    let request: JoinRequest = body(request).await?;
    done(shop.api.join(request).await)
}

async fn invite<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Invited>, Refusal> {
    let request: InviteRequest = body(request).await?;
    done(shop.api.invite(request.folder).await.map(|ticket| Invited { ticket }))
}

async fn status<A: Api>(State(shop): State<Shop<A>>) -> Result<Json<Status>, Refusal> {
    done(shop.api.status().await)
}

async fn wait<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Nothing>, Refusal> {
    let request: WaitRequest = body(request).await?;
    done(shop.api.wait(request.folder, request.copies).await.map(|()| Nothing {}))
}

async fn verify<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Verified>, Refusal> {
    let request: VerifyRequest = body(request).await?;
    done(shop.api.verify(request.folder).await)
}

async fn history<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<History>, Refusal> {
    let request: HistoryRequest = body(request).await?;
    done(shop.api.history(request).await)
}

async fn restore<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Restored>, Refusal> {
    let request: RestoreRequest = body(request).await?;
    done(shop.api.restore(request).await)
}

async fn versions<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<HandedOut>, Refusal> {
    let request: RestoreRequest = body(request).await?;
    done(shop.api.versions(request).await)
}

async fn content<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Response, Refusal> {
    let request: ContentRequest = body(request).await?;
    let left = request.size;
    let Json(bytes) = done(shop.api.content(request).await)?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::new(Blocks { bytes, left })).into_response())
}

async fn undo<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Undone>, Refusal> {
    let request: UndoRequest = body(request).await?;
    done(shop.api.undo(request).await)
}

async fn unite<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<United>, Refusal> {
    let request: UniteRequest = body(request).await?;
    done(shop.api.unite(request.folder).await)
}

async fn resume<A: Api>(State(shop): State<Shop<A>>, request: Request) -> Result<Json<Resumed>, Refusal> {
    let request: ResumeRequest = body(request).await?;
    done(shop.api.resume(request.folder, request.accept).await)
}

async fn stop<A: Api>(State(shop): State<Shop<A>>) -> Json<Nothing> {
    shop.asked.try_send(()).ok(); // full: somebody asked before
    Json(Nothing {})
}

async fn events<A: Api>(State(shop): State<Shop<A>>) -> Response {
    let (lines, body) = mpsc::channel(EVENTS_QUEUED);
    tokio::spawn(forward(shop.api.events(), lines, shop.ending));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(body))).into_response()
}

/// Carries events to one client until it hangs up, the node ends or the server does.
async fn forward(
    mut events: broadcast::Receiver<Event>,
    lines: mpsc::Sender<Bytes>,
    mut ending: watch::Receiver<bool>,
) {
    loop {
        let event = tokio::select! {
            () = lines.closed() => return,
            () = ended(&mut ending) => return,
            event = events.recv() => event,
        };
        let mut text = Vec::new();
        match event {
            Ok(event) => add_line(&mut text, &event),
            Err(RecvError::Lagged(count)) => add_line(&mut text, &Event::Missed { count }),
            Err(RecvError::Closed) => return,
        }
        while text.len() < EVENTS_BYTES {
            match events.try_recv() {
                Ok(event) => add_line(&mut text, &event),
                Err(TryRecvError::Lagged(count)) => add_line(&mut text, &Event::Missed { count }),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        tokio::select! {
            sent = lines.send(text.into()) => if sent.is_err() { return },
            () = ended(&mut ending) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(EVENTS_APART) => {}
            () = lines.closed() => return,
            () = ended(&mut ending) => return,
        }
    }
}

fn add_line(text: &mut Vec<u8>, event: &Event) {
    let before = text.len();
    // The types of the API have string keys and no map, so this cannot fail.
    match serde_json::to_writer(&mut *text, event) {
        Ok(()) => text.push(b'\n'),
        Err(_) => text.truncate(before),
    }
}

/// A body of so many bytes as they come: one that ends before is an error for who reads.
struct Blocks {
    bytes: super::Bytes,
    left: u64,
}

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let Poll::Ready(block) = self.bytes.poll_recv(cx) else { return Poll::Pending };
        let block = block.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
        Poll::Ready(Some(block.map(|mut block| {
            block.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= block.len() as u64;
            Frame::data(Bytes::from(block))
        })))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of lines as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[derive(Serialize)]
struct Nothing {}

struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Reads a bounded body and decodes it.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let too_large = || refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB");
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let request = limited(request);
    let bytes = match tokio::time::timeout(READ_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(e)) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => return Err(too_large()),
        Ok(Err(_)) => return Err(refusal(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => return Err(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|e| refusal(StatusCode::BAD_REQUEST, &format!("the body is wrong: {e}")))
}

fn limited(mut request: Request) -> Request {
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
    request
}

fn done<T>(result: Result<T, ApiError>) -> Result<Json<T>, Refusal> {
    result.map(Json).map_err(|error| {
        let status = match error.code {
            ErrorCode::Usage => StatusCode::BAD_REQUEST,
            ErrorCode::Failed => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal { status, error }
    })
}

/// An answer that is an error.
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

/// An error of the protocol rather than of what was asked.
fn refusal(status: StatusCode, message: &str) -> Refusal {
    let hint = "the program that asked and the node may be of different versions: dunlin --version";
    Refusal { status, error: ApiError::usage(message, hint) }
}

#[cfg(test)]
mod tests;
