use super::*;
use dunlin_node::control::{Api, serve};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::broadcast;

/// A node that answers from its hands.
struct Fake(broadcast::Sender<Event>);

impl Api for Fake {
    async fn share(&self, path: PathBuf) -> Result<Shared, ApiError> {
        let (device, name, folder) = ("d".to_owned(), "n".to_owned(), "f".to_owned());
        Ok(Shared { device, name, folder, path: path.into(), ticket: "dunlin1".into() })
    }
    async fn join(&self, request: JoinRequest) -> Result<Joined, ApiError> {
        match request.ticket.as_str() {
            "used" => Err(ApiError::failed("the ticket was used before", "ask for a fresh one")),
            _ => Ok(Joined { device: "d".into(), name: "n".into(), folder: "f".into(), path: request.path }),
        }
    }
    async fn invite(&self, folder: FolderSpec) -> Result<String, ApiError> {
        folder.pick([]).map(|_| String::new())
    }
    async fn status(&self) -> Result<Status, ApiError> {
        Ok(Status { device: "d".into(), name: "n".into(), folders: Vec::new() })
    }
    async fn wait(&self, _folder: FolderSpec, copies: u32) -> Result<(), ApiError> {
        if copies > 1 { std::future::pending().await } else { Ok(()) }
    }
    async fn verify(&self, folder: FolderSpec) -> Result<Verified, ApiError> {
        folder.pick([]).map(|_| Verified::default())
    }
    async fn history(&self, request: HistoryRequest) -> Result<History, ApiError> {
        Ok(History { older: request.limit as u64, ..History::default() })
    }
    async fn restore(&self, request: RestoreRequest) -> Result<Restored, ApiError> {
        Ok(Restored { lacking: vec![request.path], ..Restored::default() })
    }
    async fn versions(&self, _request: RestoreRequest) -> Result<dunlin_node::control::HandedOut, ApiError> {
        Ok(dunlin_node::control::HandedOut::default())
    }
    async fn content(
        &self,
        _request: dunlin_node::control::ContentRequest,
    ) -> Result<dunlin_node::control::Bytes, ApiError> {
        Err(ApiError::failed("it is gone", "look elsewhere"))
    }
    async fn undo(&self, request: UndoRequest) -> Result<Undone, ApiError> {
        Ok(Undone { by: request.by, done: !request.dry_run, ..Undone::default() })
    }
    async fn resume(&self, folder: FolderSpec, accepted: bool) -> Result<Resumed, ApiError> {
        let path = AnyPath("/f".into());
        folder.pick([]).map(|_| Resumed { folder: "f".into(), path, accepted, files: 1, overwritten: 0 })
    }
    async fn unite(&self, folder: FolderSpec) -> Result<United, ApiError> {
        folder.pick([]).map(|_| United { folder: "f".into(), path: AnyPath("/f".into()) })
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

fn node() -> (tempfile::TempDir, Client, broadcast::Sender<Event>, tokio::task::JoinHandle<()>) {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (events, _) = broadcast::channel(16);
    let api = Arc::new(Fake(events.clone()));
    let served = tokio::spawn(async move {
        serve(api, listener, std::future::pending()).await;
    });
    (temp, Client::new(socket), events, served)
}

#[tokio::test]
async fn every_request_makes_its_round() {
    let (_temp, client, _events, _served) = node();
    let odd = AnyPath::from(b"/a\xff\n".to_vec());
    assert_eq!(client.share(odd.clone()).await.unwrap().path, odd);
    let join = |ticket: &str| JoinRequest { ticket: ticket.to_owned(), path: odd.clone(), below: true };
    assert_eq!(client.join(&join("fresh")).await.unwrap().path, odd);
    match client.join(&join("used")).await {
        Err(ClientError::Api(e)) => assert_eq!(e.hint, "ask for a fresh one"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.invite(FolderSpec::Only).await, Err(ClientError::Api(_))));
    assert_eq!(client.status().await.unwrap().name, "n");
    client.wait(FolderSpec::Only, 1).await.unwrap();
    let forever = tokio::time::timeout(Duration::from_millis(50), client.wait(FolderSpec::Only, 2)).await;
    assert!(forever.is_err());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_not_hung() {
    let (_temp, client, _events, _served) = node();
    let huge = AnyPath::from(vec![b'x'; 200_000]);
    match client.share(huge).await {
        Err(ClientError::Api(e)) => assert!(e.message.contains("64 KiB"), "{e}"),
        // The refusal may be lost when the server hangs up on what is still being sent.
        Err(ClientError::Gone) => {}
        other => panic!("{other:?}"),
    }
    client.status().await.unwrap();
}

#[tokio::test]
async fn an_unknown_route_is_told() {
    let (_temp, client, _events, _served) = node();
    let answer: Result<IgnoredAny, _> = client.ask(Method::GET, "/v1/nothing", &()).await;
    assert!(matches!(answer, Err(ClientError::Api(e)) if e.message.contains("no such route")));
}

#[tokio::test]
async fn events_come_with_their_line_until_the_node_ends() {
    let (_temp, client, events, served) = node();
    let mut stream = client.events().await.unwrap();
    for i in 0..3 {
        events.send(Event::Missed { count: i }).unwrap();
    }
    for i in 0..3 {
        let (event, line) = stream.next().await.unwrap().unwrap();
        assert_eq!(event, Event::Missed { count: i });
        assert_eq!(line, format!(r#"{{"event":"missed","count":{i}}}"#));
    }
    let _: IgnoredAny = client.ask(Method::POST, "/v1/shutdown", &()).await.unwrap();
    assert!(stream.next().await.unwrap().is_none());
    served.await.unwrap();
    assert!(matches!(client.status().await, Err(ClientError::NotRunning)));
}
