//! Honest devices and rogue ones, for tests of what the latter can do.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; each uses what it needs")]

use dunlin_core::codec::encode_state;
use dunlin_core::ids::{ContentId, DeviceId, Dot, FolderId, Incarnation, NodeId, ROOT};
use dunlin_core::message::{
    ALPN, ALPN_JOIN, JoinAnswer, JoinRequest, Message, Request, RowBytes, VERSION, read,
};
use dunlin_core::path::Name;
use dunlin_core::state::{Content, Mtime, Place, Ranked, State};
use dunlin_core::ticket::Ticket;
use dunlin_node::control::{Api, FolderSpec, JoinRequest as Join};
use dunlin_node::home::Home;
use dunlin_node::net::connection::{Connection, RecvStream, SendStream};
use dunlin_node::net::transport::{BindOptions, Transport};
use dunlin_node::transfer::{read_frame, send_frame};
use dunlin_node::{Node, NodeOptions, start};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const SOON: Duration = Duration::from_secs(5);
pub const PATIENCE: Duration = Duration::from_secs(40);

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An honest device.
pub struct Honest {
    pub node: Arc<Node>,
    pub dir: PathBuf,
}

impl Honest {
    pub async fn start(base: &Path, name: &str) -> Honest {
        Honest::with_key(base, name, None).await
    }

    /// With the key that a seed gives, where it has to be one that the test knows.
    pub async fn with_key(base: &Path, name: &str, seed: Option<u8>) -> Honest {
        let home = Home::open(&base.join(format!("{name}.state"))).unwrap();
        if let Some(seed) = seed {
            use std::os::unix::fs::OpenOptionsExt;
            let key = base.join(format!("{name}.state/device.key"));
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(key).unwrap();
            std::io::Write::write_all(&mut file, &[seed; 32]).unwrap();
        }
        let home = Arc::new(home.lock().unwrap());
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let node = start(NodeOptions { home, listen, discovery: false }).await.unwrap();
        Honest { node, dir: base.join(name) }
    }

    pub async fn ticket(&self) -> Ticket {
        Ticket::parse(&self.node.invite(FolderSpec::Only).await.unwrap()).unwrap()
    }

    pub async fn status(&self) -> dunlin_node::control::Folder {
        self.node.status().await.unwrap().folders.remove(0)
    }

    pub async fn wait(&self) {
        let waited = tokio::time::timeout(PATIENCE, self.node.wait(FolderSpec::Only, 1)).await;
        assert!(waited.is_ok(), "{:#?}", self.status().await);
        waited.unwrap().unwrap();
    }
}

/// What a future gives at once, for conditions that are no futures.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

pub async fn end(all: &[&Honest]) {
    for one in all {
        one.node.stop().await;
    }
}

/// Two honest devices with one folder.
pub async fn pair(base: &Path) -> (Honest, Honest) {
    pair_with(base, None).await
}

/// The second with the key that a seed gives.
pub async fn pair_with(base: &Path, seed: Option<u8>) -> (Honest, Honest) {
    let (a, b) = (Honest::start(base, "a").await, Honest::with_key(base, "b", seed).await);
    let ticket = a.node.share(a.dir.clone()).await.unwrap().ticket;
    b.node.join(Join { ticket, path: b.dir.clone().into(), below: false }).await.unwrap();
    crosses(&a, &b, "first").await;
    (a, b)
}

/// A file goes each way between the honest devices.
pub async fn crosses(a: &Honest, b: &Honest, what: &str) {
    for (from, to, way) in [(a, b, "there"), (b, a, "back")] {
        let name = format!("{what} {way}");
        std::fs::write(from.dir.join(&name), what).unwrap();
        let there = to.dir.join(&name);
        until(&format!("{name} arrives"), || std::fs::read(&there).is_ok_and(|t| t == what.as_bytes())).await;
    }
}

pub async fn bind(seed: u8) -> Transport {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let alpns = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    Transport::bind(BindOptions { listen, ..BindOptions::new([seed; 32], alpns) }).await.unwrap()
}

/// A member that does what the test wants.
pub struct Rogue {
    pub transport: Transport,
    pub folder: FolderId,
    pub to: (DeviceId, Vec<std::net::SocketAddr>),
}

/// Its connection, after the hello.
pub struct Talk {
    pub conn: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
}

