use super::*;
use crate::control::FolderSpec;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

struct Fake {
    events: broadcast::Sender<Event>,
    waiting: Arc<AtomicUsize>,
}

impl Api for Fake {
    async fn share(&self, path: PathBuf) -> Result<Shared, ApiError> {
        Ok(Shared {
            device: "d".into(),
            name: "n".into(),
            folder: "f".into(),
            path: path.into(),
            ticket: "dunlin1".into(),
        })
    }
    async fn join(&self, _request: JoinRequest) -> Result<Joined, ApiError> {
        Err(ApiError::failed("the ticket has expired", "ask for a fresh one"))
    }
    async fn invite(&self, folder: FolderSpec) -> Result<String, ApiError> {
        folder.pick([]).map(|_| String::new())
    }
    async fn status(&self) -> Result<Status, ApiError> {
        Ok(Status { device: "d".into(), name: "n".into(), folders: Vec::new() })
    }
    async fn wait(&self, _folder: FolderSpec, _copies: u32) -> Result<(), ApiError> {
        struct Waiting(Arc<AtomicUsize>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting.clone());
        std::future::pending().await
    }
    async fn verify(&self, _folder: FolderSpec) -> Result<Verified, ApiError> {
        Ok(Verified::default())
    }
    async fn history(&self, request: HistoryRequest) -> Result<History, ApiError> {
        Ok(History { older: request.limit as u64, ..History::default() })
    }
    async fn restore(&self, request: RestoreRequest) -> Result<Restored, ApiError> {
        Ok(Restored { lacking: vec![request.path], ..Restored::default() })
    }
    async fn versions(&self, _request: RestoreRequest) -> Result<crate::control::HandedOut, ApiError> {
        Ok(crate::control::HandedOut::default())
    }
    async fn content(
        &self,
        _request: crate::control::ContentRequest,
    ) -> Result<crate::control::Bytes, ApiError> {
        Err(ApiError::failed("it is gone", "look elsewhere"))
    }
    async fn undo(&self, request: UndoRequest) -> Result<Undone, ApiError> {
        Ok(Undone { by: request.by, done: !request.dry_run, ..Undone::default() })
    }
    async fn resume(&self, _folder: FolderSpec, accept: bool) -> Result<Resumed, ApiError> {
        Ok(Resumed {
            folder: "f".into(),
            path: PathBuf::from("/f").into(),
            accepted: accept,
            files: 7,
            overwritten: 0,
        })
    }
    async fn unite(&self, _folder: FolderSpec) -> Result<United, ApiError> {
        Ok(United { folder: "f".into(), path: PathBuf::from("/f").into() })
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

struct Running {
    temp: tempfile::TempDir,
    events: broadcast::Sender<Event>,
    waiting: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<Stopped>,
}

impl Running {
    fn start() -> Running {
        let temp = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(temp.path().join("s")).unwrap();
        let (events, _) = broadcast::channel(4);
        let waiting = Arc::new(AtomicUsize::new(0));
        let api = Arc::new(Fake { events: events.clone(), waiting: waiting.clone() });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(api, listener, async { stopped.await.unwrap_or_default() }));
        Running { temp, events, waiting, stop: Some(stop), served }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.temp.path().join("s")).await.unwrap()
    }