impl Rogue {
    /// Admitted by its own wish to `seed`'s key.
    pub async fn member(of: &Honest, seed: u8) -> Rogue {
        let (transport, ticket) = (bind(seed).await, of.ticket().await);
        let conn = transport.connect(ticket.inviter.0, &ticket.addresses, ALPN_JOIN, SOON).await.unwrap();
        let (mut send, mut recv) = conn.open_bi().await.unwrap();
        let request = JoinRequest { folder: ticket.folder, secret: ticket.secret, name: "rogue".into() };
        send_frame(&mut send, &request).await.unwrap();
        let answer = read_frame(&mut recv).await.unwrap().unwrap();
        assert!(matches!(read(&answer).unwrap(), JoinAnswer::Admitted { .. }));
        conn.close(0, b"");
        Rogue { transport, folder: ticket.folder, to: (ticket.inviter, ticket.addresses) }
    }

    pub async fn talk(&self) -> Talk {
        self.talk_as(0).await
    }

    /// The same, as a program that can do this.
    pub async fn talk_as(&self, features: u64) -> Talk {
        loop {
            let conn = self.transport.connect(self.to.0.0, &self.to.1, ALPN, SOON).await.unwrap();
            let (mut send, mut recv) = conn.open_bi().await.unwrap();
            let nonce = rand();
            let hello = Message::Hello { min: VERSION, max: VERSION, features, nonce, name: "rogue".into() };
            send_frame(&mut send, &hello).await.unwrap();
            if let Ok(Some(_)) = read_frame(&mut recv).await {
                return Talk { conn, send, recv };
            }
        }
    }

    pub fn inc(&self) -> Incarnation {
        Incarnation::new(DeviceId(self.transport.id()), [7; 16])
    }

    pub fn open(&self) -> Message {
        let of = Incarnation::default();
        let (life, heard_in) = Default::default();
        Message::Open {
            folder: self.folder,
            inc: self.inc(),
            of,
            received: 0,
            life,
            heard_in,
            own: Vec::new(),
        }
    }

    /// A file in the root, as a row.
    pub fn file(&self, name: &str, content: ContentId, size: u64, rank: u64) -> (NodeId, State) {
        self.file_at(1, name, content, size, rank)
    }

    /// The same by its change with this number: it replaces what earlier ones said.
    pub fn file_at(
        &self,
        counter: u64,
        name: &str,
        content: ContentId,
        size: u64,
        rank: u64,
    ) -> (NodeId, State) {
        let (mut s, dot) = (State::default(), Dot { inc: self.inc(), counter });
        s.seen.add(dot);
        let name = Name::new(name.as_bytes()).unwrap();
        let node = NodeId::created(ROOT, &name, 0);
        s.place.insert(dot, Ranked::new(rank, Place { parent: ROOT, name, earlier: None }));
        s.content.insert(dot, Ranked::new(rank, Content::File { id: content, size }));
        s.mode.insert(dot, Ranked::new(rank, 0o644));
        s.mtime.insert(dot, Ranked::new(rank, Mtime { secs: 1, nanos: 0 }));
        (node, s)
    }

    pub fn rows(&self, upto: u64, rows: Vec<(NodeId, State)>) -> Message {
        let row = |(node, s): (NodeId, State)| RowBytes { node, state: encode_state(&s) };
        Message::Rows { folder: self.folder, upto, last: true, rows: rows.into_iter().map(row).collect() }
    }
}

pub fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Runs the test of this name in a process that does nothing else, so that [`peak_mib`] is of it alone;
/// `false` within that process.
pub fn ran_alone(test: &str) -> bool {
    const ALONE: &str = "DUNLIN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let out = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    assert!(out.status.success() && said.contains("1 passed"), "{test}");
    true
}

/// The most memory this process ever used, in MiB: of all tests that run in it, see [`ran_alone`].
pub fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Each answers requests for content its own way, until its connection ends.
pub async fn answers(conn: Connection, how: impl Fn(SendStream, Request) + Send + 'static) {
    let mut held = Vec::new();
    while let Ok((send, mut recv)) = conn.accept_bi().await {
        if let Ok(Some(body)) = read_frame(&mut recv).await {
            how(send, read(&body).unwrap());
        }
        held.push(recv);
    }
}