    /// Sends bytes and returns everything that comes back until the server hangs up.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.ok(); // the server may refuse before it has read everything
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: dunlin\r\nconnection: close\r\n");
        self.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn requests_are_answered() {
    let node = Running::start();
    let status = node.ask("GET", "/v1/status", "").await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    assert!(status.ends_with(r#"{"device":"d","name":"n","folders":[]}"#), "{status}");
    let resumed = node.ask("POST", "/v1/resume", r#"{"accept":true}"#).await;
    assert!(
        resumed.ends_with(r#"{"folder":"f","path":"/f","accepted":true,"files":7,"overwritten":0}"#),
        "{resumed}"
    );
    assert!(node.ask("POST", "/v1/resume", "").await.starts_with("HTTP/1.1 400"));
    let shared = node.ask("POST", "/v1/share", r#"{"path":"/a","path_hex":"2f61ff"}"#).await;
    assert!(shared.contains(r#""path_hex":"2f61ff","ticket":"dunlin1""#), "{shared}");
}

#[tokio::test]
async fn errors_say_what_and_what_to_do() {
    let node = Running::start();
    let refused = node.ask("POST", "/v1/join", r#"{"ticket":"t","path":"/a"}"#).await;
    assert!(refused.starts_with("HTTP/1.1 422"), "{refused}");
    let error =
        r#"{"error":{"code":"failed","message":"the ticket has expired","hint":"ask for a fresh one"}}"#;
    assert!(refused.ends_with(error), "{refused}");
    for (method, path, body, code) in [
        ("GET", "/", "", 404),
        ("GET", "/v2/status", "", 404),
        ("POST", "/v1/status/", "", 404),
        ("POST", "/v1/status", "", 405),
        ("GET", "/v1/share", "", 405),
        ("POST", "/v1/share", "", 400),
        ("POST", "/v1/share", "{", 400),
        ("POST", "/v1/share", r#"{"path":7}"#, 400),
        ("POST", "/v1/wait", r#"{"copies":-1}"#, 400),
    ] {
        let answer = node.ask(method, path, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{method} {path} {body}: {answer}");
        assert!(answer.contains(r#"{"error":{"code":"usage","message":"#), "{answer}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_declared_or_not() {
    let node = Running::start();
    let fits = format!(r#"{{"path":"/{}"}}"#, "x".repeat(BODY_BYTES_MAX - 12));
    assert!(node.ask("POST", "/v1/share", &fits).await.starts_with("HTTP/1.1 200"));
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    assert!(node.ask("POST", "/v1/share", &large).await.starts_with("HTTP/1.1 413"));
    let head =
        "POST /v1/share HTTP/1.1\r\nhost: d\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    assert!(node.raw(chunked.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let lying = "POST /v1/share HTTP/1.1\r\nhost: d\r\ncontent-length: 99999999999\r\n\r\n";
    assert!(node.raw(lying.as_bytes()).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn garbage_and_endless_headers_end_the_connection_only() {
    let node = Running::start();
    node.raw(b"\x00\xff\x16garbage\r\n\r\n").await;
    let endless = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    assert!(!node.raw(endless.as_bytes()).await.contains("200 OK"));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    assert!(!node.raw(many.as_bytes()).await.contains("200 OK"));
    assert!(node.ask("GET", "/v1/status", "").await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_slowly_is_dropped() {
    let node = Running::start();
    let mut stream = node.connect().await;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    let stalled = b"POST /v1/share HTTP/1.1\r\nhost: d\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    assert!(node.raw(stalled).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn hanging_up_cancels_a_wait() {
    let node = Running::start();
    let mut stream = node.connect().await;
    stream.write_all(b"POST /v1/wait HTTP/1.1\r\nhost: d\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    until("waits", || node.waiting.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    until("cancelled", || node.waiting.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn events_stream_as_lines_and_end_with_the_server() {
    let mut node = Running::start();
    let mut stream = node.connect().await;
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: d\r\n\r\n").await.unwrap();
    until("subscribed", || node.events.receiver_count() == 1).await;
    node.events.send(Event::Note { text: "one\ntwo".into() }).unwrap();
    let mut seen = String::new();
    let mut buf = [0; 4096];
    while !seen.contains("note") {
        let n = stream.read(&mut buf).await.unwrap();
        seen.push_str(std::str::from_utf8(&buf[..n]).unwrap());
    }
    assert!(seen.contains("{\"event\":\"note\",\"text\":\"one\\ntwo\"}\n"), "{seen}");
    node.stop.take().unwrap().send(()).unwrap();
    while stream.read(&mut buf).await.unwrap() > 0 {}
    assert_eq!(node.served.await.unwrap(), Stopped::Told);
    assert_eq!(node.events.receiver_count(), 0, "no forwarder stays behind");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_what_it_missed() {
    let (tx, rx) = broadcast::channel(4);
    for i in 0..10 {
        tx.send(Event::Missed { count: i }).unwrap();
    }
    let (lines, mut body) = mpsc::channel(EVENTS_QUEUED);
    let (_ending, ending) = watch::channel(false);
    tokio::spawn(forward(rx, lines, ending));
    // And what is there, in the same piece.
    let all = [6, 6, 7, 8, 9].map(|i| format!("{{\"event\":\"missed\",\"count\":{i}}}\n")).concat();
    assert_eq!(std::str::from_utf8(&body.recv().await.unwrap()).unwrap(), all);
}

#[tokio::test]
async fn a_client_may_ask_for_the_end() {
    let node = Running::start();
    assert!(node.ask("POST", "/v1/shutdown", "").await.starts_with("HTTP/1.1 200"));
    assert_eq!(node.served.await.unwrap(), Stopped::Asked);
}
